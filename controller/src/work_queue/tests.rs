use super::*;
use proptest::prelude::*;
use token_bucket::BURST;

fn key(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const FAILED: Outcome = Outcome::Failed { retry_after: None };

/// PodAddsBatching, PodUpdatesBatching and PodDeleteBatching of the archived controller: changes close together are one write, but the
/// first ones are not delayed.
#[test]
fn changes_close_together_are_one_write_and_the_first_are_not_delayed() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    for at in [0, 10, 20, 30] {
        queue.enqueue(key("web"), start + ms(at));
        assert_eq!(queue.pop(start + ms(at)), Some(key("web")), "at once, at {at} ms");
        queue.done(&key("web"), Outcome::Wrote, start + ms(at + 5), 0.0);
    }
    for at in [40, 50, 100] {
        queue.enqueue(key("web"), start + ms(at));
    }
    assert_eq!(queue.pop(start + ms(254)), None);
    assert_eq!(
        queue.pop(start + ms(255)),
        Some(key("web")),
        "three changes, one attempt"
    );
    queue.done(&key("web"), Outcome::Wrote, start + ms(260), 0.0);
    assert_eq!(queue.next_due(), None);
    queue.enqueue(key("web"), start + ms(2000));
    assert_eq!(
        queue.pop(start + ms(2000)),
        Some(key("web")),
        "after quiet at once again"
    );
}

#[test]
fn a_change_during_an_attempt_is_not_lost() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    queue.enqueue(key("web"), start);
    queue.pop(start);
    queue.enqueue(key("web"), start);
    assert_eq!(queue.pop(start), None, "one attempt at a time");
    queue.done(&key("web"), Outcome::Unchanged, start, 0.0);
    assert_eq!(queue.pop(start), Some(key("web")));
}

#[test]
fn a_failure_is_retried_for_ever_with_a_growing_bounded_delay() {
    let mut now = Instant::now();
    let mut queue = WorkQueue::default();
    queue.enqueue(key("web"), now);
    let mut delays = Vec::new();
    for _ in 0..40 {
        queue.pop(now).unwrap();
        queue.done(&key("web"), FAILED, now, 1.0);
        let due = queue.next_due().unwrap();
        delays.push(due - now);
        now = due;
    }
    assert!(
        delays[0] < ms(200) && delays.windows(2).all(|pair| pair[0] <= pair[1]),
        "{delays:?}"
    );
    assert!(delays[39] >= MAX_BACKOFF && delays[39] <= MAX_BACKOFF.mul_f64(1.25));
}

#[test]
fn a_new_change_need_not_wait_for_the_retry() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    queue.enqueue(key("web"), start);
    for _ in 0..8 {
        let now = queue.next_due().unwrap();
        queue.pop(now);
        queue.done(&key("web"), FAILED, now, 0.0);
    }
    let retry = queue.next_due().unwrap();
    let now = retry.checked_sub(Duration::from_secs(8)).unwrap();
    queue.enqueue(key("web"), now);
    assert!(queue.next_due().unwrap() < retry);
}

#[test]
fn a_throttled_request_waits_as_long_as_the_server_asks() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    queue.enqueue(key("web"), start);
    queue.pop(start);
    queue.enqueue(key("web"), start);
    queue.done(
        &key("web"),
        Outcome::Failed {
            retry_after: Some(ms(3000)),
        },
        start,
        0.0,
    );
    assert_eq!(queue.next_due(), Some(start + ms(3000)));
}

#[test]
fn services_throttled_together_are_not_retried_together() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    for (name, jitter) in [("a", 0.0), ("b", 0.5), ("c", 1.0)] {
        queue.enqueue(key(name), start);
        queue.pop(start);
        let retry_after = Some(ms(2000));
        queue.done(&key(name), Outcome::Failed { retry_after }, start, jitter);
    }
    let due: Vec<_> = queue.again.keys().map(|(at, _)| *at - start).collect();
    assert_eq!(due, [ms(2000), ms(2250), ms(2500)]);
}

