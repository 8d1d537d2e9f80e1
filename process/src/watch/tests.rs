use super::*;
use axum::http::{Request, Response};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange};
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use kube::runtime::watcher::Event;
use rstest::rstest;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Yielded = watcher::Result<Event<ConfigMap>>;

fn status(code: u16) -> kube::Error {
    kube::Error::Api(Status::failure("no", "no").with_code(code).boxed())
}

/// Items of kube's watcher for each attempt of a rejected list: paged, and streaming.
fn rejected(code: u16) -> [Vec<Yielded>; 2] {
    [
        vec![
            Ok(Event::Init),
            Err(watcher::Error::InitialListFailed(status(code))),
        ],
        vec![Err(watcher::Error::WatchStartFailed(status(code)))],
    ]
}

/// Number of requests in an hour in which every list is rejected.
fn attempts_in_an_hour(attempt: &[Yielded], presence: Presence) -> usize {
    let (start, mut backoff) = (Instant::now(), WatchBackoff::new(presence));
    let (mut now, mut attempts) = (start, 0);
    while now < start + Duration::from_hours(1) {
        attempts += 1;
        for event in attempt {
            now += backoff.after(event, now).unwrap_or_default();
        }
    }
    attempts
}

#[rstest]
#[case::not_there(404)]
#[case::not_allowed(403)]
fn requests_for_an_absent_optional_kind_back_off_to_minutes(#[case] code: u16) {
    for attempt in rejected(code) {
        let attempts = attempts_in_an_hour(&attempt, Presence::Optional);
        assert!((12..=25).contains(&attempts), "{attempts} attempts in an hour");
    }
}

/// The kind may be served soon: its role is bound late, or the API server has just started.
#[rstest]
#[case::not_there(404, Presence::Required)]
#[case::busy(500, Presence::Required)]
#[case::busy_and_optional(500, Presence::Optional)]
fn every_other_watch_is_retried_within_five_seconds(#[case] code: u16, #[case] presence: Presence) {
    for attempt in rejected(code) {
        let attempts = attempts_in_an_hour(&attempt, presence);
        assert!((720..=725).contains(&attempts), "{attempts} attempts in an hour");
    }
}

#[rstest]
#[case::a_list(Event::InitDone)]
#[case::a_change(Event::Apply(ConfigMap::default()))]
fn a_response_resets_the_backoff(#[case] answer: Event<ConfigMap>) {
    let [attempt, _] = rejected(500);
    let (mut now, mut backoff) = (Instant::now(), WatchBackoff::new(Presence::Required));
    let mut pause = |event: &Yielded| {
        let pause = backoff.after(event, now).unwrap_or_default();
        now += pause;
        pause
    };
    let grown: Vec<_> = (0..10).flat_map(|_| &attempt).map(&mut pause).collect();
    assert_eq!(grown.last(), Some(&Duration::from_secs(5)));
    assert_eq!(pause(&Ok(answer)), Duration::ZERO);
    assert!(pause(&attempt[1]) < Duration::from_secs(2));
}

