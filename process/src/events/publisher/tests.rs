use super::super::event::tests::event;
use super::*;
use axum::http::{Method, Request, Response};
use kube::client::Body;
use std::convert::Infallible;

/// An API server that answers with these codes, one after the other, and then with 201.
pub(crate) struct FakeServer {
    requests: Arc<Mutex<Vec<(Method, Value)>>>,
}

impl FakeServer {
    pub(crate) fn answering(codes: &[u16]) -> (Self, Client) {
        let requests = Arc::<Mutex<Vec<(Method, Value)>>>::default();
        let (recorded, codes) = (Arc::clone(&requests), codes.to_vec());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (recorded, codes) = (Arc::clone(&recorded), codes.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let value: Value = serde_json::from_slice(&body).unwrap();
                let mut recorded = recorded.lock().unwrap();
                let code = codes.get(recorded.len()).copied().unwrap_or(201);
                let named = json!({"name": head.uri.path().rsplit('/').next()});
                recorded.push((head.method, value));
                Ok::<_, Infallible>(answer(code, &named))
            }
        });
        (Self { requests }, Client::new(service, "default"))
    }

    /// Method of each request, and its name or count.
    pub(crate) fn requests(&self) -> Vec<(Method, Value)> {
        let requests = self.requests.lock().unwrap();
        let part = |(method, body): &(Method, Value)| {
            let part = if *method == Method::POST {
                body["metadata"]["name"].clone()
            } else {
                body["series"]["count"].clone()
            };
            (method.clone(), part)
        };
        requests.iter().map(part).collect()
    }
}

fn answer(code: u16, metadata: &Value) -> Response<Body> {
    let body = if code < 400 {
        json!({"metadata": metadata, "series": {"count": 6, "lastObservedTime": "2026-01-02T03:04:05.000000Z"}})
    } else {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": "no"})
    };
    let body = Body::from(serde_json::to_vec(&body).unwrap());
    Response::builder().status(code).body(body).unwrap()
}

fn publisher(codes: &[u16]) -> (FakeServer, Publisher) {
    let (server, client) = FakeServer::answering(codes);
    (server, Publisher::new(client, "test", "test-1"))
}

fn created(name: &str) -> (Method, Value) {
    (Method::POST, json!(name))
}

fn counted(count: i32) -> (Method, Value) {
    (Method::PATCH, json!(count))
}

#[tokio::test]
async fn a_repeated_event_is_counted_in_one_request() {
    let (server, publisher) = publisher(&[]);
    let (first, other) = (event("web", "a"), event("web", "b"));
    publisher.publish(&first).await.unwrap();
    publisher.publish(&other).await.unwrap();
    publisher.publish(&first).await.unwrap();
    assert_eq!(
        server.requests(),
        [created(&first.name()), counted(2), counted(3)]
    );
}

#[tokio::test]
async fn an_event_of_an_earlier_process_is_counted_on() {
    let (server, publisher) = publisher(&[409]);
    let event = event("web", "a");
    publisher.publish(&event).await.unwrap();
    publisher.publish(&event).await.unwrap();
    let read = (Method::PATCH, Value::Null);
    assert_eq!(
        server.requests(),
        [created(&event.name()), read, counted(7), counted(8)]
    );
}

#[tokio::test]
async fn an_event_that_the_api_server_deleted_is_created_again() {
    let (server, publisher) = publisher(&[201, 404]);
    let event = event("web", "a");
    publisher.publish(&event).await.unwrap();
    publisher.publish(&event).await.unwrap();
    let name = event.name();
    assert_eq!(server.requests(), [created(&name), counted(2), created(&name)]);
}

/// A tenant may write an Event under the name that this process uses; the admission policy lets this account write only its own.
#[tokio::test]
async fn an_event_of_another_client_under_the_same_name_suppresses_none() {
    let (server, publisher) = publisher(&[409, 403]);
    let event = event("web", "a");
    publisher.publish(&event).await.unwrap();
    publisher.publish(&event).await.unwrap();
    let requests = server.requests();
    let name = requests[2].1.as_str().unwrap();
    assert!(name.starts_with(&format!("{}.", event.name())), "{name}");
    assert_eq!((requests.len(), &requests[3]), (4, &counted(2)));
}

#[tokio::test]
async fn a_failed_event_is_not_counted() {
    let (server, publisher) = publisher(&[500]);
    let event = event("web", "a");
    let error = publisher.publish(&event).await.unwrap_err();
    assert!(!error.is_rejection(), "{error}");
    publisher.publish(&event).await.unwrap();
    assert_eq!(
        server.requests(),
        [created(&event.name()), created(&event.name())]
    );
}

#[tokio::test]
async fn events_on_one_object_are_limited_and_those_on_others_are_not() {
    let (server, publisher) = publisher(&[]);
    for _ in 0..100 {
        publisher.publish(&event("web", "a")).await.unwrap();
    }
    assert_eq!(server.requests().len(), 64);
    publisher.publish(&event("db", "a")).await.unwrap();
    assert_eq!(server.requests().len(), 65);
}
