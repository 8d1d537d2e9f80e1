//! Bounded waits: every wait has a deadline and a description, and says at the end what it last saw.
//!
//! Writes: nothing.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

const PAUSE: Duration = Duration::from_millis(100);

/// Calls `probe` until it answers `true`, for at most `limit`.
///
/// `Ok(false)` and `Err` both mean "not yet"; the last error is part of the failure message, which starts with
/// `what` ("pod web/a to become ready"). `probe` must return by itself.
pub fn until(limit: Duration, what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    value(limit, what, || Ok(probe()?.then_some(())))
}

/// [`until`] for a probe that finds something: `Ok(None)` means "not yet".
pub fn value<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let mut wait = Wait::new(limit, what);
    loop {
        match probe() {
            Ok(Some(value)) => return Ok(value),
            answer => wait.saw(answer.err())?,
        }
        std::thread::sleep(PAUSE);
    }
}

/// [`value`] in asynchronous code; an attempt that hangs is cut off at the deadline.
pub async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let mut wait = Wait::new(limit, what);
    loop {
        match tokio::time::timeout(wait.left(), probe()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(answer) => wait.saw(answer.err())?,
            Err(_) => wait.saw(Some(anyhow!("the last attempt did not return")))?,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Wait<'a> {
    what: &'a str,
    limit: Duration,
    since: Instant,
    last: Option<anyhow::Error>,
}

impl<'a> Wait<'a> {
    fn new(limit: Duration, what: &'a str) -> Self {
        Self {
            what,
            limit,
            since: Instant::now(),
            last: None,
        }
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.since.elapsed())
    }

    /// Remembers the outcome of an attempt; fails when the time is up.
    fn saw(&mut self, error: Option<anyhow::Error>) -> Result<()> {
        self.last = error.or_else(|| self.last.take());
        if !self.left().is_zero() {
            return Ok(());
        }
        let mut message = format!("waited {:.0?} for {}", self.limit, self.what);
        if let Some(last) = &self.last {
            let _ = write!(message, "; the last error was: {last:#}");
        }
        Err(anyhow!(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_the_wait() {
        let mut calls = 0;
        let answer = value(Duration::from_secs(5), "the third call", || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(answer.unwrap(), 3);
    }

    #[test]
    fn the_deadline_names_what_was_awaited_and_the_last_error() {
        let error = value::<()>(Duration::ZERO, "node1 to be Ready", || {
            Err(anyhow!("no such node"))
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "waited 0ns for node1 to be Ready; the last error was: no such node"
        );
    }

    #[tokio::test]
    async fn a_probe_that_hangs_is_cut_off() {
        let error = eventually::<()>(Duration::from_millis(50), "an answer", async || {
            std::future::pending().await
        })
        .await
        .unwrap_err();
        assert!(
            error.to_string().contains("the last attempt did not return"),
            "{error}"
        );
    }
}
