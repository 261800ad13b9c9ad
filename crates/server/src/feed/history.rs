//! The latest steps, so that who was away for a while need not fetch everything.

use std::collections::VecDeque;
use std::sync::Arc;

use super::encoded::Encoded;

/// Events of one step: they are told together, or again from the first.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The position that is reached with the last.
    pub(super) sequence: u64,
    /// Them.
    pub(super) events: Arc<[Encoded]>,
}

impl Step {
    fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.sse.len()).sum()
    }
}

/// Steps that follow each other without a gap.
#[derive(Debug)]
pub(super) struct History {
    steps: VecDeque<Step>,
    bytes: usize,
    most: usize,
    /// Everything that was told after this position is in `steps`.
    floor: u64,
}

impl History {
    /// Nothing was told since this position; keeps about so many bytes of events.
    pub(super) fn from(position: u64, most: usize) -> Self {
        Self { steps: VecDeque::new(), bytes: 0, most, floor: position }
    }

    pub(super) fn add(&mut self, step: Step) {
        self.bytes += step.bytes();
        self.steps.push_back(step);
        while self.bytes > self.most
            && let Some(oldest) = self.steps.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.floor = oldest.sequence;
        }
    }

    /// The position of the latest event, or the one before which nothing is known.
    pub(super) fn told(&self) -> u64 {
        self.steps.back().map_or(self.floor, |step| step.sequence)
    }

    /// Whether everything that was told after this position is known.
    pub(super) fn covers(&self, position: u64) -> bool {
        position >= self.floor
    }

    /// The events of all steps that reach beyond this position, from the beginning of the first.
    pub(super) fn after(&self, position: u64) -> impl Iterator<Item = &Encoded> {
        let start = self.steps.partition_point(|step| step.sequence <= position);
        self.steps.range(start..).flat_map(|step| step.events.iter())
    }
}

#[cfg(test)]
mod tests {
    use chancery_api::{FeedChange, FeedEvent};

    use super::*;

    fn step(after: u64, sequence: u64, events: usize) -> Step {
        let event = Encoded::new(&FeedEvent { after, sequence, change: FeedChange::Heartbeat });
        Step { sequence, events: vec![event; events].into() }
    }

    fn positions(history: &History, after: u64) -> Vec<u64> {
        history.after(after).map(|event| event.sequence).collect()
    }

    #[test]
    fn who_stands_within_a_step_is_told_all_of_it() {
        let mut history = History::from(10, 10_000);
        history.add(step(10, 14, 2));
        history.add(step(14, 15, 1));
        assert!(history.covers(10) && !history.covers(9));
        assert_eq!(positions(&history, 10), [14, 14, 15]);
        assert_eq!(positions(&history, 13), [14, 14, 15]);
        assert_eq!(positions(&history, 14), [15]);
        assert_eq!(positions(&history, 15), [0; 0]);
    }

    #[test]
    fn forgets_the_oldest_and_knows_that_it_did() {
        let size = step(0, 1, 1).bytes();
        let mut history = History::from(0, 2 * size);
        for position in 0..3 {
            history.add(step(position, position + 1, 1));
        }
        assert!(!history.covers(0) && history.covers(1));
        assert_eq!(positions(&history, 1), [2, 3]);
        history.add(step(3, 4, 3));
        assert!(!history.covers(3), "a step that is larger than all that is kept is not kept");
        assert!(history.covers(4));
    }
}
