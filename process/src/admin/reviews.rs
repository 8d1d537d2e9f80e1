//! Questions to the API server: which user a token belongs to, and whether a user may read a path.
//!
//! Writes: TokenReviews and SubjectAccessReviews, which the API server answers and does not keep. Answers are cached, questions limited.

use super::authorization::{User, access_review, is_allowed, reviewed_user, token_review};
use super::review_cache::{Answer, CacheLimits, ReviewCache, ReviewRate, TokenHash};
use crate::error_chain;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::PostParams;
use kube::{Api, Client};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::{info, warn};

/// Limit of one question. Two of them fit into the time of a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// A user, a verb and a path.
type Access = (User, String, String);

/// The question could not be put, or was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unanswered;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("failed to get an answer within 5 s")]
    Late,
}

/// Asks the API server.
pub(crate) struct Reviews {
    client: Client,
    tokens: Mutex<ReviewCache<TokenHash, User>>,
    accesses: Mutex<ReviewCache<Access, ()>>,
    /// Limit of questions about what is unknown.
    rate: Mutex<ReviewRate>,
    /// Limit of renewals: a flood of wrong tokens does not keep a valid client from its next answer.
    renewal_rate: Mutex<ReviewRate>,
    is_failing: AtomicBool,
}

impl Reviews {
    pub(crate) fn new(client: Client, limits: CacheLimits) -> Self {
        Self {
            client,
            tokens: Mutex::new(ReviewCache::new(limits)),
            accesses: Mutex::new(ReviewCache::new(limits)),
            rate: Mutex::default(),
            renewal_rate: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Returns the user of `token`: none where it is not valid.
    pub(crate) async fn user(&self, token: &str) -> Result<Option<User>, Unanswered> {
        let ask = async || {
            let answer = self.ask::<TokenReview>(&token_review(token)).await?;
            Ok(reviewed_user(answer).map_or(Answer::Negative, Answer::Positive))
        };
        match self.cached(&self.tokens, TokenHash::of(token), ask).await? {
            Answer::Positive(user) => Ok(Some(user)),
            Answer::Negative => Ok(None),
        }
    }

    /// Returns whether `user` may use `verb` on `path`.
    pub(crate) async fn allows(&self, user: User, verb: &str, path: &str) -> Result<bool, Unanswered> {
        let review = access_review(&user, verb, path);
        let ask = async || {
            let answer = self.ask::<SubjectAccessReview>(&review).await?;
            Ok(if is_allowed(&answer) {
                Answer::Positive(())
            } else {
                Answer::Negative
            })
        };
        let key = (user, verb.to_owned(), path.to_owned());
        Ok(self.cached(&self.accesses, key, ask).await? == Answer::Positive(()))
    }

    async fn cached<K: Eq + Hash + Clone, V: Clone>(
        &self,
        cache: &Mutex<ReviewCache<K, V>>,
        key: K,
        ask: impl AsyncFnOnce() -> Result<Answer<V>, Error>,
    ) -> Result<Answer<V>, Unanswered> {
        let (known, is_renewal) = {
            let cache = lock(cache);
            (cache.get(&key, Instant::now()), cache.was_positive(&key))
        };
        if let Some(answer) = known {
            return Ok(answer);
        }
        let rate = if is_renewal {
            &self.renewal_rate
        } else {
            &self.rate
        };
        if !lock(rate).take(Instant::now()) {
            return Err(Unanswered);
        }
        let answer = ask().await;
        self.log(answer.as_ref().err());
        let answer = answer.map_err(|_| Unanswered)?;
        lock(cache).insert(key, answer.clone(), Instant::now());
        Ok(answer)
    }

    async fn ask<K>(&self, question: &K) -> Result<K, Error>
    where
        K: kube::Resource<DynamicType = ()>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answer = timeout(PATIENCE, api.create(&params, question)).await;
        Ok(answer.map_err(|_| Error::Late)??)
    }

    /// One line when questions begin to fail, and one when they succeed again.
    fn log(&self, error: Option<&Error>) {
        let was_failing = self.is_failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_failing => {
                warn!(error = %error_chain(error), "Failed to authorize a client of the metrics, rejecting those that need a review");
            }
            None if was_failing => info!("Authorized clients of the metrics again"),
            _ => {}
        }
    }
}

/// No code panics while it holds these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
