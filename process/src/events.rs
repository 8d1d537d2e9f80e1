//! Events (`events.k8s.io/v1`), published in one way by operator, controller and proxy.
//!
//! | module | content | |
//! |---|---|---|
//! | `event` | an Event as a value: object, type, reason, action, note | pure |
//! | `dedup` | the Events of one object that are due: each once while it applies, and a limited rate | pure |
//! | `rate` | the limit of all Events on one object | pure |
//! | `series` | the Events that a repeated one is counted on | pure |
//! | `publisher` | creates an Event, or increments the count of an earlier one | writes |
//! | `queue` | a bounded queue and its writer, for callers that must not wait for the API server | writes |
//!
//! The account needs the verbs `create` and `patch`.
//!
//! kube's `Recorder` is not used: its cache has no limit of entries, it starts a new Event after each restart, it never creates an Event
//! again that the API server deleted, and it counts an Event with another note on the first one, whether or not the note matters.

mod dedup;
mod event;
mod publisher;
mod queue;
mod rate;
mod series;

pub use dedup::{EventThrottle, PAUSE, Published, Repeats};
pub use event::{Event, MAX_NOTE, Series};
pub use kube::runtime::events::EventType;
pub use publisher::{Error, Publisher};
pub use queue::{EventSender, EventWriter, channel};
