//! Whether one certificate was issued by another, and whether a whole chain holds.
//!
//! This is the authority's check of its own work, and the auditor's: the order is known, so nothing is searched
//! for. Relying parties that must find a path use rustls-webpki; this is stricter and not a replacement for it.

use crate::general_name::GeneralName;
use crate::signature::{SignatureError, VerificationAlgorithm, verify_signature};
use crate::usage::KeyUsage;
use crate::{Certificate, TbsView};

/// Why a certificate is not one of that issuer's, or a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The issuer's subject is not the certificate's issuer, byte by byte.
    #[error("issued by {found:?}, not by {expected:?}")]
    Name {
        /// The issuer that the certificate names.
        found: String,
        /// The subject of the certificate that was given as its issuer's.
        expected: String,
    },
    /// authorityKeyIdentifier and the issuer's subjectKeyIdentifier differ.
    #[error("the authorityKeyIdentifier of {subject:?} is not the subjectKeyIdentifier of its issuer")]
    KeyId {
        /// The certificate below.
        subject: String,
    },
    /// The issuer is not an authority, or may not sign certificates.
    #[error("{issuer:?} is not an authority with keyCertSign")]
    NotAnAuthority {
        /// Its subject.
        issuer: String,
    },
    /// More authorities below this one than it allows.
    #[error("{below} authorities below {issuer:?}, its path length allows {allowed}")]
    PathLength {
        /// The authority's subject.
        issuer: String,
        /// Authorities below it.
        below: usize,
        /// Its pathLenConstraint.
        allowed: u8,
    },
    /// A name outside an authority's name constraints.
    #[error("{name} lies outside the name constraints of {issuer:?}")]
    NameConstraint {
        /// The name.
        name: String,
        /// The subject of the authority that constrains it.
        issuer: String,
    },
    /// The signature is not the issuer's.
    #[error("the signature on {subject:?}: {error}")]
    Signature {
        /// The certificate below.
        subject: String,
        /// What is wrong.
        error: SignatureError,
    },
    /// No certificate at all.
    #[error("the chain is empty")]
    Empty,
}

/// Checks that `issuer` issued `child`: names, key identifiers, that it may, its path length and name
/// constraints, and the signature. Not the validity of either: an audit looks at dead certificates too.
///
/// # Errors
/// [`ChainError`], the first fault found; the signature is looked at last.
pub fn check_issued_by(child: &Certificate, issuer: &Certificate) -> Result<(), ChainError> {
    let (below, above) = (child.tbs(), issuer.tbs());
    check_identifiers(&below, &above)?;
    check_authority(&above, usize::from(below.is_authority()))?;
    check_names(&below, &above)?;
    check_signature(child, issuer)
}

/// Checks a chain, leaf first: each certificate was issued by the next, the last one by itself, and every
/// authority's path length and name constraints hold for everything below it.
///
/// # Errors
/// [`ChainError`], the first fault found.
pub fn check_chain(chain: &[Certificate]) -> Result<(), ChainError> {
    let root = chain.last().ok_or(ChainError::Empty)?;
    for (child, issuer) in chain.iter().zip(&chain[1..]) {
        check_issued_by(child, issuer)?;
    }
    check_self_signed(root)?;
    for (depth, authority) in chain.iter().enumerate().skip(1) {
        // Everything between it and the first certificate, which counts only when it is an authority itself.
        let leaf_counts = usize::from(chain[0].tbs().is_authority());
        check_authority(&authority.tbs(), depth - 1 + leaf_counts)?;
        for child in &chain[..depth] {
            check_names(&child.tbs(), &authority.tbs())?;
        }
    }
    Ok(())
}

/// Checks that a certificate is an authority's and signed by its own key.
///
/// # Errors
/// [`ChainError`], the first fault found.
pub fn check_self_signed(root: &Certificate) -> Result<(), ChainError> {
    let tbs = root.tbs();
    if tbs.issuer_der() != tbs.subject_der() {
        return Err(ChainError::Name { found: tbs.issuer_text(), expected: tbs.subject_text() });
    }
    check_authority(&tbs, 0)?;
    check_signature(root, root)
}

