//! The status of a Service as its users see it: problems, the Accepted condition, and when each is published.
//!
//! Pure, but for [`orphaned_slices`], which reads slice metadata, and the notifier, which starts writes of [`crate::apply`].

pub mod condition;
mod event_dedup;
pub(crate) mod notifier;
pub mod orphaned_slices;
pub mod problem;
