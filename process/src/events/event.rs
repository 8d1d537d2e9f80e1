//! An Event as a value.
//!
//! Pure. Equal Events have equal names, in every process: the API server then finds the earlier one, and its count is incremented.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::{EventType, Reporter};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Longest note that the API server accepts, in bytes.
pub const MAX_NOTE: usize = 1024;

/// Longest action and longest reason that the API server accepts.
const MAX_WORD: usize = 128;

/// Longest part of an object's name in the name of an Event, which has at most 253 characters: two hexadecimal numbers follow.
const MAX_PREFIX: usize = 200;

/// Namespace of the Events of cluster-scoped objects.
const CLUSTER_SCOPED: &str = "default";

/// An Event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The object that it is about.
    pub regarding: ObjectReference,
    /// Another object that takes part.
    pub related: Option<ObjectReference>,
    /// Normal or Warning.
    pub type_: EventType,
    /// CamelCase, at most 128 characters.
    pub reason: String,
    /// What the reporter did or tried, CamelCase, at most 128 characters.
    pub action: String,
    /// For people; at most [`MAX_NOTE`] bytes.
    pub note: String,
    /// The earlier Events that it repeats.
    pub series: Series,
}

/// The earlier Events that an Event repeats, among those with its objects, type, reason and action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Series {
    /// Any of the last six minutes, whatever its note: for notes that may change all the time. The first note stays.
    OfReason,
    /// Those with this message, which the note contains: another message is another Event.
    OfMessage(String),
}

impl Event {
    /// Returns an Event of a series by reason. Texts that are too long are truncated.
    pub fn new(
        regarding: ObjectReference,
        type_: EventType,
        reason: &str,
        action: &str,
        mut note: String,
    ) -> Self {
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        Self {
            regarding,
            related: None,
            type_,
            reason: reason.chars().take(MAX_WORD).collect(),
            action: action.chars().take(MAX_WORD).collect(),
            note,
            series: Series::OfReason,
        }
    }

    /// Namespace of the Event.
    pub(super) fn namespace(&self) -> &str {
        self.regarding.namespace.as_deref().unwrap_or(CLUSTER_SCOPED)
    }

    /// Key of its object.
    pub(super) fn object_key(&self) -> String {
        let ObjectReference { kind, name, uid, .. } = &self.regarding;
        let [kind, name, uid] = [kind, name, uid].map(|part| part.as_deref().unwrap_or_default());
        format!("{kind}/{}/{name}/{uid}", self.namespace())
    }

    /// Key of its series, at most 500 bytes long.
    pub(super) fn series_key(&self) -> String {
        let message = match &self.series {
            Series::OfReason => "",
            Series::OfMessage(message) => message,
        };
        format!("{}/{}", self.namespace(), self.hashed_name(message))
    }

    /// Name of the first Event of its series.
    pub(super) fn name(&self) -> String {
        match &self.series {
            Series::OfReason => self.hashed_name(&self.note),
            Series::OfMessage(message) => self.hashed_name(message),
        }
    }

    fn hashed_name(&self, text: &str) -> String {
        let identity =
            |object: &ObjectReference| (object.kind.clone(), object.name.clone(), object.uid.clone());
        let mut hasher = DefaultHasher::new();
        identity(&self.regarding).hash(&mut hasher);
        self.related.as_ref().map(identity).hash(&mut hasher);
        (self.type_, &self.reason, &self.action, text).hash(&mut hasher);
        format!("{}.{:016x}", self.name_prefix(), hasher.finish())
    }

    fn name_prefix(&self) -> &str {
        let name = self.regarding.name.as_deref().unwrap_or_default();
        // A part of a DNS name ends with a letter or digit.
        name[..name.floor_char_boundary(MAX_PREFIX)].trim_end_matches(['-', '.'])
    }

    /// The object to create.
    pub(super) fn object(&self, name: String, reporter: &Reporter, now: Timestamp) -> v1::Event {
        v1::Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(self.namespace().to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some(match self.type_ {
                EventType::Normal => "Normal".to_owned(),
                EventType::Warning => "Warning".to_owned(),
            }),
            reason: Some(self.reason.clone()),
            note: Some(self.note.clone()),
            action: Some(self.action.clone()),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(reporter.controller.clone()),
            reporting_instance: reporter.instance.clone(),
            regarding: Some(self.regarding.clone()),
            related: self.related.clone(),
            ..v1::Event::default()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An Event on pod `name`.
    pub(crate) fn event(name: &str, note: &str) -> Event {
        let regarding = ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some("shop".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(format!("uid-{name}")),
            ..ObjectReference::default()
        };
        Event::new(regarding, EventType::Warning, "Broken", "Repair", note.to_owned())
    }

    fn of_message(uid: &str, message: &str, note: &str) -> Event {
        let mut event = event("web", note);
        event.regarding.uid = Some(uid.to_owned());
        event.series = Series::OfMessage(message.to_owned());
        event
    }

    #[test]
    fn a_repeated_event_has_the_same_name() {
        let named = |uid, message| of_message(uid, message, "").name();
        assert_eq!(named("u1", "bad"), named("u1", "bad"));
        assert_ne!(named("u1", "bad"), named("u1", "worse"));
        assert_ne!(
            named("u1", "bad"),
            named("u2", "bad"),
            "another Service of the same name"
        );
        assert!(named("u1", "bad").starts_with("web."));
        assert_eq!(
            of_message("u1", "bad", "bad; seen on: web-1").name(),
            of_message("u1", "bad", "bad; seen on: web-2").name()
        );
    }

    #[test]
    fn a_series_by_reason_has_one_key_and_names_that_follow_the_note() {
        let (one, other) = (event("web", "one"), event("web", "other"));
        assert_eq!(one.series_key(), other.series_key());
        assert_ne!(one.name(), other.name());
        let mut reason = one.clone();
        reason.reason = "Rebuilt".to_owned();
        assert_ne!(one.series_key(), reason.series_key());
        let mut related = one.clone();
        related.related = Some(other.regarding);
        assert_ne!(one.series_key(), related.series_key());
    }

    #[test]
    fn long_texts_are_truncated_at_a_character_and_long_names_stay_valid() {
        let name = format!("{}-{}", "n".repeat(MAX_PREFIX - 1), "x".repeat(50));
        let event = event(&name, &"é".repeat(MAX_NOTE));
        assert_eq!(event.note.len(), MAX_NOTE);
        let prefix = "n".repeat(MAX_PREFIX - 1);
        assert!(
            event.name().starts_with(&format!("{prefix}.")),
            "{}",
            event.name()
        );
        assert!(event.series_key().len() <= 500);
    }

    #[test]
    fn events_of_cluster_scoped_objects_are_in_the_namespace_default() {
        let mut event = event("cluster", "");
        event.regarding.namespace = None;
        let reporter = Reporter::from("test".to_owned());
        let object = event.object(event.name(), &reporter, Timestamp::UNIX_EPOCH);
        assert_eq!(object.metadata.namespace.as_deref(), Some("default"));
    }
}
