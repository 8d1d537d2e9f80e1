//! An API server that answers reviews and counts them.

use crate::admin::review_cache::CacheLimits;
use crate::admin::reviews::Reviews;
use axum::http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The token `valid` belongs to `a`, who may do everything; `other` belongs to `b`, who may not.
#[derive(Clone, Default)]
pub(in crate::admin) struct ApiServer {
    questions: Arc<AtomicUsize>,
    is_away: Arc<AtomicBool>,
}

impl ApiServer {
    fn answer(&self, path: &str, question: &Value) -> Response<Body> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let (status, answer) = if self.is_away.load(Ordering::Relaxed) {
            let failure = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "away", "reason": "x", "code": 503});
            (503, failure)
        } else if path.ends_with("/tokenreviews") {
            let user = match question["spec"]["token"].as_str() {
                Some("valid") => Some("a"),
                Some("other") => Some("b"),
                _ => None,
            };
            let status = json!({"authenticated": user.is_some(), "user": {"username": user}});
            (201, json!({"metadata": {}, "spec": {}, "status": status}))
        } else {
            let is_allowed = question["spec"]["user"] == "a";
            (
                201,
                json!({"metadata": {}, "spec": {}, "status": {"allowed": is_allowed}}),
            )
        };
        let body = Body::from(serde_json::to_vec(&answer).unwrap());
        Response::builder().status(status).body(body).unwrap()
    }

    pub(in crate::admin) fn reviews(&self) -> Reviews {
        Reviews::new(self.client(), CacheLimits::default())
    }

    pub(in crate::admin) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect_bytes().await.unwrap();
                Ok::<_, Infallible>(server.answer(&path, &serde_json::from_slice(&body).unwrap_or_default()))
            }
        });
        Client::new(service, "default")
    }

    pub(in crate::admin) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    pub(in crate::admin) fn questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }
}
