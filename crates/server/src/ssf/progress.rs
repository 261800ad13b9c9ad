//! How far a stream has come: what has arrived, and what is waiting.

use std::collections::BTreeSet;

use chancery_types::SerialNumber;

use super::facts::{Fact, Facts};

/// Facts beyond the first that has not arrived that are handed out: who never confirms one is not told more than this.
const WINDOW: usize = 4096;

/// Everything up to `position` has arrived, and some of what comes after it.
#[derive(Debug)]
pub(super) struct Progress {
    position: u64,
    settled: BTreeSet<(u64, SerialNumber)>,
}

impl Progress {
    /// From this position on.
    pub(super) fn at(position: u64) -> Self {
        Self { position, settled: BTreeSet::new() }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What may be handed out, in order.
    pub(super) fn waiting<'a>(&'a self, facts: &'a Facts) -> impl Iterator<Item = &'a Fact> {
        let is_settled = |fact: &&Fact| self.settled.contains(&(fact.position, fact.serial));
        facts.after(self.position).take(WINDOW).filter(move |fact| !is_settled(fact))
    }

    /// Takes note that facts have arrived; what was never handed out is passed over.
    pub(super) fn settle(&mut self, arrived: &BTreeSet<(u64, SerialNumber)>, facts: &Facts) {
        let known = self.waiting(facts).map(|fact| (fact.position, fact.serial));
        let known: Vec<_> = known.filter(|one| arrived.contains(one)).collect();
        self.settled.extend(known);
        self.advance(facts);
    }

    /// Moves up to the first fact that has not arrived.
    pub(super) fn advance(&mut self, facts: &Facts) {
        let open =
            facts.after(self.position).find(|fact| !self.settled.contains(&(fact.position, fact.serial)));
        self.position = match open {
            Some(fact) => self.position.max(fact.position - 1),
            None => self.position.max(facts.head()),
        };
        let position = self.position;
        self.settled.retain(|(settled, _)| *settled > position);
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::fact;
    use super::*;

    fn set(facts: &[Fact]) -> BTreeSet<(u64, SerialNumber)> {
        facts.iter().map(|fact| (fact.position, fact.serial)).collect()
    }

    #[test]
    fn the_position_follows_the_first_that_has_not_arrived() {
        let told = [fact(12, 1), fact(12, 2), fact(15, 3)];
        let mut facts = Facts::from(10);
        facts.add(told.to_vec(), 20);
        let mut progress = Progress::at(10);
        assert_eq!(progress.waiting(&facts).count(), 3);
        progress.settle(&set(&told[1..]), &facts);
        assert_eq!(progress.position(), 11, "one of the entry at 12 is missing");
        assert_eq!(progress.waiting(&facts).collect::<Vec<_>>(), [&told[0]]);
        progress.settle(&set(&[fact(99, 1), fact(12, 9)]), &facts);
        assert_eq!(progress.position(), 11, "nobody was told of these");
        progress.settle(&set(&told[..1]), &facts);
        assert_eq!((progress.position(), progress.settled.len()), (20, 0));
    }

    #[test]
    fn only_so_much_is_handed_out_beyond_what_is_missing() {
        let mut facts = Facts::from(0);
        let told: Vec<Fact> = (1..=2 * WINDOW as u64).map(|number| fact(number, number)).collect();
        facts.add(told.clone(), 2 * WINDOW as u64);
        let mut progress = Progress::at(0);
        progress.settle(&set(&told[1..]), &facts);
        assert_eq!(progress.settled.len(), WINDOW - 1);
        assert_eq!(progress.waiting(&facts).count(), 1);
        progress.settle(&set(&told), &facts);
        assert_eq!(progress.position(), WINDOW as u64);
    }
}
