//! From the keys of a log that are believed to those that follow them: each is named by the log as the one before it
//! has signed it, so that nobody has to be told.

use chancery_api::{LogKeyPhase, LogKeyView, LogKeysResponse};
use chancery_entry::{Body, KeyPhase, KeyPurpose};
use chancery_merkle::{
    LogKeys, LogKeysError, NoteError, NoteVerifier, OpenError, ReceiptProblem, RecordedKey, RecordedKeyError,
};
use data_encoding::BASE64;

use crate::receipt::{LogTrust, ReceiptRefusal};

/// Why it is not known which keys to believe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogKeysRefusal {
    /// One of them cannot be read, or is of another log.
    #[error("the log's keys cannot be used: {0}")]
    Keys(#[from] LogKeysError),
    /// What is to vouch for a key does not.
    #[error("the log's key {vkey} is not vouched for as it should be: {why}")]
    Voucher {
        /// The key.
        vkey: String,
        /// What is wrong.
        why: String,
    },
    /// None of the keys that are believed signs any more, and none of them leads to one that does.
    #[error(
        "the log is signed by keys that nothing leads to from the known ones ({known}); get its newest key from its \
         owner"
    )]
    Lost {
        /// The keys that were believed.
        known: String,
    },
}

/// The keys to believe from here on: those of `known` that still sign, and whatever was signed in by them. `keys` is
/// what the log's owner says, of which nothing is believed without proof.
///
/// # Errors
/// [`LogKeysRefusal`]; those that were believed are as good as before.
pub fn follow_log_keys(known: &LogKeys, keys: &LogKeysResponse) -> Result<LogKeys, LogKeysRefusal> {
    let mut believed = known.clone();
    for view in &keys.keys {
        let key = vkey(view)?;
        if !believed.as_slice().contains(&key) && is_vouched_for(&believed, view, &key)? {
            believed.add(key)?;
        }
    }
    // A key that signs no more may be anybody's one day.
    let signs = |key: &NoteVerifier| {
        let text = key.vkey();
        keys.keys.iter().any(|view| view.vkey == text && view.phase != LogKeyPhase::Withdrawn)
    };
    believed.only(signs).ok_or_else(|| LogKeysRefusal::Lost { known: known.to_string() })
}

/// The keys that sign now by the word of the log's owner: for whoever has reason to believe that it was the owner's.
///
/// # Errors
/// [`LogKeysRefusal`] when one of them cannot be read, or there is none.
pub fn stated_log_keys(keys: &LogKeysResponse) -> Result<LogKeys, LogKeysRefusal> {
    let signing = keys.keys.iter().filter(|view| view.phase != LogKeyPhase::Withdrawn).map(vkey);
    Ok(LogKeys::new(signing.collect::<Result<Vec<_>, _>>()?)?)
}

/// Whether the log, as keys that are believed have signed it, names this key. Not if a key that is not believed vouches
/// for it: it came before those that are.
fn is_vouched_for(believed: &LogKeys, view: &LogKeyView, key: &NoteVerifier) -> Result<bool, LogKeysRefusal> {
    let Some(voucher) = &view.vouched else { return Ok(false) };
    let refused = |why: String| LogKeysRefusal::Voucher { vkey: key.vkey(), why };
    let entry = BASE64.decode(voucher.entry.as_bytes()).map_err(|error| refused(error.to_string()))?;
    let proven = match LogTrust::new(believed.clone()).verify_entry(&voucher.receipt, &entry) {
        Ok(proven) => proven,
        Err(ReceiptRefusal::Proof(ReceiptProblem::Checkpoint(OpenError::Note(NoteError::Unsigned {
            ..
        })))) => return Ok(false),
        Err(error) => return Err(refused(error.to_string())),
    };
    let named = match &proven.entry().body {
        Body::KeyChanged(change)
            if change.purpose == KeyPurpose::Log && change.phase == KeyPhase::Published =>
        {
            RecordedKey::parse(believed.name(), &change.content.0)
        }
        _ => return Err(refused("the entry publishes no key of the log".to_owned())),
    };
    match named.map_err(|error: RecordedKeyError| refused(error.to_string()))?.key == *key {
        true => Ok(true),
        false => Err(refused("the entry is about another key".to_owned())),
    }
}

