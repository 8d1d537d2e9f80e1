//! Debug state of this node: wanted and applied rules per pod and Service, and errors. Served as JSON at `/state`.
//!
//! Pure, except for the channel to the driver, which computes the state on request.

use api::Family;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use futures::{StreamExt, stream};
use ipnet::IpNet;
use rules::{PodRules, Source};
use serde::Serialize;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Longest wait for the driver.
const PATIENCE: Duration = Duration::from_secs(5);

/// Responses in memory at the same time: each can have megabytes, and the client may be slow.
const MAX_RESPONSES: usize = 2;

/// Size of the chunks of a response. A response counts as in memory until its last chunk is sent.
const CHUNK: usize = 64 * 1024;

/// State of the node.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Backend in use.
    pub backend: &'static str,
    /// Each pod of the first list had an attempt.
    pub ready: bool,
    /// Zone of this node; without one no zone hint matches.
    pub zone: Option<String>,
    /// ClusterIP ranges, which cannot contain endpoints; empty: unknown, not checked.
    pub service_cidrs: Vec<IpNet>,
    /// Condition of the own Pod.
    pub condition: Condition,
    /// Pods of this node with a network namespace of their own.
    pub pods: Vec<PodState>,
    /// Services that are not served on this node, or not as specified.
    pub services_not_served: Vec<ServiceNotServed>,
    /// Ignored addresses of slices, with the reason.
    pub invalid_addresses: Vec<String>,
}

/// See [`crate::report::node_condition::NodeCondition`].
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Status.
    pub status: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// Human-readable message.
    pub message: String,
}

/// Progress of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Progress {
    /// An attempt is running.
    Working,
    /// No rules are wanted.
    Idle,
    /// All wanted rules are applied.
    Applied,
    /// Some wanted rules cannot be applied.
    Incomplete,
    /// The last attempt failed and is retried.
    Failing,
}

/// State of a pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodState {
    /// `namespace/name`.
    pub pod: String,
    /// UID of the Pod object.
    pub uid: String,
    /// Id of the sandbox.
    pub sandbox: Option<String>,
    /// Progress.
    pub progress: Progress,
    /// Consecutive failed attempts.
    pub failures: u32,
    /// Note of the current Event, or else the error of the last attempt.
    pub why: Option<String>,
    /// Wanted Services, and whether they are applied.
    pub services: Vec<ServiceState>,
    /// ClusterIPs with rules that are not wanted any more.
    pub left_over: Vec<IpAddr>,
}

/// State of a ClusterIP in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceState {
    /// `namespace/name`.
    pub service: String,
    /// ClusterIP.
    pub cluster_ip: IpAddr,
    /// Interface and source address of flows; absent: flows are rejected.
    pub via: Option<String>,
    /// Ports, each with its number of endpoints.
    pub ports: Vec<String>,
    /// The namespace has exactly these rules.
    pub applied: bool,
}

/// Service that is not served, or not as specified.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceNotServed {
    /// `namespace/name`.
    pub service: String,
    /// Reason.
    pub why: String,
}

/// Compares wanted with held rules; returns the Services, and VIPs with rules that are not wanted.
pub(crate) fn services(wanted: &PodRules, held: Option<&PodRules>) -> (Vec<ServiceState>, Vec<IpAddr>) {
    let (mut services, mut left_over) = (Vec::new(), Vec::new());
    for family in Family::ALL {
        let wanted = wanted.vips(family);
        let held = held.map(|held| held.vips(family)).unwrap_or_default();
        left_over.extend(held.keys().filter(|vip| !wanted.contains_key(*vip)));
        services.extend(wanted.iter().map(|(vip, (rules, source))| {
            let there = held.get(vip);
            let is_applied = there.is_some_and(|there| there.0 == *rules && is_same(*source, there.1));
            // network-status may leave the interface to the namespace.
            let source = if is_applied {
                there.and_then(|there| there.1)
            } else {
                *source
            };
            ServiceState {
                service: rules.service.to_string(),
                cluster_ip: *vip,
                via: source.map(|source| format!("{} {}", source.interface, source.address)),
                ports: rules
                    .ports
                    .iter()
                    .map(|(port, rules)| {
                        format!(
                            "{}/{}: {} endpoints",
                            port.number,
                            port.protocol,
                            rules.endpoints.len()
                        )
                    })
                    .collect(),
                applied: is_applied,
            }
        }));
    }
    (services, left_over)
}

