//! Whether full tiles of the log can be kept where the configuration says.

use super::finding::Findings;
use crate::authority_side::{TileExamination, TileWriting};

pub(super) fn look(seen: &TileExamination, findings: &mut Findings) {
    let (place, reach, writing) = match seen {
        TileExamination::OutOfSight { place } => {
            let found =
                format!("{place} was not tried: only the server's environment has the credentials for it");
            return findings
                .unknown("tiles", found + "; a file in storage.tiles_credentials is seen from here too");
        }
        TileExamination::Seen { place, reach, writing } => (place, reach, writing),
    };
    let reach = match reach {
        Err(problem) => {
            let advice = "the ledger serves tiles meanwhile";
            return findings.bad("tiles", format!("{place} cannot be read: {problem}"), advice);
        }
        Ok(None) => "none is there yet, they begin with 256 entries".to_owned(),
        Ok(Some(entries)) => format!("those of {entries} entries are there"),
    };
    match writing {
        Err(problem) => findings.bad(
            "tiles",
            format!("{place} cannot be written to: {problem}"),
            "no tile that becomes full is kept; the ledger serves those",
        ),
        Ok(TileWriting::Once) => {
            findings.good("tiles", format!("{place} can be read and written; {reach}"));
        }
        Ok(TileWriting::Over) => findings.warn(
            "tiles",
            format!("{place} replaces what is there although it is told not to (If-None-Match); {reach}"),
            "forbid it in the store (versions, object lock), or use one that knows conditional writes: readers would notice, \
             but only afterwards",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    fn state(reach: Result<Option<u64>, String>, writing: Result<TileWriting, String>) -> (State, String) {
        let mut findings = Findings::default();
        look(&TileExamination::Seen { place: "s3://rolls/log".into(), reach, writing }, &mut findings);
        let [finding] = findings.0.try_into().unwrap();
        assert!(finding.found.contains("s3://rolls/log"), "{finding:?}");
        (finding.state, finding.found)
    }

    #[test]
    fn a_place_is_good_when_it_can_be_read_and_written_once() {
        assert_eq!(state(Ok(Some(512)), Ok(TileWriting::Once)).0, State::Good);
        assert_eq!(state(Ok(None), Ok(TileWriting::Once)).0, State::Good);
        assert_eq!(state(Ok(Some(512)), Ok(TileWriting::Over)).0, State::Warning);
        let denied = || Err("the store answered 403 AccessDenied".to_owned());
        let (bad, found) = state(Ok(Some(512)), denied().map(|()| TileWriting::Once));
        assert!(bad == State::Bad && found.contains("written") && found.contains("403"), "{found}");
        let (bad, found) = state(denied().map(|()| None), Ok(TileWriting::Once));
        assert!(bad == State::Bad && found.contains("read") && found.contains("403"), "{found}");
    }
}
