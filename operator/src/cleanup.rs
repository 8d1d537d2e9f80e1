//! Removal of the operands and of the rules they wrote on nodes.

pub mod daemon_set;
pub mod node_labels;
mod removal_order;
pub mod uninstall_command;

pub use removal_order::{CLEANUP_ANNOTATION, CLEANUP_LIMIT, PROGRESS, Removal, next_step};
