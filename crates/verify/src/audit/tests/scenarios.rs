//! One thing wrong at a time: each check finds what it is for, at the entry where it is.

use std::collections::BTreeSet;

use chancery_api::{BlastRadius, EnvironmentPart};
use chancery_entry::{
    Blob, Body, ChangeProposal, ChangeStep, CrlPublished, Document, HoldTarget, IdentityChange,
    IssuerActivation, IssuerRetirement, KeyPhase, ProfileChange, Revocation, StatusSetPublished, Step, Tidy,
    TokenRevocation, TokenSpend,
};
use chancery_types::{
    Digest, EvidenceKind, Generation, IssuerEpoch, LineageId, RevocationReason, SerialNumber, Timestamp,
    TokenId,
};

use super::*;
use crate::test_support::{EPOCH, by, ecdsa_key, identity, revocation_list};

/// What a scenario expects: the check, the entry that is named, and how the report comes about.
struct Scenario {
    name: &'static str,
    check: Check,
    index: Option<usize>,
    report: AuditReport,
}

fn scenario(
    name: &'static str,
    check: Check,
    index: impl Into<Option<usize>>,
    report: AuditReport,
) -> Scenario {
    Scenario { name, check, index: index.into(), report }
}

/// A log that is changed by `spoil`, which returns the entry that should be named.
fn spoilt(name: &'static str, check: Check, spoil: impl FnOnce(&mut Authority) -> Option<usize>) -> Scenario {
    let mut authority = busy();
    let index = spoil(&mut authority);
    scenario(name, check, index, audited(&authority))
}

/// An export that is changed line by line, with a good digest.
fn rewritten(
    name: &'static str,
    check: Check,
    index: impl Into<Option<usize>>,
    rewrite: impl FnOnce(&mut ExportHeader, &mut Vec<String>),
) -> Scenario {
    let authority = busy();
    let (mut header, mut lines) = (authority.header(), authority.lines());
    rewrite(&mut header, &mut lines);
    let report = report_of(seal(&header, &lines).as_bytes(), &options(&authority)).unwrap();
    scenario(name, check, index, report)
}

fn replace(line: &mut String, from: &str, to: &str) {
    assert!(line.contains(from), "{from} in {line}");
    *line = line.replacen(from, to, 1);
}

fn exports() -> Vec<Scenario> {
    let authority = busy();
    let whole = authority.export();
    let report = |text: &str| report_of(text.as_bytes(), &options(&authority)).unwrap();
    let unpinned = report_of(whole.as_bytes(), &AuditOptions::default()).unwrap();
    let cut = &whole[..whole.trim_end().rfind('\n').unwrap() + 1];
    let mut other = Authority::new();
    other.enroll("other");
    let with_earlier = |earlier: String| {
        let options = AuditOptions { earlier: Some(earlier), ..options(&authority) };
        report_of(whole.as_bytes(), &options).unwrap()
    };
    let mut longer = busy();
    longer.enroll("more");
    let wrong_root = AuditOptions { root: Some(Digest::of(b"another")), ..options(&authority) };
    vec![
        rewritten("unreadable line", Check::ExportDamaged, 3, |_, lines| "{}".clone_into(&mut lines[3])),
        rewritten("unknown field", Check::ExportDamaged, 3, |_, lines| {
            replace(&mut lines[3], "view", "viev")
        }),
        rewritten("not base64", Check::ExportDamaged, 3, |_, lines| {
            replace(&mut lines[3], "leaf\":\"", "leaf\":\"*")
        }),
        scenario("something behind the end", Check::ExportDamaged, None, report(&format!("{whole}more\n"))),
        scenario(
            "changed time of export",
            Check::ExportDigest,
            None,
            report(&whole.replacen("\"created\":\"2026", "\"created\":\"2025", 1)),
        ),
        scenario("no last line", Check::ExportIncomplete, None, report(cut)),
        rewritten("another domain", Check::HeaderMismatch, None, |header, _| {
            header.trust_domain = Some("example.com".into())
        }),
        rewritten("another origin", Check::HeaderMismatch, None, |header, _| {
            header.origin = "example.com/log".into()
        }),
        rewritten("another size", Check::HeaderMismatch, None, |header, _| header.size += 1),
        rewritten("a strange issuer", Check::HeaderMismatch, None, |header, _| {
            header.issuers.push(data_encoding::BASE64.encode(Authority::new().issuer.der()));
        }),
        rewritten("an unreadable issuer", Check::HeaderMismatch, None, |header, _| {
            header.issuers.push("AAAA".into())
        }),
        scenario(
            "another root",
            Check::HeaderMismatch,
            None,
            report_of(whole.as_bytes(), &wrong_root).unwrap(),
        ),
        rewritten("another key", Check::HeaderMismatch, None, |header, _| {
            header.vkey = crate::test_support::witness_key().1.vkey()
        }),
        rewritten("changed view", Check::ViewMismatch, 5, |_, lines| {
            replace(&mut lines[5], "\"requester\":\"10.", "\"requester\":\"11.")
        }),
        rewritten("changed hash", Check::LeafHash, 5, |_, lines| {
            replace(&mut lines[5], "\"hash\":\"", "\"hash\":\"0")
        }),
        rewritten("missing line", Check::Index, 6, |_, lines| drop(lines.remove(5))),
        rewritten("repeated line", Check::Index, 5, |_, lines| lines.insert(6, lines[5].clone())),
        rewritten("wrong number", Check::Index, 5, |_, lines| {
            replace(&mut lines[5], "\"index\":5", "\"index\":50")
        }),
        rewritten("not an entry", Check::Entry, 5, |_, lines| {
            let start = lines[5].find("leaf\":\"").unwrap() + 7;
            lines[5].replace_range(start..start + 4, "/wAA");
        }),
        rewritten("forged checkpoint", Check::CheckpointSignature, None, |header, _| {
            replace(&mut header.checkpoint, "\n19\n", "\n18\n")
        }),
        scenario("no key", Check::KeyNotPinned, None, unpinned),
        rewritten("another length", Check::TreeSize, None, |header, _| {
            header.checkpoint = longer.checkpoint(12).to_string()
        }),
        rewritten("another tree", Check::TreeRoot, None, |header, lines| {
            let mut other = busy();
            other.log[3].entry.time = other.now();
            *lines = other.lines();
            header.issuers.clear();
        }),
        scenario("another history", Check::Consistency, None, with_earlier(other.checkpoint(4).to_string())),
        scenario(
            "a shorter log",
            Check::Consistency,
            None,
            with_earlier(longer.checkpoint(longer.len()).to_string()),
        ),
        scenario("a useless checkpoint", Check::Consistency, None, with_earlier("x\n".into())),
        rewritten("damage before the earlier size", Check::ExportDamaged, 2, |_, lines| {
            "{}".clone_into(&mut lines[2])
        }),
    ]
}

