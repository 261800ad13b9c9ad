//! Peers of a small trust domain that is made here, and whose status is what a test says.

mod following;
mod guard;
mod handshakes;
mod judgement;
mod liar;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chancery_status::SetBuilder;
use chancery_types::{Clock, IssuerEpoch, SerialNumber, SystemClock, TrustDomain};
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::DuplexStream;
use tokio_rustls::{client, server};

use super::knowledge::Knowledge;
use super::*;

const BOTH: &[ExtendedKeyUsagePurpose] =
    &[ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];

/// A trust domain: a root, and the counter of what it has issued.
struct Domain {
    name: TrustDomain,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    next: AtomicU64,
}

/// A certificate and its key.
struct Held {
    serial: SerialNumber,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Domain {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        let name = TrustDomain::parse(name).unwrap();
        Self { name, root, issuer: Issuer::new(params, key), next: AtomicU64::new(1) }
    }

    fn issue(&self, path: &str) -> Held {
        self.issue_with(&[&format!("spiffe://{}{path}", self.name)], BOTH, |_| {})
    }

    fn issue_with(
        &self,
        uris: &[&str],
        usages: &[ExtendedKeyUsagePurpose],
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Held {
        let counter = self.next.fetch_add(1, Ordering::Relaxed);
        let serial = SerialNumber::compose(IssuerEpoch(1), counter, [counter.to_le_bytes()[0]; 8]).unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.serial_number = Some(rcgen::SerialNumber::from_slice(serial.as_bytes()));
        params.subject_alt_names =
            uris.iter().map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap())).collect();
        params.extended_key_usages = usages.to_vec();
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Held { serial, chain: vec![certificate.der().clone()], key }
    }

    /// Trusts this domain with this status.
    fn trusted(&self, status: &Status) -> Trust {
        let trust = Trust::default();
        trust.add(&self.name, std::slice::from_ref(&self.root), status.clone()).unwrap();
        trust
    }

    fn members(&self) -> Allowed {
        Allowed::members_of(self.name.clone())
    }
}

impl Held {
    fn credentials(&self) -> Credentials {
        Credentials::new(self.chain.clone(), self.key.clone_key(), Bundles::new()).unwrap()
    }
}

/// A status of which is known that everything is good, just now.
fn all_good(rules: Rules) -> Status {
    let status = Status::followed(rules);
    know(&status, 1, &[]);
    status
}

/// Makes it known that these are not good.
fn know(status: &Status, sequence: u64, not_good: &[SerialNumber]) -> u64 {
    let mut counters: BTreeMap<IssuerEpoch, Vec<u64>> = BTreeMap::from([(IssuerEpoch(1), vec![])]);
    for serial in not_good {
        counters.entry(serial.epoch()).or_default().push(serial.counter());
    }
    let mut builder = SetBuilder::new(sequence, SystemClock.now());
    for (epoch, mut counters) in counters {
        counters.sort_unstable();
        builder.issuer(epoch, counters).unwrap();
    }
    let mut knowledge = Knowledge::default();
    knowledge.settle(builder.build().unwrap()).unwrap();
    status.confirm(Duration::ZERO);
    status.replace(knowledge)
}

type Ends = (
    Result<Guarded<server::TlsStream<DuplexStream>>, HandshakeError>,
    Result<Guarded<client::TlsStream<DuplexStream>>, HandshakeError>,
);

/// Both ends of a handshake between these two.
async fn shake_hands(acceptor: &Acceptor, connector: &Connector) -> Ends {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("unused.invalid").unwrap();
    tokio::join!(acceptor.accept(near), connector.connect(name, far))
}
