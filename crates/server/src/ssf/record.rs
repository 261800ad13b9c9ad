//! A stream as it is kept, and what a request may make of it.

use std::collections::{BTreeSet, VecDeque};

use chancery_api::{
    CREDENTIAL_CHANGE, POLL, PUSH, SSF_TEXT_CHARACTERS, SSF_URL_CHARACTERS, StreamDelivery, StreamRequest,
    StreamState,
};
use chancery_types::{SecretString, SpiffeId, Timestamp};
use http::Uri;
use serde::{Deserialize, Serialize, Serializer};

use super::SsfError;

/// Messages about the stream itself that wait; the oldest gives way.
const NOTICES: usize = 16;
/// Event types that a receiver may name.
const EVENT_TYPES: usize = 64;

/// A stream, as it survives a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) stream_id: String,
    pub(super) owner: SpiffeId,
    pub(super) aud: String,
    pub(super) delivery: Delivery,
    /// Nothing when the receiver wants what there is.
    pub(super) events_requested: Option<Vec<String>>,
    pub(super) description: Option<String>,
    pub(super) status: StreamState,
    pub(super) reason: Option<String>,
    /// It was paused because it had fallen behind, and begins anew when it is enabled.
    pub(super) fell_behind: bool,
    /// Everything up to here has arrived.
    pub(super) position: u64,
    pub(super) notices: VecDeque<Notice>,
    /// The number of the next.
    pub(super) next_notice: u64,
}

/// How events get to the receiver.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub(super) enum Delivery {
    Poll,
    Push {
        url: String,
        #[serde(default, serialize_with = "expose")]
        authorization: Option<SecretString>,
    },
}

/// A message about the stream itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    pub(super) number: u64,
    pub(super) at: Timestamp,
    pub(super) what: NoticeKind,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NoticeKind {
    /// The receiver has asked whether the stream works.
    Verification { state: Option<String> },
    /// We have changed its status.
    Updated { status: StreamState, reason: String },
}

impl Record {
    /// A new stream of this owner.
    pub(super) fn new(
        stream_id: String,
        owner: SpiffeId,
        request: StreamRequest,
        position: u64,
        push_hosts: &BTreeSet<String>,
    ) -> Result<Self, SsfError> {
        let mut record = Self {
            stream_id,
            aud: owner.to_string(),
            owner,
            delivery: Delivery::Poll,
            events_requested: None,
            description: None,
            status: StreamState::Enabled,
            reason: None,
            fell_behind: false,
            position,
            notices: VecDeque::new(),
            next_notice: 0,
        };
        let audience = request.aud.clone();
        record.replace(StreamRequest { aud: None, ..request }, push_hosts)?;
        if let Some(audience) = audience {
            record.aud = audience;
            record.check_audience()?;
        }
        Ok(record)
    }

    /// Takes over everything that a receiver may choose.
    pub(super) fn replace(
        &mut self,
        request: StreamRequest,
        hosts: &BTreeSet<String>,
    ) -> Result<(), SsfError> {
        let delivery = request.delivery.unwrap_or(StreamDelivery {
            method: POLL.into(),
            endpoint_url: None,
            authorization_header: None,
        });
        (self.events_requested, self.description) = (None, None);
        self.change(StreamRequest { delivery: Some(delivery), ..request }, hosts)
    }

    /// Takes over what the request names.
    pub(super) fn change(
        &mut self,
        request: StreamRequest,
        hosts: &BTreeSet<String>,
    ) -> Result<(), SsfError> {
        if let Some(delivery) = request.delivery {
            self.delivery = self.delivery_of(delivery, hosts)?;
        }
        if request.aud.is_some_and(|audience| audience != self.aud) {
            return Err(invalid("/aud", "the audience of a stream does not change; make another stream"));
        }
        self.check_audience()?;
        if let Some(events) = request.events_requested {
            if events.len() > EVENT_TYPES
                || events.iter().any(|event| event.chars().count() > SSF_TEXT_CHARACTERS)
            {
                return Err(invalid(
                    "/events_requested",
                    "there are more, or longer, event types than anybody has",
                ));
            }
            self.events_requested = Some(events);
        }
        if let Some(description) = request.description {
            self.description = Some(text("/description", description)?);
        }
        Ok(())
    }

