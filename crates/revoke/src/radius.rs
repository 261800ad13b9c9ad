//! What a change would hit, before it does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chancery_api::{BlastRadius, ChangeLimits, EnvironmentPart, Part, limits};
use chancery_ledger::{CertificateState, Ledger, ModelError};
use chancery_types::{HumanDuration, RevocationReason, Role, SerialNumber, SpiffeId, Timestamp};

use crate::claims::{Claim, Claims};
use crate::finder::{Finder, Found};
use crate::selection::{Scope, Selector};

/// Certificates of an environment that are counted in any case: of what is small, people see the share.
const COUNTED: u64 = 16_384;

/// What is to be done to certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// To revoke them for this reason.
    Revoke(RevocationReason),
    /// To hold them.
    Hold,
    /// To release them.
    Release,
}

impl Aim {
    /// Whether a certificate that stands so is changed by it. A reason can only move to key compromise.
    #[must_use]
    pub fn changes(self, state: CertificateState) -> bool {
        match (self, state) {
            (Self::Revoke(reason), CertificateState::Revoked { reason: before, .. }) => {
                reason == RevocationReason::KeyCompromise && before != reason
            }
            (Self::Revoke(_), CertificateState::Good | CertificateState::Held { .. }) => true,
            (Self::Hold, state) => state == CertificateState::Good,
            (Self::Release, state) => matches!(state, CertificateState::Held { .. }),
        }
    }
}

/// What a scope and an aim come to.
#[derive(Debug)]
pub struct Radius {
    /// For people.
    pub blast: BlastRadius,
    /// The first of the certificates that would change.
    pub serials: Vec<SerialNumber>,
    /// The only identity that all selected certificates name.
    pub only_identity: Option<SpiffeId>,
    /// The mightiest role that any of the identities has.
    pub role: Option<Role>,
    /// What others who ask in the same name see of it meanwhile.
    claim: Option<Claim>,
}

impl Radius {
    /// It has been done, or will not be: the ledger says what counts.
    pub fn settle(&mut self) {
        self.claim = None;
    }
}

/// Whose change it would be.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Who.
    pub by: &'a str,
    /// What for.
    pub intent: Intent,
}

/// What somebody asks for a radius for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// To look.
    Look,
    /// To make the change if it may be made: as long as the radius is there, it counts for its asker.
    Act,
}

/// What a radius is measured against.
pub(crate) struct Measure<'a> {
    pub(crate) ledger: &'a Arc<dyn Ledger>,
    pub(crate) claims: &'a Claims,
    pub(crate) limits: ChangeLimits,
    pub(crate) now: Timestamp,
}

impl Measure<'_> {
    /// Looks at everything that a scope names. How much of an environment is in force is counted only where it
    /// matters, and as far as it matters.
    pub(crate) async fn radius(
        &self,
        scope: &Scope,
        aim: Aim,
        asker: Asker<'_>,
    ) -> Result<Radius, ModelError> {
        let mut tally = Tally::default();
        let mut finder = Finder::new(self.ledger, scope, self.now).with_identities();
        while let Some(page) = finder.next().await? {
            for found in &page {
                tally.take(found, aim);
            }
        }
        let mut parts = tally.environments();
        let mut radius = tally.into_radius(self.limits);
        if aim != Aim::Release {
            radius.claim = self.claim(&mut parts, asker).await?;
            radius.blast.needs_approval = self.judge(&mut parts).await?;
        }
        parts.truncate(limits::LISTED_PARTS);
        radius.blast.environments = parts;
        Ok(radius)
    }

    /// Adds what the asker has taken out of force lately, or is about to. Whoever acts is seen by others who look
    /// after this, so of two acts at once at least one sees the other.
    async fn claim(
        &self,
        parts: &mut [EnvironmentPart],
        asker: Asker<'_>,
    ) -> Result<Option<Claim>, ModelError> {
        let window = Duration::from_secs(self.limits.window_seconds);
        if window.is_zero() {
            return Ok(None);
        }
        let others = self.claims.of(asker.by);
        let claim = (asker.intent == Intent::Act).then(|| self.claims.claim(asker.by, parts));
        let others = claim.as_ref().map_or(others, Claim::others);
        let taken = self.ledger.taken(asker.by, self.now - window).await?;
        for part in parts {
            let of = |counts: &BTreeMap<String, u64>| counts.get(&part.name).copied().unwrap_or(0);
            part.beside = of(&others);
            part.recent = of(&taken).saturating_add(part.beside);
        }
        Ok(claim)
    }

    /// Why approval is needed, if it is.
    async fn judge(&self, parts: &mut [EnvironmentPart]) -> Result<Option<String>, ModelError> {
        let mut why = None;
        for part in parts {
            if !self.limits.are_passed_by(part) {
                continue;
            }
            self.count_in_force(part).await?;
            if self.limits.are_passed_by(part) {
                why.get_or_insert_with(|| needs_approval(part, self.limits));
            }
        }
        Ok(why)
    }

    /// Counts the certificates of an environment in force; of a large one, no more than keep the part below the limits.
    async fn count_in_force(&self, part: &mut EnvironmentPart) -> Result<(), ModelError> {
        let scope = match part.name.as_str() {
            "" => Scope::everything(),
            name => Scope::from(Selector::Environment(name.to_owned())),
        };
        let mut finder = Finder::new(self.ledger, &scope, self.now).with_identities();
        let mut count = 0;
        while let Some(page) = finder.next().await? {
            let is_counted = |found: &&Found| {
                let environment =
                    found.identity.as_deref().map_or("", |identity| identity.environment.as_str());
                found.record.state == CertificateState::Good && environment == part.name
            };
            count += page.iter().filter(is_counted).count() as u64;
            part.in_force = Some(count);
            if count > COUNTED && !self.limits.are_passed_by(part) {
                part.and_more = true;
                return Ok(());
            }
        }
        part.in_force = Some(count);
        Ok(())
    }
}