fn authorities() -> Vec<Scenario> {
    vec![
        spoilt("no beginning", Check::Genesis, |authority| {
            authority.log.remove(0);
            Some(0)
        }),
        spoilt("two beginnings", Check::Genesis, |authority| {
            let genesis = authority.log[0].entry.body.clone();
            Some(authority.record(genesis))
        }),
        spoilt("unreadable root", Check::Genesis, |authority| {
            let Body::Genesis(genesis) = &mut authority.log[0].entry.body else { panic!("a genesis") };
            genesis.root = Blob(vec![0x30, 0]);
            Some(0)
        }),
        spoilt("back in time", Check::TimeOrder, |authority| {
            authority.wait(-3_600);
            Some(authority.record(Body::Null))
        }),
        spoilt("unreadable issuer", Check::IssuerCertificate, |authority| {
            Some(authority.record(Body::IssuerActivated(IssuerActivation {
                epoch: IssuerEpoch(2),
                certificate: Blob(vec![1]),
                by: by(),
            })))
        }),
        spoilt("the same epoch twice", Check::IssuerCertificate, |authority| {
            let certificate = Blob(authority.issuer.der().to_vec());
            Some(authority.record(Body::IssuerActivated(IssuerActivation {
                epoch: EPOCH,
                certificate,
                by: by(),
            })))
        }),
        spoilt("an issuer of a root with the same name", Check::IssuerCertificate, |authority| {
            let certificate = Blob(Authority::new().issuer.der().to_vec());
            Some(authority.record(Body::IssuerActivated(IssuerActivation {
                epoch: IssuerEpoch(2),
                certificate,
                by: by(),
            })))
        }),
        spoilt("an issuer below another", Check::IssuerChain, |authority| {
            let leaf = authority.certificate(authority.issuances()[0]);
            Some(authority.record(Body::IssuerActivated(IssuerActivation {
                epoch: IssuerEpoch(2),
                certificate: Blob(leaf),
                by: by(),
            })))
        }),
        spoilt("a key of the log for which the one before it does not vouch", Check::LogKey, |authority| {
            authority.record_log_key(2, KeyPhase::Published, None);
            Some(authority.record_log_key(2, KeyPhase::Active, None))
        }),
        spoilt("a root for which nobody vouches", Check::RootUnvouched, |authority| {
            Some(authority.follow_root(false).0)
        }),
        spoilt("an issuer below such a root", Check::IssuerChain, |authority| {
            Some(authority.follow_root(false).1)
        }),
        spoilt("an issuance by a retired issuer", Check::IssuerInactive, |authority| {
            authority.record(Body::IssuerRetired(IssuerRetirement {
                epoch: EPOCH,
                by: by(),
                note: String::new(),
            }));
            Some(authority.renew("web"))
        }),
        spoilt("an issuance by an issuer that is only published", Check::IssuerInactive, |authority| {
            let mut published = authority.log[1].clone();
            let Body::IssuerActivated(activation) = published.entry.body else { panic!("an activation") };
            published.entry.body = Body::IssuerPrepared(activation);
            authority.log[1] = published;
            Some(authority.issuances()[0])
        }),
        spoilt("an issuer that is published twice", Check::IssuerCertificate, |authority| {
            let next = authority.next_issuer();
            authority.record(Body::IssuerPrepared(next.clone()));
            Some(authority.record(Body::IssuerPrepared(next)))
        }),
        spoilt("another certificate than was published", Check::IssuerCertificate, |authority| {
            authority.record(Body::IssuerPrepared(authority.next_issuer()));
            Some(authority.record(Body::IssuerActivated(authority.next_issuer())))
        }),
        spoilt("an issuer that is withdrawn and was never published", Check::IssuerInactive, |authority| {
            Some(authority.record(Body::IssuerWithdrawn(retirement(2))))
        }),
        spoilt("an issuer that is withdrawn and signs", Check::IssuerInactive, |authority| {
            Some(authority.record(Body::IssuerWithdrawn(retirement(EPOCH.0))))
        }),
        spoilt("retired twice", Check::IssuerInactive, |authority| {
            authority.record(Body::IssuerRetired(IssuerRetirement {
                epoch: EPOCH,
                by: by(),
                note: String::new(),
            }));
            Some(authority.record(Body::IssuerRetired(IssuerRetirement {
                epoch: EPOCH,
                by: by(),
                note: String::new(),
            })))
        }),
        spoilt("a profile under a wrong hash", Check::ProfileHash, |authority| {
            let mut change = profile(authority);
            change.text.push('\n');
            Some(authority.record(Body::ProfileChanged(change)))
        }),
        spoilt("a profile that cannot be read", Check::ProfileText, |authority| {
            let text = "name = ".to_owned();
            let profile_hash = Digest::of(text.as_bytes());
            let odd = ProfileChange { name: "odd".into(), profile_hash, text, by: by() };
            Some(authority.record(Body::ProfileChanged(odd)))
        }),
        spoilt("an unknown profile", Check::ProfileUnknown, |authority| {
            let index = authority.renew("web");
            authority.issuance(index).profile_hash = Digest::of(b"never recorded");
            Some(index)
        }),
        spoilt("a profile of another name", Check::ProfileUnknown, |authority| {
            let index = authority.renew("web");
            authority.issuance(index).profile = "server".into();
            Some(index)
        }),
    ]
}

