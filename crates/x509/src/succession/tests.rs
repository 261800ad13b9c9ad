use chancery_types::KeyAlgorithm;

use super::*;
use crate::authority::{names, now, sign, trust_domain};
use crate::{
    BasicConstraints, CertificateSpec, DistinguishedName, ExtendedKeyUsage, KeyUsages, NameConstraints,
    SubjectKey, Subtree, Validity, check_chain,
};

/// A certificate of an authority; what a test changes about it.
#[derive(Clone)]
struct Authority {
    subject: &'static str,
    trust_domain: &'static str,
    path_length: Option<u8>,
    is_authority: bool,
    usages: KeyUsages,
    purposes: Vec<ExtendedKeyUsage>,
    constraints: Option<NameConstraints>,
}

impl Authority {
    fn named(subject: &'static str) -> Self {
        Self {
            subject,
            trust_domain: "spiffe://example.org",
            path_length: Some(2),
            is_authority: true,
            usages: KeyUsages::AUTHORITY,
            purposes: Vec::new(),
            constraints: None,
        }
    }

    /// Signed by `signer`, whose certificate is `issuer`; by itself when there is none.
    fn signed(&self, key: &SubjectKey, signer: &SubjectKey, issuer: Option<&Certificate>) -> Certificate {
        let subject = DistinguishedName::common_name(self.subject).unwrap();
        let names = names(&[self.trust_domain]);
        let constraints = BasicConstraints { is_authority: self.is_authority, path_length: self.path_length };
        let above = issuer.map(Certificate::tbs);
        let spec = CertificateSpec {
            serial: &[1, 2, 3],
            signature_algorithm: signer.signature_algorithm(),
            issuer: above.map_or(subject.der(), |issuer| issuer.subject_der()),
            validity: Validity { not_before: now(), not_after: now() + std::time::Duration::from_hours(1) },
            subject: subject.clone(),
            public_key: key.public_key(),
            authority_key_id: above.and_then(|issuer| issuer.subject_key_id()),
            names: &names,
            key_usages: self.usages,
            extended_key_usages: &self.purposes,
            authority: Some(constraints),
            name_constraints: self.constraints.as_ref(),
            crl_url: None,
            ocsp_url: None,
            ca_issuers_url: None,
            no_rev_avail: false,
            ocsp_nocheck: false,
        };
        sign(signer, &spec.to_tbs_der())
    }
}

/// An old root, and a new one for which it vouches.
struct World {
    old_key: SubjectKey,
    old: Certificate,
    new_key: SubjectKey,
    new: Certificate,
    voucher: Certificate,
}

impl World {
    fn new() -> Self {
        Self::with(Some(2), "Root 2")
    }

    fn with(path_length: Option<u8>, successor: &'static str) -> Self {
        let key = || SubjectKey::generate(KeyAlgorithm::P256).unwrap();
        let (old_key, new_key) = (key(), key());
        let old = Authority { path_length, ..Authority::named("Root") }.signed(&old_key, &old_key, None);
        let new = Authority::named(successor).signed(&new_key, &new_key, None);
        let voucher = Authority { path_length: Some(1), ..Authority::named(successor) };
        let voucher = voucher.signed(&new_key, &old_key, Some(&old));
        Self { old_key, old, new_key, new, voucher }
    }

    fn root(&self) -> VouchedRoot {
        VouchedRoot::from_certificates(vec![self.voucher.clone(), self.new.clone()]).unwrap()
    }
}

#[test]
fn whoever_knows_the_old_root_finds_a_way_from_an_issuer_below_the_new_one() {
    let world = World::new();
    let root = world.root();
    assert_eq!(VouchedRoot::from_der(&root.to_der()).unwrap(), root);
    root.check(&trust_domain()).unwrap();
    assert_eq!(root.vouched_for_by(&world.old).unwrap(), &world.voucher);
    let issuer = Authority { path_length: Some(0), ..Authority::named("Issuer") };
    let key = SubjectKey::generate(KeyAlgorithm::P256).unwrap();
    let issuer = issuer.signed(&key, &world.new_key, Some(&world.new));
    check_chain(&[issuer.clone(), world.new.clone()]).unwrap();
    check_chain(&[issuer, world.voucher.clone(), world.old.clone()]).unwrap();
}

