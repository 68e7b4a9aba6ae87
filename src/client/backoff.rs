//! How long to wait before the next try.
//!
//! Owns: the growth, the cap and the spread of waiting times.
//! Called by: reflectors, the driver, leader election, the kubelet.
//! Never: sleeps.

use std::time::Duration;

/// Doubles from `first` to `cap`. The spread keeps many clients from coming back in the same instant.
#[derive(Clone, Debug)]
pub struct Backoff {
    pub first: Duration,
    pub cap: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(first: Duration, cap: Duration) -> Backoff {
        Backoff { first, cap, failures: 0 }
    }
    pub fn reset(&mut self) {
        self.failures = 0;
    }
    /// Waiting time after one more failure; `spread` in 0..1 adds up to half of it.
    pub fn next(&mut self, spread: f64) -> Duration {
        let wait = delay(self.first, self.cap, self.failures);
        self.failures = self.failures.saturating_add(1);
        wait + wait.mul_f64(spread.clamp(0.0, 1.0) / 2.0)
    }
    pub fn next_random(&mut self) -> Duration {
        self.next(rand::random::<f64>())
    }
}

/// The waiting time after `failures` earlier failures, without spread.
pub fn delay(first: Duration, cap: Duration, failures: u32) -> Duration {
    first.checked_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).map_or(cap, |d| d.min(cap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_the_cap_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<u128> = (0..6).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 150);
        assert_eq!(delay(backoff.first, backoff.cap, 4_000), backoff.cap);
    }
}