fn certificates() -> Vec<Scenario> {
    vec![
        spoilt("not a TBS", Check::Tbs, |authority| {
            let index = authority.renew("web");
            authority.issuance(index).tbs = Blob(vec![0x30, 0]);
            Some(index)
        }),
        spoilt("another lifetime", Check::TbsMismatch, |authority| {
            let index = authority.renew("web");
            authority.issuance(index).not_after = Timestamp::MAX;
            Some(index)
        }),
        spoilt("another key", Check::TbsMismatch, |authority| {
            let index = authority.renew("web");
            authority.issuance(index).key = Digest::of(b"another");
            Some(index)
        }),
        spoilt("the TBS of another", Check::TbsMismatch, |authority| {
            let (first, second) = (authority.renew("web"), authority.renew("web"));
            let tbs = authority.issuance(first).tbs.0.clone();
            authority.resign(second, tbs);
            Some(second)
        }),
        spoilt("a name of another trust domain", Check::TbsMismatch, |authority| {
            let index = authority.renew("web");
            authority.issuance(index).identity = "spiffe://example.com/web".parse().unwrap();
            Some(index)
        }),
        spoilt("recorded later than issued", Check::Lint, |authority| {
            let index = authority.renew("web");
            authority.wait(7_200);
            authority.log[index].entry.time = authority.now();
            Some(index)
        }),
        spoilt("a changed signature", Check::CertificateSignature, |authority| {
            let index = authority.renew("web");
            authority.log[index].signature.as_mut().unwrap()[9] ^= 1;
            Some(index)
        }),
        spoilt("the signature of another key", Check::CertificateSignature, |authority| {
            let index = authority.renew("web");
            let tbs = authority.issuance(index).tbs.0.clone();
            authority.log[index].signature = Some(crate::test_support::sign(&ecdsa_key(), &tbs));
            Some(index)
        }),
        spoilt("a signature beside something else", Check::CertificateSignature, |authority| {
            authority.log[1].signature = Some(vec![1, 2, 3]);
            Some(1)
        }),
        spoilt("never signed", Check::Unsigned, |authority| {
            let index = authority.renew("web");
            authority.log[index].signature = None;
            Some(index)
        }),
        spoilt("the same certificate twice", Check::SerialReuse, |authority| {
            let first = authority.renew("web");
            authority.log.push(authority.log[first].clone());
            Some(authority.len() - 1)
        }),
        spoilt("the same counter twice", Check::SerialReuse, |authority| {
            let index = authority.renew("web");
            let issuance = authority.issuance(index);
            issuance.serial = SerialNumber::compose(EPOCH, 1, [9; 8]).unwrap();
            Some(index)
        }),
    ]
}

