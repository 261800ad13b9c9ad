//! Join tokens: each exists, is spent at most once, and buys exactly the certificate that it is bound to.

use std::collections::HashMap;

use chancery_entry::{Issuance, TokenBinding, TokenCreation, TokenSpend};
use chancery_types::{Digest, SerialNumber, Timestamp, TokenId};

use super::finding::{Check, Finding, Findings};
use super::history::{IdentityTag, tag};

/// What the entries so far say about tokens.
#[derive(Default)]
pub(super) struct Tokens {
    tokens: HashMap<TokenId, Token>,
    halves: HashMap<SerialNumber, Purchase>,
}

struct Token {
    state: TokenState,
    expires: Timestamp,
    identity: Option<IdentityTag>,
    key: Option<Digest>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenState {
    Open,
    Spent,
    Withdrawn,
}

/// One half of a purchase, waiting for the other: the spent token and the certificate that it bought.
enum Purchase {
    Spend { index: u64, token: TokenId },
    Certificate { index: u64, key: Digest, identity: IdentityTag },
}

impl Tokens {
    /// A token is withdrawn before use.
    pub(super) fn withdraw(&mut self, id: TokenId, report: &mut impl FnMut(Finding)) {
        match self.tokens.get_mut(&id) {
            Some(token) if token.state == TokenState::Open => token.state = TokenState::Withdrawn,
            _ => report(Finding::new(Check::TokenSpend, format!("token {id} is withdrawn and was not open"))),
        }
    }

    /// A certificate is promised for a token.
    pub(super) fn buy(&mut self, index: u64, issuance: &Issuance, report: &mut impl FnMut(Finding)) {
        let identity = tag(&issuance.identity);
        self.join(issuance.serial, Purchase::Certificate { index, key: issuance.key, identity }, report);
    }

    /// A token exists from here on.
    pub(super) fn create(&mut self, creation: &TokenCreation, report: &mut impl FnMut(Finding)) {
        let identity = match &creation.binding {
            TokenBinding::Identity(identity) => Some(tag(identity)),
            TokenBinding::Template { .. } => None,
        };
        let token = Token { state: TokenState::Open, expires: creation.expires, identity, key: creation.key };
        if self.tokens.insert(creation.token, token).is_some() {
            let detail = format!("token {} is created a second time", creation.token);
            report(Finding::new(Check::TokenSpend, detail));
        }
    }

    /// A token is spent.
    pub(super) fn spend(
        &mut self,
        index: u64,
        time: Timestamp,
        spend: &TokenSpend,
        report: &mut impl FnMut(Finding),
    ) {
        let id = spend.token;
        let problem = match self.tokens.get_mut(&id) {
            None => Some("was never created".to_owned()),
            Some(token) => {
                let before = std::mem::replace(&mut token.state, TokenState::Spent);
                match before {
                    TokenState::Spent => Some("was spent before".to_owned()),
                    TokenState::Withdrawn => Some("was withdrawn".to_owned()),
                    TokenState::Open if token.expires <= time => {
                        Some(format!("had ended at {}", token.expires))
                    }
                    TokenState::Open => None,
                }
            }
        };
        if let Some(problem) = problem {
            let detail = format!("token {id} is spent and {problem}");
            report(Finding::new(Check::TokenSpend, detail).of(spend.serial));
        }
        let half = Purchase::Spend { index, token: id };
        self.join(spend.serial, half, &mut |finding| report(finding.of(spend.serial)));
    }

    /// Joins the two halves of a purchase, in whichever order they come.
    fn join(&mut self, serial: SerialNumber, half: Purchase, report: &mut impl FnMut(Finding)) {
        let Some(other) = self.halves.remove(&serial) else {
            self.halves.insert(serial, half);
            return;
        };
        let mut wrong = |detail: String| report(Finding::new(Check::TokenBinding, detail));
        let (token, key, identity) = match (&other, &half) {
            (Purchase::Spend { token, .. }, Purchase::Certificate { key, identity, .. })
            | (Purchase::Certificate { key, identity, .. }, Purchase::Spend { token, .. }) => {
                (token, key, identity)
            }
            (Purchase::Spend { .. }, Purchase::Spend { .. }) => {
                wrong("two tokens were spent for this certificate".to_owned());
                return;
            }
            // The same serial twice: found as such at the end.
            (Purchase::Certificate { .. }, Purchase::Certificate { .. }) => return,
        };
        let Some(record) = self.tokens.get(token) else { return };
        if record.key.is_some_and(|bound| bound != *key) {
            wrong(format!("token {token} is bound to another key"));
        }
        if record.identity.is_some_and(|bound| bound != *identity) {
            wrong(format!("token {token} is bound to another identity"));
        }
    }

    /// At the end: halves whose other half never came.
    pub(super) fn report_lone_halves(&mut self, findings: &mut Findings) {
        for (serial, half) in self.halves.drain() {
            let (index, detail) = match half {
                Purchase::Spend { index, token } => {
                    (index, format!("token {token} was spent for a certificate that was not issued with it"))
                }
                Purchase::Certificate { index, .. } => {
                    (index, "issued for a join token, and none was spent for it".to_owned())
                }
            };
            findings.push(Finding::new(Check::TokenBinding, detail).at(index).of(serial));
        }
    }
}
