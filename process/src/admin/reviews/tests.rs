//! Questions to an API server that counts them.

use super::*;
use crate::admin::testing::ApiServer;

fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        ..User::default()
    }
}

#[tokio::test]
async fn an_answer_is_asked_for_once() {
    let server = ApiServer::default();
    let reviews = server.reviews();
    for _ in 0..3 {
        assert_eq!(reviews.user("valid").await, Ok(Some(user("a"))));
        assert_eq!(reviews.user("wrong").await, Ok(None));
        assert_eq!(reviews.allows(user("a"), "get", "/metrics").await, Ok(true));
        assert_eq!(reviews.allows(user("b"), "get", "/metrics").await, Ok(false));
    }
    assert_eq!(server.questions(), 4);
    assert_eq!(reviews.allows(user("a"), "get", "/state").await, Ok(true));
    assert_eq!(server.questions(), 5, "another path is another question");
}

#[tokio::test]
async fn a_flood_of_random_tokens_is_no_flood_of_the_api_server() {
    let server = ApiServer::default();
    let reviews = server.reviews();
    assert_eq!(reviews.user("valid").await, Ok(Some(user("a"))));
    let began = Instant::now();
    let mut unanswered = 0;
    for n in 0..10_000 {
        unanswered += usize::from(reviews.user(&n.to_string()).await.is_err());
    }
    let pauses = began.elapsed().as_nanos() / ReviewRate::PAUSE.as_nanos();
    let allowed = usize::try_from(ReviewRate::BURST).unwrap() + usize::try_from(pauses).unwrap() + 2;
    assert!(server.questions() <= allowed, "{} questions", server.questions());
    assert!(unanswered >= 10_000 - allowed);
    assert_eq!(
        reviews.user("valid").await,
        Ok(Some(user("a"))),
        "a known token stays valid"
    );
}

#[tokio::test]
async fn a_valid_client_is_renewed_during_a_flood_of_random_tokens() {
    let server = ApiServer::default();
    let limits = CacheLimits {
        positive: Duration::from_millis(1),
        ..CacheLimits::default()
    };
    let reviews = Reviews::new(server.client(), limits);
    assert_eq!(reviews.user("valid").await, Ok(Some(user("a"))));
    assert_eq!(reviews.allows(user("a"), "get", "/metrics").await, Ok(true));
    for n in 0..100 {
        let _ = reviews.user(&n.to_string()).await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(
        reviews.user("another").await,
        Err(Unanswered),
        "the flood goes on"
    );
    assert_eq!(reviews.user("valid").await, Ok(Some(user("a"))));
    assert_eq!(reviews.allows(user("a"), "get", "/metrics").await, Ok(true));
}

#[tokio::test]
async fn a_token_is_not_wrong_because_the_api_server_is_away() {
    let server = ApiServer::default();
    let reviews = server.reviews();
    server.set_away(true);
    assert_eq!(reviews.user("valid").await, Err(Unanswered));
    server.set_away(false);
    assert_eq!(reviews.user("valid").await, Ok(Some(user("a"))));
}