pub(crate) fn check_identifiers(below: &TbsView<'_>, above: &TbsView<'_>) -> Result<(), ChainError> {
    if below.issuer_der() != above.subject_der() {
        return Err(ChainError::Name { found: below.issuer_text(), expected: above.subject_text() });
    }
    match (below.authority_key_id(), above.subject_key_id()) {
        (Some(authority), Some(subject)) if authority == subject => Ok(()),
        _ => Err(ChainError::KeyId { subject: name_of(below) }),
    }
}

fn check_authority(issuer: &TbsView<'_>, below: usize) -> Result<(), ChainError> {
    let may_sign = issuer.key_usages().is_some_and(|usages| usages.contains(KeyUsage::KeyCertSign));
    let constraints = issuer.basic_constraints().filter(|constraints| constraints.is_authority && may_sign);
    let Some(constraints) = constraints else {
        return Err(ChainError::NotAnAuthority { issuer: issuer.subject_text() });
    };
    match constraints.path_length {
        Some(allowed) if below > usize::from(allowed) => {
            Err(ChainError::PathLength { issuer: issuer.subject_text(), below, allowed })
        }
        _ => Ok(()),
    }
}

/// A name must pass the constraints of every authority above it: that is the intersection RFC 5280 section
/// 6.1.4 (g) asks for.
fn check_names(below: &TbsView<'_>, above: &TbsView<'_>) -> Result<(), ChainError> {
    let Some(constraints) = above.name_constraints() else { return Ok(()) };
    let subject = (!below.has_empty_subject()).then(|| GeneralName::Directory(below.subject_der()));
    match below.names().chain(subject).find(|name| !constraints.permit(name)) {
        Some(name) => {
            Err(ChainError::NameConstraint { name: name.to_string(), issuer: above.subject_text() })
        }
        None => Ok(()),
    }
}

fn check_signature(child: &Certificate, issuer: &Certificate) -> Result<(), ChainError> {
    VerificationAlgorithm::from_algorithm_identifier(child.signature_algorithm_der())
        .and_then(|algorithm| {
            verify_signature(issuer.tbs().spki_der(), algorithm, child.tbs_der(), child.signature())
        })
        .map_err(|error| ChainError::Signature { subject: name_of(&child.tbs()), error })
}

