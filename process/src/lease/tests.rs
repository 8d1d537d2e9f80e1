//! Against a scripted API server that holds one Lease and answers a write of an old version with 409.

use super::*;
use axum::http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The state of the server.
#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    writes: usize,
    /// Every request fails with this code.
    fails: Option<u16>,
    failed: usize,
    /// Number of requests that are not answered.
    hangs: usize,
    /// A Lease that a read does not see, and that exists when it is created.
    appears: Option<Value>,
    has_no_namespace: bool,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

impl Server {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The Lease as another client writes it.
    fn set(&self, spec: &Value) {
        self.with(|state| state.store(json!({ "spec": spec })));
    }

    fn spec(&self) -> Value {
        self.with(|state| {
            state
                .lease
                .as_ref()
                .map_or(Value::Null, |lease| lease["spec"].clone())
        })
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let method = request.method().clone();
                let body = request.into_body().collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let is_hanging = server.with(|state| {
                    let is_hanging = state.hangs > 0;
                    state.hangs = state.hangs.saturating_sub(1);
                    is_hanging
                });
                if is_hanging {
                    std::future::pending::<()>().await;
                }
                let (code, answer) = server.with(|state| state.answer(&method, body));
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn lock(&self, holder: &str) -> Lock {
        Lock::new(self.client(), options(holder))
    }
}

impl State {
    fn store(&mut self, mut lease: Value) {
        self.version += 1;
        lease["metadata"] = json!({ "name": "lease", "resourceVersion": self.version.to_string() });
        self.lease = Some(lease);
    }

    fn answer(&mut self, method: &Method, body: Value) -> (u16, Value) {
        let status = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "" };
            let status = json!({ "kind": "Status", "status": "Failure", "code": code, "message": "", "reason": reason });
            (code, status)
        };
        if let Some(code) = self.fails {
            self.failed += 1;
            return status(code);
        }
        if method == Method::POST
            && let Some(spec) = self.appears.take()
        {
            self.store(json!({ "spec": spec }));
        }
        if self.has_no_namespace {
            return status(404);
        }
        match (&self.lease, method) {
            (None, &Method::POST) => self.store(body),
            (None, _) => return status(404),
            (Some(_), &Method::POST) => return status(409),
            (Some(lease), &Method::PATCH) => {
                let mut lease = lease.clone();
                if lease["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                    return status(409);
                }
                for (key, value) in body["spec"].as_object().unwrap() {
                    lease["spec"][key] = value.clone();
                }
                self.store(lease);
            }
            (Some(lease), _) => return (200, lease.clone()),
        }
        self.writes += 1;
        (200, self.lease.clone().unwrap())
    }
}

fn options(holder: &str) -> LeaseOptions {
    LeaseOptions {
        namespace: "default".to_owned(),
        name: "lease".to_owned(),
        holder: holder.to_owned(),
        duration: Duration::from_secs(1),
        renew_before: Duration::ZERO,
    }
}

fn held_by_rival() -> Value {
    json!({ "holderIdentity": "rival", "leaseDurationSeconds": 1, "leaseTransitions": 4, "renewTime": "2026-01-01T00:00:00.000000Z" })
}

#[tokio::test]
async fn a_missing_lease_is_created_and_renewed_by_one_request_each() {
    let server = Server::default();
    let mut lock = server.lock("me");
    assert!(lock.acquire().await.unwrap());
    assert_eq!(server.spec()["holderIdentity"], "me");
    assert!(lock.renew().await.unwrap() && lock.renew().await.unwrap());
    assert_eq!(server.with(|state| state.writes), 3);
}

/// The time of the last renewal is that of another clock: a year ago here.
#[tokio::test]
async fn a_lease_expires_when_it_was_unchanged_for_its_duration() {
    let server = Server::default();
    server.set(&held_by_rival());
    let mut lock = server.lock("me");
    assert!(!lock.acquire().await.unwrap(), "just observed");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut renewed = held_by_rival();
    renewed["renewTime"] = json!("2026-01-01T00:00:01.000000Z");
    server.set(&renewed);
    let since = Instant::now();
    assert!(!lock.acquire().await.unwrap(), "renewed");
    while !lock.acquire().await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(since.elapsed() >= Duration::from_secs(1), "not expired");
    assert_eq!(
        (
            &server.spec()["holderIdentity"],
            &server.spec()["leaseTransitions"]
        ),
        (&json!("me"), &json!(5))
    );
}

#[tokio::test]
async fn a_released_lease_is_acquired_at_once_by_one_of_two() {
    let server = Server::default();
    let [mut first, mut second, mut third] = ["first", "second", "third"].map(|holder| server.lock(holder));
    assert!(first.acquire().await.unwrap());
    assert!(!second.acquire().await.unwrap() && !third.acquire().await.unwrap());
    first.release().await.unwrap();
    let (second, third) = tokio::join!(second.acquire(), third.acquire());
    assert!(second.unwrap() != third.unwrap(), "one of them leads");
    assert_eq!(server.spec()["leaseTransitions"], 1);
}

