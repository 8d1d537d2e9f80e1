use super::super::event::tests::event;
use super::super::publisher::tests::FakeServer;
use super::*;
use axum::http::Method;
use kube::core::Status;

fn api(code: u16) -> Error {
    let status = Status {
        code,
        ..Status::default()
    };
    Error::Api(Box::new(kube::Error::Api(Box::new(status))))
}

/// The queue, with a writer that waits for milliseconds where the real one waits for seconds.
fn channel() -> (EventSender, EventWriter) {
    let (sender, mut writer) = super::channel();
    (writer.first_backoff, writer.drain) = (Duration::from_millis(1), Duration::from_millis(500));
    (sender, writer)
}

#[test]
fn a_full_queue_rejects_an_event_and_blocks_no_caller() {
    let (sender, writer) = super::channel();
    for _ in 0..QUEUE {
        assert!(sender.send(event("web", "a")));
    }
    assert!(!sender.send(event("web", "a")));
    drop(writer);
    assert!(!sender.send(event("web", "a")), "the writer is gone");
}

#[test]
fn an_outage_is_retried_with_backoff_for_minutes_and_another_failure_is_not() {
    for code in [400, 403, 404, 422, 429, 500] {
        assert_eq!(retry_after(&api(code), 1, FIRST_BACKOFF), None, "{code}");
    }
    for error in [api(503), api(504), Error::Timeout] {
        assert_eq!(
            retry_after(&error, 1, FIRST_BACKOFF),
            Some(Duration::from_secs(1))
        );
        assert_eq!(
            retry_after(&error, 5, FIRST_BACKOFF),
            Some(Duration::from_secs(16))
        );
        assert_eq!(
            retry_after(&error, MAX_ATTEMPTS - 1, FIRST_BACKOFF),
            Some(MAX_BACKOFF)
        );
        assert_eq!(retry_after(&error, MAX_ATTEMPTS, FIRST_BACKOFF), None);
    }
}

#[tokio::test]
async fn events_of_an_outage_are_written_in_order_after_it() {
    let (server, client) = FakeServer::answering(&[503, 503, 503]);
    let (sender, writer) = channel();
    let events = [event("web-1", "a"), event("web-2", "a")];
    assert!(events.iter().all(|event| sender.send(event.clone())));
    drop(sender);
    writer.run(Publisher::new(client, "test", "test-1")).await;
    let names: Vec<_> = server.requests()[3..].to_vec();
    assert_eq!(names, events.map(|event| (Method::POST, event.name().into())));
}

#[tokio::test]
async fn a_failed_event_holds_up_no_other() {
    let (server, client) = FakeServer::answering(&[500]);
    let (sender, writer) = channel();
    assert!(sender.send(event("web-1", "a")) && sender.send(event("web-2", "a")));
    drop(sender);
    writer.run(Publisher::new(client, "test", "test-1")).await;
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn events_that_wait_when_the_work_ends_are_still_written() {
    let (server, client) = FakeServer::answering(&[503]);
    let (sender, writer) = channel();
    let work = async move { sender.send(event("web", "a")) };
    assert!(
        writer
            .run_beside(Publisher::new(client, "test", "test-1"), work)
            .await
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn an_outage_does_not_delay_the_end_of_the_process() {
    let (server, client) = FakeServer::answering(&[503; 100]);
    let (sender, mut writer) = channel();
    writer.first_backoff = MAX_BACKOFF;
    let work = async move { sender.send(event("web", "a")) };
    writer
        .run_beside(Publisher::new(client, "test", "test-1"), work)
        .await;
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_failure_is_logged_once_until_it_changes_or_ends() {
    let mut log = FailureLog::default();
    assert!(log.is_new(&Error::Timeout));
    assert!(!log.is_new(&Error::Timeout));
    assert!(log.is_new(&api(503)));
    log.succeeded();
    assert!(log.is_new(&api(503)));
}