fn histories() -> Vec<Scenario> {
    let token = TokenId::from_array([9; 16]);
    let spent = |authority: &Authority| {
        let spend = |recorded: &crate::test_support::Recorded| match &recorded.entry.body {
            Body::TokenSpent(spend) => Some(spend.clone()),
            _ => None,
        };
        authority.log.iter().find_map(spend).unwrap()
    };
    vec![
        spoilt("a token from nowhere", Check::TokenSpend, |authority| {
            let serial = authority.serial(authority.issuances()[0]);
            Some(authority.record(Body::TokenSpent(TokenSpend { token, serial })))
        }),
        spoilt("a token spent twice", Check::TokenSpend, |authority| {
            let again = spent(authority);
            Some(authority.record(Body::TokenSpent(again)))
        }),
        spoilt("a token spent after its end", Check::TokenSpend, |authority| {
            authority.wait(10);
            let issuance = authority.enroll("late");
            let Body::TokenCreated(creation) = &mut authority.log[issuance - 1].entry.body else {
                panic!("a token")
            };
            creation.expires = Timestamp::from_millis(0);
            Some(issuance + 1)
        }),
        spoilt("a token spent after it was withdrawn", Check::TokenSpend, |authority| {
            let issuance = authority.enroll("late");
            let Body::TokenCreated(creation) = &authority.log[issuance - 1].entry.body else {
                panic!("a token")
            };
            let withdrawal = TokenRevocation { token: creation.token, by: by() };
            let spend = authority.log.pop().unwrap();
            authority.record(Body::TokenRevoked(withdrawal));
            authority.log.push(spend);
            Some(authority.len() - 1)
        }),
        spoilt("a token withdrawn that is spent", Check::TokenSpend, |authority| {
            let token = spent(authority).token;
            Some(authority.record(Body::TokenRevoked(TokenRevocation { token, by: by() })))
        }),
        spoilt("the same token made twice", Check::TokenSpend, |authority| {
            authority.enroll("web");
            Some(authority.len() - 3)
        }),
        spoilt("bought without a token", Check::TokenBinding, |authority| {
            let lineage = LineageId::from_array([8; 16]);
            Some(authority.issue(&identity("web"), lineage, Generation(0), EvidenceKind::JoinToken))
        }),
        spoilt("a token spent for nothing", Check::TokenBinding, |authority| {
            let serial = SerialNumber::compose(EPOCH, 99, [1; 8]).unwrap();
            Some(authority.record(Body::TokenSpent(TokenSpend { token, serial })))
        }),
        spoilt("a token of another identity", Check::TokenBinding, |authority| {
            let issuance = authority.enroll("late");
            let Body::TokenCreated(creation) = &mut authority.log[issuance - 1].entry.body else {
                panic!("a token")
            };
            creation.binding = chancery_entry::TokenBinding::Identity(identity("db"));
            Some(issuance + 1)
        }),
        spoilt("a token of another key", Check::TokenBinding, |authority| {
            let issuance = authority.enroll("late");
            let Body::TokenCreated(creation) = &mut authority.log[issuance - 1].entry.body else {
                panic!("a token")
            };
            creation.key = Some(Digest::of(b"another"));
            Some(issuance + 1)
        }),
        spoilt("a generation left out", Check::LineageGeneration, |authority| {
            let lineage = authority.lineage("web");
            Some(authority.issue(&identity("web"), lineage, Generation(9), EvidenceKind::Renewal))
        }),
        spoilt("a generation twice", Check::LineageGeneration, |authority| {
            let lineage = authority.lineage("web");
            Some(authority.issue(&identity("web"), lineage, Generation(3), EvidenceKind::Renewal))
        }),
        spoilt("a lineage that begins in the middle", Check::LineageGeneration, |authority| {
            let lineage = LineageId::from_array([8; 16]);
            Some(authority.issue(&identity("web"), lineage, Generation(1), EvidenceKind::Renewal))
        }),
        spoilt("renewed while held", Check::LineageState, |authority| {
            authority.hold(HoldTarget::Lineage(authority.lineage("web")));
            Some(authority.renew("web"))
        }),
        spoilt("renewed for another", Check::LineageState, |authority| {
            let lineage = authority.lineage("web");
            Some(authority.issue(&identity("db"), lineage, Generation(4), EvidenceKind::Renewal))
        }),
        spoilt("issued to a retired identity", Check::IdentityInactive, |authority| {
            let change = IdentityChange { identity: identity("web"), by: by(), note: String::new() };
            authority.record(Body::IdentityRetired(change));
            Some(authority.renew("web"))
        }),
        spoilt("issued to a held identity", Check::IdentityInactive, |authority| {
            let change = IdentityChange { identity: identity("web"), by: by(), note: String::new() };
            authority.record(Body::IdentityHeld(change));
            Some(authority.renew("web"))
        }),
        spoilt("issued to nobody", Check::IdentityUnknown, |authority| {
            let lineage = LineageId::from_array([8; 16]);
            Some(authority.issue(&identity("ghost"), lineage, Generation(0), EvidenceKind::X509Pop))
        }),
        spoilt("revoked without having been issued", Check::Revocation, |authority| {
            let serial = SerialNumber::compose(EPOCH, 99, [1; 8]).unwrap();
            Some(authority.record(revocation(serial, RevocationReason::Superseded)))
        }),
        spoilt("revoked twice", Check::Revocation, |authority| {
            let database = authority.issuances()[1];
            Some(authority.revoke(database, RevocationReason::Superseded))
        }),
        spoilt("released without having been held", Check::Revocation, |authority| {
            Some(authority.release(HoldTarget::Lineage(authority.lineage("web"))))
        }),
        spoilt("held twice", Check::Revocation, |authority| {
            let serial = authority.serial(authority.issuances()[0]);
            Some(authority.hold(HoldTarget::Certificate(serial)))
        }),
        spoilt("held after it was revoked", Check::Revocation, |authority| {
            let serial = authority.serial(authority.issuances()[1]);
            Some(authority.hold(HoldTarget::Certificate(serial)))
        }),
        spoilt("a certificate held that was never issued", Check::Revocation, |authority| {
            let serial = SerialNumber::compose(EPOCH, 99, [1; 8]).unwrap();
            Some(authority.hold(HoldTarget::Certificate(serial)))
        }),
        spoilt("tidied away without having been issued", Check::Tidied, |authority| {
            let serial = SerialNumber::compose(EPOCH, 99, [1; 8]).unwrap();
            Some(authority.record(tidied(serial)))
        }),
        spoilt("tidied away while it lives", Check::Tidied, |authority| {
            let serial = authority.serial(authority.issuances()[0]);
            Some(authority.record(tidied(serial)))
        }),
        spoilt("a lineage held that does not exist", Check::Revocation, |authority| {
            Some(authority.hold(HoldTarget::Lineage(LineageId::from_array([8; 16]))))
        }),
    ]
}

