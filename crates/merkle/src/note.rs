//! Signed notes (C2SP signed-note 1.0): a text and the signatures of those who stand by it.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;

use crate::key::{NoteSigner, NoteVerifier, SignError, is_key_name};
use crate::text::{base64, excerpt};

/// The largest note that is read; the reference implementation has the same limit.
pub const MAX_NOTE_BYTES: usize = 1_000_000;
/// The most signatures that are read; the specification asks for at least 16.
pub const MAX_NOTE_SIGNATURES: usize = 100;

/// Why a text is not a signed note, or not one to believe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Longer than any note that is read.
    #[error("a signed note has at most {MAX_NOTE_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// A control character other than newline.
    #[error("a signed note has no control characters but newline, byte {offset} is {byte:02x}")]
    Control {
        /// Where.
        offset: usize,
        /// What.
        byte: u8,
    },
    /// There is no blank line before signatures at the end.
    #[error("a signed note is a text, a blank line and signature lines, each ending in a newline")]
    Shape,
    /// A line after the blank line is not a signature.
    #[error("signature line {line} is damaged ({problem}): {text:?}")]
    Signature {
        /// Counted from 1 after the blank line.
        line: usize,
        /// What is wrong with it.
        problem: SignatureProblem,
        /// Its beginning.
        text: String,
    },
    /// More signatures than are read.
    #[error("a signed note has at most {MAX_NOTE_SIGNATURES} signatures")]
    TooManySignatures,
    /// A known key is named, and the signature is not its own. The text or the signature was changed.
    #[error("the signature of {name:?} does not belong to this text; the note was altered or is damaged")]
    Forged {
        /// The known key.
        name: String,
    },
    /// None of the known keys has signed.
    #[error("no known key has signed this note; the signatures are of {signers:?}")]
    Unsigned {
        /// Names in the signature lines.
        signers: Vec<String>,
    },
}

/// What is wrong with a signature line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureProblem {
    /// It does not begin with a dash (U+2014) and a space, or has not two parts after that.
    Form,
    /// The key's name is one that no key can have.
    Name,
    /// Not canonical base64, or fewer than five bytes.
    Encoding,
}

impl fmt::Display for SignatureProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Form => "expected a dash, a name and base64",
            Self::Name => "no key can have this name",
            Self::Encoding => "not base64 of a key id and a signature",
        })
    }
}

/// One signature line: a claim, until a [`NoteVerifier`] has checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    key_id: [u8; 4],
    signature: Vec<u8>,
}

impl NoteSignature {
    /// The name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The short identifier of the key.
    #[must_use]
    pub fn key_id(&self) -> [u8; 4] {
        self.key_id
    }

    /// The signature without the key's identifier.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.signature
    }

    fn is_by(&self, verifier: &NoteVerifier) -> bool {
        self.name == verifier.name() && self.key_id == verifier.key_id()
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.key_id.as_slice(), &self.signature].concat();
        write!(formatter, "{DASH}{} {}", self.name, BASE64.encode(&bytes))
    }
}

/// A signature that was checked, with the place of its key among the verifiers that were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedSignature {
    /// Place in the slice given to [`SignedNote::verify`].
    pub verifier: usize,
    /// For a cosignature, when the witness says it saw the checkpoint, in seconds since 1970.
    pub seconds: Option<u64>,
}

