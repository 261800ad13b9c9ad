//! Key objects in a token: finding one, reading its public half, making one.

use std::fmt;

use chancery_types::{KeyAlgorithm, Random, SystemRandom};
use chancery_x509::PublicKey;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use der::asn1::UintRef;
use der::{Encode, Sequence};

use super::error::TokenError;
use crate::material::KeyKind;
use crate::software::spki_der;
use crate::uri::Pkcs11Uri;

/// A key by its label, its identifier, or both.
#[derive(Debug, Clone)]
pub(super) struct KeySelector {
    label: Option<String>,
    id: Option<Vec<u8>>,
}

impl KeySelector {
    pub(super) fn for_existing_key(uri: &Pkcs11Uri) -> Result<Self, TokenError> {
        if uri.object.is_none() && uri.id.is_none() {
            return Err(TokenError::NoKeyName { new: false });
        }
        Ok(Self { label: uri.object.clone(), id: uri.id.clone() })
    }

    pub(super) fn for_new_key(uri: &Pkcs11Uri) -> Result<Self, TokenError> {
        if uri.object.is_none() {
            return Err(TokenError::NoKeyName { new: true });
        }
        Self::for_existing_key(uri)
    }

    fn attributes(&self, class: ObjectClass) -> Vec<Attribute> {
        let label = self.label.as_ref().map(|label| Attribute::Label(label.clone().into_bytes()));
        let id = self.id.as_ref().map(|id| Attribute::Id(id.clone()));
        [Some(Attribute::Class(class)), label, id].into_iter().flatten().collect()
    }

    fn unsuitable(&self, reason: impl Into<String>) -> TokenError {
        TokenError::UnsuitableKey { key: self.to_string(), reason: reason.into() }
    }
}

impl fmt::Display for KeySelector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = Pkcs11Uri { object: self.label.clone(), id: self.id.clone(), ..Pkcs11Uri::default() };
        formatter.write_str(uri.to_string().trim_start_matches("pkcs11:"))
    }
}

/// A pair that was just made.
#[derive(Debug)]
pub(super) struct Pair {
    public: ObjectHandle,
    private: ObjectHandle,
}

impl Pair {
    /// Removes both halves, as far as the token lets us.
    pub(super) fn destroy(self, session: &Session) {
        for handle in [self.private, self.public] {
            // What cannot be removed is still refused by its attributes whenever it is opened.
            let _ = session.destroy_object(handle);
        }
    }
}

/// The one private key that is meant, judged, with its public half.
pub(super) fn find(
    session: &Session,
    selector: &KeySelector,
) -> Result<(ObjectHandle, PublicKey), TokenError> {
    let handles = search(session, &selector.attributes(ObjectClass::PRIVATE_KEY))?;
    let [handle] = handles.as_slice() else {
        return Err(match handles.len() {
            0 => TokenError::KeyNotFound { key: selector.to_string(), present: labels(session)? },
            count => TokenError::KeyAmbiguous { key: selector.to_string(), count },
        });
    };
    check_private(session, selector, *handle)?;
    Ok((*handle, public_key(session, selector, *handle)?))
}

