//! Everything that a ledger answers, as one text to compare.

use std::fmt::Write;

use chancery_entry::{Body, Entry};
use chancery_ledger::{CertificateQuery, IdentityQuery, Ledger, PageRequest};
use chancery_types::{IssuerEpoch, Timestamp};

use crate::workload;

/// Asks everything that [`workload::Mix`] can change.
pub(crate) async fn snapshot(ledger: &dyn Ledger) -> String {
    let mut text = String::new();
    let head = ledger.head();
    writeln!(text, "{head:?}").unwrap();
    writeln!(text, "{}", ledger.checkpoint().unwrap()).unwrap();
    let mut page = PageRequest::first(7);
    loop {
        let found = ledger.certificates(&CertificateQuery::default(), &page).await.unwrap();
        for certificate in found.items {
            writeln!(text, "{certificate:?}").unwrap();
            writeln!(text, "  {:?}", ledger.lineage(certificate.lineage).await.unwrap()).unwrap();
            writeln!(text, "  {:?}", ledger.signature(certificate.index).await.unwrap()).unwrap();
        }
        match found.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    // Whatever was ever issued is answered for by its serial.
    let size = usize::try_from(head.size).unwrap();
    for (bytes, index) in ledger.entries(0, size).await.unwrap().iter().zip(0_u64..) {
        if let Body::Issuance(issuance) = Entry::decode(bytes).unwrap().body {
            let record = ledger.certificate(issuance.serial).await.unwrap().unwrap();
            assert_eq!((record.index, record.identity.clone()), (index, issuance.identity.clone()));
            writeln!(text, "{record:?}").unwrap();
        }
    }
    let everything = PageRequest::first(10_000);
    for identity in ledger.identities(&IdentityQuery::default(), &everything).await.unwrap().items {
        writeln!(text, "{identity:?}").unwrap();
        let query = CertificateQuery { identity: Some(identity.identity.spiffe_id), ..Default::default() };
        let found = ledger.certificates(&query, &everything).await.unwrap();
        let serials: Vec<String> = found.items.iter().map(|found| found.serial.to_string()).collect();
        writeln!(text, "  {serials:?}").unwrap();
    }
    for number in 0..10 {
        let query = CertificateQuery { key: Some(workload::digest("key", number)), ..Default::default() };
        let found = ledger.certificates(&query, &everything).await.unwrap();
        writeln!(text, "key {number}: {:?}", found.items.iter().map(|found| found.index).collect::<Vec<_>>())
            .unwrap();
    }
    let query = CertificateQuery { expires_after: Some(Timestamp::from_millis(0)), ..Default::default() };
    let found = ledger.certificates(&query, &everything).await.unwrap();
    writeln!(text, "expiry: {:?}", found.items.iter().map(|found| found.index).collect::<Vec<_>>()).unwrap();
    writeln!(text, "{:?}", ledger.templates().await.unwrap()).unwrap();
    writeln!(text, "{:?}", ledger.tokens(&everything).await.unwrap().items).unwrap();
    writeln!(text, "{:?}", ledger.issuers().await.unwrap()).unwrap();
    writeln!(text, "{:?}", ledger.keys().await.unwrap()).unwrap();
    writeln!(text, "{:?}", ledger.wishes().await.unwrap()).unwrap();
    writeln!(text, "{:?}", ledger.changes(&everything).await.unwrap().items).unwrap();
    for by in [workload::BY, "operator grace"] {
        let taken = ledger.taken(by, Timestamp::from_millis(0)).await.unwrap();
        writeln!(text, "{by}: {taken:?}").unwrap();
    }
    let ended = workload::now() + std::time::Duration::from_secs(12_000);
    writeln!(text, "{:?}", ledger.ended(ended, &everything).await.unwrap().items).unwrap();
    for epoch in (0..5).map(IssuerEpoch) {
        writeln!(text, "{epoch}: {:?}", ledger.last_counter(epoch).await.unwrap()).unwrap();
        writeln!(text, "  {:?}", ledger.last_crl(epoch, None).await.unwrap()).unwrap();
        writeln!(text, "  {:?}", ledger.crl_divisions(epoch).await.unwrap()).unwrap();
        writeln!(text, "  {:?}", ledger.revoked(epoch, Timestamp::from_millis(0)).await.unwrap()).unwrap();
        let later = workload::now() + std::time::Duration::from_secs(12_000);
        writeln!(text, "  {:?}", ledger.revoked(epoch, later).await.unwrap()).unwrap();
    }
    writeln!(text, "{:?}", ledger.last_status_set().await.unwrap()).unwrap();
    for number in 0..40 {
        let hash = workload::digest("idempotency", number);
        writeln!(text, "idempotency {number}: {:?}", ledger.idempotent(hash).await.unwrap()).unwrap();
        let hash = workload::digest("policy", number);
        writeln!(text, "policy {number}: {:?}", ledger.policy(hash).await.unwrap()).unwrap();
        let hash = workload::digest("profile", number);
        writeln!(text, "profile {number}: {:?}", ledger.profile(hash).await.unwrap()).unwrap();
    }
    text
}