/// A text with signatures, well-formed but not yet believed: see [`Self::verify`].
///
/// Printing gives back the bytes that were parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl SignedNote {
    /// Signs a text, which has to end in a newline, with each of these keys.
    ///
    /// # Errors
    /// [`SignError`] when a key does not sign, or the text cannot be signed: no newline at the end, a control
    /// character, longer than [`MAX_NOTE_BYTES`].
    pub fn sign(text: &str, signers: &[&dyn NoteSigner]) -> Result<Self, SignError> {
        if check_characters(text).is_err() || !text.ends_with('\n') {
            return Err(SignError::Text);
        }
        let signatures = signers.iter().map(|signer| {
            let (signature, key) = (signer.sign(text.as_bytes())?, signer.verifier());
            Ok(NoteSignature { name: key.name().to_owned(), key_id: key.key_id(), signature })
        });
        Ok(Self { signatures: signatures.collect::<Result<_, SignError>>()?, text: text.to_owned() })
    }

    /// The text, with its last newline: of unknown origin until [`Self::verify`] has succeeded.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, unchecked.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a witness's signature lines, as its reply to an added checkpoint has them.
    ///
    /// # Errors
    /// [`NoteError`] when a line is no signature or there are too many; the note is unchanged then.
    pub fn add_signatures(&mut self, lines: &str) -> Result<(), NoteError> {
        let added = parse_signatures(lines)?;
        if self.signatures.len() + added.len() > MAX_NOTE_SIGNATURES {
            return Err(NoteError::TooManySignatures);
        }
        self.signatures.extend(added);
        Ok(())
    }

    /// Checks every signature that claims to be of one of these keys; the others are ignored. Each key counts
    /// once, however often it has signed.
    ///
    /// # Errors
    /// [`NoteError::Forged`] when one of them is not good, [`NoteError::Unsigned`] when there is none.
    pub fn verify(&self, verifiers: &[NoteVerifier]) -> Result<Vec<VerifiedSignature>, NoteError> {
        let mut verified: Vec<VerifiedSignature> = Vec::new();
        for signature in &self.signatures {
            let mut known = false;
            let mut good = false;
            // Two keys may share name and identifier by accident; a signature of either is good.
            for (place, verifier) in verifiers.iter().enumerate().filter(|(_, key)| signature.is_by(key)) {
                known = true;
                if let Some(checked) = verifier.check(&self.text, &signature.signature) {
                    good = true;
                    if verified.iter().all(|earlier| earlier.verifier != place) {
                        verified.push(VerifiedSignature { verifier: place, seconds: checked.seconds });
                    }
                }
            }
            if known && !good {
                return Err(NoteError::Forged { name: signature.name.clone() });
            }
        }
        if verified.is_empty() {
            let signers = self.signatures.iter().take(16).map(|signature| excerpt(&signature.name)).collect();
            return Err(NoteError::Unsigned { signers });
        }
        Ok(verified)
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(formatter, "{signature}"))
    }
}

impl FromStr for SignedNote {
    type Err = NoteError;

    fn from_str(note: &str) -> Result<Self, Self::Err> {
        check_characters(note)?;
        // The text may have blank lines; the last one is the boundary.
        let boundary = note.rfind("\n\n").ok_or(NoteError::Shape)?;
        let (text, signatures) = (&note[..=boundary], &note[boundary + 2..]);
        Ok(Self { text: text.to_owned(), signatures: parse_signatures(signatures)? })
    }
}

fn check_characters(note: &str) -> Result<(), NoteError> {
    if note.len() > MAX_NOTE_BYTES {
        return Err(NoteError::TooLong(note.len()));
    }
    let control = note.bytes().position(|byte| byte < 0x20 && byte != b'\n');
    control.map_or(Ok(()), |offset| Err(NoteError::Control { offset, byte: note.as_bytes()[offset] }))
}

fn parse_signatures(lines: &str) -> Result<Vec<NoteSignature>, NoteError> {
    let lines = lines.strip_suffix('\n').ok_or(NoteError::Shape)?;
    let mut signatures = Vec::new();
    for (at, line) in lines.split('\n').enumerate() {
        if at == MAX_NOTE_SIGNATURES {
            return Err(NoteError::TooManySignatures);
        }
        let signature = parse_signature(line).map_err(|problem| NoteError::Signature {
            line: at + 1,
            problem,
            text: excerpt(line),
        })?;
        signatures.push(signature);
    }
    Ok(signatures)
}

fn parse_signature(line: &str) -> Result<NoteSignature, SignatureProblem> {
    let rest = line.strip_prefix(DASH).ok_or(SignatureProblem::Form)?;
    let (name, encoded) = rest.split_once(' ').ok_or(SignatureProblem::Form)?;
    if !is_key_name(name) {
        return Err(SignatureProblem::Name);
    }
    let bytes = base64(encoded).ok_or(SignatureProblem::Encoding)?;
    let (key_id, signature) = bytes.split_first_chunk::<4>().ok_or(SignatureProblem::Encoding)?;
    if signature.is_empty() {
        return Err(SignatureProblem::Encoding);
    }
    Ok(NoteSignature { name: name.to_owned(), key_id: *key_id, signature: signature.to_vec() })
}

/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";