/// By a clock that is years ahead: what counts is the entry's own time.
fn tidied(serial: SerialNumber) -> Body {
    Body::Tidied(Tidy { ended_before: Timestamp::MAX, serials: vec![serial] })
}

/// A change to a hundred certificates of one environment, with a step by this operator; returns the step's index.
fn changed(authority: &mut Authority, step: Step, operator: &str) -> usize {
    let environments = vec![EnvironmentPart {
        name: "prod".into(),
        certificates: 100,
        held: 0,
        recent: 0,
        beside: 0,
        in_force: Some(100),
        and_more: false,
    }];
    let radius = BlastRadius { certificates: 100, environments, ..BlastRadius::default() };
    let proposal = ChangeProposal {
        request: Document("{}".into()),
        radius: Document(serde_json::to_string(&radius).unwrap()),
        expires: authority.now() + std::time::Duration::from_secs(60),
        by: by(),
        note: String::new(),
    };
    let change = authority.record(Body::ChangeProposed(proposal)) as u64;
    authority.record(step_of(change, step, operator))
}

fn step_of(change: u64, step: Step, operator: &str) -> Body {
    let (by, details) = (operator.to_owned(), Document("{}".into()));
    Body::ChangeStepped(ChangeStep { change, step, by, details, note: String::new() })
}

fn changes() -> Vec<Scenario> {
    vec![
        spoilt("a change that goes on and was never asked for", Check::ChangeRecord, |authority| {
            Some(authority.record(step_of(7, Step::Approved, "operator:bob")))
        }),
        spoilt("a large change that nobody approved", Check::ChangeUnapproved, |authority| {
            Some(changed(authority, Step::Begun, &by()))
        }),
        spoilt("a change that was approved by who asked for it", Check::ChangeUnapproved, |authority| {
            Some(changed(authority, Step::Approved, &by()))
        }),
        spoilt("a revocation in the name of no change", Check::ChangeUnapproved, |authority| {
            let serial = authority.serial(authority.issuances()[0]);
            let (reason, by) = (RevocationReason::Superseded, "change:7".to_owned());
            Some(authority.record(Body::Revocation(Revocation { serial, reason, by, note: String::new() })))
        }),
        spoilt(
            "a change that ran by the word of the local administrator",
            Check::ChangeOverridden,
            |authority| Some(changed(authority, Step::Overridden, "uid:0")),
        ),
        spoilt("very many revocations by one hand", Check::ChangeOutside, |authority| {
            let revoke = |counter| {
                let serial = SerialNumber::compose(EPOCH, counter, [1; 8]).unwrap();
                let (reason, by) = (RevocationReason::Superseded, "operator:eve".to_owned());
                Body::Revocation(Revocation { serial, reason, by, note: String::new() })
            };
            (0..=1000).map(|counter| authority.record_now(revoke(1_000 + counter))).last()
        }),
    ]
}