#[derive(Default)]
struct Tally {
    certificates: u64,
    unchanged: u64,
    serials: Vec<SerialNumber>,
    first_identity: Option<SpiffeId>,
    is_of_several: bool,
    role: Option<Role>,
    identities: HashMap<SpiffeId, u64>,
    owners: HashMap<String, u64>,
    teams: HashMap<String, u64>,
    environments: HashMap<String, u64>,
    /// Those that change though they are out of force already, by environment.
    out_of_force: HashMap<String, u64>,
    nodes: HashMap<SpiffeId, u64>,
}

impl Tally {
    fn take(&mut self, found: &Found, aim: Aim) {
        let (record, identity) = (&found.record, found.identity.as_deref());
        match &self.first_identity {
            None => self.first_identity = Some(record.identity.clone()),
            Some(first) => self.is_of_several |= *first != record.identity,
        }
        let role = identity.and_then(|identity| identity.role);
        self.role = Role::ALL.into_iter().find(|one| [self.role, role].contains(&Some(*one)));
        if !aim.changes(record.state) {
            self.unchanged += 1;
            return;
        }
        self.certificates += 1;
        if self.serials.len() < limits::LISTED_SERIALS {
            self.serials.push(record.serial);
        }
        count(&mut self.identities, &record.identity);
        if let Some(node) = &record.node {
            count(&mut self.nodes, node);
        }
        let none = String::new();
        count(&mut self.owners, identity.map_or(&none, |identity| &identity.owner));
        count(&mut self.teams, identity.map_or(&none, |identity| &identity.team));
        let environment = identity.map_or(&none, |identity| &identity.environment);
        count(&mut self.environments, environment);
        if record.state != CertificateState::Good {
            count(&mut self.out_of_force, environment);
        }
    }

    /// The parts of environments, the largest first.
    fn environments(&mut self) -> Vec<EnvironmentPart> {
        let parts = by_size(std::mem::take(&mut self.environments)).into_iter();
        let part = |part: Part| {
            let held = self.out_of_force.get(&part.name).copied().unwrap_or(0);
            let Part { name, certificates } = part;
            EnvironmentPart {
                name,
                certificates,
                held,
                recent: 0,
                beside: 0,
                in_force: None,
                and_more: false,
            }
        };
        parts.map(part).collect()
    }

    fn into_radius(self, change_limits: ChangeLimits) -> Radius {
        let blast = BlastRadius {
            certificates: self.certificates,
            unchanged: self.unchanged,
            identities: self.identities.len() as u64,
            largest_identities: largest(self.identities),
            owners: largest(self.owners),
            teams: largest(self.teams),
            needs_approval: None,
            environments: Vec::new(),
            nodes: largest(self.nodes),
            limits: change_limits,
            enforcement: None,
        };
        let only_identity = self.first_identity.filter(|_| !self.is_of_several);
        Radius { blast, serials: self.serials, only_identity, role: self.role, claim: None }
    }
}

fn count<K: Clone + Eq + std::hash::Hash>(counts: &mut HashMap<K, u64>, name: &K) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.clone(), 1)),
    }
}

/// The largest parts.
fn largest<K: ToString>(counts: HashMap<K, u64>) -> Vec<Part> {
    let mut parts = by_size(counts);
    parts.truncate(limits::LISTED_PARTS);
    parts
}

