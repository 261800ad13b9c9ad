//! Who asks an object store, proved in headers: AWS Signature Version 4 over the whole request, its body too.
//!
//! "Authenticating Requests: Using the Authorization Header" of the Amazon S3 API reference; the body goes in one chunk.

use bytes::Bytes;
use chancery_types::{Digest, Timestamp};
use data_encoding::HEXLOWER;
use http::header::{AUTHORIZATION, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use ring::hmac;
use zeroize::Zeroizing;

use super::credentials::Credentials;

/// Adds time, hash of the body and signature to a request that has all its other headers, `host` among them. Its path and
/// query stand as they are sent: encoded, and parameters in order.
///
/// # Errors
/// When the credentials cannot stand in headers.
pub(super) fn sign(
    request: &mut Request<Bytes>,
    region: &str,
    credentials: &Credentials,
    now: Timestamp,
) -> Result<(), InvalidHeaderValue> {
    // A clock that is beyond all calendars gets a signature that the store refuses.
    let now = now.clamp(Timestamp::from_seconds(0), Timestamp::MAX);
    let time = now.whole_second().to_string().replace(['-', ':'], "");
    let scope = format!("{}/{region}/{SERVICE}/aws4_request", &time[..8]);
    let hash = Digest::of(request.body()).to_string();
    let headers = request.headers_mut();
    headers.insert(TIME, HeaderValue::from_str(&time)?);
    headers.insert(HASH, HeaderValue::from_str(&hash)?);
    if let Some(token) = &credentials.token {
        headers.insert(TOKEN, secret(token.expose_secret())?);
    }
    let names = names(headers);
    let text = format!("{ALGORITHM}\n{time}\n{scope}\n{}", canonical(request, &names, &hash));
    let signature = hmac::sign(&key(credentials, &time[..8], region), text.as_bytes());
    let (id, signature) = (&credentials.id, HEXLOWER.encode(signature.as_ref()));
    let names = names.join(";");
    let value = format!("{ALGORITHM} Credential={id}/{scope},SignedHeaders={names},Signature={signature}");
    request.headers_mut().insert(AUTHORIZATION, secret(&value)?);
    Ok(())
}

/// The headers that are signed: all.
fn names(headers: &HeaderMap) -> Vec<String> {
    let mut names: Vec<String> = headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.sort_unstable();
    names
}

/// The hash of the request in its one canonical form.
fn canonical(request: &Request<Bytes>, names: &[String], hash: &str) -> Digest {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    // Room for all of it, so that growing leaves no copy of a session's token behind.
    let mut text = Zeroizing::new(Vec::with_capacity(8 << 10));
    text.extend_from_slice(format!("{}\n{path}\n{query}\n", request.method()).as_bytes());
    for name in names {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(request.headers()[name].as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(format!("\n{}\n{hash}", names.join(";")).as_bytes());
    Digest::of(&text)
}

/// The key of a day, a region and this service.
fn key(credentials: &Credentials, day: &str, region: &str) -> hmac::Key {
    let secret = Zeroizing::new(format!("AWS4{}", credentials.secret.expose_secret()));
    let first = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    [day, region, SERVICE, "aws4_request"].iter().fold(first, |key, text| {
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, text.as_bytes()).as_ref())
    })
}

/// A value that no log shows.
fn secret(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";
const TIME: HeaderName = HeaderName::from_static("x-amz-date");
const HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

#[cfg(test)]
mod tests {
    use chancery_types::SecretString;

    use super::*;

    /// The credentials of the examples in the API reference.
    fn credentials() -> Credentials {
        Credentials {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: SecretString::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into()),
            token: None,
        }
    }

    fn signed(
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &'static str,
        credentials: &Credentials,
    ) -> String {
        let mut request =
            Request::builder().method(method).uri(target).header("host", "examplebucket.s3.amazonaws.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Bytes::from_static(body.as_bytes())).unwrap();
        let now = "2013-05-24T00:00:00Z".parse().unwrap();
        sign(&mut request, "us-east-1", credentials, now).unwrap();
        request.headers()[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn signatures_are_those_of_the_examples_in_the_api_reference() {
        let put = [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        for (method, target, headers, body, names, signature) in [
            (
                "GET",
                "/test.txt",
                &[("range", "bytes=0-9")][..],
                "",
                "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "PUT",
                "/test%24file.text",
                &put[..],
                "Welcome to Amazon S3.",
                "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                "GET",
                "/?lifecycle=",
                &[][..],
                "",
                "host;x-amz-content-sha256;x-amz-date",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "GET",
                "/?max-keys=2&prefix=J",
                &[][..],
                "",
                "host;x-amz-content-sha256;x-amz-date",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                 SignedHeaders={names},Signature={signature}"
            );
            assert_eq!(signed(method, target, headers, body, &credentials()), expected);
        }
    }

    #[test]
    fn a_session_is_part_of_what_is_signed() {
        let token = |text: &str| Credentials { token: Some(SecretString::new(text.into())), ..credentials() };
        let one = signed("GET", "/test.txt", &[], "", &token("one"));
        assert!(one.contains("x-amz-date;x-amz-security-token,"), "{one}");
        assert_ne!(one, signed("GET", "/test.txt", &[], "", &token("another")));
        assert!(secret("two\nlines").is_err());
    }

    #[test]
    fn nothing_secret_is_printed_with_a_request() {
        let mut request = Request::get("/x").header("host", "h").body(Bytes::new()).unwrap();
        let credentials = Credentials { token: Some(SecretString::new("session".into())), ..credentials() };
        sign(&mut request, "us-east-1", &credentials, Timestamp::from_seconds(0)).unwrap();
        let printed = format!("{request:?} {credentials:?}");
        for secret in ["session", "wJalr", "Signature="] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}
