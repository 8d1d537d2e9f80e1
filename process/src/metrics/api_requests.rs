//! Requests to the API server, by verb and code: a layer around the service of the client.

mod verb;

use axum::http::{Request, Response, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Static texts: a request allocates nothing for its count, and there are at most as many series as verbs times codes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    verb: &'static str,
    code: &'static str,
}

static REQUESTS: LazyLock<Family<Labels, Counter>> = LazyLock::new(Family::default);

pub(super) fn register(registry: &mut Registry) {
    for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
        // A series that appears with its first error hides that error from `rate()`.
        drop(REQUESTS.get_or_create(&Labels { verb, code: "error" }));
    }
    registry.register(
        "api_requests",
        "Requests to the API server by the code of the response; error: there was no response",
        REQUESTS.clone(),
    );
}

/// Codes that an API server responds with.
const CODES: &[(u16, &str)] = &[
    (101, "101"),
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (409, "409"),
    (410, "410"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

/// Label of a code; other codes count as their class.
fn label(code: StatusCode) -> &'static str {
    let known = CODES.iter().find(|(known, _)| *known == code.as_u16());
    known.map_or_else(|| class(code), |(_, label)| label)
}

fn class(code: StatusCode) -> &'static str {
    match code.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// Counts the requests of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountRequests;

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner }
    }
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let verb = verb::of(request.method(), request.uri());
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await;
            let code = response
                .as_ref()
                .map_or("error", |response| label(response.status()));
            REQUESTS.get_or_create(&Labels { verb, code }).inc();
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::client::{Body, ClientBuilder};
    use std::convert::Infallible;
    use std::io;
    use tower::service_fn;

    fn counted(verb: &'static str, code: &'static str) -> u64 {
        REQUESTS.get_or_create(&Labels { verb, code }).get()
    }

    // Codes that no other test of this process uses: the counters are global.
    #[tokio::test]
    async fn api_requests_are_counted_by_verb_and_code() {
        let teapot = service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::builder().status(413).body(Body::empty()).unwrap())
        });
        let client = ClientBuilder::new(teapot, "default")
            .with_layer(&CountRequests)
            .build();
        let before = counted("get", "413");
        client.apiserver_version().await.unwrap_err();
        assert_eq!(counted("get", "413"), before + 1);
    }

    #[tokio::test]
    async fn an_api_request_without_a_response_counts_as_an_error() {
        let broken =
            service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>(io::Error::other("no route")) });
        let mut service = CountRequests.layer(broken);
        let request = Request::put("/api/v1/nodes/n1").body(Body::empty()).unwrap();
        let before = counted("update", "error");
        service.call(request).await.unwrap_err();
        assert_eq!(counted("update", "error"), before + 1);
    }

    #[test]
    fn every_code_has_a_label_of_a_fixed_set() {
        let labels: std::collections::BTreeSet<_> = (100..1000)
            .map(|code| label(StatusCode::from_u16(code).unwrap()))
            .collect();
        assert_eq!(label(StatusCode::IM_A_TEAPOT), "4xx");
        assert!(labels.len() < 30, "{labels:?}");
    }
}
