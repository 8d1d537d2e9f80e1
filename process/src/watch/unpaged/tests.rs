//! Against a scripted server: a real API server cannot be made to close a watch at once, or to fail one list.

use super::super::{Event as Followed, Presence, follow_any, watch};
use super::*;
use axum::http::{Request as HttpRequest, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use rstest::rstest;
use std::sync::Mutex;
use std::time::Duration;

/// The query of each request, in order.
type Asked = Arc<Mutex<Vec<String>>>;

/// A server that responds to the nth list with `lists(n)` and to the nth watch with `watches(n)`: a status and a body.
fn server(
    lists: fn(usize) -> (u16, &'static str),
    watches: fn(usize) -> (u16, &'static str),
) -> (Client, Asked) {
    let asked = Asked::default();
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: HttpRequest<Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let mut log = log.lock().unwrap();
        let is_watch = |query: &String| query.contains("watch=true");
        let nth = log
            .iter()
            .filter(|before| is_watch(before) == is_watch(&query))
            .count();
        let (code, body) = if is_watch(&query) {
            watches(nth)
        } else {
            lists(nth)
        };
        log.push(query);
        let response = Response::builder()
            .status(code)
            .body(Body::from(body.as_bytes().to_vec()));
        std::future::ready(response)
    });
    (Client::new(service, "default"), asked)
}

const LIST: &str =
    r#"{"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": []}"#;
const EXPIRED: &str = r#"{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}"#;
const BOOKMARK: &str = r#"{"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "8"}}}"#;
const BUSY: &str = r#"{"kind": "Status", "code": 500, "reason": "InternalError", "message": "busy"}"#;
const TOO_LARGE: &str =
    r#"{"kind": "Status", "code": 504, "reason": "Timeout", "message": "Too large resource version"}"#;

fn lists(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().unwrap();
    let lists = asked.iter().filter(|query| !query.contains("watch=true"));
    lists.cloned().collect()
}

/// Follows a watch until `count` lists were requested.
async fn follow(client: Client, asked: &Asked, count: usize) {
    let events = watch(
        Api::<ConfigMap>::all(client),
        Config::default(),
        Freshness::Cached,
        Presence::Required,
    );
    let mut events = Box::pin(events);
    let following = async {
        while lists(asked).len() < count {
            let _ = events.next().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), following)
        .await
        .unwrap();
}

/// After the first list its watch expires; the second list fails; returns the third request.
async fn third_list(second: fn(usize) -> (u16, &'static str)) -> String {
    let (client, asked) = server(second, |_| (200, EXPIRED));
    follow(client, &asked, 3).await;
    lists(&asked).remove(2)
}

#[tokio::test]
async fn a_failed_list_is_retried_from_the_last_seen_version() {
    let third = third_list(|nth| if nth == 1 { (500, BUSY) } else { (200, LIST) }).await;
    assert!(third.contains("resourceVersion=7"), "{third}");
    assert!(third.contains("NotOlderThan"), "{third}");
}

/// A cache that has not caught up, or an etcd that was restored from a backup.
#[tokio::test]
async fn an_unavailable_version_is_replaced_by_a_list_of_the_latest() {
    let third = third_list(|nth| if nth == 1 { (504, TOO_LARGE) } else { (200, LIST) }).await;
    assert!(!third.contains("resourceVersion"), "{third}");
}

#[rstest]
#[case::without_an_event(|_| (200, ""))]
#[case::after_a_bookmark(|_| (200, BOOKMARK))]
#[tokio::test]
async fn a_watch_that_is_closed_at_once_is_retried_after_a_pause(
    #[case] watches: fn(usize) -> (u16, &'static str),
) {
    let (client, asked) = server(|_| (200, LIST), watches);
    let events = watch(
        Api::<ConfigMap>::all(client),
        Config::default(),
        Freshness::Cached,
        Presence::Required,
    );
    let mut events = Box::pin(events);
    let mut errors = 0;
    let following = async {
        loop {
            errors += usize::from(events.next().await.is_some_and(|event| event.is_err()));
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), following).await;
    let requests = asked.lock().unwrap().len();
    assert!(
        (2..=5).contains(&requests),
        "{requests} requests in three seconds"
    );
    assert!(errors > 0, "it is reported");
    assert_eq!(lists(&asked).len(), 1, "it goes on from where it was");
}

#[tokio::test]
async fn a_watch_for_any_object_lists_one_of_the_latest_version() {
    let (client, asked) = server(|_| (200, LIST), |_| (500, BUSY));
    let mut events = Box::pin(follow_any::<ConfigMap>(Api::all(client), Config::default()));
    while events.next().await != Some(Followed::ListDone) {}
    let list = lists(&asked).remove(0);
    assert!(
        list.contains("limit=1") && !list.contains("resourceVersion"),
        "{list}"
    );
}
