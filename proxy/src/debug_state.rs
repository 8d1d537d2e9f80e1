//! The full state of this node: per pod and Service what is wanted, what is applied, and why not. Served as JSON at `/state`.
//!
//! Pure, but for the channel on which the driver is asked: nothing is kept up to date for nobody.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use futures::{StreamExt, stream};
use ipnet::IpNet;
use rules::{Family, PodRules, Source};
use serde::Serialize;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Longest wait for the driver.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many answers are in memory at a time: each can have megabytes, and the reader may be slow.
const MAX_RESPONSES: usize = 2;

/// Pieces in which an answer is sent. It counts as in memory until the last is taken.
const PIECE: usize = 64 * 1024;

/// Everything.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The backend in use.
    pub backend: &'static str,
    /// Whether each pod of the first list has been tried.
    pub ready: bool,
    /// The zone of this node; without one no zone hint fits.
    pub zone: Option<String>,
    /// Where ClusterIPs come from, and endpoints cannot be; empty: not known and not checked.
    pub service_cidrs: Vec<IpNet>,
    /// The condition, as on the Pod.
    pub condition: Condition,
    /// Pods of this node with a network namespace of their own.
    pub pods: Vec<PodState>,
    /// Services that nobody on this node is sent to, or not as they say.
    pub services_not_served: Vec<ServiceNotServed>,
    /// Addresses of slices that nobody is sent to, and why.
    pub invalid_addresses: Vec<String>,
}

/// See [`crate::report::node_condition::NodeCondition`].
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `true`, `false`.
    pub status: bool,
    /// CamelCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Progress {
    /// Its namespace is being written into.
    Working,
    /// It needs nothing.
    Idle,
    /// It holds what is wanted.
    Applied,
    /// It holds what is possible.
    Incomplete,
    /// The last attempt failed; another follows.
    Failing,
}

/// A pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodState {
    /// `namespace/name`.
    pub pod: String,
    /// UID at the API server.
    pub uid: String,
    /// The sandbox that the rest is about.
    pub sandbox: Option<String>,
    /// How far it is.
    pub progress: Progress,
    /// Failed attempts in a row.
    pub failures: u32,
    /// Why it is not served, or not fully: what it was told last, or why the last attempt failed.
    pub why: Option<String>,
    /// What is wanted and what of it is applied.
    pub services: Vec<ServiceState>,
    /// ClusterIPs it still holds rules of, although nothing wants them.
    pub left_over: Vec<IpAddr>,
}

/// A ClusterIP of a Service in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceState {
    /// `namespace/name`.
    pub service: String,
    /// The ClusterIP.
    pub cluster_ip: IpAddr,
    /// Interface and source address by which flows leave; absent: they are rejected.
    pub via: Option<String>,
    /// Ports, and how many endpoints each has.
    pub ports: Vec<String>,
    /// Whether the namespace holds exactly this.
    pub applied: bool,
}

/// A Service that is not served.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceNotServed {
    /// `namespace/name`.
    pub service: String,
    /// Why.
    pub why: String,
}

/// What is wanted, compared with what is held; and the VIPs held for nothing.
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

/// Whether the source in use is the one that is wanted.
fn is_same(wanted: Option<&Source>, used: Option<&Source>) -> bool {
    match (wanted, used) {
        (Some(wanted), Some(used)) if wanted.interface.is_empty() => wanted.address == used.address,
        _ => wanted == used,
    }
}

/// A request to the driver.
pub(crate) type StateRequest = oneshot::Sender<State>;

/// Where requests arrive.
pub type StateRequests = mpsc::Receiver<StateRequest>;

/// The endpoint, and where its requests arrive.
pub fn endpoint() -> (Router, StateRequests) {
    let (sender, requests) = mpsc::channel(4);
    let free = Arc::new(Semaphore::new(MAX_RESPONSES));
    let answer = move || {
        let (sender, free) = (sender.clone(), Arc::clone(&free));
        async move {
            let place = free.try_acquire_owned().map_err(|_| BUSY)?;
            let state = request_state(&sender).await?;
            Ok::<_, (StatusCode, &str)>((JSON, in_pieces(state, place)))
        }
    };
    (Router::new().route("/state", get(answer)), requests)
}

const JSON: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "application/json")];

const BUSY: (StatusCode, &str) = (
    StatusCode::SERVICE_UNAVAILABLE,
    "others read the state now; try again\n",
);

/// The body keeps its place until it is sent.
fn in_pieces(text: String, place: OwnedSemaphorePermit) -> Body {
    let text = Bytes::from(text);
    let pieces = (0..text.len())
        .step_by(PIECE)
        .map(move |start| text.slice(start..text.len().min(start + PIECE)));
    Body::from_stream(stream::iter(pieces).map(move |piece| {
        let _kept = &place;
        Ok::<_, Infallible>(piece)
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
                message: "x".repeat(3 * PIECE),
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
