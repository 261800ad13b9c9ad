//! Real chains, made by rcgen and judged by webpki; every refusal is provoked by a chain that is good in all
//! other respects.

use std::time::Duration;

use chancery_types::FixedRandom;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    SigningKey,
};

use super::*;
use crate::test_support::{block_on, context, now, request_key};
use crate::{ForeignAuthorityOptions, MemoryNonces, PurposeRule, TokenEvidence};

type Authority = Issuer<'static, KeyPair>;

fn moment(offset_seconds: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(now().seconds() + offset_seconds).unwrap()
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn authority_parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_before = moment(-86_400);
    parameters.not_after = moment(86_400);
    parameters
}

fn leaf_parameters() -> CertificateParams {
    let mut parameters =
        CertificateParams::new(vec!["Node7.Corp.example".to_owned(), "10.1.2.3".to_owned()]).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, "node7");
    parameters.subject_alt_names.push(SanType::URI(Ia5String::try_from("urn:node:7").unwrap()));
    parameters.subject_alt_names.push(SanType::Rfc822Name(Ia5String::try_from("ops@corp.example").unwrap()));
    parameters.serial_number = Some(SerialNumber::from_slice(&[0x17]));
    parameters.not_before = moment(-3600);
    parameters.not_after = moment(3600);
    parameters
}

/// A root, an intermediate below it, and a leaf below that; knobs are turned before `build`.
struct Pki {
    root: CertificateParams,
    intermediate: CertificateParams,
    leaf: CertificateParams,
    leaf_key: KeyPair,
}

struct Built {
    root_pem: String,
    root: Authority,
    intermediate: Authority,
    chain: Vec<Vec<u8>>,
    leaf_key: KeyPair,
}

impl Pki {
    fn new() -> Self {
        Self {
            root: authority_parameters("corp root"),
            intermediate: authority_parameters("corp issuing"),
            leaf: leaf_parameters(),
            leaf_key: key(),
        }
    }

    fn build(self) -> Built {
        let (root_key, intermediate_key) = (key(), key());
        let root_pem = self.root.self_signed(&root_key).unwrap().pem();
        let root = Issuer::new(self.root, root_key);
        let intermediate_der = self.intermediate.signed_by(&intermediate_key, &root).unwrap().der().to_vec();
        let intermediate = Issuer::new(self.intermediate, intermediate_key);
        let leaf_der = self.leaf.signed_by(&self.leaf_key, &intermediate).unwrap().der().to_vec();
        let chain = vec![leaf_der, intermediate_der];
        Built { root_pem, root, intermediate, chain, leaf_key: self.leaf_key }
    }
}

impl Built {
    fn authority(&self, options: ForeignAuthorityOptions) -> Arc<ForeignAuthority> {
        Arc::new(ForeignAuthority::new("corp", self.root_pem.as_bytes(), options).unwrap())
    }

    /// Verifies this chain with a proper signature, against its own root.
    fn verify(&self) -> Result<Attested, AttestError> {
        self.verify_with(ForeignAuthorityOptions::default())
    }

    fn verify_with(&self, options: ForeignAuthorityOptions) -> Result<Attested, AttestError> {
        Proof::of(self).verify(vec![self.authority(options)])
    }
}

/// A proof of possession whose parts can be spoiled.
struct Proof {
    verifier_nonces: Arc<MemoryNonces>,
    evidence: PopEvidence,
    context: AttestContext<'static>,
}

impl Proof {
    fn of(built: &Built) -> Self {
        let nonces =
            MemoryNonces::new(Arc::new(FixedRandom::dangerous_seeded(5)), Duration::from_secs(60), 10);
        let nonce = block_on(nonces.issue(now())).unwrap();
        let message = proof_message(&nonce, "example.org", &request_key());
        let signature = built.leaf_key.sign(&message).unwrap();
        let evidence = PopEvidence { chain: built.chain.clone(), nonce, signature, wanted: None };
        Self { verifier_nonces: Arc::new(nonces), evidence, context: context() }
    }

