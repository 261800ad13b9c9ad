//! What is shown to the judges: certificates, lists and answers of a running authority, as files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use chancery_attest::{Evidence, OperatorChannel, OperatorEvidence};
use chancery_revoke::{Hand, Selector};
use chancery_server::authority::{Enrolment, Requester, Wish};
use chancery_types::{Identity, KeyAlgorithm, RevocationReason, Role, SerialNumber};
use chancery_x509::{Certificate, SubjectKey, read_certificates, write_pem};

use crate::running::{Place, Running, csr, id, plan, published};

/// A certificate, and what it is for.
pub(crate) struct Exhibit {
    /// Profile and kind of key.
    pub(crate) name: String,
    pub(crate) profile: &'static str,
    pub(crate) der: Vec<u8>,
    /// PEM of it alone.
    pub(crate) path: PathBuf,
    pub(crate) serial: Option<SerialNumber>,
}

/// All of them, and the authority that made them.
pub(crate) struct Exhibits {
    pub(crate) running: Running,
    pub(crate) certificates: Vec<Exhibit>,
    /// The one among them that is revoked.
    pub(crate) revoked: Option<SerialNumber>,
    /// DER before anything was revoked, and after.
    pub(crate) lists: [Vec<u8>; 2],
    /// The lists of the parts after it was revoked, by their URLs.
    pub(crate) parts: BTreeMap<String, Vec<u8>>,
}

impl Exhibits {
    pub(crate) async fn of(algorithm: KeyAlgorithm) -> Self {
        let place = Place::with(chancery_server::bootstrap::InitPlan { algorithm, ..plan() }, |_| {}).await;
        let server = place.serve().await.unwrap();
        let mut exhibits = Self {
            running: Running { place, server },
            certificates: Vec::new(),
            revoked: None,
            lists: Default::default(),
            parts: BTreeMap::new(),
        };
        for algorithm in KeyAlgorithm::ALL {
            exhibits.issue("workload", subject_key(algorithm)).await;
        }
        for (profile, algorithm) in [
            ("server", KeyAlgorithm::P256),
            ("server", KeyAlgorithm::Rsa2048),
            ("client", KeyAlgorithm::P384),
            ("device", KeyAlgorithm::Ed25519),
            ("operator", KeyAlgorithm::P256),
        ] {
            exhibits.issue(profile, subject_key(algorithm)).await;
        }
        exhibits.collect_own().await;
        exhibits.lists[0] = exhibits.publish().await;
        let revoked = exhibits.certificates[0].serial.unwrap();
        let revoker = exhibits.running.server.site().authority.revoker();
        let reason = RevocationReason::KeyCompromise;
        let scope = Selector::Serial(revoked).into();
        revoker.revoke(&scope, reason, Hand::of("test", "")).await.unwrap();
        exhibits.revoked = Some(revoked);
        exhibits.lists[1] = exhibits.publish().await;
        let places = exhibits.running.server.site().crl.places();
        let parts = places
            .filter_map(|place| Some((place.urls().first()?.clone(), place.current().unwrap().der.clone())));
        exhibits.parts = parts.collect();
        exhibits
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.running.place.beside(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.running.place.file("certs/root.crt")
    }

    pub(crate) fn issuer(&self) -> PathBuf {
        self.running.place.file("certs/issuer-1.crt")
    }

    pub(crate) fn by_profile(&self, profile: &str) -> &Exhibit {
        self.certificates.iter().find(|exhibit| exhibit.profile == profile).unwrap()
    }

    pub(crate) fn is_revoked(&self, exhibit: &Exhibit) -> bool {
        exhibit.serial.is_some() && exhibit.serial == self.revoked
    }

    /// Those that an end entity holds, without the authority's own.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Exhibit> {
        self.certificates.iter().filter(|exhibit| !matches!(exhibit.profile, "issuer" | "root"))
    }

