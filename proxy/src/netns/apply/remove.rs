//! Removes everything that this program wrote into a namespace.
//!
//! Writes: deletions of rules, routes and conntrack entries in the calling thread's namespace.

use super::Error;
use crate::backend::{self, Backend};
use crate::netns::routes::Routes;
use crate::netns::{conntrack, routes};
use process::error_chain;

/// Removes all rules and routes of `backends` from the namespace of the calling thread, in three stages. Each stage removes as much as
/// possible; the next one begins only when nothing of it is left, because the order keeps flows from leaving untranslated.
pub fn remove(backends: &[&dyn Backend]) -> Result<(), Error> {
    let may_be_there = |backend: &&dyn Backend| backend.is_present().unwrap_or(true);
    let may_have_flows = backends.iter().any(may_be_there);
    all(backends, |backend| backend.remove_translation())?;
    let mut netlink = routes::socket();
    let left = Routes::read(&mut netlink)?.remove_others(&mut netlink, |_| false);
    left.into_values().next().map_or(Ok(()), Err)?;
    all(backends, |backend| backend.remove_rejection())?;
    if may_have_flows && let Err(error) = conntrack::forget_rejected() {
        tracing::warn!(error = %error_chain(&error), "Failed to delete rejected UDP flows; a socket that continues to send stays rejected");
    }
    Ok(())
}

/// Runs `work` with each backend and returns the first error.
fn all(
    backends: &[&dyn Backend],
    work: impl Fn(&dyn Backend) -> Result<(), backend::Error>,
) -> Result<(), Error> {
    let results = backends.iter().map(|backend| work(*backend));
    Ok(results.fold(Ok(()), Result::and)?)
}
