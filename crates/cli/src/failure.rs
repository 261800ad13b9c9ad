//! What went wrong, for a person: one line with the cause and what to do; and for a script: an exit code.

use std::fmt;
use std::io::{self, ErrorKind};
use std::process::ExitCode;

use anyhow::Error;
use chancery_api::ProblemCode;
use chancery_client::ClientError;

/// The command was misused: what stands in the line contradicts itself or is incomplete.
pub(crate) const USAGE: u8 = 2;
/// The authority understood, and refuses.
const REFUSED: u8 = 3;
/// What was to be verified is not what it claims to be.
const VERIFICATION: u8 = 4;

/// A misuse that the parser cannot see.
pub(crate) fn usage(message: impl fmt::Display) -> Error {
    Error::new(Marked { code: USAGE, message: message.to_string() })
}

/// The authority does not do it, or not yet.
pub(crate) fn refused(message: impl fmt::Display) -> Error {
    Error::new(Marked { code: REFUSED, message: message.to_string() })
}

/// Something verified is not what it claims to be.
pub(crate) fn verification(message: impl fmt::Display) -> Error {
    Error::new(Marked { code: VERIFICATION, message: message.to_string() })
}

/// A message that carries its exit code.
#[derive(Debug)]
struct Marked {
    code: u8,
    message: String,
}

impl fmt::Display for Marked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Marked {}

/// The exit code of a failure.
pub(crate) fn exit_code(error: &Error) -> ExitCode {
    code(error).into()
}

/// Whether the reader of our output went away, which is its right: `chancery certificate list | head`.
pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}

/// One line, and under `-v` one more for each cause.
pub(crate) fn render(error: &Error, verbose: bool, colours: bool) -> String {
    let label = if colours { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    let mut text = format!("{label} {}\n", summary(error));
    if verbose {
        for cause in error.chain().skip(1) {
            text.push_str(&format!("  caused by: {cause}\n"));
        }
    }
    text
}

fn code(error: &Error) -> u8 {
    error
        .chain()
        .find_map(|cause| {
            if let Some(marked) = cause.downcast_ref::<Marked>() {
                return Some(marked.code);
            }
            let problem = cause.downcast_ref::<ClientError>()?.code()?;
            is_refusal(problem).then_some(REFUSED)
        })
        .unwrap_or(1)
}

/// Whether the authority decided against it: repeating the same request will not help.
fn is_refusal(code: ProblemCode) -> bool {
    matches!(
        code,
        ProblemCode::AmbiguousIdentity
            | ProblemCode::ApprovalNeeded
            | ProblemCode::CertificateNotAccepted
            | ProblemCode::CertificateRequired
            | ProblemCode::CertificateRevoked
            | ProblemCode::EvidenceExpired
            | ProblemCode::EvidenceRefused
            | ProblemCode::ExtensionRefused
            | ProblemCode::IdentityHeld
            | ProblemCode::IdentityRetired
            | ProblemCode::KeyProofRefused
            | ProblemCode::KeyRefused
            | ProblemCode::LineageForked
            | ProblemCode::NoMatchingIdentity
            | ProblemCode::NotPermitted
            | ProblemCode::OutsideProfile
            | ProblemCode::PolicyDenied
            | ProblemCode::RootRefused
            | ProblemCode::SameOperator
            | ProblemCode::ScopeGrown
            | ProblemCode::TokenSpent
    )
}

/// Every cause once: messages that already tell their cause are not followed by it.
fn summary(error: &Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use chancery_api::Problem;

    use super::*;

    fn refused(code: ProblemCode) -> Error {
        Error::new(ClientError::Problem(Box::new(Problem::new(code, "no"))))
    }

    #[test]
    fn exit_codes_tell_misuse_refusal_and_failed_verification_apart() {
        assert_eq!(code(&usage("x")), 2);
        assert_eq!(code(&refused(ProblemCode::PolicyDenied)), 3);
        assert_eq!(code(&refused(ProblemCode::CertificateRevoked).context("cannot renew")), 3);
        assert_eq!(code(&verification("x").context("y")), 4);
        assert_eq!(code(&refused(ProblemCode::Overloaded)), 1);
        assert_eq!(code(&Error::msg("x")), 1);
    }

    #[test]
    fn a_reader_that_went_away_is_not_a_failure() {
        let gone = Error::new(io::Error::from(ErrorKind::BrokenPipe)).context("cannot print");
        assert!(is_broken_pipe(&gone));
        assert!(!is_broken_pipe(&Error::new(io::Error::from(ErrorKind::NotFound))));
    }

    #[test]
    fn one_line_has_every_cause_once_and_verbose_lists_them() {
        let error =
            Err::<(), _>(io::Error::from(ErrorKind::NotFound)).context("cannot read a.pem").unwrap_err();
        let line = render(&error, false, false);
        assert_eq!(line, "error: cannot read a.pem: entity not found\n");
        let repeated = error.context("outer: cannot read a.pem");
        assert_eq!(summary(&repeated), "outer: cannot read a.pem: entity not found");
        assert_eq!(render(&repeated, true, false).lines().count(), 3);
        assert!(render(&repeated, false, true).starts_with("\u{1b}[1;31m"));
    }
}
