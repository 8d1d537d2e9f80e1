//! The demo: installs the product on the test cluster and shows a Service answering over a second network.
//!
//! Writes: objects on the test cluster. Each claim is a function in [`checks`] that fails when the claim does not hold; the demo
//! narrates them to a newcomer, the end-to-end tests run the same ones.

pub mod checks;
pub mod install;
pub mod output;
pub mod scenario;
pub mod timing;

use std::sync::OnceLock;

use anyhow::{Result, anyhow};

pub use output::Narrator;
use testbed::cluster;

/// For tests: the cluster with the product and the scenario on it. The first caller of a process makes it, or finds it and
/// checks it (about ten seconds); later ones get it at once. Tests that share it run one at a time, and leave it as they found it.
pub fn installed() -> Result<&'static Narrator> {
    static INSTALLED: OnceLock<Result<Narrator, String>> = OnceLock::new();
    let outcome = INSTALLED.get_or_init(|| install().map_err(|error| format!("{error:#}")));
    outcome
        .as_ref()
        .map_err(|error| anyhow!("the product could not be installed: {error}"))
}

fn install() -> Result<Narrator> {
    let narrator = Narrator::default();
    cluster::up(&cluster::UpOptions::default(), &|line| eprintln!("{line}"))?;
    install::operator(&narrator)?;
    install::config(&narrator)?;
    scenario::apply(&narrator)?;
    Ok(narrator)
}
