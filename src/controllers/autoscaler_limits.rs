//! How far and how fast the number of replicas may go, whatever the metrics ask for.
//!
//! Owns: the least and the most, stabilization windows, scaling policies, and the memory they need.
//! Called by: `autoscaler`.
//! Never: reads a metric.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::fields::{int, list, seconds};

/// `--horizontal-pod-autoscaler-downscale-stabilization`: the highest number of so long counts on the way down.
const DOWN_WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// Without policies of its own, what is scaled at most doubles, but may always grow to four.
const UP_FACTOR: i64 = 2;
const UP_AT_LEAST: i64 = 4;

/// A number and when it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Past {
    pub number: i64,
    pub at: Timestamp,
}

/// What was recommended, and by how much the number went up and down.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    recommendations: Vec<Past>,
    ups: Vec<Past>,
    downs: Vec<Past>,
    /// Ordered in the last plan; it counts once the scale shows it.
    ordered: Option<Order>,
}

#[derive(Clone, Copy, Debug)]
struct Order {
    from: i64,
    to: i64,
    at: Timestamp,
}

/// The bounds of one autoscaler and where it stands.
pub(crate) struct Bounds<'a> {
    /// `spec.behavior`, or null.
    pub behavior: &'a Value,
    pub least: i64,
    pub most: i64,
    pub current: i64,
    pub now: Timestamp,
}