fn vkey(view: &LogKeyView) -> Result<NoteVerifier, LogKeysRefusal> {
    Ok(view.vkey.parse::<NoteVerifier>().map_err(LogKeysError::from)?)
}

#[cfg(test)]
mod tests {
    use chancery_merkle::SignedNote;

    use super::*;
    use crate::test_support::{Authority, log_keys, stated};

    /// A log whose keys 1, 2 and 3 have followed each other, and what its owner says of them.
    fn rotated() -> (Authority, LogKeysResponse) {
        let mut authority = Authority::new();
        authority.enroll("web");
        let second = authority.rotate_log_key(1, 2);
        let third = authority.rotate_log_key(2, 3);
        let voucher = |signer: u8, at: usize| {
            authority.sign_log_with(&[signer]);
            Some(authority.voucher(at, authority.checkpoint(at + 1)))
        };
        let keys = vec![
            (1, LogKeyPhase::Withdrawn, None),
            (2, LogKeyPhase::Superseded, voucher(1, second)),
            (3, LogKeyPhase::Active, voucher(2, third)),
            (4, LogKeyPhase::Published, None),
        ];
        authority.sign_log_with(&[3]);
        (authority, stated(keys))
    }

    #[test]
    fn a_known_key_leads_to_all_that_came_after_it() {
        let (_, keys) = rotated();
        for known in [&[1][..], &[2], &[3], &[1, 2]] {
            let believed = follow_log_keys(&log_keys(known), &keys).unwrap();
            let expected = if known == [3] { log_keys(&[3]) } else { log_keys(&[2, 3]) };
            assert_eq!(
                believed, expected,
                "from {known:?}: neither what came before nor what signs nothing yet"
            );
        }
        assert_eq!(stated_log_keys(&keys).unwrap(), log_keys(&[2, 3, 4]));
    }

    #[test]
    fn nothing_leads_to_keys_for_which_nobody_known_vouches() {
        let (authority, mut keys) = rotated();
        let lost = follow_log_keys(&log_keys(&[9]), &keys);
        assert!(matches!(lost, Err(LogKeysRefusal::Lost { .. })), "{lost:?}");
        // The newest vouches for itself.
        authority.sign_log_with(&[3]);
        let at = authority.len() - 4;
        keys.keys[2].vouched = Some(authority.voucher(at, authority.checkpoint(at + 1)));
        assert_eq!(follow_log_keys(&log_keys(&[1]), &keys).unwrap(), log_keys(&[2]));
        keys.keys[1].phase = LogKeyPhase::Withdrawn;
        let refused = follow_log_keys(&log_keys(&[1]), &keys);
        assert!(matches!(refused, Err(LogKeysRefusal::Lost { .. })), "{refused:?}");
    }

    #[test]
    fn a_voucher_that_is_about_something_else_is_refused() {
        let (authority, keys) = rotated();
        let refused = |change: &dyn Fn(&mut LogKeysResponse)| {
            let mut keys = keys.clone();
            change(&mut keys);
            follow_log_keys(&log_keys(&[1]), &keys).unwrap_err().to_string()
        };
        let another = refused(&|keys| keys.keys[1].vkey = log_keys(&[7]).to_string());
        assert!(another.contains("about another key"), "{another}");
        authority.sign_log_with(&[1]);
        let no_key = authority.voucher(2, authority.checkpoint(3));
        let no_key = refused(&|keys| keys.keys[1].vouched = Some(no_key.clone()));
        assert!(no_key.contains("publishes no key of the log"), "{no_key}");
        let entry = refused(&|keys| keys.keys[1].vouched.as_mut().unwrap().entry = "AAAA".into());
        assert!(entry.contains("is not vouched for"), "{entry}");
        let forged = refused(&|keys| {
            let voucher = keys.keys[1].vouched.as_mut().unwrap();
            let note: SignedNote = voucher.receipt.split_once("\n\n").unwrap().1.parse().unwrap();
            let other = log_keys(&[1]);
            let line = note.to_string();
            assert!(line.contains(other.name()));
            voucher.receipt = voucher.receipt.replacen("/ledger\n", "/ledgers\n", 1);
        });
        assert!(forged.contains("is not vouched for"), "{forged}");
        let name = refused(&|keys| keys.keys[1].vkey = "nonsense".into());
        assert!(name.contains("verifier key"), "{name}");
    }
}
