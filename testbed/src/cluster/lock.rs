//! One `up` or `down` at a time.
//!
//! Writes: an abstract unix socket, which the kernel removes with the last process that holds it.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::layout::NAME;
use crate::wait;

/// A second holder waits this long for the first.
///
/// A killed `up` is gone before its children are: a child between fork and exec still holds a copy of the socket.
const LIMIT: Duration = Duration::from_secs(5);

/// Held until dropped.
pub(super) struct Lock(#[expect(dead_code, reason = "held, not used")] UnixListener);

impl Lock {
    pub(super) fn take() -> Result<Self> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        let bind = || Ok(Some(UnixListener::bind_addr(&address)?));
        let listener = wait::value(LIMIT, "the lock of the cluster", bind).with_context(|| {
            format!("another `cluster up` or `cluster down` is at work (`ss -xlp src '@{NAME}'` names it)")
        })?;
        Ok(Self(listener))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test: the lock is the machine's.
    #[test]
    fn a_second_holder_is_rejected_until_the_first_is_gone() {
        let Ok(first) = Lock::take() else {
            return assert!(Lock::take().is_err());
        };
        let error = format!("{:#}", Lock::take().err().unwrap());
        assert!(error.contains("another `cluster up`"), "{error}");

        let exiting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(first);
        });
        let second = Lock::take();
        exiting.join().unwrap();
        assert!(second.is_ok());
    }
}
