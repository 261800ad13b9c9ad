//! Security event tokens (RFC 8417) with the events of CAEP 1.0 and of SSF itself.
//!
//! What a token says follows from the log and the stream alone: sent again, it says the same under the same `jti`.

use chancery_api::{CREDENTIAL_CHANGE, STREAM_UPDATED, VERIFICATION};
use chancery_types::{RevocationReason, SerialNumber, SpiffeId};
use serde::Serialize;
use serde_json::{Value, json};

use super::facts::{Fact, What};
use super::record::{Notice, NoticeKind, Record};

/// How JWS calls such tokens (RFC 8417 section 2.3).
pub(super) const TYPE: &str = "secevent+jwt";

/// The claims of a token. There is no `sub` and no `exp` (SSF section 4.1): it cannot be taken for a JWT-SVID.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Claims {
    iss: String,
    jti: String,
    iat: i64,
    aud: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn: Option<String>,
    sub_id: Value,
    events: Value,
}

/// A token that is due, and how it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// About the stream.
    Notice(Notice),
    /// About a certificate.
    Fact(Fact),
}

/// What a `jti` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A message about the stream, by number.
    Notice(u64),
    /// A fact.
    Fact(u64, SerialNumber),
}

impl Due {
    /// The `jti`: names the stream, and the place in it.
    pub(super) fn name(&self, stream_id: &str) -> String {
        match self {
            Self::Notice(notice) => format!("{stream_id}-n{}", notice.number),
            Self::Fact(fact) => format!("{stream_id}-{}-{}", fact.position, fact.serial),
        }
    }
}

impl Name {
    /// Reads a `jti` of this stream; nothing for any other text.
    pub(super) fn parse(stream_id: &str, jti: &str) -> Option<Self> {
        let rest = jti.strip_prefix(stream_id)?.strip_prefix('-')?;
        match rest.strip_prefix('n') {
            Some(number) => number.parse().ok().map(Self::Notice),
            None => {
                let (position, serial) = rest.split_once('-')?;
                Some(Self::Fact(position.parse().ok()?, serial.parse().ok()?))
            }
        }
    }
}

/// About the stream itself (SSF sections 8.1.4 and 8.1.5).
pub(super) fn about_stream(issuer: &str, record: &Record, notice: &Notice) -> Claims {
    let events = match &notice.what {
        NoticeKind::Verification { state: Some(state) } => json!({ VERIFICATION: { "state": state } }),
        NoticeKind::Verification { state: None } => json!({ VERIFICATION: {} }),
        NoticeKind::Updated { status, reason } => {
            json!({ STREAM_UPDATED: { "status": status, "reason": reason } })
        }
    };
    Claims {
        iss: issuer.to_owned(),
        jti: Due::Notice(notice.clone()).name(&record.stream_id),
        iat: notice.at.seconds(),
        aud: record.aud.clone(),
        txn: None,
        sub_id: json!({ "format": "opaque", "id": record.stream_id }),
        events,
    }
}

/// About a certificate (CAEP section 3.3). A hold is told as a revocation that can be undone, as RFC 5280 has it: who
/// knows nothing of holds keeps the peer out. Its end is an update.
pub(super) fn about_certificate(
    issuer: &str,
    record: &Record,
    fact: &Fact,
    subject: &SpiffeId,
    x509_issuer: &str,
) -> Claims {
    let (change, reason) = match fact.what {
        What::Revoked(reason) => ("revoke", reason.as_str()),
        What::Held => ("revoke", RevocationReason::CertificateHold.as_str()),
        What::Released => ("update", "remove-from-crl"),
    };
    let event = json!({
        "credential_type": "x509",
        "change_type": change,
        "x509_issuer": x509_issuer,
        "x509_serial": fact.serial,
        "event_timestamp": fact.at.seconds(),
        "initiating_entity": fact.by.as_str(),
        "reason_admin": { "en": reason },
    });
    Claims {
        iss: issuer.to_owned(),
        jti: Due::Fact(*fact).name(&record.stream_id),
        iat: fact.at.seconds(),
        aud: record.aud.clone(),
        txn: Some(fact.position.to_string()),
        sub_id: json!({ "format": "uri", "uri": subject }),
        events: json!({ CREDENTIAL_CHANGE: event }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::fact;
    use super::*;

    #[test]
    fn a_name_leads_back_to_what_it_names_and_to_nothing_of_another_stream() {
        let told = fact(7, 3);
        let name = Due::Fact(told).name("ab");
        assert_eq!(name, "ab-7-0100010000000000030707070707070707");
        assert_eq!(Name::parse("ab", &name), Some(Name::Fact(7, told.serial)));
        assert_eq!(Name::parse("ab", "ab-n5"), Some(Name::Notice(5)));
        for other in ["cd-n5", "ab", "ab-", "ab-n", "ab-n-1", "ab-7", "ab-7-", "ab-7-zz", "ab-x-00", "\u{e9}"]
        {
            assert_eq!(Name::parse("ab", other), None, "{other}");
        }
    }
}