/// Whether either half of such a key is there.
pub(super) fn exists(session: &Session, selector: &KeySelector) -> Result<bool, TokenError> {
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
        if !search(session, &selector.attributes(class))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes a pair that signs and does nothing else, and whose private half stays in the token.
pub(super) fn generate(
    session: &Session,
    selector: &KeySelector,
    algorithm: KeyAlgorithm,
) -> Result<Pair, TokenError> {
    // By label and identifier each: either alone must go on naming one key.
    let by_label = KeySelector { label: selector.label.clone(), id: None };
    let by_id = KeySelector { label: None, id: selector.id.clone() };
    if exists(session, &by_label)? || (by_id.id.is_some() && exists(session, &by_id)?) {
        return Err(TokenError::KeyExists { key: selector.to_string() });
    }
    let id = match &selector.id {
        Some(id) => id.clone(),
        None => random_id(selector)?,
    };
    let label = selector.label.clone().unwrap_or_default().into_bytes();
    let mut public = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Label(label.clone()),
        Attribute::Id(id.clone()),
    ];
    let mut private = vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(label),
        Attribute::Id(id),
    ];
    let mechanism = match algorithm {
        KeyAlgorithm::P256 | KeyAlgorithm::P384 | KeyAlgorithm::Ed25519 => {
            let parameters = match algorithm {
                KeyAlgorithm::P256 => P256_PARAMETERS,
                KeyAlgorithm::P384 => P384_PARAMETERS,
                _ => ED25519_PARAMETERS,
            };
            public.push(Attribute::EcParams(parameters.to_vec()));
            private.push(Attribute::Derive(false));
            match algorithm {
                KeyAlgorithm::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
                _ => Mechanism::EccKeyPairGen,
            }
        }
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            let bits: u32 = match algorithm {
                KeyAlgorithm::Rsa2048 => 2048,
                KeyAlgorithm::Rsa3072 => 3072,
                _ => 4096,
            };
            public.push(Attribute::ModulusBits(u64::from(bits).into()));
            public.push(Attribute::PublicExponent(vec![1, 0, 1]));
            public.extend([Attribute::Encrypt(false), Attribute::Wrap(false)]);
            private.extend([Attribute::Decrypt(false), Attribute::Unwrap(false)]);
            Mechanism::RsaPkcsKeyPairGen
        }
    };
    let (public, private) = session
        .generate_key_pair(&mechanism, &public, &private)
        .map_err(TokenError::failed("make a key pair"))?;
    Ok(Pair { public, private })
}

/// A key that leaves the token in plain text, does not sign, or asks for its PIN at every signature is refused.
fn check_private(session: &Session, selector: &KeySelector, key: ObjectHandle) -> Result<(), TokenError> {
    let attributes = read(
        session,
        key,
        &[
            AttributeType::Sensitive,
            AttributeType::Extractable,
            AttributeType::Sign,
            AttributeType::AlwaysAuthenticate,
        ],
    )?;
    let is = |wanted: &Attribute| attributes.contains(wanted);
    if !is(&Attribute::Sensitive(true)) {
        return Err(selector.unsuitable(
            "the token would give it out in plain text (CKA_SENSITIVE is not true); make one inside the token",
        ));
    }
    if !is(&Attribute::Extractable(false)) {
        return Err(selector.unsuitable(
            "it can be wrapped and taken out (CKA_EXTRACTABLE is not false); set that to false, or make one inside the token",
        ));
    }
    if is(&Attribute::Sign(false)) {
        return Err(selector.unsuitable("it may not sign (CKA_SIGN is false)"));
    }
    if is(&Attribute::AlwaysAuthenticate(true)) {
        return Err(selector.unsuitable(
            "it wants the PIN for every signature (CKA_ALWAYS_AUTHENTICATE), which a service cannot give; make one \
             without that attribute",
        ));
    }
    Ok(())
}

/// From the public key object with the private key's identifier (or label, if it has none); failing that, from
/// what the private key object says itself.
fn public_key(
    session: &Session,
    selector: &KeySelector,
    private: ObjectHandle,
) -> Result<PublicKey, TokenError> {
    let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY)];
    let mut key_type = None;
    let mut names = Vec::new();
    for attribute in
        read(session, private, &[AttributeType::KeyType, AttributeType::Id, AttributeType::Label])?
    {
        match attribute {
            Attribute::KeyType(found) => key_type = Some(found),
            Attribute::Id(ref id) if !id.is_empty() => names.insert(0, attribute),
            Attribute::Label(ref label) if !label.is_empty() => names.push(attribute),
            _ => {}
        }
    }
    let key_type = key_type.ok_or_else(|| selector.unsuitable("it has no CKA_KEY_TYPE"))?;
    template.push(Attribute::KeyType(key_type));
    template.extend(names.into_iter().next());
    let mut candidates = search(session, &template)?;
    candidates.push(private);
    for candidate in candidates {
        if let Some(spki) = read_spki(session, candidate, key_type)? {
            return PublicKey::from_spki_der(&spki).map_err(|error| selector.unsuitable(error.to_string()));
        }
    }
    if [KeyType::EC, KeyType::EC_EDWARDS, KeyType::RSA].contains(&key_type) {
        Err(TokenError::NoPublicKey { key: selector.to_string() })
    } else {
        Err(selector.unsuitable(format!("a key of type {key_type} does not make our signatures")))
    }
}

