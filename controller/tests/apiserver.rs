//! The controller on a real apiserver: the shipped binary, under its shipped role.

#[path = "apiserver/bed.rs"]
mod bed;
#[path = "apiserver/refusals.rs"]
mod refusals;
#[path = "apiserver/slices.rs"]
mod slices;
