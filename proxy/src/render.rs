//! How rules are spelled for each backend.
//!
//! Pure: values in, text out. Equal rules give equal text.

pub mod iptables;