/// The `SubjectPublicKeyInfo` that this object's attributes amount to.
fn read_spki(
    session: &Session,
    object: ObjectHandle,
    key_type: KeyType,
) -> Result<Option<Vec<u8>>, TokenError> {
    let mut parameters = None;
    let mut point = None;
    let mut modulus = None;
    let mut exponent = None;
    let wanted: &[AttributeType] = if key_type == KeyType::RSA {
        &[AttributeType::Modulus, AttributeType::PublicExponent]
    } else {
        &[AttributeType::EcParams, AttributeType::EcPoint]
    };
    for attribute in read(session, object, wanted)? {
        match attribute {
            Attribute::EcParams(value) => parameters = Some(value),
            Attribute::EcPoint(value) => point = Some(value),
            Attribute::Modulus(value) => modulus = Some(value),
            Attribute::PublicExponent(value) => exponent = Some(value),
            _ => {}
        }
    }
    Ok(match (modulus, exponent, parameters, point) {
        (Some(modulus), Some(exponent), _, _) => rsa_spki(&modulus, &exponent),
        (_, _, Some(parameters), Some(point)) => curve_spki(&parameters, &point),
        _ => None,
    })
}

fn curve_spki(parameters: &[u8], point: &[u8]) -> Option<Vec<u8>> {
    let (kind, length) = match parameters {
        P256_PARAMETERS => (KeyKind::P256, 65),
        P384_PARAMETERS => (KeyKind::P384, 97),
        ED25519_PARAMETERS | ED25519_NAME => (KeyKind::Ed25519, 32),
        _ => return None,
    };
    // The standard wants the point inside a DER OCTET STRING; some tokens give it bare.
    let point = match point {
        [0x04, inner, rest @ ..] if usize::from(*inner) == length && rest.len() == length => rest,
        bare if bare.len() == length => bare,
        _ => return None,
    };
    Some(spki_der(kind, point))
}

fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let key =
        RsaPublicKey { modulus: UintRef::new(modulus).ok()?, public_exponent: UintRef::new(exponent).ok()? };
    (modulus.len() <= MAX_MODULUS && exponent.len() <= MAX_MODULUS)
        .then(|| key.to_der().ok())
        .flatten()
        .map(|der| spki_der(KeyKind::Rsa, &der))
}

/// RFC 8017 appendix A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

fn labels(session: &Session) -> Result<Vec<String>, TokenError> {
    let mut labels = Vec::new();
    for handle in search(session, &[Attribute::Class(ObjectClass::PRIVATE_KEY)])?.into_iter().take(MAX_LISTED)
    {
        for attribute in read(session, handle, &[AttributeType::Label])? {
            if let Attribute::Label(label) = attribute {
                labels.push(format!("{:?}", String::from_utf8_lossy(&label)));
            }
        }
    }
    Ok(labels)
}

fn search(session: &Session, template: &[Attribute]) -> Result<Vec<ObjectHandle>, TokenError> {
    session.find_objects(template).map_err(TokenError::failed("look for a key"))
}

fn read(
    session: &Session,
    object: ObjectHandle,
    attributes: &[AttributeType],
) -> Result<Vec<Attribute>, TokenError> {
    session.get_attributes(object, attributes).map_err(TokenError::failed("describe a key"))
}

fn random_id(selector: &KeySelector) -> Result<Vec<u8>, TokenError> {
    let mut id = vec![0; 20];
    SystemRandom.fill(&mut id).map_err(|error| selector.unsuitable(error.to_string()))?;
    Ok(id)
}

/// DER of the curve's OID: `CKA_EC_PARAMS` (PKCS#11 v3.1 section 6.3.3).
const P256_PARAMETERS: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384_PARAMETERS: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 34];
const ED25519_PARAMETERS: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];
/// PrintableString "edwards25519", the other form that the standard allows for it.
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

const MAX_MODULUS: usize = 1024;
const MAX_LISTED: usize = 20;