#[test]
fn a_large_change_that_another_operator_approved_passes() {
    let mut authority = busy();
    changed(&mut authority, Step::Approved, "operator:bob");
    assert_eq!(audited(&authority).findings.list(), []);
}

fn sets() -> Vec<Scenario> {
    let set = |name, change: fn(&mut StatusSetPublished)| {
        spoilt(name, Check::StatusSetRecord, move |authority| {
            let bad = current_bad(authority);
            let first = set_of(authority, None, bad.clone());
            authority.record(Body::StatusSetPublished(first.clone()));
            let mut second = set_of(authority, Some(first.hash), bad);
            change(&mut second);
            Some(authority.record(Body::StatusSetPublished(second)))
        })
    };
    vec![
        set("a set that goes back", |set| set.sequence -= 1),
        set("a set that knows what comes after it", |set| set.sequence += 1),
        set("a set that forgets the one before", |set| set.previous = None),
        set("a set that follows another", |set| set.previous = Some(Digest::of(b"other"))),
        set("a set that counts one more", |set| set.entries += 1),
        spoilt("a set without somebody who was revoked", Check::StatusSetRecord, |authority| {
            let others = current_bad(authority).into_iter().skip(1);
            let set = set_of(authority, None, others);
            Some(authority.record(Body::StatusSetPublished(set)))
        }),
        spoilt("a set with somebody who is good", Check::StatusSetRecord, |authority| {
            let last = *authority.issuances().last().unwrap();
            let more = current_bad(authority).into_iter().chain([authority.serial(last)]);
            let set = set_of(authority, None, more);
            Some(authority.record(Body::StatusSetPublished(set)))
        }),
        spoilt("a set that hides behind what came meanwhile", Check::StatusSetUnclear, |authority| {
            let nobody = set_of(authority, None, []);
            let last = *authority.issuances().last().unwrap();
            authority.revoke(last, RevocationReason::Superseded);
            Some(authority.record(Body::StatusSetPublished(nobody)))
        }),
    ]
}

fn lists() -> Vec<Scenario> {
    let republished = |name, check, change: fn(&mut Vec<Line>, &mut Authority) -> Option<usize>| {
        spoilt(name, check, move |authority| {
            let mut lines = current_lines(authority);
            let index = change(&mut lines, authority);
            authority.publish(&lines);
            index
        })
    };
    vec![
        rewritten("an unreadable list", Check::CrlSignature, None, |header, _| {
            header.crls = vec!["AAAA".into()]
        }),
        rewritten("a list of another authority", Check::CrlSignature, None, |header, _| {
            let mut other = busy();
            let lines = current_lines(&other);
            other.publish(&lines);
            header.crls = other.header().crls;
        }),
        rewritten("a list with a changed byte", Check::CrlSignature, None, |header, _| {
            let mut der = data_encoding::BASE64.decode(header.crls[0].as_bytes()).unwrap();
            der[100] ^= 1;
            header.crls = vec![data_encoding::BASE64.encode(&der)];
        }),
        rewritten("no list", Check::CrlAbsent, None, |header, _| header.crls.clear()),
        spoilt("numbers that fall", Check::CrlRecord, |authority| {
            Some(authority.record(Body::CrlPublished(CrlPublished {
                epoch: EPOCH,
                number: 1,
                this_update: authority.now(),
                next_update: authority.now(),
                entries: 0,
                hash: Digest::of(b"list"),
            })))
        }),
        spoilt("a list of no issuer", Check::CrlRecord, |authority| {
            Some(authority.record(Body::CrlPublished(CrlPublished {
                epoch: IssuerEpoch(7),
                number: 1,
                this_update: authority.now(),
                next_update: authority.now(),
                entries: 0,
                hash: Digest::of(b"list"),
            })))
        }),
        spoilt("a list that was not recorded", Check::CrlRecord, |authority| {
            let (lines, now) = (current_lines(authority), authority.now());
            authority.crls = vec![authority.signed(&revocation_list(&authority.issuer, 1, now, &lines))];
            None
        }),
        spoilt("a list recorded with another count", Check::CrlRecord, |authority| {
            let last = authority.len() - 1;
            let Body::CrlPublished(list) = &mut authority.log[last].entry.body else { panic!("a list") };
            list.entries += 1;
            Some(last)
        }),
        spoilt("a list that is newer than the log", Check::CrlLag, |authority| {
            let (lines, now) = (current_lines(authority), authority.now());
            authority.crls = vec![authority.signed(&revocation_list(&authority.issuer, 2, now, &lines))];
            None
        }),
        republished("a revoked certificate left out", Check::CrlMissing, |lines, authority| {
            lines.remove(0);
            authority.wait(600);
            Some(authority.index_of(|body| matches!(body, Body::Revocation(_))))
        }),
        republished("a held certificate left out", Check::CrlMissing, |lines, authority| {
            lines.remove(1);
            authority.wait(600);
            Some(authority.len() - 2)
        }),
        republished("a good certificate put on", Check::CrlExtra, |lines, authority| {
            let good = *authority.issuances().last().unwrap();
            lines.push((authority.serial(good), authority.now(), RevocationReason::Superseded));
            Some(good)
        }),
        republished("a certificate that was never issued", Check::CrlExtra, |lines, authority| {
            let serial = SerialNumber::compose(EPOCH, 99, [1; 8]).unwrap();
            lines.push((serial, authority.now(), RevocationReason::Superseded));
            None
        }),
        republished("a released certificate left on", Check::CrlExtra, |lines, authority| {
            authority.release(HoldTarget::Certificate(lines[1].0));
            Some(authority.len() - 3)
        }),
        republished("another reason", Check::CrlMismatch, |lines, authority| {
            lines[0].2 = RevocationReason::Superseded;
            Some(authority.index_of(|body| matches!(body, Body::Revocation(_))))
        }),
        republished("another date", Check::CrlMismatch, |lines, authority| {
            lines[0].1 = authority.now();
            Some(authority.index_of(|body| matches!(body, Body::Revocation(_))))
        }),
        republished("a certificate twice", Check::CrlMismatch, |lines, _| {
            lines.push(lines[0]);
            None
        }),
        spoilt("revoked after the list was made", Check::CrlLag, |authority| {
            let web = *authority.issuances().last().unwrap();
            Some(authority.revoke(web, RevocationReason::Superseded))
        }),
    ]
}

