//! A way to the API server that kills the operator right after a chosen write of it, before the operator hears of its success.

use anyhow::Result;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use e2e::command;
use kube::Client;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the gate counts and whom it kills.
#[derive(Default)]
pub(crate) struct Gate {
    requests: AtomicUsize,
    /// Whether the API server seems to be one without ServiceCIDRs, as before Kubernetes 1.33.
    lacks_service_cidrs: bool,
    under_way: AtomicUsize,
    count: Mutex<Count>,
}

/// One lock for all: a kill is either before the gate is disarmed, and known, or never.
#[derive(Default)]
struct Count {
    writes: usize,
    fatal: usize,
    victim: u32,
    has_killed: bool,
}

impl Gate {
    /// To an API server that does not serve ServiceCIDRs.
    pub(crate) fn without_service_cidrs() -> Self {
        Self {
            lacks_service_cidrs: true,
            ..Self::default()
        }
    }

    /// Serves on a free loopback port in the name of `client`; returns its URL.
    pub(crate) async fn open(self: &Arc<Self>, client: Client) -> Result<String> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new()
            .fallback(forward)
            .with_state((Arc::clone(self), client));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(url)
    }

    /// Requests of any kind so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Writes since the gate was opened or armed.
    pub(crate) fn writes(&self) -> usize {
        self.count().writes
    }

    /// The `fatal`th write from now on kills the process; 0: none does.
    pub(crate) fn arm(&self, fatal: usize, victim: u32) {
        *self.count() = Count {
            fatal,
            victim,
            ..Count::default()
        };
    }

    /// From now on no write kills; says whether one has.
    pub(crate) fn disarm(&self) -> bool {
        std::mem::take(&mut *self.count()).has_killed
    }

    /// Whether the fatal write has happened.
    pub(crate) fn has_killed(&self) -> bool {
        self.count().has_killed
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        // Nobody panics while he holds it.
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every write that has come through has been counted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) == 0
    }

    /// Counts a write; whom to kill when it is the fatal one.
    fn victim(&self) -> Option<u32> {
        let mut count = self.count();
        count.writes += 1;
        let is_fatal = count.writes == count.fatal;
        count.has_killed |= is_fatal;
        is_fatal.then_some(count.victim)
    }
}

async fn forward(State((gate, client)): State<(Arc<Gate>, Client)>, request: Request) -> Response {
    gate.requests.fetch_add(1, Ordering::SeqCst);
    let is_write = is_write(&request);
    if gate.lacks_service_cidrs && request.uri().path() == "/apis/networking.k8s.io/v1" {
        let served = without(&client, request, "servicecidrs").await;
        return served.unwrap_or_else(|error| rejected(&error));
    }
    if !is_write {
        return pass(&client, request)
            .await
            .unwrap_or_else(|error| rejected(&error));
    }
    gate.under_way.fetch_add(1, Ordering::SeqCst);
    let passed = pass(&client, request).await;
    let has_succeeded = passed
        .as_ref()
        .is_ok_and(|response| response.status().is_success());
    let victim = has_succeeded.then(|| gate.victim()).flatten();
    gate.under_way.fetch_sub(1, Ordering::SeqCst);
    if let Some(victim) = victim {
        let _ = command::run("kill", &["-KILL", &victim.to_string()]);
        // It must not hear the answer.
        std::future::pending::<()>().await;
    }
    passed.unwrap_or_else(|error| rejected(&error))
}

fn rejected(error: &anyhow::Error) -> Response {
    (StatusCode::BAD_GATEWAY, error.to_string()).into_response()
}

/// The Lease is renewed by the clock, rehearsals change nothing, events are no state.
fn is_write(request: &Request) -> bool {
    let target = request.uri().to_string();
    request.method() != Method::GET
        && !["/leases", "/events", "dryRun"]
            .iter()
            .any(|part| target.contains(part))
}

/// The kinds that are served, without one.
async fn without(client: &Client, request: Request, resource: &str) -> Result<Response> {
    let (parts, body) = pass(client, request).await?.into_parts();
    let mut served: Value = serde_json::from_slice(&to_bytes(body, usize::MAX).await?)?;
    if let Some(resources) = served["resources"].as_array_mut() {
        resources.retain(|served| served["name"] != resource);
    }
    Ok((
        parts.status,
        [("content-type", "application/json")],
        served.to_string(),
    )
        .into_response())
}

async fn pass(client: &Client, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    // Addressed and signed anew.
    parts.headers.remove("host");
    parts.headers.remove("authorization");
    let body = to_bytes(body, usize::MAX).await?;
    let response = client
        .send(axum::http::Request::from_parts(parts, body.into()))
        .await?;
    Ok(response.map(Body::new))
}