    fn verify(self, authorities: Vec<Arc<ForeignAuthority>>) -> Result<Attested, AttestError> {
        let verifier = X509PopVerifier::new(authorities, self.verifier_nonces).unwrap();
        block_on(verifier.verify(Evidence::X509Pop(self.evidence), &self.context))
    }
}

fn refusal(result: Result<Attested, AttestError>) -> PopError {
    match result {
        Err(AttestError::Pop(error)) => error,
        other => panic!("expected a refusal of the proof, got {other:?}"),
    }
}

fn crl(issuer: &Authority, revoked: &[u8], next_update: i64) -> Vec<u8> {
    let revoked_certs = revoked
        .iter()
        .map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: moment(-60),
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    let parameters = CertificateRevocationListParams {
        this_update: moment(-7200),
        next_update: moment(next_update),
        crl_number: SerialNumber::from_slice(&[1]),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    parameters.signed_by(issuer).unwrap().der().to_vec()
}

fn with_lists(lists: Vec<Vec<u8>>) -> ForeignAuthorityOptions {
    ForeignAuthorityOptions { revocation_lists: Some(lists), ..ForeignAuthorityOptions::default() }
}

#[test]
fn accepts_a_chain_and_claims_what_its_leaf_says() {
    let attested = Pki::new().build().verify().unwrap();
    assert_eq!(attested.assurance(), AssuranceLevel::Repeatable);
    assert!(attested.is_repeatable());
    assert_eq!(attested.bound_key(), Some(request_key()));
    assert_eq!(attested.spends(), None);
    let claims = attested.claims();
    for (name, text) in [
        ("x509.ca", "corp"),
        ("x509.subject.cn", "node7"),
        ("x509.serial", "17"),
        ("x509.dns", "node7.corp.example"),
        ("x509.ip", "10.1.2.3"),
        ("x509.uri", "urn:node:7"),
        ("x509.email", "ops@corp.example"),
    ] {
        assert!(claims.holds(name, text), "{name}: {:?}", claims.value(name));
    }
    assert!(claims.value("x509.issuer").unwrap().texts()[0].contains("corp issuing"));
    assert_eq!(claims.value("x509.fingerprint").unwrap().texts()[0].len(), 64);
    assert_eq!(claims.value("x509.spki").unwrap().texts()[0].len(), 64);
}

#[test]
fn accepts_every_kind_of_leaf_key_that_is_supported() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let mut pki = Pki::new();
        pki.leaf_key = KeyPair::generate_for(algorithm).unwrap();
        pki.build().verify().unwrap();
    }
}

#[test]
fn refuses_a_chain_below_another_root_of_the_same_name() {
    let (built, other) = (Pki::new().build(), Pki::new().build());
    let authorities = vec![other.authority(ForeignAuthorityOptions::default())];
    assert!(matches!(refusal(Proof::of(&built).verify(authorities)), PopError::Untrusted { .. }));
    assert!(matches!(refusal(Proof::of(&built).verify(Vec::new())), PopError::Untrusted { .. }));
}

#[test]
fn finds_the_right_authority_among_several() {
    let (built, other) = (Pki::new().build(), Pki::new().build());
    let stranger =
        ForeignAuthority::new("other", other.root_pem.as_bytes(), ForeignAuthorityOptions::default());
    let authorities = vec![Arc::new(stranger.unwrap()), built.authority(ForeignAuthorityOptions::default())];
    assert!(Proof::of(&built).verify(authorities).unwrap().claims().holds("x509.ca", "corp"));
}

#[test]
fn refuses_expired_leaves_intermediates_and_roots() {
    let mut expired_leaf = Pki::new();
    expired_leaf.leaf.not_after = moment(-1);
    assert!(matches!(refusal(expired_leaf.build().verify()), PopError::NotValidNow { .. }));
    let mut early_leaf = Pki::new();
    early_leaf.leaf.not_before = moment(60);
    assert!(matches!(refusal(early_leaf.build().verify()), PopError::NotValidNow { .. }));
    let mut expired_intermediate = Pki::new();
    expired_intermediate.intermediate.not_after = moment(-1);
    assert!(matches!(refusal(expired_intermediate.build().verify()), PopError::NotValidNow { .. }));
    let mut expired_root = Pki::new();
    expired_root.root.not_after = moment(-1);
    assert!(matches!(refusal(expired_root.build().verify()), PopError::Untrusted { .. }));
}