/// A resumed watch yields nothing until an object changes.
#[test]
fn minutes_without_an_error_reset_the_backoff() {
    let [attempt, _] = rejected(500);
    let (mut now, mut backoff) = (Instant::now(), WatchBackoff::new(Presence::Required));
    for _ in 0..10 {
        now += backoff.after(&attempt[1], now).unwrap();
    }
    now += Duration::from_mins(3);
    assert!(backoff.after(&attempt[1], now).unwrap() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_error_is_yielded_at_once_and_the_next_event_after_a_pause() {
    let [attempt, _] = rejected(404);
    let mut events = Box::pin(paced(
        stream::iter(attempt).chain(stream::pending()),
        Presence::Required,
        Counter::default(),
    ));
    assert!(matches!(
        events.next().now_or_never(),
        Some(Some(Ok(Event::Init)))
    ));
    assert!(matches!(events.next().now_or_never(), Some(Some(Err(_)))));
    let before = Instant::now();
    let mut more = Box::pin(paced(
        stream::iter(rejected(404).into_iter().flatten()),
        Presence::Required,
        Counter::default(),
    ));
    for _ in 0..3 {
        more.next().await.unwrap().ok();
    }
    assert!(
        before.elapsed() >= Duration::from_millis(800),
        "between two attempts"
    );
}

#[tokio::test]
async fn restarts_of_a_watch_are_counted_by_resource() {
    let absent = tower::service_fn(|_: Request<Body>| async {
        let answer = Response::builder()
            .status(404)
            .body(Body::from(Vec::from(*b"no")));
        Ok::<_, Infallible>(answer.unwrap())
    });
    // Counters are global: a kind that no other test watches.
    let limits = Api::<LimitRange>::namespaced(Client::new(absent, "default"), "shop");
    let restarts = watch_restarts("/api/v1/namespaces/x/limitranges");
    let before = restarts.get();
    let mut events = Box::pin(watch(
        limits,
        Config::default(),
        Freshness::Cached,
        Presence::Optional,
    ));
    for _ in 0..4 {
        events.next().await.unwrap().ok();
    }
    assert_eq!(restarts.get(), before + 2, "Init and an error, twice");
}

#[test]
fn only_an_absent_or_forbidden_kind_is_not_served() {
    let is_absent = |code| is_not_served(&watcher::Error::InitialListFailed(status(code)));
    assert_eq!([403, 404, 500, 429].map(is_absent), [true, true, false, false]);
}

/// Rejected, rejected, served, rejected again after it was served.
#[tokio::test]
async fn an_unserved_kind_is_an_empty_list_once_and_keeps_known_objects_later() {
    let map = ConfigMap::default;
    let [attempt, _] = rejected(404);
    let mut events = attempt;
    events.extend(rejected(403).into_iter().flatten());
    events.extend([Ok(Event::Init), Ok(Event::InitApply(map())), Ok(Event::InitDone)]);
    events.push(Err(watcher::Error::InitialListFailed(status(404))));
    let yielded: Vec<_> = optional::served(stream::iter(events), "nothing else")
        .filter(|event| std::future::ready(!matches!(event, Event::Init)))
        .map(|event| matches!(event, Event::InitDone))
        .collect()
        .await;
    assert_eq!(
        yielded,
        [true, false, true],
        "an empty list, then the object and its list"
    );
}

#[tokio::test]
async fn a_definition_is_reported_when_it_is_created_and_deleted() {
    let map = ConfigMap::default;
    let events = vec![
        Ok(Event::Init),
        Ok(Event::InitDone),
        Err(watcher::Error::InitialListFailed(status(500))),
        Ok(Event::Init),
        Ok(Event::InitDone),
        Ok(Event::Apply(map())),
        Ok(Event::Apply(map())),
        Ok(Event::Init),
        Ok(Event::InitApply(map())),
        Ok(Event::InitDone),
        Ok(Event::Delete(map())),
    ];
    let seen: Vec<_> = crd::existence(stream::iter(events)).collect().await;
    assert_eq!(seen, [false, true, false]);
}

#[tokio::test]
async fn a_kind_is_watched_only_while_it_is_defined() {
    let (sender, changes) = futures::channel::mpsc::unbounded();
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let mut events = Box::pin(crd::while_defined(changes, move || {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        stream::once(std::future::ready(nth)).chain(stream::pending())
    }));
    assert_eq!(
        events.next().now_or_never().flatten(),
        None,
        "nothing is known yet"
    );
    for (is_defined, want) in [
        (false, Defined::No),
        (true, Defined::Yes(0)),
        (false, Defined::No),
        (true, Defined::Yes(1)),
    ] {
        sender.unbounded_send(is_defined).unwrap();
        assert_eq!(events.next().now_or_never().flatten(), Some(want));
        assert_eq!(events.next().now_or_never().flatten(), None);
    }
    assert_eq!(begun.load(Ordering::Relaxed), 2);
}