#[test]
fn an_old_root_without_room_vouches_only_for_one_of_its_own_name() {
    let refused = World::with(Some(1), "Root 2").root();
    let world = World::with(Some(1), "Root");
    assert!(world.root().vouched_for_by(&world.old).is_ok());
    let old = World::with(Some(1), "Root 2");
    let error = old.root().vouched_for_by(&old.old).unwrap_err();
    assert!(
        matches!(error, SuccessionError::Chain(ChainError::PathLength { below: 2, allowed: 1, .. })),
        "{error}"
    );
    assert!(refused.check(&trust_domain()).is_ok(), "nothing is wrong with the certificates themselves");
}

#[test]
fn a_root_is_believed_by_the_signature_of_the_one_before_and_by_nothing_else() {
    let (world, stranger) = (World::new(), World::new());
    let alone = VouchedRoot::first(world.new.clone());
    assert!(matches!(alone.vouched_for_by(&world.old), Err(SuccessionError::NotVouched { .. })));
    assert!(matches!(world.root().vouched_for_by(&stranger.old), Err(SuccessionError::NotVouched { .. })));
    // It names the old root and its key, and another key has signed it.
    let forged = sign(&stranger.old_key, world.voucher.tbs_der());
    let forged = VouchedRoot::from_certificates(vec![world.new.clone(), forged]).unwrap();
    let error = forged.vouched_for_by(&world.old).unwrap_err();
    assert!(matches!(error, SuccessionError::Chain(ChainError::Signature { .. })), "{error}");
}

#[test]
fn certificates_that_are_not_one_root_and_its_vouchers_are_refused() {
    let (world, other) = (World::new(), World::new());
    let read = |certificates: &[&Certificate]| {
        VouchedRoot::from_certificates(certificates.iter().map(|one| (*one).clone()).collect())
    };
    assert_eq!(read(&[]), Err(SuccessionError::NotOneRoot(0)));
    assert_eq!(read(&[&world.voucher]), Err(SuccessionError::NotOneRoot(0)));
    assert_eq!(read(&[&world.new, &world.old]), Err(SuccessionError::NotOneRoot(2)));
    assert_eq!(read(&[&world.new, &other.voucher]), Err(SuccessionError::OtherKey("CN=Root 2".into())));
    // A root whose own signature was changed is none.
    let tampered = sign(&other.new_key, world.new.tbs_der());
    assert_eq!(read(&[&tampered, &world.voucher]), Err(SuccessionError::NotOneRoot(0)));
    let many = [&world.new].into_iter().chain(std::iter::repeat_n(&world.voucher, 9));
    let many: Vec<u8> = many.flat_map(|one| one.der().to_vec()).collect();
    assert!(matches!(VouchedRoot::from_der(&many), Err(SuccessionError::Der(_))));
    assert!(VouchedRoot::from_der(&[world.new.der(), b"x"].concat()).is_err());
}

#[test]
fn roots_of_others_without_room_with_constraints_or_without_the_right_to_sign_are_refused() {
    let base = Authority::named("Root 2");
    let constraints =
        NameConstraints { permitted: vec![Subtree::Dns("example.org".into())], excluded: vec![] };
    let usages = |usages: &[KeyUsage]| -> KeyUsages { usages.iter().copied().collect() };
    let cases: [(&str, Authority); 7] = [
        ("this trust domain is", Authority { trust_domain: "spiffe://example.com", ..base.clone() }),
        ("this trust domain is", Authority { trust_domain: "spiffe://example.org/root", ..base.clone() }),
        ("allows no authority below it", Authority { path_length: Some(0), ..base.clone() }),
        ("nameConstraints", Authority { constraints: Some(constraints), ..base.clone() }),
        ("extKeyUsage", Authority { purposes: vec![ExtendedKeyUsage::ServerAuth], ..base.clone() }),
        ("cRLSign", Authority { usages: usages(&[KeyUsage::KeyCertSign]), ..base.clone() }),
        ("is not an authority", Authority { is_authority: false, path_length: None, ..base.clone() }),
    ];
    for (expected, authority) in cases {
        let world = World::new();
        let voucher = authority.signed(&world.new_key, &world.old_key, Some(&world.old));
        let root = VouchedRoot::from_certificates(vec![world.new.clone(), voucher]).unwrap();
        let error = root.check(&trust_domain()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        let new = authority.signed(&world.new_key, &world.new_key, None);
        let told = match VouchedRoot::from_certificates(vec![new, world.voucher.clone()]) {
            Ok(root) => root.check(&trust_domain()).unwrap_err().to_string(),
            // What may not sign certificates has not signed its own.
            Err(error) => error.to_string(),
        };
        assert!(told.contains(expected) || told.contains("sign themselves"), "{expected}: {told}");
    }
}
