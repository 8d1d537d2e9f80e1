//! One `up` or `down` at a time.
//!
//! Writes: an abstract unix socket, which the kernel removes with the process that holds it, however that ends.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context as _, Result};

use super::layout::NAME;

/// Held until dropped.
pub(super) struct Lock(#[expect(dead_code, reason = "held, not used")] UnixListener);

impl Lock {
    pub(super) fn take() -> Result<Self> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        let listener = UnixListener::bind_addr(&address).with_context(|| {
            format!("another `cluster up` or `cluster down` is at work (`ss -xlp src '@{NAME}'` names it)")
        })?;
        Ok(Self(listener))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_rejected_until_the_first_is_gone() {
        let Ok(first) = Lock::take() else {
            return assert!(Lock::take().is_err());
        };
        let error = format!("{:#}", Lock::take().err().unwrap());
        assert!(error.contains("another `cluster up`"), "{error}");
        drop(first);
        assert!(Lock::take().is_ok());
    }
}
