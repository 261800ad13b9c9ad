//! What an object store means when it refuses, and what to do about it.

use std::fmt;

use http::{HeaderMap, StatusCode};

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(super) status: StatusCode,
    /// The word for it in the interface of S3; empty where it said none.
    pub(super) code: String,
    /// Where the bucket is, if it said so.
    region: Option<String>,
}

impl Refusal {
    /// Reads status, headers and the document that comes with them. Nothing else of it is kept: it may repeat what was signed.
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let named = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        let region = named.filter(|text| crate::config::region(text).is_ok()).map(str::to_owned);
        let of_body = || element(body, "Region").filter(|text| crate::config::region(text).is_ok());
        let code = element(body, "Code").unwrap_or_default();
        Self { status, code, region: region.or_else(of_body) }
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_transient(&self) -> bool {
        let again = ["RequestTimeout", "ConditionalRequestConflict", "OperationAborted"];
        self.status == StatusCode::TOO_MANY_REQUESTS
            || self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED
            || again.contains(&self.code.as_str())
    }

    /// Whether it says that there is no such object, and nothing else.
    pub(super) fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && self.code == "NoSuchKey"
    }

    fn is_about_region(&self) -> bool {
        let codes = ["AuthorizationHeaderMalformed", "IllegalLocationConstraintException"];
        self.status.is_redirection() || codes.contains(&self.code.as_str())
    }

    fn advice(&self) -> String {
        // Some stores name the region with everything.
        if let Some(region) = self.region.as_ref().filter(|_| self.is_about_region()) {
            return format!("the bucket is in {region}: set storage.tiles_region = {region:?}");
        }
        let text = match (self.code.as_str(), self.status.as_u16()) {
            ("NoSuchBucket", _) => "make the bucket, or mend its name in storage.tiles",
            ("AccessDenied" | "AllAccessDisabled" | "AccountProblem", _) => {
                "permit these credentials s3:GetObject and s3:PutObject on what is below the prefix, and s3:ListBucket on the \
                 bucket, without which what is missing looks like this too"
            }
            ("InvalidAccessKeyId", _) => {
                "nobody there knows this access key: mend the credentials, or storage.tiles_endpoint"
            }
            ("SignatureDoesNotMatch", _) => {
                "the secret key does not go with the access key: mend the credentials; a proxy on the way must not alter \
                 requests"
            }
            ("ExpiredToken" | "InvalidToken" | "TokenRefreshRequired", _) => {
                "the session token is not good any more: renew the credentials"
            }
            ("RequestTimeTooSkewed" | "RequestExpired", _) => {
                "this machine's clock and the store's differ: run chrony or systemd-timesyncd"
            }
            _ if self.is_about_region() && !self.code.is_empty() => {
                "the bucket is in another region: set storage.tiles_region"
            }
            (_, 300..400) => {
                "redirects are not followed: name the address that they lead to in storage.tiles_endpoint"
            }
            ("SlowDown" | "ServiceUnavailable" | "InternalError" | "TooManyRequests", _)
            | (_, 429 | 500..) => "it is tried again",
            _ => "is storage.tiles_endpoint the address of an object store with the interface of S3?",
        };
        text.to_owned()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, .. } = self;
        let between = if code.is_empty() { "" } else { " " };
        write!(formatter, "the store answered {}{between}{code}; {}", status.as_u16(), self.advice())
    }
}

/// The text of the first element of this name, if it is one word.
fn element(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (word, _) = rest.split_once("</")?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    ((1..=64).contains(&word.len()) && word.bytes().all(fits)).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        Refusal::read(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    fn coded(status: u16, code: &str) -> Refusal {
        refusal(
            status,
            &format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>m</Message></Error>"),
        )
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for (status, code, advice) in [
            (404, "NoSuchBucket", "make the bucket"),
            (403, "AccessDenied", "s3:PutObject"),
            (403, "InvalidAccessKeyId", "mend the credentials"),
            (403, "SignatureDoesNotMatch", "mend the credentials"),
            (400, "ExpiredToken", "renew the credentials"),
            (403, "RequestTimeTooSkewed", "clock"),
            (301, "PermanentRedirect", "storage.tiles_region"),
            (503, "SlowDown", "tried again"),
            (405, "MethodNotAllowed", "storage.tiles_endpoint"),
        ] {
            let said = coded(status, code).to_string();
            assert!(said.contains(code) && said.contains(advice), "{said}");
        }
        assert!(refusal(302, "").to_string().contains("redirects"));
        assert!(refusal(404, "<html>not here</html>").to_string().contains("tiles_endpoint"));
    }

    #[test]
    fn the_right_region_is_passed_on_when_the_store_names_it() {
        let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        assert!(refusal(400, malformed).to_string().contains("storage.tiles_region = \"eu-west-1\""));
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", "us-west-2".parse().unwrap());
        let redirect = Refusal::read(StatusCode::MOVED_PERMANENTLY, &headers, b"");
        assert!(redirect.to_string().contains("\"us-west-2\""), "{redirect}");
        let denied = "<Error><Code>AccessDenied</Code><Region>eu-west-1</Region></Error>";
        assert!(refusal(403, denied).to_string().contains("s3:PutObject"));
        let forged = "<Error><Code>PermanentRedirect</Code><Region>x\" or else</Region></Error>";
        assert!(!refusal(301, forged).to_string().contains("or else"));
    }

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        for (status, code) in [
            (500, "InternalError"),
            (503, "SlowDown"),
            (429, "TooManyRequests"),
            (409, "ConditionalRequestConflict"),
        ] {
            assert!(coded(status, code).is_transient(), "{code}");
        }
        assert!(coded(400, "RequestTimeout").is_transient());
        for (status, code) in
            [(403, "AccessDenied"), (404, "NoSuchBucket"), (501, "NotImplemented"), (301, "")]
        {
            assert!(!coded(status, code).is_transient(), "{code}");
        }
        assert!(coded(404, "NoSuchKey").is_missing());
        // A web server that knows nothing of buckets must not look like an empty one.
        assert!(!refusal(404, "<html>not here</html>").is_missing());
    }

    #[test]
    fn nothing_of_a_document_but_one_word_is_repeated() {
        let echo = "<Error><Code>SignatureDoesNotMatch</Code><StringToSign>hidden</StringToSign></Error>";
        assert!(!format!("{0} {0:?}", refusal(403, echo)).contains("hidden"));
        assert_eq!(refusal(403, "<Code>two words</Code>").code, "");
        assert_eq!(refusal(403, &format!("<Code>{}</Code>", "x".repeat(65))).code, "");
    }
}