    /// The event types that are sent.
    pub(super) fn delivers(&self) -> bool {
        let requested = self.events_requested.as_ref();
        requested.is_none_or(|events| events.iter().any(|event| event == CREDENTIAL_CHANGE))
    }

    /// Adds a message.
    pub(super) fn notify(&mut self, what: NoticeKind, at: Timestamp) {
        if self.notices.len() >= NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(Notice { number: self.next_notice, at, what });
        self.next_notice += 1;
    }

    /// Whom tokens may be for: the owner, or somebody at the host that they are pushed to. Nobody can have tokens made
    /// that another receiver takes for its own.
    fn check_audience(&self) -> Result<(), SsfError> {
        let is_at_host = |url: &str| {
            let audience: Option<Uri> = self.aud.parse().ok();
            let pushed: Option<Uri> = url.parse().ok();
            audience.zip(pushed).is_some_and(|(audience, pushed)| {
                self.aud.len() <= SSF_URL_CHARACTERS
                    && audience.scheme_str() == Some("https")
                    && audience.host().is_some()
                    && audience.authority() == pushed.authority()
            })
        };
        match &self.delivery {
            _ if self.aud == self.owner.to_string() => Ok(()),
            Delivery::Push { url, .. } if is_at_host(url) => Ok(()),
            _ => Err(invalid(
                "/aud",
                "tokens are for your SPIFFE ID, or for an https address of the host and port that they are pushed to",
            )),
        }
    }

    fn delivery_of(&self, asked: StreamDelivery, hosts: &BTreeSet<String>) -> Result<Delivery, SsfError> {
        match asked.method.as_str() {
            POLL => Ok(Delivery::Poll),
            PUSH => {
                let url = asked.endpoint_url.unwrap_or_default();
                check_address(&url, hosts)?;
                let authorization = match (asked.authorization_header, &self.delivery) {
                    (Some(header), _) => Some(authorization(header)?),
                    (None, Delivery::Push { url: before, authorization }) if *before == url => {
                        authorization.clone()
                    }
                    _ => None,
                };
                Ok(Delivery::Push { url, authorization })
            }
            _ => Err(invalid("/delivery/method", &format!("methods are {PUSH} and {POLL}"))),
        }
    }
}

impl Delivery {
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::Poll => POLL,
            Self::Push { .. } => PUSH,
        }
    }

    pub(super) fn is_push(&self) -> bool {
        matches!(self, Self::Push { .. })
    }
}

/// Whether events may be pushed to an address: https, and a host that operators have named.
pub(super) fn check_address(url: &str, hosts: &BTreeSet<String>) -> Result<Uri, SsfError> {
    let refuse = |why: &str| Err(invalid("/delivery/endpoint_url", why));
    if hosts.is_empty() {
        return refuse(
            "this server pushes nowhere; poll, or have its operators name the host in ssf.push_hosts",
        );
    }
    let parsed = url.parse::<Uri>().ok().filter(|_| url.len() <= SSF_URL_CHARACTERS && !url.contains('#'));
    let Some(uri) = parsed else { return refuse("it is no address") };
    let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return refuse("events are pushed over https alone");
    };
    if authority.as_str().contains('@') {
        return refuse("an address has no user; use authorization_header");
    }
    if !hosts.contains(&host_and_port(authority)) {
        return refuse("operators have not named this host and port in ssf.push_hosts");
    }
    Ok(uri)
}

/// `host:port` in lower case, with the port that https has where none is given.
pub(crate) fn host_and_port(authority: &http::uri::Authority) -> String {
    format!("{}:{}", authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(443))
}

/// A text for people.
pub(super) fn text(field: &'static str, text: String) -> Result<String, SsfError> {
    if text.chars().count() <= SSF_TEXT_CHARACTERS {
        return Ok(text);
    }
    Err(invalid(field, &format!("it has more than {SSF_TEXT_CHARACTERS} characters")))
}

fn authorization(header: String) -> Result<SecretString, SsfError> {
    let fits = (1..=SSF_TEXT_CHARACTERS).contains(&header.len());
    let is_plain = header.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let secret = SecretString::new(header);
    if fits && is_plain {
        return Ok(secret);
    }
    let why = format!("it is not 1 to {SSF_TEXT_CHARACTERS} visible ASCII characters and spaces");
    Err(invalid("/delivery/authorization_header", &why))
}

