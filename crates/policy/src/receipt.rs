//! The receipt of a decision: what went in, under which policies, and what came out.

use chancery_types::Digest;
use serde::{Deserialize, Serialize};

use crate::inputs::IssueInputs;
use crate::{Engine, Grant, Outcome, Refusal};

/// The version of the receipt's form.
const VERSION: u8 = 1;

/// Bytes of a usual receipt as JSON.
const USUAL_LENGTH: usize = 2048;

/// What the ledger keeps of a decision, as JSON. Holds no secrets. Enough to explain it and to make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionReceipt {
    /// The version of this form.
    pub version: u8,
    /// What was decided.
    pub outcome: Outcome,
    /// What was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Grant>,
    /// Why nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The policies that decided, by id; none when code refused before policy was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// The policies in force: [`Engine::policy_hash`].
    pub policy_hash: Digest,
    /// Everything that the decision was made from.
    pub inputs: IssueInputs,
}

/// What the rules and the policies say to some inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruling {
    /// The grant, or why there is none.
    pub(crate) result: Result<Grant, Refusal>,
    /// The policies that decided, by id.
    pub(crate) policies: Vec<String>,
}

impl Ruling {
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.result {
            Ok(grant) if grant.reductions.is_empty() => Outcome::Grant,
            Ok(_) => Outcome::Reduce,
            Err(_) => Outcome::Deny,
        }
    }

    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self { result: Err(refusal), policies: Vec::new() }
    }
}

/// What came out when a decision was made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// The same, under the same policies.
    Same,
    /// The same, although the policies have changed.
    SameUnderOtherPolicies {
        /// The policies then.
        then: Digest,
        /// The policies now.
        now: Digest,
    },
    /// Something else.
    Different {
        /// What was decided then.
        then: Outcome,
        /// What would be decided now.
        now: Outcome,
        /// The first difference, for people.
        why: String,
        /// Whether the policies are the same as then: if so, the receipt or the program was altered.
        same_policies: bool,
    },
}

impl DecisionReceipt {
    pub(crate) fn new(inputs: IssueInputs, ruling: &Ruling, policy_hash: Digest) -> Self {
        Self {
            version: VERSION,
            outcome: ruling.outcome(),
            granted: ruling.result.as_ref().ok().cloned(),
            refusal: ruling.result.as_ref().err().cloned(),
            policies: ruling.policies.clone(),
            policy_hash,
            inputs,
        }
    }

    /// The receipt as it is recorded: JSON on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = Vec::with_capacity(USUAL_LENGTH);
        serde_json::to_writer(&mut json, self).expect("a receipt has only text keys and finite numbers");
        String::from_utf8(json).expect("JSON is UTF-8")
    }

    /// Reads a recorded receipt.
    ///
    /// # Errors
    /// `serde_json::Error` when the text is no receipt of a form that this version knows.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let receipt: Self = serde_json::from_str(text)?;
        if receipt.version != VERSION {
            let message =
                format!("receipt version {} is not known; this program knows {VERSION}", receipt.version);
            return Err(serde::de::Error::custom(message));
        }
        Ok(receipt)
    }

    /// SHA-256 of [`Self::to_json`].
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(self.to_json().as_bytes())
    }
}

/// Makes a recorded decision again with these policies and compares.
#[must_use]
pub fn replay(receipt: &DecisionReceipt, engine: &Engine) -> Replay {
    let ruling = engine.rule(&receipt.inputs);
    let same_policies = receipt.policy_hash == engine.policy_hash();
    match difference(receipt, &ruling) {
        None if same_policies => Replay::Same,
        None => Replay::SameUnderOtherPolicies { then: receipt.policy_hash, now: engine.policy_hash() },
        Some(why) => Replay::Different { then: receipt.outcome, now: ruling.outcome(), why, same_policies },
    }
}

fn difference(receipt: &DecisionReceipt, ruling: &Ruling) -> Option<String> {
    let now = ruling.outcome();
    if receipt.outcome != now {
        return Some(format!("the outcome was {} and is {now}", receipt.outcome));
    }
    let granted = ruling.result.as_ref().ok();
    if receipt.granted.as_ref() != granted {
        return Some("the names, the lifetime or what was reduced differ".to_owned());
    }
    let code = |refusal: &Refusal| refusal.code;
    if receipt.refusal.as_ref().map(code) != ruling.result.as_ref().err().map(code) {
        return Some("the reason of the refusal differs".to_owned());
    }
    if receipt.policies != ruling.policies {
        let (then, now) = (receipt.policies.join(", "), ruling.policies.join(", "));
        return Some(format!("decided then by [{then}], now by [{now}]"));
    }
    None
}
