//! What a change would hit, before it does.

use std::collections::HashMap;

use chancery_api::{BlastRadius, ChangeLimits, EnvironmentPart, Part, limits};
use chancery_ledger::{CertificateRecord, CertificateState, Ledger, ModelError};
use chancery_types::{RevocationReason, Role, SerialNumber, SpiffeId, Timestamp};

use crate::finder::Finder;
use crate::selection::Scope;

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
#[derive(Debug, Clone)]
pub struct Radius {
    /// For people.
    pub blast: BlastRadius,
    /// The first of the certificates that would change.
    pub serials: Vec<SerialNumber>,
    /// The only identity that all selected certificates name.
    pub only_identity: Option<SpiffeId>,
    /// The mightiest role that any of the identities has.
    pub role: Option<Role>,
}

impl Radius {
    /// Looks at everything that a scope names. How much of an environment is in force is counted only where more
    /// than the floor would change.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn of(
        ledger: &dyn Ledger,
        scope: &Scope,
        aim: Aim,
        change_limits: ChangeLimits,
        now: Timestamp,
    ) -> Result<Self, ModelError> {
        let mut tally = Tally::default();
        let mut finder = Finder::new(ledger, scope, now);
        while let Some(page) = finder.next().await? {
            for record in &page {
                tally.take(&mut finder, record, aim).await?;
            }
        }
        let is_large = tally.environments.values().any(|count| *count > change_limits.floor);
        let in_force = if is_large { Some(in_force(ledger, now).await?) } else { None };
        Ok(tally.into_radius(in_force, change_limits))
    }
}

/// Certificates in force, by environment.
async fn in_force(ledger: &dyn Ledger, now: Timestamp) -> Result<HashMap<String, u64>, ModelError> {
    let everything = Scope::everything();
    let mut finder = Finder::new(ledger, &everything, now);
    let mut counts = HashMap::new();
    while let Some(page) = finder.next().await? {
        for record in page.iter().filter(|record| record.state == CertificateState::Good) {
            let identity = finder.identity(&record.identity).await?;
            let environment = identity.map(|identity| identity.environment.clone()).unwrap_or_default();
            *counts.entry(environment).or_default() += 1;
        }
    }
    Ok(counts)
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
    nodes: HashMap<SpiffeId, u64>,
}

impl Tally {
    async fn take(
        &mut self,
        finder: &mut Finder<'_>,
        record: &CertificateRecord,
        aim: Aim,
    ) -> Result<(), ModelError> {
        match &self.first_identity {
            None => self.first_identity = Some(record.identity.clone()),
            Some(first) => self.is_of_several |= *first != record.identity,
        }
        let identity = finder.identity(&record.identity).await?;
        let role = identity.as_deref().and_then(|identity| identity.role);
        self.role = Role::ALL.into_iter().find(|one| [self.role, role].contains(&Some(*one)));
        if !aim.changes(record.state) {
            self.unchanged += 1;
            return Ok(());
        }
        self.certificates += 1;
        if self.serials.len() < limits::LISTED_SERIALS {
            self.serials.push(record.serial);
        }
        count(&mut self.identities, &record.identity);
        if let Some(node) = &record.node {
            count(&mut self.nodes, node);
        }
        let field = |of: fn(&chancery_types::Identity) -> &String| {
            identity.as_deref().map(of).cloned().unwrap_or_default()
        };
        count(&mut self.owners, &field(|identity| &identity.owner));
        count(&mut self.teams, &field(|identity| &identity.team));
        count(&mut self.environments, &field(|identity| &identity.environment));
        Ok(())
    }

    fn into_radius(self, in_force: Option<HashMap<String, u64>>, change_limits: ChangeLimits) -> Radius {
        let mut environments: Vec<EnvironmentPart> = by_size(self.environments)
            .into_iter()
            .map(|part| {
                let in_force = in_force.as_ref().map(|counts| counts.get(&part.name).copied().unwrap_or(0));
                // Held certificates are revoked too, and are not in force.
                let in_force = in_force.map(|count| count.max(part.certificates));
                EnvironmentPart { name: part.name, certificates: part.certificates, in_force }
            })
            .collect();
        let needs_approval = needs_approval(&environments, change_limits);
        environments.truncate(limits::LISTED_PARTS);
        let blast = BlastRadius {
            certificates: self.certificates,
            unchanged: self.unchanged,
            identities: self.identities.len() as u64,
            largest_identities: largest(self.identities),
            owners: largest(self.owners),
            teams: largest(self.teams),
            needs_approval,
            environments,
            nodes: largest(self.nodes),
            limits: change_limits,
            enforcement: None,
        };
        let only_identity = self.first_identity.filter(|_| !self.is_of_several);
        Radius { blast, serials: self.serials, only_identity, role: self.role }
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
fn needs_approval(environments: &[EnvironmentPart], change_limits: ChangeLimits) -> Option<String> {
    let part = environments.iter().find(|part| change_limits.are_passed_by(part))?;
    let in_force = part.in_force.unwrap_or(part.certificates);
    let percent = u128::from(part.certificates) * 100 / u128::from(in_force.max(1));
    let environment = match part.name.as_str() {
        "" => "the certificates without an environment".to_owned(),
        name => format!("environment {name}"),
    };
    Some(format!(
        "{} of {in_force} certificates of {environment} ({percent} %) would change, {} % may without approval",
        part.certificates, change_limits.share
    ))
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
            in_force: None,
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