pub(super) type Line = (SerialNumber, Timestamp, RevocationReason);

/// The lines of the list in `busy`.
pub(super) fn current_lines(authority: &Authority) -> Vec<Line> {
    let revocation = authority.index_of(|body| matches!(body, Body::Revocation(_)));
    let held = authority.len() - 2;
    let web = authority.serial(authority.issuances()[0]);
    vec![authority.line(revocation), (web, authority.time(held), RevocationReason::CertificateHold)]
}

fn revocation(serial: SerialNumber, reason: RevocationReason) -> Body {
    Body::Revocation(Revocation { serial, reason, by: by(), note: String::new() })
}

fn profile(authority: &Authority) -> ProfileChange {
    match &authority.log[2].entry.body {
        Body::ProfileChanged(change) => change.clone(),
        other => panic!("entry 2 is {}", other.kind()),
    }
}

#[test]
fn each_check_finds_what_it_is_for_at_the_entry_where_it_is() {
    let scenarios = [exports(), authorities(), certificates(), histories(), lists(), sets(), changes()];
    let mut covered = BTreeSet::new();
    for Scenario { name, check, index, report } in scenarios.into_iter().flatten() {
        let found = report.findings.list();
        let expected = index.map(|index| index as u64);
        let named = found.iter().any(|finding| finding.check == check && finding.index == expected);
        assert!(named, "{name}: expected {check} at {expected:?}, found {found:#?}");
        assert!(found.iter().all(|finding| !finding.detail.is_empty()));
        assert_eq!(
            report.findings.are_clean(),
            found.iter().all(|finding| finding.severity < Severity::Error)
        );
        covered.insert(check);
    }
    // No certificate of the shipped profiles gives cause for advice.
    covered.insert(Check::LintAdvice);
    let uncovered: Vec<&Check> = Check::ALL.iter().filter(|check| !covered.contains(check)).collect();
    assert_eq!(uncovered, [] as [&Check; 0]);
}

/// What is not good in a busy log.
fn current_bad(authority: &Authority) -> Vec<SerialNumber> {
    current_lines(authority).into_iter().map(|(serial, ..)| serial).collect()
}

/// The exact set of these certificates, as it is recorded now.
fn set_of(
    authority: &Authority,
    previous: Option<Digest>,
    bad: impl IntoIterator<Item = SerialNumber>,
) -> StatusSetPublished {
    set_at(authority, authority.len() as u64, previous, bad)
}

/// The same, at an earlier position.
fn set_at(
    authority: &Authority,
    sequence: u64,
    previous: Option<Digest>,
    bad: impl IntoIterator<Item = SerialNumber>,
) -> StatusSetPublished {
    set_with(authority, sequence, previous, bad, &[])
}

/// The same, with rows of issuers of which nothing is bad.
fn set_with(
    authority: &Authority,
    sequence: u64,
    previous: Option<Digest>,
    bad: impl IntoIterator<Item = SerialNumber>,
    others: &[IssuerEpoch],
) -> StatusSetPublished {
    let made = authority.now();
    let mut counters: Vec<u64> = bad.into_iter().map(|serial| serial.counter()).collect();
    counters.sort_unstable();
    let mut builder = chancery_status::SetBuilder::new(sequence, made);
    builder.issuer(EPOCH, counters).unwrap();
    others.iter().for_each(|other| builder.issuer(*other, []).unwrap());
    let set = builder.build().unwrap();
    StatusSetPublished { sequence, made, entries: set.len() as u64, hash: set.hash(), previous }
}

