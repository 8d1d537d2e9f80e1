//! The demo: installs the product on the test cluster and shows a Service answering over a second network.
//!
//! Writes: objects on the test cluster. Each claim is a function in [`proof`] that fails when the claim does not hold; the demo
//! narrates them to a newcomer, the end-to-end tests run the same ones.

pub mod install;
pub mod narrator;
pub mod proof;
pub mod scenario;

pub use narrator::Narrator;