/// Returns true when the source in use is the wanted one.
fn is_same(wanted: Option<&Source>, used: Option<&Source>) -> bool {
    match (wanted, used) {
        (Some(wanted), Some(used)) if wanted.interface.is_empty() => wanted.address == used.address,
        _ => wanted == used,
    }
}

/// Request to the driver.
pub(crate) type StateRequest = oneshot::Sender<State>;

/// Receiver of requests.
pub type StateRequests = mpsc::Receiver<StateRequest>;

/// Creates the HTTP endpoint and the receiver of its requests.
pub fn endpoint() -> (Router, StateRequests) {
    let (sender, requests) = mpsc::channel(4);
    let free = Arc::new(Semaphore::new(MAX_RESPONSES));
    let answer = move || {
        let (sender, free) = (sender.clone(), Arc::clone(&free));
        async move {
            let permit = free.try_acquire_owned().map_err(|_| BUSY)?;
            let state = request_state(&sender).await?;
            Ok::<_, (StatusCode, &str)>((JSON, in_chunks(state, permit)))
        }
    };
    (Router::new().route("/state", get(answer)), requests)
}

const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

const BUSY: (StatusCode, &str) = (
    StatusCode::SERVICE_UNAVAILABLE,
    "too many requests for the state; try again\n",
);

/// The body keeps its permit until it is sent.
fn in_chunks(text: String, permit: OwnedSemaphorePermit) -> Body {
    let text = Bytes::from(text);
    let chunks = (0..text.len())
        .step_by(CHUNK)
        .map(move |start| text.slice(start..text.len().min(start + CHUNK)));
    Body::from_stream(stream::iter(chunks).map(move |chunk| {
        let _kept = &permit;
        Ok::<_, Infallible>(chunk)
    }))
}

async fn request_state(sender: &mpsc::Sender<StateRequest>) -> Result<String, (StatusCode, &'static str)> {
    let (request, answer) = oneshot::channel();
    let answered = async {
        sender.send(request).await.ok()?;
        let state = answer.await.ok()?;
        serde_json::to_string_pretty(&state).ok()
    };
    tokio::time::timeout(PATIENCE, answered)
        .await
        .ok()
        .flatten()
        .ok_or((StatusCode::SERVICE_UNAVAILABLE, "not serving yet\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;
    use tower::ServiceExt as _;

    async fn get(router: &Router) -> (StatusCode, Body) {
        let request = Request::get("/state").body(Body::empty()).unwrap();
        let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        (parts.status, body)
    }

    fn state() -> State {
        State {
            backend: "nftables",
            ready: true,
            zone: None,
            service_cidrs: Vec::new(),
            condition: Condition {
                status: true,
                reason: "",
                message: "x".repeat(3 * CHUNK),
            },
            pods: Vec::new(),
            services_not_served: Vec::new(),
            invalid_addresses: Vec::new(),
        }
    }

    #[tokio::test]
    async fn unread_responses_are_limited() {
        let (router, mut requests) = endpoint();
        let driver = tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let _ = request.send(state());
            }
        });
        let mut unread = Vec::new();
        for _ in 0..MAX_RESPONSES {
            let (status, body) = get(&router).await;
            assert_eq!(status, StatusCode::OK);
            unread.push(body);
        }
        assert_eq!(get(&router).await.0, StatusCode::SERVICE_UNAVAILABLE);
        let read = axum::body::to_bytes(unread.remove(0), 1 << 20).await.unwrap();
        assert_eq!(read, serde_json::to_string_pretty(&state()).unwrap());
        assert_eq!(get(&router).await.0, StatusCode::OK);
        driver.abort();
    }
}