#[test]
fn a_root_for_which_another_vouches_is_followed_and_so_is_an_issuer_below_it() {
    let mut authority = busy();
    authority.follow_root(true);
    // The header of these exports lists one issuer.
    let report = audited(&authority);
    let found = report.findings.list().iter().filter(|finding| finding.check != Check::HeaderMismatch);
    assert_eq!(found.collect::<Vec<_>>(), [] as [&Finding; 0]);
}

fn retirement(epoch: u16) -> IssuerRetirement {
    IssuerRetirement { epoch: IssuerEpoch(epoch), by: by(), note: String::new() }
}

#[test]
fn an_issuer_is_published_with_lists_of_its_own_taken_back_published_again_and_signs() {
    let mut authority = busy();
    let next = authority.next_issuer();
    let now = authority.now();
    let list = |number: u64| {
        let (epoch, hash) = (next.epoch, Digest::of(&number.to_be_bytes()));
        Body::CrlPublished(CrlPublished {
            epoch,
            number,
            this_update: now,
            next_update: now,
            entries: 0,
            hash,
        })
    };
    authority.record(Body::IssuerPrepared(next.clone()));
    authority.record(list(1));
    // The exact set knows it from here on.
    let (position, bad) = (authority.len() as u64, current_bad(&authority));
    let set = set_with(&authority, position, None, bad, &[next.epoch]);
    authority.record(Body::StatusSetPublished(set));
    authority.record(Body::IssuerWithdrawn(retirement(2)));
    authority.record(Body::IssuerPrepared(next.clone()));
    authority.record(list(2));
    authority.record(Body::IssuerActivated(next.clone()));
    authority.record(Body::IssuerRetired(retirement(EPOCH.0)));
    authority.record(Body::IssuerWithdrawn(retirement(EPOCH.0)));
    // The header of these exports lists one issuer, and brings its list.
    let report = audited(&authority);
    let expected = [Check::HeaderMismatch, Check::CrlAbsent];
    let found = report.findings.list().iter().filter(|finding| !expected.contains(&finding.check));
    assert_eq!(found.collect::<Vec<_>>(), [] as [&Finding; 0]);
}

#[test]
fn exact_sets_that_follow_one_another_pass() {
    let mut authority = busy();
    let bad = current_bad(&authority);
    let mut previous = None;
    for _ in 0..3 {
        let set = set_of(&authority, previous, bad.clone());
        previous = Some(set.hash);
        authority.record(Body::StatusSetPublished(set));
    }
    // What was recorded between a set's position and its record may show in it, or not.
    let set = set_of(&authority, previous, bad.clone());
    let last = *authority.issuances().last().unwrap();
    authority.revoke(last, RevocationReason::Superseded);
    previous = Some(set.hash);
    authority.record(Body::StatusSetPublished(set));
    let web = HoldTarget::Lineage(authority.lineage("web"));
    let position = authority.len() as u64;
    authority.hold(web.clone());
    let all = authority.issuances().into_iter().map(|index| authority.serial(index));
    let all: Vec<SerialNumber> = all.collect();
    let held = set_at(&authority, position, previous, all);
    previous = Some(held.hash);
    authority.record(Body::StatusSetPublished(held));
    // What was held by itself stays held when its lineage is released.
    authority.release(web);
    let after = bad.into_iter().chain([authority.serial(last)]);
    let set = set_of(&authority, previous, after);
    authority.record(Body::StatusSetPublished(set));
    let found = audited(&authority);
    assert_eq!(found.findings.list().iter().filter(|one| one.check.as_str().contains("set")).count(), 0);
}

#[test]
fn the_last_word_of_holds_and_releases_counts_for_each_certificate() {
    let mut authority = Authority::new();
    let first = authority.enroll("web");
    let second = authority.renew("web");
    let of_web = HoldTarget::Lineage(authority.lineage("web"));
    // Held by itself, then with its lineage, and released with it.
    authority.hold(HoldTarget::Certificate(authority.serial(first)));
    authority.hold(of_web.clone());
    authority.release(of_web.clone());
    // Held with its lineage, and released by itself.
    let held = authority.hold(of_web);
    authority.release(HoldTarget::Certificate(authority.serial(first)));
    let on_hold = (authority.serial(second), authority.time(held), RevocationReason::CertificateHold);
    authority.publish(&[on_hold]);
    assert_eq!(audited(&authority).findings.list(), []);
    authority.publish(&[]);
    let report = audited(&authority);
    let missing: Vec<_> =
        report.findings.list().iter().map(|finding| (finding.check, finding.serial)).collect();
    assert_eq!(missing, [(Check::CrlMissing, Some(authority.serial(second)))]);
}