/// What became of a recommendation: the number, and the two conditions that tell why.
#[derive(Debug, PartialEq)]
pub(crate) struct Limited {
    pub replicas: i64,
    pub able: (&'static str, &'static str),
    /// Whether it is another number than was asked for, and why.
    pub limited: bool,
    pub reason: (&'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FAST_UP: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

impl History {
    /// Where the scale stands: it begins the history, and shows whether the last order was carried out.
    pub(crate) fn observe(&mut self, current: i64, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push(Past { number: current, at: now });
        }
        let Some(order) = self.ordered.take().filter(|o| o.to == current) else { return };
        let change = Past { number: (order.to - order.from).abs(), at: order.at };
        if order.to > order.from { self.ups.push(change) } else { self.downs.push(change) }
    }

    pub(crate) fn order(&mut self, from: i64, to: i64, now: Timestamp) {
        self.ordered = Some(Order { from, to, at: now });
    }

    /// Remembers what is asked for, and answers with what may be done of it.
    pub(crate) fn limit(&mut self, bounds: &Bounds<'_>, asked: i64) -> Limited {
        let with_behavior = bounds.behavior.is_object();
        let (stable, why) =
            if with_behavior { self.stabilize(bounds, asked) } else { self.stabilize_down(bounds, asked) };
        let (replicas, reason) =
            if with_behavior { self.by_policies(bounds, stable) } else { by_rules(bounds, stable) };
        let able = if stable == asked { READY } else { why };
        self.remember(bounds, asked);
        Limited { replicas, able, limited: replicas != stable, reason }
    }

    fn stabilize_down(&self, bounds: &Bounds<'_>, asked: i64) -> (i64, (&'static str, &'static str)) {
        let since = bounds.now - DOWN_WINDOW;
        let recent = self.recommendations.iter().filter(|r| r.at >= since).map(|r| r.number);
        (recent.max().unwrap_or(asked).max(asked), DOWN_STABILIZED)
    }

    fn stabilize(&self, bounds: &Bounds<'_>, asked: i64) -> (i64, (&'static str, &'static str)) {
        let within = |window: SignedDuration| {
            self.recommendations.iter().filter(move |r| r.at > bounds.now - window).map(|r| r.number)
        };
        let up = within(up_window(bounds.behavior)).min().unwrap_or(asked).min(asked);
        let down = within(down_window(bounds.behavior)).max().unwrap_or(asked).max(asked);
        let stable = bounds.current.max(up).min(down);
        (stable, if asked >= bounds.current { UP_STABILIZED } else { DOWN_STABILIZED })
    }

    fn by_policies(&self, bounds: &Bounds<'_>, asked: i64) -> (i64, (&'static str, &'static str)) {
        let current = bounds.current;
        if asked > current {
            let fastest = self.fastest(&bounds.behavior["scaleUp"], Direction::Up, bounds).max(current);
            let (most, reason) = if bounds.most > fastest { (fastest, TOO_FAST_UP) } else { (bounds.most, TOO_MANY) };
            return if asked > most { (most, reason) } else { (asked, WITHIN) };
        }
        if asked < current {
            let fastest = self.fastest(&bounds.behavior["scaleDown"], Direction::Down, bounds).min(current);
            let (least, reason) =
                if bounds.least < fastest { (fastest, TOO_FAST_DOWN) } else { (bounds.least, TOO_FEW) };
            return if asked < least { (least, reason) } else { (asked, WITHIN) };
        }
        (asked, WITHIN)
    }

    /// The number that the policies of one direction allow now.
    fn fastest(&self, rules: &Value, direction: Direction, bounds: &Bounds<'_>) -> i64 {
        if rules["selectPolicy"] == "Disabled" {
            return bounds.current;
        }
        let allowed = list(&rules["policies"]).iter().map(|policy| {
            let since = bounds.now - seconds(int(&policy["periodSeconds"], 0));
            let changed = |all: &[Past]| all.iter().filter(|c| c.at > since).map(|c| c.number).sum::<i64>();
            let start = bounds.current - changed(&self.ups) + changed(&self.downs);
            let value = int(&policy["value"], 0);
            match (policy["type"] == "Percent", direction) {
                (false, Direction::Up) => start + value,
                (false, Direction::Down) => start - value,
                // Rounded up, or a small number could never grow.
                (true, Direction::Up) => (start as f64 * (1.0 + value as f64 / 100.0)).ceil() as i64,
                (true, Direction::Down) => (start as f64 * (1.0 - value as f64 / 100.0)) as i64,
            }
        });
        let furthest = rules["selectPolicy"] != "Min";
        let chosen = if furthest == (direction == Direction::Up) { allowed.max() } else { allowed.min() };
        chosen.unwrap_or(bounds.current)
    }

    /// Keeps only what some window or policy can still see.
    fn remember(&mut self, bounds: &Bounds<'_>, asked: i64) {
        self.recommendations.push(Past { number: asked, at: bounds.now });
        let window = up_window(bounds.behavior).max(down_window(bounds.behavior));
        self.recommendations.retain(|r| r.at >= bounds.now - window);
        for (rules, changes) in [("scaleUp", &mut self.ups), ("scaleDown", &mut self.downs)] {
            let policies = list(&bounds.behavior[rules]["policies"]).iter();
            let longest = policies.map(|p| int(&p["periodSeconds"], 0)).max().unwrap_or(0);
            changes.retain(|c| c.at > bounds.now - seconds(longest));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

fn up_window(behavior: &Value) -> SignedDuration {
    seconds(int(&behavior["scaleUp"]["stabilizationWindowSeconds"], 0))
}

fn down_window(behavior: &Value) -> SignedDuration {
    behavior["scaleDown"]["stabilizationWindowSeconds"].as_i64().map_or(DOWN_WINDOW, seconds)
}

fn by_rules(bounds: &Bounds<'_>, asked: i64) -> (i64, (&'static str, &'static str)) {
    let fastest = (UP_FACTOR * bounds.current).max(UP_AT_LEAST);
    let (most, reason) = if bounds.most > fastest { (fastest, TOO_FAST_UP) } else { (bounds.most, TOO_MANY) };
    match asked {
        asked if asked < bounds.least => (bounds.least, TOO_FEW),
        asked if asked > most => (most, reason),
        asked => (asked, WITHIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }
    fn bounds(behavior: &Value, current: i64, second: i64) -> Bounds<'_> {
        Bounds { behavior, least: 2, most: 20, current, now: at(second) }
    }

    #[test]
    fn without_behavior_it_at_most_doubles_and_stays_within_its_bounds() {
        let limit = |current, asked| {
            let limited = History::default().limit(&bounds(&Value::Null, current, 0), asked);
            (limited.replicas, limited.limited, limited.reason.0)
        };
        assert_eq!(limit(3, 9), (6, true, "ScaleUpLimit"));
        assert_eq!(limit(1, 9), (4, true, "ScaleUpLimit"));
        assert_eq!(limit(15, 25), (20, true, "TooManyReplicas"));
        assert_eq!(limit(5, 1), (2, true, "TooFewReplicas"));
        assert_eq!(limit(5, 4), (4, false, "DesiredWithinRange"));
    }

    #[test]
    fn the_highest_of_five_minutes_holds_the_number_up() {
        let mut history = History::default();
        history.observe(8, at(0));
        let low = history.limit(&bounds(&Value::Null, 8, 15), 3);
        assert_eq!((low.replicas, low.able.0), (8, "ScaleDownStabilized"));
        let later = history.limit(&bounds(&Value::Null, 8, 301), 3);
        assert_eq!((later.replicas, later.able.0), (3, "ReadyForNewScale"));
    }

    #[test]
    fn policies_count_what_was_changed_in_their_period() {
        let behavior = json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                        "policies": [{"type": "Pods", "value": 3, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
                {"type": "Percent", "value": 50, "periodSeconds": 60}, {"type": "Pods", "value": 1, "periodSeconds": 60}]},
        });
        let mut history = History::default();
        history.observe(4, at(0));
        assert_eq!(history.limit(&bounds(&behavior, 4, 0), 10).replicas, 7);
        history.order(4, 7, at(0));
        history.observe(7, at(15));
        let held = history.limit(&bounds(&behavior, 7, 15), 10);
        assert_eq!((held.replicas, held.reason.0), (7, "ScaleUpLimit"), "three were added a moment ago");
        assert_eq!(history.limit(&bounds(&behavior, 7, 61), 10).replicas, 10);
        let down = history.limit(&bounds(&behavior, 10, 130), 2);
        assert_eq!((down.replicas, down.reason.0), (9, "ScaleDownLimit"), "the smaller change of the two");
    }

    #[test]
    fn an_order_that_did_not_come_about_is_no_change() {
        let behavior = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 3, "periodSeconds": 60}]}});
        let mut history = History::default();
        history.observe(4, at(0));
        history.order(4, 7, at(0));
        history.observe(4, at(15));
        assert_eq!(history.limit(&bounds(&behavior, 4, 15), 10).replicas, 7);
    }
}
