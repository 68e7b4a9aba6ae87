//! How single probe outcomes add up to a verdict.
//!
//! Owns: success and failure thresholds.
//! Called by: the probe task.
//! Never: knows what was probed.

use crate::memory::Verdict;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
    /// The prober itself failed: counts for neither side.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Thresholds {
    success: u32,
    failure: u32,
    last: Option<Outcome>,
    run: u32,
    told: Option<Verdict>,
}

impl Thresholds {
    pub fn new(success: u32, failure: u32) -> Self {
        Self { success, failure, last: None, run: 0, told: None }
    }

    /// The verdict, when this outcome changes it.
    pub fn record(&mut self, outcome: Outcome) -> Option<Verdict> {
        let (needed, verdict) = match outcome {
            Outcome::Unknown => return None,
            Outcome::Success => (self.success, Verdict::Success),
            Outcome::Failure => (self.failure, Verdict::Failure),
        };
        if self.last == Some(outcome) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(outcome);
            self.run = 1;
        }
        if self.run < needed || self.told == Some(verdict) {
            return None;
        }
        self.told = Some(verdict);
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(success: u32, failure: u32, outcomes: &str, expected: &str) {
        let mut thresholds = Thresholds::new(success, failure);
        let told: String = outcomes
            .chars()
            .map(|c| match c {
                '+' => Outcome::Success,
                '-' => Outcome::Failure,
                _ => Outcome::Unknown,
            })
            .map(|o| match thresholds.record(o) {
                Some(Verdict::Success) => 'S',
                Some(Verdict::Failure) => 'F',
                None => '.',
            })
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn three_failures_in_a_row_fail_and_one_success_recovers() {
        check(1, 3, "+--+---+", "S.....FS");
    }

    #[test]
    fn a_success_threshold_counts_from_the_last_failure() {
        check(3, 1, "++-+++", "..F..S");
    }

    #[test]
    fn errors_of_the_prober_neither_count_nor_break_a_run() {
        check(1, 2, "-?-", "..F");
    }
}