/// The subject, or the first name where the subject is empty.
fn name_of(tbs: &TbsView<'_>) -> String {
    if !tbs.has_empty_subject() {
        return tbs.subject_text();
    }
    tbs.names().next().map_or_else(String::new, |name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, names, profile, sign};
    use crate::{
        BasicConstraints, CertificateSpec, DistinguishedName, NameConstraints, Subtree, Validity, assemble,
    };
    use chancery_types::KeyAlgorithm;

    fn chain_of(authority: &Authority) -> Vec<Certificate> {
        let leaf = authority.leaf(
            &profile("workload"),
            KeyAlgorithm::P256,
            &names(&["spiffe://example.org/web", "dns:web.example.org"]),
        );
        vec![leaf.certificate, authority.issuer.certificate.clone(), authority.root.certificate.clone()]
    }

    #[test]
    fn our_own_chains_hold_with_every_kind_of_key() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
            check_chain(&chain_of(&Authority::new(algorithm))).unwrap();
        }
    }

    #[test]
    fn refuses_chains_in_the_wrong_order_and_of_strangers() {
        let authority = Authority::new(KeyAlgorithm::P256);
        let chain = chain_of(&authority);
        let stranger = Authority::new(KeyAlgorithm::P256);
        assert_eq!(check_chain(&[]), Err(ChainError::Empty));
        assert!(matches!(check_chain(&chain[..2]), Err(ChainError::Name { .. })));
        assert!(matches!(check_issued_by(&chain[0], &chain[2]), Err(ChainError::Name { .. })));
        assert!(matches!(
            check_issued_by(&chain[0], &stranger.issuer.certificate),
            Err(ChainError::KeyId { subject }) if subject == "uri:spiffe://example.org/web"
        ));
        assert!(matches!(check_issued_by(&chain[1], &chain[1]), Err(ChainError::Name { .. })));
        assert!(matches!(check_chain(&chain[..1]), Err(ChainError::Name { .. })));
    }

    #[test]
    fn refuses_a_signature_that_was_changed() {
        let authority = Authority::new(KeyAlgorithm::P256);
        let chain = chain_of(&authority);
        let forged = sign(&authority.root.key, chain[0].tbs_der());
        assert!(matches!(check_issued_by(&forged, &chain[1]), Err(ChainError::Signature { .. })));
    }

    /// An authority below `issuer` with these constraints, and its key.
    fn below(
        issuer: &crate::authority::Held,
        common_name: &str,
        path_length: Option<u8>,
        constraints: Option<&NameConstraints>,
    ) -> crate::authority::Held {
        let key = crate::SubjectKey::generate(KeyAlgorithm::P256).unwrap();
        let tbs = issuer.certificate.tbs();
        let spec = CertificateSpec {
            serial: &[1, 2, 3],
            signature_algorithm: issuer.key.signature_algorithm(),
            issuer: tbs.subject_der(),
            validity: Validity { not_before: tbs.not_before(), not_after: tbs.not_after() },
            subject: DistinguishedName::common_name(common_name).unwrap(),
            public_key: key.public_key(),
            authority_key_id: tbs.subject_key_id(),
            names: &[],
            key_usages: crate::KeyUsages::AUTHORITY,
            extended_key_usages: &[],
            authority: Some(BasicConstraints { is_authority: true, path_length }),
            name_constraints: constraints,
            crl_url: None,
            ocsp_url: None,
            ca_issuers_url: None,
            no_rev_avail: false,
            ocsp_nocheck: false,
        };
        let tbs = spec.to_tbs_der();
        let signature = issuer.key.sign(&tbs).unwrap();
        let der = assemble(&tbs, issuer.key.signature_algorithm(), &signature);
        crate::authority::Held { key, certificate: Certificate::from_der(&der).unwrap() }
    }

    #[test]
    fn path_lengths_count_every_authority_below() {
        let authority = Authority::new(KeyAlgorithm::P256);
        let one = below(&authority.root, "one", Some(0), None);
        let two = below(&one, "two", None, None);
        let error = check_issued_by(&two.certificate, &one.certificate).unwrap_err();
        assert!(matches!(error, ChainError::PathLength { below: 1, allowed: 0, .. }));
        let wide = below(&authority.root, "wide", Some(1), None);
        let middle = below(&wide, "middle", None, None);
        let last = below(&middle, "last", None, None);
        let root = authority.root.certificate.clone();
        let chain = |certificates: &[&Certificate]| {
            let mut chain: Vec<Certificate> = certificates.iter().map(|c| (*c).clone()).collect();
            chain.push(root.clone());
            check_chain(&chain)
        };
        chain(&[&middle.certificate, &wide.certificate]).unwrap();
        let error = chain(&[&last.certificate, &middle.certificate, &wide.certificate]).unwrap_err();
        assert!(matches!(error, ChainError::PathLength { below: 2, allowed: 1, .. }), "{error}");
    }

    #[test]
    fn names_must_pass_every_authority_above() {
        let authority = Authority::new(KeyAlgorithm::P256);
        let of = |subtree: &str| NameConstraints {
            permitted: vec![Subtree::Dns(subtree.into())],
            excluded: vec![],
        };
        let outer = below(&authority.root, "outer", None, Some(&of("example.org")));
        let inner = below(&outer, "inner", None, Some(&of("example.com")));
        let inner_too = Authority { root: outer, issuer: inner, now: authority.now };
        let leaf = |name: &str| {
            let names = names(&["spiffe://example.org/web", name]);
            inner_too.leaf(&profile("workload"), KeyAlgorithm::P256, &names).certificate
        };
        let check = |leaf: Certificate| {
            check_chain(&[
                leaf,
                inner_too.issuer.certificate.clone(),
                inner_too.root.certificate.clone(),
                authority.root.certificate.clone(),
            ])
        };
        for name in ["dns:a.example.org", "dns:a.example.com"] {
            assert!(matches!(check(leaf(name)), Err(ChainError::NameConstraint { .. })), "{name}");
        }
        check(leaf("ip:10.0.0.1")).unwrap();
    }

    #[test]
    fn a_leaf_is_no_authority() {
        let authority = Authority::new(KeyAlgorithm::P256);
        let server = authority.leaf(&profile("server"), KeyAlgorithm::P256, &names(&["dns:a.example.org"]));
        let child = below(&server, "below a leaf", None, None);
        assert!(matches!(
            check_issued_by(&child.certificate, &server.certificate),
            Err(ChainError::NotAnAuthority { .. })
        ));
    }
}
