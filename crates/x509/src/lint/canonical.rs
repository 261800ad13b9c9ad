//! DER is the one encoding of a value: written again from what was read, the bytes must be the same.
//!
//! The reader lets a few things pass that DER forbids, because a lint says more about them than a refusal:
//! DEFAULT values written out, trailing zero bits in named-bit lists, a SET OF out of order. They show here.

use super::examined::Examined;
use crate::extension::{self, AuthorityKeyId, Extension, ExtensionKind};
use crate::reader::Reader;
use crate::writer::Writer;
use crate::{TbsView, calendar, tag};

pub(super) fn reencodes_to_the_same_bytes(examined: &Examined<'_>) -> Option<String> {
    let tbs = &examined.tbs;
    if tbs.has_unique_ids() {
        // Another lint refuses these; they are not kept apart to be written again.
        return None;
    }
    let rewritten = rewrite(tbs);
    if rewritten != tbs.der() {
        let differs = rewritten.iter().zip(tbs.der()).position(|(ours, theirs)| ours != theirs);
        return Some(format!(
            "first difference at byte {}",
            differs.unwrap_or(rewritten.len().min(tbs.der().len()))
        ));
    }
    [tbs.issuer_der(), tbs.subject_der()]
        .into_iter()
        .any(|name| !has_sorted_sets(name))
        .then(|| "a relative distinguished name is out of order".to_owned())
}

fn rewrite(tbs: &TbsView<'_>) -> Vec<u8> {
    let mut writer = Writer::with_capacity(tbs.der().len() + 16);
    writer.sequence(|fields| {
        if tbs.version() > 1 {
            fields.nested(tag::context_constructed(0), |version| version.unsigned(&[tbs.version() - 1]));
        }
        fields.value(tag::INTEGER, tbs.serial());
        fields.raw(tbs.signature_algorithm_der());
        fields.raw(tbs.issuer_der());
        fields.sequence(|validity| {
            for (moment, form) in tbs.time_forms() {
                let digits = calendar::digits(moment);
                match form {
                    calendar::TimeForm::UtcTime => validity.value(tag::UTC_TIME, &digits[2..]),
                    calendar::TimeForm::GeneralizedTime => validity.value(tag::GENERALIZED_TIME, &digits),
                }
            }
        });
        fields.raw(tbs.subject_der());
        fields.raw(tbs.spki_der());
        let mut extensions = tbs.extensions().peekable();
        if extensions.peek().is_some() {
            fields.nested(tag::context_constructed(3), |explicit| {
                explicit.sequence(|list| {
                    extensions.for_each(|extension| rewrite_extension(list, &extension, tbs))
                });
            });
        }
    });
    writer.finish()
}

fn rewrite_extension(list: &mut Writer, extension: &Extension<'_>, tbs: &TbsView<'_>) {
    let kind = extension.kind().filter(|kind| tbs.extension(*kind).as_ref() == Some(extension));
    extension::write(list, extension.oid, extension.critical, |value| match kind {
        Some(ExtensionKind::KeyUsage) => {
            value.named_bits(tbs.key_usages().unwrap_or_default().bits());
        }
        Some(ExtensionKind::BasicConstraints) => tbs.basic_constraints().unwrap_or_default().write(value),
        Some(ExtensionKind::AuthorityKeyId) => match tbs.authority_key_identifier() {
            Some(AuthorityKeyId { key_id: Some(key_id), names_certificate: false }) => {
                AuthorityKeyId::write(value, key_id);
            }
            _ => value.raw(extension.value),
        },
        // The syntax of these was checked value by value and leaves no choice.
        _ => value.raw(extension.value),
    });
}

/// X.690 11.6: the elements of a SET OF stand in ascending order of their encodings.
fn has_sorted_sets(name: &[u8]) -> bool {
    let Ok(name) = Reader::single(name, tag::SEQUENCE) else { return false };
    let mut sets = name.reader();
    while let Ok(set) = sets.expect(tag::SET) {
        let mut attributes = set.reader();
        let mut previous: &[u8] = &[];
        while let Ok(attribute) = attributes.value() {
            if attribute.whole < previous {
                return false;
            }
            previous = attribute.whole;
        }
    }
    true
}
