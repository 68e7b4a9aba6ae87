//! Sets of completion indexes, as a Job's status spells them: `1,3-5,7`.
//!
//! Owns: reading, writing and the index a Pod carries.
//! Called by: `job` and its parts.
//! Never: knows what an index stands for.

use std::collections::BTreeSet;

use minik_api::object;
use serde_json::Value;

pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Indexes(pub BTreeSet<i64>);

impl Indexes {
    /// Those below `completions`; what cannot be read is left out.
    pub(crate) fn parse(text: &str, completions: i64) -> Indexes {
        let mut set = BTreeSet::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(from), Ok(to)) = (from.parse::<i64>(), to.parse::<i64>()) {
                set.extend(from..=to.min(completions - 1));
            }
        }
        Indexes(set)
    }

    pub(crate) fn total(&self) -> i64 {
        self.0.len() as i64
    }
}

impl std::fmt::Display for Indexes {
    /// Two neighbours are listed, three or more are a range.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for &index in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => runs.push((index, index)),
            }
        }
        let text = |(from, to): &(i64, i64)| match to - from {
            0 => from.to_string(),
            1 => format!("{from},{to}"),
            _ => format!("{from}-{to}"),
        };
        f.write_str(&runs.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

pub(crate) fn of_pod(pod: &Value) -> Option<i64> {
    object::annotation(pod, INDEX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_written_short_and_read_back() {
        let set = Indexes::parse("0,2-4,6,7,9", 10);
        assert_eq!(set.total(), 7);
        assert_eq!(set.to_string(), "0,2-4,6,7,9");
        assert_eq!(Indexes::parse("1-100", 3).to_string(), "1,2");
    }
}
