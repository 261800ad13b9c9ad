//! Writing certificate requests (PKCS #10): what our own clients send.

use chancery_types::{SignatureAlgorithm, SubjectName};

use crate::general_name::write_subject_name;
use crate::request::{EXTENSION_REQUEST, MAX_NAMES};
use crate::usage::KeyUsages;
use crate::writer::Writer;
use crate::{DistinguishedName, PublicKey, oid, tag};

/// Why no request could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestBuildError<E> {
    /// More names than a request may have.
    #[error("{count} names, a request has at most {limit}; ask for several certificates")]
    TooManyNames {
        /// Names given.
        count: usize,
        /// Names that are read.
        limit: usize,
    },
    /// The key did not sign.
    #[error("the key did not sign the request")]
    Sign(#[source] E),
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestPurpose {
    /// A subject's certificate: usages are left to the authority's profile.
    #[default]
    Subject,
    /// An issuer under somebody's root: asks for cA with path length 0, keyCertSign and cRLSign.
    Issuer,
}

/// What a request shall say.
#[derive(Debug, Clone, Copy)]
pub struct RequestSpec<'a> {
    /// The key to be certified.
    pub public_key: &'a PublicKey,
    /// What the closure signs with; usually `public_key.algorithm().signature_algorithm()`.
    pub signature_algorithm: SignatureAlgorithm,
    /// The subject; may be empty.
    pub subject: &'a DistinguishedName,
    /// The subject alternative names; without any, the authority takes those of the identity.
    pub names: &'a [SubjectName],
    /// Subject or issuer.
    pub purpose: RequestPurpose,
}

impl RequestSpec<'_> {
    /// Writes the request, has `sign` sign the bytes it is given, and returns the DER.
    ///
    /// # Errors
    /// [`RequestBuildError`]: more names than a request may have, or what `sign` said.
    pub fn build<E>(
        &self,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, RequestBuildError<E>> {
        if self.names.len() > MAX_NAMES {
            return Err(RequestBuildError::TooManyNames { count: self.names.len(), limit: MAX_NAMES });
        }
        let mut info = Writer::with_capacity(512);
        info.sequence(|info| {
            info.unsigned(&[0]);
            info.raw(self.subject.der());
            info.raw(self.public_key.spki_der());
            info.nested(tag::context_constructed(0), |attributes| self.write_attributes(attributes));
        });
        let info = info.finish();
        let signature = sign(&info).map_err(RequestBuildError::Sign)?;
        let mut request = Writer::with_capacity(info.len() + signature.len() + 32);
        request.sequence(|request| {
            request.raw(&info);
            request.raw(self.signature_algorithm.algorithm_identifier());
            request.bit_string(&signature);
        });
        Ok(request.finish())
    }

    fn write_attributes(&self, attributes: &mut Writer) {
        if self.names.is_empty() && self.purpose == RequestPurpose::Subject {
            return;
        }
        attributes.sequence(|attribute| {
            attribute.oid(EXTENSION_REQUEST);
            attribute
                .nested(tag::SET, |values| values.sequence(|extensions| self.write_extensions(extensions)));
        });
    }

    fn write_extensions(&self, extensions: &mut Writer) {
        if self.purpose == RequestPurpose::Issuer {
            write_extension(extensions, oid::BASIC_CONSTRAINTS, true, |value| {
                value.sequence(|fields| {
                    fields.boolean(true);
                    fields.unsigned(&[0]);
                });
            });
            write_extension(extensions, oid::KEY_USAGE, true, |value| {
                value.named_bits(KeyUsages::AUTHORITY.bits());
            });
        }
        if !self.names.is_empty() {
            // Critical when there is no other name (RFC 5280 section 4.2.1.6).
            write_extension(extensions, oid::SUBJECT_ALT_NAME, self.subject.is_empty(), |value| {
                value.sequence(|names| self.names.iter().for_each(|name| write_subject_name(names, name)));
            });
        }
    }
}

fn write_extension(extensions: &mut Writer, kind: &[u8], critical: bool, value: impl FnOnce(&mut Writer)) {
    extensions.sequence(|extension| {
        extension.oid(kind);
        if critical {
            extension.boolean(true);
        }
        extension.nested(tag::OCTET_STRING, value);
    });
}

#[cfg(test)]
mod tests;
