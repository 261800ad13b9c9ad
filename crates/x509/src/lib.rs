//! X.509 in and out as exact DER.
//!
//! Incoming: [`PublicKey`] (parsed and judged), [`CertificateRequest`] (PKCS #10) and the proof that its sender
//! holds the private key ([`ProvenRequest`]), [`verify_signature`]. Outgoing: profiles, certificates,
//! revocation lists and OCSP answers as the exact bytes that are signed, and the lints that judge those bytes.
//!
//! This crate decides nothing about who may have what and holds no CA key: it reports what was asked for and
//! writes what it is told. It is called by every crate that touches a certificate. Everything it reads may come
//! from a stranger: sizes are limited, DER is read strictly, nothing panics. For signatures it trusts ring,
//! and for those of a key that it verifies over and over ([`FrequentKey`]) the p256 crate.

#[cfg(test)]
extern crate self as chancery_x509;

mod calendar;
mod certificate;
mod chain;
mod client_key;
pub mod crl;
mod distinguished_name;
mod extension;
mod frequent_key;
mod general_name;
pub mod lint;
mod name_constraints;
mod name_hash;
pub mod ocsp;
mod oid;
mod pem;
mod profile;
mod proven;
mod public_key;
mod reader;
mod request;
mod request_builder;
mod signature;
mod spec;
mod spki;
mod succession;
mod tag;
mod tbs;
mod usage;
mod weak_keys;
mod writer;

#[cfg(test)]
#[path = "../tests/authority/mod.rs"]
mod authority;

pub use calendar::TimeForm;
pub use certificate::{Certificate, split_certificates};
pub use chain::{ChainError, check_chain, check_issued_by, check_self_signed};
pub use client_key::{SubjectKey, SubjectKeyError};
pub use distinguished_name::{DistinguishedName, DistinguishedNameError};
pub use extension::{BasicConstraints, Extension, ExtensionKind};
pub use frequent_key::FrequentKey;
pub use general_name::GeneralName;
pub use name_constraints::{IpNetwork, NameConstraints, NameConstraintsView, NetworkError, Subtree};
pub use name_hash::openssl_name_hash;
pub use pem::{
    CERTIFICATE, CERTIFICATE_REQUEST, MAX_PEM, PRIVATE_KEY, PUBLIC_KEY, PemBlock, PemError,
    read_certificates, read_pem, read_pem_one, write_pem, write_secret_pem,
};
pub use profile::{
    AuthorityRules, Issuance, Lifetime, NameForm, NameRefusal, NameRules, Problem, Profile, ProfileError,
    Profiles, ProfilesError, Purpose, SpecifyError, StatusChoice, StatusUrls, SubjectForm, UnknownPurpose,
    UriKind,
};
pub use proven::{Possession, ProvenRequest};
pub use public_key::{PublicKey, PublicKeyError};
pub use reader::DerError;
pub use request::{
    CertificateRequest, Ignored, MAX_REQUEST, RequestError, RequestedConstraints, RequestedExtension,
    RequestedSubject,
};
pub use request_builder::{RequestBuildError, RequestPurpose, RequestSpec};
pub use signature::{SignatureError, VerificationAlgorithm, verify_signature};
pub use spec::{CertificateSpec, Validity, assemble};
pub use succession::{SuccessionError, VouchedRoot};
pub use tbs::{CertificateError, MAX_CERTIFICATE, MAX_EXTENSIONS, TbsView};
pub use usage::{ExtendedKeyUsage, KeyUsage, KeyUsages, UnknownExtendedKeyUsage, UnknownKeyUsage};
pub use weak_keys::{KnownWeakKey, WeakKeyList, WeakKeyListError};