/// The process of a container that restarted has the name of the one before.
#[tokio::test]
async fn a_holder_that_restarts_continues_its_lease() {
    let server = Server::default();
    assert!(server.lock("me").acquire().await.unwrap());
    assert!(server.lock("me").acquire().await.unwrap());
    assert_eq!(server.spec()["leaseTransitions"], 0);
}

#[tokio::test]
async fn a_holder_that_was_paused_does_not_undo_the_acquisition_of_its_successor() {
    let server = Server::default();
    let mut lock = server.lock("me");
    assert!(lock.acquire().await.unwrap());
    server.set(&held_by_rival());
    assert!(!lock.renew().await.unwrap(), "lost");
    lock.release().await.unwrap();
    assert_eq!(server.spec(), held_by_rival());
}

#[tokio::test]
async fn a_lease_that_another_client_edits_or_deletes_stays_with_its_holder() {
    let server = Server::default();
    let mut lock = server.lock("me");
    assert!(lock.acquire().await.unwrap());
    server.set(&server.spec());
    assert!(lock.renew().await.unwrap(), "edited");
    server.with(|state| state.lease = None);
    assert!(lock.renew().await.unwrap(), "deleted");
    assert_eq!(server.spec()["holderIdentity"], "me");
    server.set(&server.spec());
    lock.release().await.unwrap();
    assert_eq!(server.spec()["holderIdentity"], Value::Null);
}

/// The holder finds out at its next renewal only.
#[tokio::test]
async fn a_deleted_lease_is_not_acquired_before_it_expires() {
    let server = Server::default();
    server.set(&held_by_rival());
    let mut lock = server.lock("me");
    let since = Instant::now();
    assert!(!lock.acquire().await.unwrap());
    server.with(|state| state.lease = None);
    while !lock.acquire().await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(since.elapsed() >= Duration::from_secs(1), "not expired");
    assert_eq!(server.spec()["holderIdentity"], "me");
}

/// The answer to its creation was too slow.
#[tokio::test]
async fn a_holder_that_finds_its_own_lease_created_keeps_it() {
    let server = Server::default();
    let mut lock = server.lock("me");
    assert!(lock.acquire().await.unwrap());
    let held = server.spec();
    server.with(|state| state.lease = None);
    server.with(|state| state.appears = Some(held));
    assert!(lock.renew().await.unwrap());
}

#[tokio::test]
async fn a_slow_api_server_at_the_start_ends_no_process() {
    let server = Server::default();
    server.with(|state| state.hangs = 1);
    let work = |_| std::future::ready(Ok::<_, Infallible>(()));
    lead(server.client(), options("me"), CancellationToken::new(), work)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_missing_namespace_is_an_error() {
    let server = Server::default();
    server.with(|state| state.has_no_namespace = true);
    assert!(server.lock("me").acquire().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_computes_delays_no_renewal() {
    let server = Server::default();
    let watched = server.clone();
    lead(
        server.client(),
        options("me"),
        CancellationToken::new(),
        async |_| {
            let writes = watched.with(|state| state.writes);
            std::thread::sleep(Duration::from_millis(2500));
            assert!(watched.with(|state| state.writes) > writes, "not renewed");
            Ok::<_, Infallible>(())
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn work_ends_when_the_lease_is_lost_and_not_when_the_api_server_is_away() {
    let server = Server::default();
    let stop = CancellationToken::new();
    let working = lead(server.client(), options("me"), stop, |_| {
        std::future::pending::<Result<(), Infallible>>()
    });
    let script = async {
        while server.spec()["holderIdentity"] != "me" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.with(|state| state.fails = Some(503));
        while server.with(|state| state.failed) < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let writes = server.with(|state| {
            state.fails = None;
            state.writes
        });
        while server.with(|state| state.writes) == writes {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.set(&held_by_rival());
        std::future::pending::<Infallible>().await
    };
    let ended = tokio::select! {
        ended = working => ended,
        never = script => match never {},
    };
    assert!(matches!(ended, Err(Error::Lost { .. })), "{ended:?}");
}

#[tokio::test]
async fn the_lease_is_released_after_the_work_has_returned() {
    let server = Server::default();
    let stop = CancellationToken::new();
    stop.cancel();
    let held = server.clone();
    lead(server.client(), options("me"), stop, async |shutdown| {
        shutdown.cancelled().await;
        assert_eq!(held.spec()["holderIdentity"], "me");
        Ok::<_, Infallible>(())
    })
    .await
    .unwrap();
    assert_eq!(server.spec()["holderIdentity"], Value::Null);
}

#[tokio::test]
async fn a_forbidden_lease_ends_the_process_and_a_busy_api_server_does_not() {
    let server = Server::default();
    server.with(|state| state.fails = Some(403));
    let work = |_| std::future::ready(Ok::<_, Infallible>(()));
    let ended = lead(server.client(), options("me"), CancellationToken::new(), work).await;
    assert!(matches!(ended, Err(Error::Lease { .. })), "{ended:?}");
    server.with(|state| state.fails = Some(503));
    let recovery = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.with(|state| state.fails = None);
    };
    let (ended, ()) = tokio::join!(
        lead(server.client(), options("me"), CancellationToken::new(), work),
        recovery
    );
    ended.unwrap();
}