/// The parts, the largest first.
fn by_size<K: ToString>(counts: HashMap<K, u64>) -> Vec<Part> {
    let part = |(name, certificates): (K, u64)| Part { name: name.to_string(), certificates };
    let mut parts: Vec<Part> = counts.into_iter().map(part).collect();
    parts.sort_unstable_by(|one, other| {
        other.certificates.cmp(&one.certificates).then_with(|| one.name.cmp(&other.name))
    });
    parts
}

/// Why this much needs approval.
fn needs_approval(part: &EnvironmentPart, change_limits: ChangeLimits) -> String {
    let environment = match part.name.as_str() {
        "" => "the certificates without an environment".to_owned(),
        name => format!("environment {name}"),
    };
    // Held certificates are revoked too, and are not in force.
    let in_force = part.in_force.unwrap_or_default();
    let all = in_force.max(part.certificates);
    let percent = |count: u64, of: u64| u128::from(count) * 100 / u128::from(of.max(1));
    if part.recent == 0 {
        return format!(
            "{} of {all} certificates of {environment} ({} %) would change, {} % may without approval",
            part.certificates,
            percent(part.certificates, all),
            change_limits.share
        );
    }
    let before = in_force.saturating_add(part.recent.saturating_sub(part.beside));
    format!(
        "{} certificates of {environment} would change, and {} did by the same hand within {}: {} % of {before}, {} % \
         may without approval",
        part.certificates,
        part.recent,
        HumanDuration(Duration::from_secs(change_limits.window_seconds)),
        percent(part.taken(), before),
        change_limits.share
    )
}

/// Whether more would change now than was asked for: an environment that was not hit before, or one of which a
/// tenth more is.
#[must_use]
pub fn has_grown(asked: &BlastRadius, now: &BlastRadius) -> Option<String> {
    let before = |name: &str| {
        let found = asked.environments.iter().find(|part| part.name == name);
        found.map_or(0, |part| part.certificates)
    };
    let allowed = |count: u64| count + count.div_ceil(10);
    let grown = now.environments.iter().find(|part| part.certificates > allowed(before(&part.name)));
    if let Some(part) = grown {
        let (name, count, before) = (&part.name, part.certificates, before(&part.name));
        return Some(format!(
            "{count} certificates of environment {name:?} would change, {before} were asked for"
        ));
    }
    let (count, before) = (now.certificates, asked.certificates);
    (count > allowed(before)).then(|| format!("{count} certificates would change, {before} were asked for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blast(parts: &[(&str, u64)]) -> BlastRadius {
        let part = |(name, certificates): &(&str, u64)| EnvironmentPart {
            name: (*name).to_owned(),
            certificates: *certificates,
            held: 0,
            recent: 0,
            beside: 0,
            in_force: None,
            and_more: false,
        };
        let environments: Vec<_> = parts.iter().map(part).collect();
        let certificates = environments.iter().map(|part| part.certificates).sum();
        BlastRadius { environments, certificates, ..BlastRadius::default() }
    }

    #[test]
    fn a_tenth_more_is_the_same_change_and_another_environment_is_not() {
        let asked = blast(&[("prod", 100)]);
        for (now, grown) in [
            (blast(&[("prod", 100)]), false),
            (blast(&[("prod", 110)]), false),
            (blast(&[("prod", 111)]), true),
            (blast(&[("prod", 3)]), false),
            (blast(&[("prod", 3), ("test", 1)]), true),
            (blast(&[]), false),
        ] {
            assert_eq!(has_grown(&asked, &now).is_some(), grown, "{now:?}");
        }
    }

    #[test]
    fn a_reason_can_only_move_to_key_compromise() {
        use RevocationReason::{KeyCompromise, Superseded, Unspecified};
        let at = Timestamp::from_seconds(1);
        let revoked = |reason| CertificateState::Revoked { at, reason };
        assert!(Aim::Revoke(KeyCompromise).changes(revoked(Superseded)));
        assert!(!Aim::Revoke(KeyCompromise).changes(revoked(KeyCompromise)));
        assert!(!Aim::Revoke(Superseded).changes(revoked(Unspecified)));
        assert!(!Aim::Revoke(Unspecified).changes(revoked(KeyCompromise)));
        assert!(!Aim::Hold.changes(revoked(Superseded)) && !Aim::Release.changes(revoked(Superseded)));
        let held = CertificateState::Held { since: at };
        assert!(
            Aim::Revoke(Superseded).changes(held) && Aim::Release.changes(held) && !Aim::Hold.changes(held)
        );
    }
}
