//! The chain from a Service's label to a packet: links, each with a state and a remedy.
//!
//! Pure. A value that `render` formats as text, JSON or YAML.

use crate::situations::Cause;
use serde::Serialize;

/// Topic of a link, in the order of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Topic {
    /// The Service exists.
    Service,
    /// It has the label.
    Label,
    /// It names a network and can be served.
    Annotation,
    /// The network exists.
    Network,
    /// multus-service is installed.
    Installation,
    /// A controller writes slices.
    Controller,
    /// Pods are selected, attached and ready.
    Pods,
    /// EndpointSlices have the pods.
    Slices,
    /// The client can reach the network.
    Client,
    /// The proxy on the client's node works.
    Proxy,
    /// Rules for the client's packets.
    Rules,
}

impl Topic {
    /// All topics, in order.
    pub const ALL: [Self; 11] = [
        Self::Service,
        Self::Label,
        Self::Annotation,
        Self::Network,
        Self::Installation,
        Self::Controller,
        Self::Pods,
        Self::Slices,
        Self::Client,
        Self::Proxy,
        Self::Rules,
    ];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Label => "label",
            Self::Annotation => "annotation",
            Self::Network => "network",
            Self::Installation => "installation",
            Self::Controller => "controller",
            Self::Pods => "pods",
            Self::Slices => "slices",
            Self::Client => "client",
            Self::Proxy => "proxy",
            Self::Rules => "rules",
        }
    }
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// As expected.
    Good,
    /// It holds with a warning.
    Warning,
    /// It could not be checked.
    Unknown,
    /// The chain ends here.
    Broken,
}

/// Remedy of a problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remedy {
    pub text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

/// One statement about a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    pub topic: Topic,
    pub state: State,
    /// Known situation, unless it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Statement.
    pub says: String,
    /// Details, one per line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// Remedy, unless it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

impl Link {
    /// Returns a link that holds.
    pub fn good(topic: Topic, says: impl Into<String>) -> Self {
        Self {
            topic,
            state: State::Good,
            cause: None,
            says: says.into(),
            details: Vec::new(),
            remedy: None,
        }
    }

    /// Returns a link that could not be checked.
    pub fn unknown(topic: Topic, says: impl Into<String>) -> Self {
        Self {
            state: State::Unknown,
            ..Self::good(topic, says)
        }
    }

    #[must_use]
    pub fn with(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// Returns the link as a warning.
    #[must_use]
    pub fn softened(mut self) -> Self {
        self.state = State::Warning;
        self
    }
}

/// The links up to the first broken one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Links in order.
    pub links: Vec<Link>,
}

impl Chain {
    /// Adds links; those after a broken one are left out. Returns whether the chain continues.
    pub fn push(&mut self, links: impl IntoIterator<Item = Link>) -> bool {
        for link in links {
            if self.broken().is_some() {
                break;
            }
            self.links.push(link);
        }
        self.broken().is_none()
    }

    pub fn broken(&self) -> Option<&Link> {
        self.links.last().filter(|link| link.state == State::Broken)
    }

    /// Returns the worst state of its links.
    pub fn state(&self) -> State {
        let states = self.links.iter().map(|link| link.state);
        states.max().unwrap_or(State::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_broken_link() {
        let broken = Link {
            state: State::Broken,
            ..Link::good(Topic::Label, "no")
        };
        let mut chain = Chain::default();
        assert!(chain.push([Link::good(Topic::Service, "yes")]));
        assert!(!chain.push([broken.clone(), Link::good(Topic::Network, "yes")]));
        assert!(!chain.push([Link::good(Topic::Pods, "yes")]));
        assert_eq!(chain.links.len(), 2);
        assert_eq!(chain.broken(), Some(&broken));
        assert_eq!(chain.state(), State::Broken);
    }

    #[test]
    fn topics_are_in_the_order_of_a_chain() {
        assert!(Topic::ALL.is_sorted());
    }
}