#[test]
fn a_failing_service_delays_no_other() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    queue.enqueue(key("bad"), start);
    queue.pop(start);
    queue.enqueue(key("good"), start);
    assert_eq!(
        queue.pop(start),
        Some(key("good")),
        "while the bad one is still in progress"
    );
    queue.done(&key("bad"), FAILED, start, 0.0);
    queue.done(&key("good"), Outcome::Wrote, start, 0.0);
    queue.enqueue(key("good"), start + ms(300));
    assert_eq!(queue.pop(start + ms(300)).as_ref(), Some(&key("bad")));
    assert_eq!(queue.pop(start + ms(300)).as_ref(), Some(&key("good")));
}

#[test]
fn services_that_were_never_reconciled_go_first() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    queue.enqueue(key("old"), start);
    queue.pop(start);
    queue.done(&key("old"), Outcome::Unchanged, start, 0.0);
    queue.enqueue(key("old"), start);
    queue.enqueue(key("new"), start + ms(1));
    assert_eq!(queue.pop(start + ms(1)), Some(key("new")));
    assert_eq!(queue.pop(start + ms(1)), Some(key("old")));
}

proptest! {
    #[test]
    fn every_change_is_followed_by_an_attempt(steps in proptest::collection::vec((0..4_u8, 0..3_u8, 0..400_u64), 1..200)) {
        let mut now = Instant::now();
        let mut queue = WorkQueue::default();
        let mut pending: BTreeMap<ObjectName, bool> = BTreeMap::new();
        let mut running: Vec<ObjectName> = Vec::new();
        for (action, which, wait) in steps {
            now += ms(wait);
            let name = key(&which.to_string());
            match action {
                0 | 1 => {
                    queue.enqueue(name.clone(), now);
                    pending.insert(name, true);
                }
                2 => if let Some(popped) = queue.pop(now) {
                    prop_assert!(!running.contains(&popped), "two attempts at once");
                    pending.insert(popped.clone(), false);
                    running.push(popped);
                },
                _ => if let Some(done) = running.pop() {
                    queue.done(&done, if wait % 2 == 0 { Outcome::Wrote } else { Outcome::Unchanged }, now, 0.5);
                },
            }
        }
        for done in running.drain(..) {
            queue.done(&done, Outcome::Wrote, now, 0.0);
        }
        now += Duration::from_mins(1);
        while let Some(popped) = queue.pop(now) {
            pending.insert(popped.clone(), false);
            queue.done(&popped, Outcome::Unchanged, now, 0.0);
        }
        prop_assert!(pending.values().all(|pending| !pending), "a change was lost");
    }
}

/// Enqueues a Service at the times of `next_change` until `end`, each write taking `write`; returns the times at which the writes ended.
fn driven(
    end: Duration,
    write: Duration,
    mut next_change: impl FnMut(Option<Instant>, Instant) -> Instant,
) -> Vec<Duration> {
    let start = Instant::now();
    let (mut queue, mut now, mut writes) = (WorkQueue::default(), start, Vec::new());
    let mut change = next_change(None, start);
    let mut ends: Option<Instant> = None;
    while now < start + end {
        if ends.is_some_and(|at| at <= now) {
            ends = None;
            queue.done(&key("web"), Outcome::Wrote, now, 0.0);
            writes.push(now - start);
            change = change.min(next_change(Some(now), now).max(now));
        }
        if change <= now {
            queue.enqueue(key("web"), now);
            change = next_change(None, now);
        }
        if ends.is_none() && queue.pop(now).is_some() {
            ends = Some(now + write);
        }
        now += ms(1);
    }
    writes
}

/// A client that changes a pod only after the last change was written sees most changes at once, for ever.
#[test]
fn changes_one_after_the_other_are_rarely_delayed() {
    let far = Duration::from_hours(1);
    let mut begun = false;
    let writes = driven(ms(20_000), ms(5), |wrote, now| {
        let first = !std::mem::replace(&mut begun, true);
        if first || wrote.is_some() { now } else { now + far }
    });
    let mut pauses: Vec<_> = writes
        .windows(2)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .collect();
    pauses.sort_unstable();
    assert!(writes.len() > 100, "{writes:?}");
    assert!(pauses[pauses.len() * 7 / 10] <= ms(15), "{pauses:?}");
    assert!(pauses[pauses.len() - 1] <= ms(260), "{pauses:?}");
}

#[test]
fn a_thousand_changes_a_second_are_four_writes_a_second() {
    let writes = driven(ms(10_000), ms(5), |_, now| now + ms(1));
    assert!((40..=44).contains(&writes.len()), "{}", writes.len());
}

