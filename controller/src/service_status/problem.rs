//! Problems of a Service: each part that is not served as written, with its remedy.
//!
//! Pure. A problem is a value; `apply/events.rs` makes it an Event, `condition.rs` a condition.

/// Reason of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The service-network annotation is missing or names no network.
    InvalidNetwork,
    /// The network is in a namespace this Service may not use.
    NetworkNotAllowed,
    /// Type ExternalName.
    ExternalName,
    /// The selector annotation cannot be read.
    InvalidSelector,
    /// Both `spec.selector` and the selector annotation.
    SelectorIgnored,
    /// A headless Service with `spec.selector`: DNS answers both networks.
    HeadlessWithSelector,
    /// Slices of another controller are left on a selectorless Service.
    ConflictingEndpoints,
    /// NodePort, LoadBalancer or external IPs; or a label that takes the ClusterIP away.
    UnsupportedServiceType,
    /// The network attachment definition does not exist.
    NetworkNotFound,
    /// A selected pod is not attached to the network.
    NoPodsAttached,
    /// A pod's network-status cannot be read.
    InvalidNetworkStatus,
    /// No selected pod has an address of a family of the Service.
    FamilyMissing,
    /// An address cannot be an endpoint.
    InvalidEndpointAddress,
    /// Two pods report one address.
    DuplicateAddress,
    /// An endpoint or slice that the Service's author wrote is ignored.
    EndpointsIgnored,
    /// More Services without any selector than slices are watched of.
    TooManyServicesWithoutSelector,
    /// A port of the Service that no endpoint has.
    TargetPortNotFound,
    /// Topology hints are requested and not possible.
    TopologyAwareHintsDisabled,
}

impl Reason {
    /// Every reason, in the order of this file.
    pub const ALL: [Self; 18] = [
        Self::InvalidNetwork,
        Self::NetworkNotAllowed,
        Self::ExternalName,
        Self::InvalidSelector,
        Self::SelectorIgnored,
        Self::HeadlessWithSelector,
        Self::ConflictingEndpoints,
        Self::UnsupportedServiceType,
        Self::NetworkNotFound,
        Self::NoPodsAttached,
        Self::InvalidNetworkStatus,
        Self::FamilyMissing,
        Self::InvalidEndpointAddress,
        Self::DuplicateAddress,
        Self::EndpointsIgnored,
        Self::TooManyServicesWithoutSelector,
        Self::TargetPortNotFound,
        Self::TopologyAwareHintsDisabled,
    ];

    /// The Event's reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidNetwork => "InvalidNetwork",
            Self::NetworkNotAllowed => "NetworkNotAllowed",
            Self::ExternalName => "ExternalNameNotServed",
            Self::InvalidSelector => "InvalidSelector",
            Self::SelectorIgnored => "SelectorAnnotationIgnored",
            Self::HeadlessWithSelector => "HeadlessWithSelector",
            Self::ConflictingEndpoints => "ConflictingEndpoints",
            Self::UnsupportedServiceType => "UnsupportedServiceType",
            Self::NetworkNotFound => "NetworkNotFound",
            Self::NoPodsAttached => "NoPodsAttached",
            Self::InvalidNetworkStatus => "InvalidNetworkStatus",
            Self::FamilyMissing => "AddressFamilyMissing",
            Self::InvalidEndpointAddress => "InvalidEndpointAddress",
            Self::DuplicateAddress => "DuplicateAddress",
            Self::EndpointsIgnored => "EndpointsIgnored",
            Self::TooManyServicesWithoutSelector => "TooManyServicesWithoutSelector",
            Self::TargetPortNotFound => "TargetPortNotFound",
            Self::TopologyAwareHintsDisabled => "TopologyAwareHintsDisabled",
        }
    }

    /// Returns true if the Service is not served at all because of it.
    pub fn is_rejection(self) -> bool {
        matches!(
            self,
            Self::InvalidNetwork
                | Self::NetworkNotAllowed
                | Self::ExternalName
                | Self::InvalidSelector
                | Self::TooManyServicesWithoutSelector
        )
    }
}

/// One problem, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Its kind.
    pub reason: Reason,
    /// Object, field, value and remedy, for users of the Service. At most [`MAX_MESSAGE`] bytes. It stays the same as long as the problem
    /// exists, so it contains nothing that changes when a pod is replaced: it is part of the condition, and a new message is a new Event.
    pub message: String,
    /// The first few pods or slices it was seen on, for the Event. On other objects it is the same problem.
    pub seen_on: String,
}

/// Longest note the events API accepts.
pub const MAX_MESSAGE: usize = process::events::MAX_NOTE;
/// Maximum number of problems of one Service.
pub const MAX_PROBLEMS: usize = 16;

impl Problem {
    /// A problem; a longer message is truncated.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: truncate(message.into()),
            seen_on: String::new(),
        }
    }

    /// Adds the objects that it was seen on.
    #[must_use]
    pub fn seen_on(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.seen_on = first_few(names);
        self
    }

    /// All of it, for one Event.
    pub fn text(&self) -> String {
        if self.seen_on.is_empty() {
            return self.message.clone();
        }
        truncate(format!("{}; seen on: {}", self.message, self.seen_on))
    }

    /// Returns true if both are the same problem, independent of the objects it was seen on.
    pub fn is_same(&self, other: &Self) -> bool {
        self.reason == other.reason && self.message == other.message
    }
}

fn truncate(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE - 3)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push_str("...");
    }
    text
}

/// Names the first few of many: `a, b, c and more`.
pub fn first_few(names: impl IntoIterator<Item = impl Into<String>>) -> String {
    const SHOWN: usize = 3;
    let mut names = names.into_iter();
    let shown: Vec<String> = names.by_ref().take(SHOWN).map(Into::into).collect();
    let more = if names.next().is_some() { " and more" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_truncated_at_a_character() {
        let problem = Problem::new(Reason::InvalidSelector, "é".repeat(5000));
        assert!(problem.message.len() <= MAX_MESSAGE && problem.message.ends_with("..."));
    }

    #[test]
    fn every_reason_is_documented() {
        let page = include_str!("../../../docs/user/services.md");
        for reason in Reason::ALL {
            assert!(page.contains(&format!("`{}`", reason.as_str())), "{reason:?}");
        }
    }

    #[test]
    fn many_names_are_abbreviated() {
        assert_eq!(first_few(["a", "b"]), "a, b");
        assert_eq!(first_few(["a", "b", "c", "d", "e"]), "a, b, c and more");
    }

    #[test]
    fn the_objects_it_was_seen_on_are_named_and_do_not_make_it_another_problem() {
        let one = Problem::new(Reason::NoPodsAttached, "no pod is attached").seen_on(["web-1"]);
        let other = Problem::new(Reason::NoPodsAttached, "no pod is attached").seen_on(["web-2"]);
        assert_eq!(one.text(), "no pod is attached; seen on: web-1");
        assert!(one.is_same(&other));
        let long = Problem::new(Reason::NoPodsAttached, "no").seen_on(["é".repeat(5000)]);
        assert!(long.text().len() <= MAX_MESSAGE);
    }
}