    /// The list that a certificate names.
    pub(crate) fn part_of(&self, exhibit: &Exhibit) -> (&String, &Vec<u8>) {
        let certificate = Certificate::from_der(&exhibit.der).unwrap();
        let urls: Vec<&str> = certificate.tbs().crl_urls().collect();
        assert_eq!(urls.len(), 1, "{}", exhibit.name);
        self.parts.get_key_value(urls[0]).unwrap_or_else(|| panic!("{} is not published", urls[0]))
    }

    fn add(&mut self, name: String, profile: &'static str, der: Vec<u8>, serial: Option<SerialNumber>) {
        let path = self.write(&format!("{name}.pem"), write_pem("CERTIFICATE", &der).as_bytes());
        self.certificates.push(Exhibit { name, profile, der, path, serial });
    }

    /// Has a certificate with every kind of name that the profile takes.
    async fn issue(&mut self, profile: &'static str, key: SubjectKey) {
        let authority = &self.running.server.site().authority;
        let name = format!("{profile}-{}", key.public_key().algorithm());
        let path = if profile == "operator" { format!("operator/{name}") } else { name.clone() };
        let mut identity = Identity::new(id(&path), "ada");
        identity.profiles = vec![profile.to_owned()];
        match profile {
            "operator" => identity.role = Some(Role::Viewer),
            "client" => identity.email_addresses = vec!["ada@example.org".parse().unwrap()],
            "device" => identity.dns_names = vec![format!("{name}.example.org").parse().unwrap()],
            _ => {
                let names = [format!("{name}.example.org"), "localhost".into()];
                identity.dns_names = names.iter().map(|name| name.parse().unwrap()).collect();
                identity.ip_addresses = vec!["127.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
            }
        }
        authority.register_identity(&identity, "test").await.unwrap();
        let channel = OperatorChannel::LocalSocket { uid: rustix::process::geteuid().as_raw() };
        let enrolment = Enrolment {
            request: authority.prove(&csr(&key)).unwrap(),
            evidence: Evidence::Operator(OperatorEvidence { channel, identity: id(&path), approval: None }),
            wish: Wish::default(),
            requester: Requester { name: "test".into(), address: None },
            idempotency: None,
        };
        let enrolled = authority.enroll(enrolment).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (der, serial) = (enrolled.issued.der().to_vec(), enrolled.issued.serial());
        self.add(name, profile, der, Some(serial));
    }

    /// The authority's own: responder, issuer, root.
    async fn collect_own(&mut self) {
        let authority = &self.running.server.site().authority;
        let responder = authority.responder_credential().await.unwrap().certificate.unwrap();
        let one = |path| read_certificates(&std::fs::read(path).unwrap(), 1).unwrap().remove(0);
        let (issuer, root) = (one(self.issuer()), one(self.root()));
        self.add("ocsp".into(), "ocsp", responder, None);
        self.add("issuer".into(), "issuer", issuer, None);
        self.add("root".into(), "root", root, None);
    }

    async fn publish(&self) -> Vec<u8> {
        published(&self.running.server).await
    }
}

/// A new key; ours does not make RSA keys for subjects, OpenSSL does.
fn subject_key(algorithm: KeyAlgorithm) -> SubjectKey {
    let bits = match algorithm {
        KeyAlgorithm::Rsa2048 => "2048",
        KeyAlgorithm::Rsa3072 => "3072",
        KeyAlgorithm::Rsa4096 => "4096",
        _ => return SubjectKey::generate(algorithm).unwrap(),
    };
    let option = format!("rsa_keygen_bits:{bits}");
    let output = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", &option])
        .output()
        .unwrap();
    let output = if output.status.success() {
        output
    } else {
        Command::new("openssl").args(["genpkey", "-algorithm", "RSA", "-pkeyopt", &option]).output().unwrap()
    };
    SubjectKey::from_pkcs8_pem(&output.stdout).unwrap()
}