/// A client that reverts the managed slices at once causes no more writes than pods that change.
#[test]
fn changes_by_another_client_are_repaired_at_most_four_times_a_second() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    let mut writes = 0;
    for at in 0..10_000 {
        let now = start + ms(at);
        queue.recheck(key("web"), now);
        if queue.pop(now).is_some() {
            queue.done(&key("web"), Outcome::Wrote, now, 0.0);
            writes += 1;
        }
    }
    assert!((40..=44).contains(&writes), "{writes}");
}

#[test]
fn a_service_that_is_deleted_and_recreated_is_written_no_more_often_and_then_forgotten() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    let mut writes = 0;
    for at in 0..10_000 {
        let now = start + ms(at);
        queue.enqueue(key("web"), now);
        if queue.pop(now).is_some() {
            queue.done(&key("web"), Outcome::Wrote, now, 0.0);
            queue.forget(&key("web"), now);
            writes += 1;
        }
    }
    assert!((40..=44).contains(&writes), "{writes}");
    let later = start + ms(20_000);
    while queue.pop(later).is_some() {
        queue.done(&key("web"), Outcome::Unchanged, later, 0.0);
    }
    queue.forget(&key("web"), later);
    assert!(!queue.knows(&key("web")) && queue.expiring.is_empty());
}

#[test]
fn nothing_is_kept_of_a_full_bucket() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    for (at, outcome) in [(0, Outcome::Wrote), (5_000, Outcome::Unchanged)] {
        queue.enqueue(key("web"), start + ms(at));
        queue.pop(start + ms(at)).unwrap();
        queue.done(&key("web"), outcome, start + ms(at), 0.0);
    }
    assert_eq!(queue.entries[&key("web")].bucket, TokenBucket::default());
    queue.enqueue(key("db"), start);
    queue.pop(start).unwrap();
    queue.done(&key("db"), Outcome::Wrote, start, 0.0);
    queue.forget(&key("db"), start);
    assert!(queue.knows(&key("db")), "it may come back at once");
    assert_eq!(queue.pop(start + ms(250)), None);
    assert!(!queue.knows(&key("db")));
}

proptest! {
    /// For any interval of changes and any duration of writes.
    #[test]
    fn a_storm_of_changes_is_at_most_a_burst_and_four_writes_a_second(gaps in proptest::collection::vec(1..=120_u64, 20..400), write in 0..40_u64) {
        let total: u64 = gaps.iter().sum();
        let mut gaps = gaps.iter();
        let writes = driven(ms(total), ms(write), |wrote, now| match wrote {
            Some(_) => now + Duration::from_hours(1),
            None => now + gaps.next().map_or(Duration::from_hours(1), |gap| ms(*gap)),
        });
        let allowed = u64::from(BURST) + total / 250 + 1;
        prop_assert!(writes.len() as u64 <= allowed, "{} writes in {total} ms", writes.len());
    }

    /// In any sequence: no more writes than changes, and never more than a burst for each wait that showed that none joins.
    #[test]
    fn no_pattern_of_changes_is_written_without_bound(gaps in proptest::collection::vec(1..=400_u64, 20..400)) {
        let total: u64 = gaps.iter().sum();
        let changes = gaps.len();
        let mut gaps = gaps.iter();
        let writes = driven(ms(total), ms(3), |wrote, now| match wrote {
            Some(_) => now + Duration::from_hours(1),
            None => now + gaps.next().map_or(Duration::from_hours(1), |gap| ms(*gap)),
        });
        prop_assert!(writes.len() <= changes);
        for (at, first) in writes.iter().enumerate() {
            let in_a_second = writes[at..].iter().take_while(|write| **write < *first + ms(1000)).count();
            prop_assert!(in_a_second <= 20, "{in_a_second} writes within a second");
        }
    }
}

#[test]
fn the_wait_of_a_service_is_measured_from_the_time_it_was_due() {
    let start = Instant::now();
    let mut queue = WorkQueue::default();
    queue.enqueue(key("web"), start);
    assert_eq!(queue.pop_timed(start + ms(30)), Some((key("web"), ms(30))));
    queue.done(&key("web"), FAILED, start + ms(30), 0.0);
    let due = queue.next_due().unwrap();
    assert_eq!(
        queue.pop_timed(due + ms(7)),
        Some((key("web"), ms(7))),
        "the backoff is no wait"
    );
}