#[test]
fn refuses_an_intermediate_that_is_no_authority() {
    let mut pki = Pki::new();
    pki.intermediate.is_ca = IsCa::ExplicitNoCa;
    assert!(matches!(refusal(pki.build().verify()), PopError::Untrusted { .. }));
}

#[test]
fn refuses_an_authority_that_poses_as_a_leaf() {
    let mut pki = Pki::new();
    pki.leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert!(matches!(refusal(pki.build().verify()), PopError::Untrusted { .. }));
}

#[test]
fn refuses_a_chain_with_a_gap() {
    let mut built = Pki::new().build();
    built.chain.truncate(1);
    assert!(matches!(refusal(built.verify()), PopError::Untrusted { .. }));
}

#[test]
fn refuses_names_outside_the_constraints_of_the_intermediate() {
    let mut pki = Pki::new();
    pki.intermediate.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("other.example".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    assert!(matches!(refusal(pki.build().verify()), PopError::Untrusted { .. }));
}

#[test]
fn refuses_revoked_leaves_and_intermediates() {
    let built = Pki::new().build();
    let (root_list, leaf_list) = (crl(&built.root, &[], 3600), crl(&built.intermediate, &[0x17], 3600));
    let options = with_lists(vec![root_list, leaf_list]);
    assert_eq!(refusal(built.verify_with(options)), PopError::Revoked { authority: "corp".to_owned() });

    let mut pki = Pki::new();
    pki.intermediate.serial_number = Some(SerialNumber::from_slice(&[0x33]));
    let built = pki.build();
    let (root_list, leaf_list) = (crl(&built.root, &[0x33], 3600), crl(&built.intermediate, &[], 3600));
    let options = with_lists(vec![root_list, leaf_list]);
    assert_eq!(refusal(built.verify_with(options)), PopError::Revoked { authority: "corp".to_owned() });
}

#[test]
fn accepts_unrevoked_certificates_with_fresh_lists_as_der_or_pem() {
    let built = Pki::new().build();
    let der = crl(&built.root, &[], 3600);
    let encoded = data_encoding::BASE64.encode(&crl(&built.intermediate, &[0x18], 3600));
    let pem = format!("-----BEGIN X509 CRL-----\n{encoded}\n-----END X509 CRL-----\n");
    built.verify_with(with_lists(vec![der, pem.into_bytes()])).unwrap();
}

#[test]
fn fails_closed_when_a_list_is_stale_missing_or_forged() {
    let built = Pki::new().build();
    let stale = with_lists(vec![crl(&built.root, &[], 3600), crl(&built.intermediate, &[], -1)]);
    assert!(matches!(refusal(built.verify_with(stale)), PopError::RevocationUnknown { .. }));
    let missing = with_lists(vec![crl(&built.intermediate, &[], 3600)]);
    assert!(matches!(refusal(built.verify_with(missing)), PopError::RevocationUnknown { .. }));
    let forger = Issuer::new(authority_parameters("corp issuing"), key());
    let forged = with_lists(vec![crl(&built.root, &[], 3600), crl(&forger, &[], 3600)]);
    assert!(matches!(refusal(built.verify_with(forged)), PopError::RevocationUnknown { .. }));
}

#[test]
fn demands_the_configured_purpose_of_the_leaf() {
    let demanding = || ForeignAuthorityOptions {
        purposes: PurposeRule::from_texts(&["client-auth"]).unwrap(),
        revocation_lists: None,
    };
    let without = Pki::new().build();
    let expected = PopError::Purpose { authority: "corp".to_owned() };
    assert_eq!(refusal(without.verify_with(demanding())), expected);
    let mut server = Pki::new();
    server.leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(refusal(server.build().verify_with(demanding())), expected);
    let mut any = Pki::new();
    any.leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    assert_eq!(refusal(any.build().verify_with(demanding())), expected);
    let mut client = Pki::new();
    client.leaf.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    client.build().verify_with(demanding()).unwrap();
    let mut limited = Pki::new();
    limited.leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    limited.intermediate.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert_eq!(refusal(limited.build().verify_with(demanding())), expected);
}

#[test]
fn refuses_a_signature_over_another_nonce_server_or_key() {
    let built = Pki::new().build();
    let authority = || vec![built.authority(ForeignAuthorityOptions::default())];
    let expected = |server: &str| PopError::Signature { server: server.to_owned() };

    let mut other_key = Proof::of(&built);
    other_key.context.request_key = Digest::of(b"somebody else's key");
    assert_eq!(refusal(other_key.verify(authority())), expected("example.org"));

    let mut other_server = Proof::of(&built);
    other_server.context.server_name = "example.com";
    assert_eq!(refusal(other_server.verify(authority())), expected("example.com"));

    let mut other_nonce = Proof::of(&built);
    other_nonce.evidence.nonce = block_on(other_nonce.verifier_nonces.issue(now())).unwrap();
    assert_eq!(refusal(other_nonce.verify(authority())), expected("example.org"));

    let mut garbage = Proof::of(&built);
    garbage.evidence.signature = vec![0; 64];
    assert_eq!(refusal(garbage.verify(authority())), expected("example.org"));
}

#[test]
fn refuses_a_signature_by_another_key_than_the_leafs() {
    let (built, thief) = (Pki::new().build(), Pki::new().build());
    let mut proof = Proof::of(&thief);
    proof.evidence.chain = built.chain.clone();
    let authorities = vec![built.authority(ForeignAuthorityOptions::default())];
    assert!(matches!(refusal(proof.verify(authorities)), PopError::Signature { .. }));
}

#[test]
fn refuses_a_replayed_an_expired_and_an_invented_nonce() {
    let built = Pki::new().build();
    let authority = || vec![built.authority(ForeignAuthorityOptions::default())];

    let first = Proof::of(&built);
    let (nonces, evidence) = (Arc::clone(&first.verifier_nonces), first.evidence.clone());
    first.verify(authority()).unwrap();
    let replay = Proof { verifier_nonces: nonces, evidence, context: context() };
    assert_eq!(refusal(replay.verify(authority())), PopError::Nonce);

    let mut late = Proof::of(&built);
    late.context.now = now() + Duration::from_secs(61);
    assert_eq!(refusal(late.verify(authority())), PopError::Nonce);

    let mut invented = Proof::of(&built);
    invented.evidence.nonce = Nonce::from_array([1; 32]);
    assert_eq!(refusal(invented.verify(authority())), PopError::Nonce);
}

#[test]
fn refuses_too_many_too_large_and_no_certificates_before_it_takes_the_nonce() {
    let built = Pki::new().build();
    type Spoil = fn(&mut PopEvidence);
    type IsExpected = fn(&PopError) -> bool;
    let spoils: [(Spoil, IsExpected); 5] = [
        (|evidence| evidence.chain.clear(), |error| *error == PopError::NoCertificate),
        (
            |evidence| evidence.chain = vec![evidence.chain[0].clone(); 6],
            |error| matches!(error, PopError::ChainTooLong { count: 6, limit: 5 }),
        ),
        (
            |evidence| evidence.chain.push(vec![0x30; 16 * 1024 + 1]),
            |error| matches!(error, PopError::CertificateTooLarge { index: 2, .. }),
        ),
        (
            |evidence| evidence.chain[0] = b"garbage".to_vec(),
            |error| matches!(error, PopError::Malformed { index: 0, .. }),
        ),
        (
            |evidence| evidence.signature = vec![0; 1025],
            |error| matches!(error, PopError::SignatureTooLarge { size: 1025, limit: 1024 }),
        ),
    ];
    for (spoil, is_expected) in spoils {
        let mut proof = Proof::of(&built);
        spoil(&mut proof.evidence);
        let (nonces, nonce) = (Arc::clone(&proof.verifier_nonces), proof.evidence.nonce);
        let error = refusal(proof.verify(vec![built.authority(ForeignAuthorityOptions::default())]));
        assert!(is_expected(&error), "{error:?}");
        assert!(block_on(nonces.consume(&nonce, now())).unwrap(), "the nonce is still good after {error:?}");
    }
}

#[test]
fn refuses_more_names_than_it_reads() {
    let mut pki = Pki::new();
    pki.leaf.subject_alt_names = (0..101)
        .map(|n| SanType::DnsName(Ia5String::try_from(format!("n{n}.corp.example")).unwrap()))
        .collect();
    assert_eq!(refusal(pki.build().verify()), PopError::TooManyNames { count: 101, limit: 100 });
}

#[test]
fn the_evidence_hash_covers_chain_nonce_signature_and_key() {
    let built = Pki::new().build();
    let first = built.verify().unwrap().evidence_hash();
    let mut wished = Proof::of(&built);
    wished.evidence.wanted = Some("spiffe://example.org/node7".parse().unwrap());
    let attested = wished.verify(vec![built.authority(ForeignAuthorityOptions::default())]).unwrap();
    assert_eq!(attested.identity_hint().unwrap().as_str(), "spiffe://example.org/node7");
    assert_ne!(attested.evidence_hash(), first, "ECDSA signatures differ every time");
}

#[test]
fn the_client_signs_what_this_verifier_expects() {
    let nonce = Nonce::from_array([7; 32]);
    let domain = "example.org".parse().unwrap();
    let signed = chancery_api::enrollment_message(nonce.as_bytes(), &domain, &request_key());
    assert_eq!(signed, proof_message(&nonce, "example.org", &request_key()));
}

#[test]
fn refuses_authorities_that_are_not_usable() {
    let built = Pki::new().build();
    let pem = built.root_pem.as_bytes();
    let new =
        |name: &str, pem: &[u8], options| ForeignAuthority::new(name, pem, options).map(|_| ()).unwrap_err();
    let plain = ForeignAuthorityOptions::default;
    assert!(matches!(new("", pem, plain()), ForeignAuthorityError::Name(_)));
    assert!(matches!(new("a b", pem, plain()), ForeignAuthorityError::Name(_)));
    assert!(matches!(new("corp", b"no certificates", plain()), ForeignAuthorityError::Roots { .. }));
    let nothing = with_lists(Vec::new());
    assert!(matches!(new("corp", pem, nothing), ForeignAuthorityError::RevocationLists { .. }));
    let garbage = with_lists(vec![b"garbage".to_vec()]);
    assert!(matches!(new("corp", pem, garbage), ForeignAuthorityError::RevocationLists { .. }));
    assert!(PurposeRule::from_texts(&["client"]).is_err());
    assert_eq!(PurposeRule::from_texts::<&str>(&[]).unwrap(), PurposeRule::Any);
    let twice = vec![built.authority(plain()), built.authority(plain())];
    let nonces = MemoryNonces::new(Arc::new(FixedRandom::default()), Duration::from_secs(1), 1);
    let error = X509PopVerifier::new(twice, Arc::new(nonces)).map(|_| ()).unwrap_err();
    assert_eq!(error, ForeignAuthorityError::Duplicate("corp".to_owned()));
}

#[test]
fn refuses_evidence_of_another_kind() {
    let nonces = MemoryNonces::new(Arc::new(FixedRandom::default()), Duration::from_secs(1), 1);
    let verifier = X509PopVerifier::new(Vec::new(), Arc::new(nonces)).unwrap();
    let token = chancery_types::SecretString::new(String::new());
    let evidence = Evidence::JoinToken(TokenEvidence { token });
    let error = block_on(verifier.verify(evidence, &context())).map(|_| ()).unwrap_err();
    assert!(matches!(error, AttestError::WrongKind { .. }));
}

mod keys;
