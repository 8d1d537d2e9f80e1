//! Lets only allowed clients through to a route.
//!
//! Pure but for the reviews.

use super::authorization::{Decision, User, bearer_token, decide};
use super::client_certificate;
use super::reviews::{Reviews, Unanswered};
use super::server::ClientCertificate;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rejection {
    /// No credentials, or wrong ones.
    Unauthorized,
    /// The user has no right.
    Forbidden,
    /// The API server does not answer, or was asked too much.
    Unavailable,
}

impl From<Unanswered> for Rejection {
    fn from(Unanswered: Unanswered) -> Self {
        Self::Unavailable
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        match self {
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, "Bearer")],
                "unauthorized\n",
            )
                .into_response(),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden\n").into_response(),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "authorization is not available\n",
            )
                .into_response(),
        }
    }
}

/// Middleware of routes with a fixed path (`Router::route_layer`): a client cannot fill the cache with other paths.
pub(crate) async fn require(State(reviews): State<Arc<Reviews>>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match authorize(&reviews, &head).await {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(rejection) => rejection.into_response(),
    }
}

async fn authorize(reviews: &Reviews, request: &Parts) -> Result<(), Rejection> {
    let verb = match request.method {
        Method::GET => "get",
        Method::HEAD => "head",
        _ => return Err(Rejection::Forbidden),
    };
    let path = request.uri.path();
    let certificate = request.extensions.get::<ClientCertificate>();
    let user = match certificate.and_then(|certificate| client_certificate::user(&certificate.0)) {
        Some(user) => user,
        None => token_user(reviews, &request.headers).await?,
    };
    if decide(&user, verb, path) == Decision::Allow {
        return Ok(());
    }
    if reviews.allows(user, verb, path).await? {
        Ok(())
    } else {
        Err(Rejection::Forbidden)
    }
}

async fn token_user(reviews: &Reviews, headers: &HeaderMap) -> Result<User, Rejection> {
    let header = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = header.and_then(bearer_token).ok_or(Rejection::Unauthorized)?;
    reviews.user(token).await?.ok_or(Rejection::Unauthorized)
}

#[cfg(test)]
mod tests;
