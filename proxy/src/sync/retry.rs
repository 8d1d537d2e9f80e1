//! When to try a pod again.
//!
//! Pure.

use std::time::Duration;

/// Attempts in quick succession: a sandbox is listed only when it is complete, some time after network-status was written.
const QUICK: u32 = 50;

/// Longest pause of the quick ones, and of all.
const QUICK_CAP: Duration = Duration::from_millis(200);
const CAP: Duration = Duration::from_secs(30);

/// How long to wait after the given number of failures in a row (1 after the first): 5 ms doubling to 200 ms for about ten
/// seconds, then doubling to 30 s.
pub(super) fn delay(failures: u32) -> Duration {
    let doubled = |base: Duration, times: u32| base.saturating_mul(2_u32.saturating_pow(times.min(16)));
    match failures.checked_sub(QUICK) {
        None => doubled(Duration::from_millis(5), failures.saturating_sub(1)).min(QUICK_CAP),
        Some(slow) => doubled(QUICK_CAP, slow).min(CAP),
    }
}

/// Whether so many failures in a row are worth telling somebody: the first are how a pod starts.
pub(super) fn is_worth_telling(failures: u32) -> bool {
    failures >= QUICK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_short_and_are_bounded() {
        let millis = |failures| delay(failures).as_millis();
        assert_eq!([1, 2, 3, 6, 7, 49].map(millis), [5, 10, 20, 160, 200, 200]);
        assert_eq!(
            [50, 51, 52, 58, 1_000_000, u32::MAX].map(millis),
            [200, 400, 800, 30_000, 30_000, 30_000]
        );
    }

    #[test]
    fn a_pod_that_starts_slowly_is_told_only_after_seconds() {
        let before: Duration = (1..QUICK).map(delay).sum();
        assert!(!is_worth_telling(QUICK - 1) && is_worth_telling(QUICK));
        assert!(
            before > Duration::from_secs(8) && before < Duration::from_secs(15),
            "{before:?}"
        );
    }
}