pub(super) fn invalid(field: &'static str, why: &str) -> SsfError {
    SsfError::Invalid { field, why: why.to_owned() }
}

fn expose<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(SecretString::expose_secret).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> BTreeSet<String> {
        ["siem.example:443".to_owned(), "siem.example:8443".to_owned()].into()
    }

    fn push(url: &str) -> StreamRequest {
        let delivery = StreamDelivery {
            method: PUSH.into(),
            endpoint_url: Some(url.into()),
            authorization_header: Some("Bearer x".into()),
        };
        StreamRequest { delivery: Some(delivery), ..StreamRequest::default() }
    }

    fn made(request: StreamRequest) -> Result<Record, SsfError> {
        let owner = "spiffe://example.org/siem".parse().unwrap();
        Record::new("1".into(), owner, request, 0, &hosts())
    }

    #[test]
    fn events_are_pushed_over_https_to_named_hosts_alone() {
        made(push("https://siem.example/events")).unwrap();
        made(push("https://SIEM.example:8443/events?x=1")).unwrap();
        for wrong in [
            "",
            "siem.example",
            "http://siem.example/",
            "https://siem.example:444/",
            "https://siem.example.evil/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://siem.example@evil.example/",
            "https://u:p@siem.example/",
            "https://siem.example/#x",
            "file:///etc/passwd",
            "https:///x",
        ] {
            assert!(matches!(made(push(wrong)), Err(SsfError::Invalid { .. })), "{wrong}");
        }
        assert!(check_address("https://siem.example/", &BTreeSet::new()).is_err());
    }

    #[test]
    fn tokens_are_for_the_owner_or_for_the_host_that_they_are_pushed_to() {
        let aud =
            |aud: &str, request: StreamRequest| made(StreamRequest { aud: Some(aud.into()), ..request });
        assert_eq!(made(StreamRequest::default()).unwrap().aud, "spiffe://example.org/siem");
        aud("https://siem.example/tenant", push("https://siem.example/events")).unwrap();
        for (wrong, request) in [
            ("spiffe://example.org/other", StreamRequest::default()),
            ("https://siem.example/", StreamRequest::default()),
            ("https://other.example/", push("https://siem.example/events")),
            ("https://siem.example/", push("https://siem.example:8443/events")),
            ("http://siem.example/", push("https://siem.example/events")),
        ] {
            assert!(aud(wrong, request).is_err(), "{wrong}");
        }
        let mut pushed = aud("https://siem.example/", push("https://siem.example/events")).unwrap();
        assert!(
            pushed.replace(StreamRequest::default(), &hosts()).is_err(),
            "the audience would be left over"
        );
    }

    #[test]
    fn a_secret_does_not_follow_to_another_address() {
        let secret = |record: &Record| match &record.delivery {
            Delivery::Push { authorization, .. } => {
                authorization.as_ref().map(|one| one.expose_secret().to_owned())
            }
            Delivery::Poll => None,
        };
        let without = |url: &str| {
            let delivery = StreamDelivery { authorization_header: None, ..push(url).delivery.unwrap() };
            StreamRequest { delivery: Some(delivery), ..StreamRequest::default() }
        };
        let mut record = made(push("https://siem.example/events")).unwrap();
        record.change(without("https://siem.example/events"), &hosts()).unwrap();
        assert_eq!(secret(&record).as_deref(), Some("Bearer x"));
        let kept: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(secret(&kept).as_deref(), Some("Bearer x"));
        assert!(!format!("{record:?}").contains("Bearer"));
        record.change(without("https://siem.example:8443/events"), &hosts()).unwrap();
        assert_eq!(secret(&record), None);
        let mut wrong = push("https://siem.example/");
        wrong.delivery.as_mut().unwrap().authorization_header = Some("a\r\nX: y".into());
        assert!(made(wrong).is_err());
    }

    #[test]
    fn messages_are_bounded_and_numbered() {
        let mut record = made(StreamRequest::default()).unwrap();
        for _ in 0..NOTICES + 3 {
            record.notify(NoticeKind::Verification { state: None }, Timestamp::from_seconds(1));
        }
        assert_eq!((record.notices.len(), record.notices[0].number), (NOTICES, 3));
    }
}
