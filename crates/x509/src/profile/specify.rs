//! From a profile and the particulars of one certificate to what that certificate says.

use chancery_types::{SignatureAlgorithm, SubjectName};

use super::{Profile, SubjectForm};
use crate::spec::{CertificateSpec, Validity};
use crate::{Certificate, DistinguishedName, PublicKey};

/// Where the status of an issuer's certificates is published.
#[derive(Debug, Clone, Copy, Default)]
pub struct StatusUrls<'a> {
    /// Its CRL.
    pub crl: Option<&'a str>,
    /// Its OCSP responder.
    pub ocsp: Option<&'a str>,
    /// Its own certificate.
    pub ca_issuers: Option<&'a str>,
}

/// The particulars of one certificate.
#[derive(Debug, Clone, Copy)]
pub struct Issuance<'a> {
    /// The serial number, big-endian and positive.
    pub serial: &'a [u8],
    /// Who will sign.
    pub issuer: &'a Certificate,
    /// With what its key signs.
    pub signature_algorithm: SignatureAlgorithm,
    /// From when to when; [`Profile::validity`] computes it.
    pub validity: Validity,
    /// The subject's key.
    pub public_key: &'a PublicKey,
    /// Its names, in the order in which they will stand.
    pub names: &'a [SubjectName],
    /// The subject, for profiles whose subject is [`SubjectForm::Given`]; not looked at otherwise.
    pub subject: Option<&'a DistinguishedName>,
    /// Where the status will be.
    pub urls: StatusUrls<'a>,
}

/// Why a profile cannot be applied: always a mistake of the configuration or of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecifyError {
    /// The profile asks for an extension whose URL is not configured.
    #[error(
        "profile {profile} has {field} = true, but the authority has no such URL; configure it or set it to false"
    )]
    NoUrl {
        /// The profile.
        profile: String,
        /// Its field.
        field: &'static str,
    },
    /// The profile wants a subject and none was given.
    #[error("profile {profile} has subject = \"given\" and no subject was given")]
    NoSubject {
        /// The profile.
        profile: String,
    },
    /// The issuer's certificate has no subjectKeyIdentifier to refer to.
    #[error(
        "the issuer's certificate has no subjectKeyIdentifier (RFC 5280 section 4.2.1.2); use another issuer"
    )]
    IssuerWithoutKeyId,
}

impl Profile {
    /// What a certificate of this profile says. Whether the names, the key and the validity are allowed is not
    /// judged here: policy judges before, the lints after.
    ///
    /// # Errors
    /// [`SpecifyError`] when the profile asks for something that is not there.
    pub fn specify<'a>(&'a self, issuance: &Issuance<'a>) -> Result<CertificateSpec<'a>, SpecifyError> {
        let url = |wanted: bool, field: &'static str, url: Option<&'a str>| match (wanted, url) {
            (false, _) => Ok(None),
            (true, Some(url)) => Ok(Some(url)),
            (true, None) => Err(SpecifyError::NoUrl { profile: self.name.clone(), field }),
        };
        let authority_key_id =
            issuance.issuer.tbs().subject_key_id().ok_or(SpecifyError::IssuerWithoutKeyId)?;
        let status = &self.status;
        Ok(CertificateSpec {
            serial: issuance.serial,
            signature_algorithm: issuance.signature_algorithm,
            issuer: issuance.issuer.tbs().subject_der(),
            validity: issuance.validity,
            subject: self.subject_for(issuance)?,
            public_key: issuance.public_key,
            authority_key_id: Some(authority_key_id),
            names: issuance.names,
            key_usages: self.key_usages,
            extended_key_usages: &self.extended_key_usages,
            authority: self.authority.as_ref().map(|rules| rules.basic_constraints),
            name_constraints: self.authority.as_ref().map(|rules| &rules.name_constraints),
            crl_url: url(status.crl_distribution_point, "status.crl_distribution_point", issuance.urls.crl)?,
            ocsp_url: url(status.ocsp, "status.ocsp", issuance.urls.ocsp)?,
            ca_issuers_url: url(status.ca_issuers, "status.ca_issuers", issuance.urls.ca_issuers)?,
            no_rev_avail: status.no_rev_avail,
            ocsp_nocheck: status.ocsp_nocheck,
        })
    }

    fn subject_for(&self, issuance: &Issuance<'_>) -> Result<DistinguishedName, SpecifyError> {
        match self.subject {
            SubjectForm::Empty => Ok(DistinguishedName::empty()),
            SubjectForm::CommonName => Ok(common_name_among(issuance.names)),
            SubjectForm::Given => issuance
                .subject
                .cloned()
                .ok_or_else(|| SpecifyError::NoSubject { profile: self.name.clone() }),
        }
    }
}

/// The first name that fits into a common name: DNS names first, because that is what old programs look for.
fn common_name_among(names: &[SubjectName]) -> DistinguishedName {
    let is_dns = |name: &&SubjectName| matches!(name, SubjectName::Dns(_));
    let others = names.iter().filter(|name| !is_dns(name));
    names
        .iter()
        .filter(is_dns)
        .chain(others)
        .find_map(|name| DistinguishedName::common_name(&bare_text(name)).ok())
        .unwrap_or_else(DistinguishedName::empty)
}

/// A name without the prefix that tells its form.
pub(crate) fn bare_text(name: &SubjectName) -> String {
    match name {
        SubjectName::Uri(uri) => uri.to_string(),
        SubjectName::Dns(dns) => dns.to_string(),
        SubjectName::Ip(address) => address.to_string(),
        SubjectName::Email(email) => email.to_string(),
    }
}
