//! Order and delays of cleanups.

use super::*;

fn ago(now: Instant, millis: u64) -> Instant {
    now.checked_sub(Duration::from_millis(millis)).unwrap()
}

/// Pods that wait since so many milliseconds, and had a cleanup so many milliseconds ago.
fn cleanups(now: Instant, entries: &[(&str, u64, Option<u64>)]) -> Cleanups {
    let entry = |(uid, since, last): &(&str, u64, Option<u64>)| {
        let (since, last) = (ago(now, *since), last.map(|last| ago(now, last)));
        ((*uid).to_owned(), QueueEntry { since, last })
    };
    Cleanups {
        waiting: entries.iter().map(entry).collect(),
        running: BTreeMap::new(),
    }
}

/// Returns the next pod, and its delay in milliseconds.
fn next(cleanups: &Cleanups, rules_are_written: bool, now: Instant) -> Option<(&str, u128)> {
    let (uid, due) = cleanups.first_due(rules_are_written, now)?;
    Some((uid, due.saturating_duration_since(now).as_millis()))
}

fn now() -> Instant {
    // A clock that began a moment ago has no past.
    Instant::now() + Duration::from_mins(1)
}

#[test]
fn cleanups_wait_for_rules_for_a_bounded_time() {
    let now = now();
    for (waits, written, due) in [(0, false, 0), (0, true, 250), (100, true, 150), (300, true, 0)] {
        let cleanups = cleanups(now, &[("a", waits, None)]);
        assert_eq!(
            next(&cleanups, written, now),
            Some(("a", due)),
            "{waits} ms, {written}"
        );
    }
    assert_eq!(next(&Cleanups::default(), false, now), None);
}

#[test]
fn a_namespace_is_cleaned_up_twice_a_second_at_most() {
    let now = now();
    let cleanups = cleanups(now, &[("a", 10, Some(100)), ("b", 5, Some(5_000))]);
    assert_eq!(next(&cleanups, false, now), Some(("b", 0)));
    let alone = Cleanups {
        waiting: BTreeMap::from([("a".to_owned(), cleanups.waiting["a"])]),
        running: BTreeMap::new(),
    };
    assert_eq!(next(&alone, false, now), Some(("a", 400)));
}

#[test]
fn a_slow_cleanup_does_not_block_others() {
    let now = now();
    let mut cleanups = cleanups(now, &[("a", 10, None)]);
    for (runs, due) in [(0, 200), (150, 50), (200, 0), (10_000, 0)] {
        let began = ago(now, runs);
        cleanups.running.insert("b".to_owned(), began);
        assert_eq!(next(&cleanups, false, now), Some(("a", due)), "{runs} ms");
    }
}
