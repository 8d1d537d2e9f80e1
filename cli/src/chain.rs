//! The chain from a Service's label to a packet: links, each good or not, each with what to do.
//!
//! Pure. A value that renderers print and scripts read; nothing here knows how.

use crate::situations::Cause;
use serde::Serialize;

/// What a link is about, in the order in which a chain has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Topic {
    /// The Service exists.
    Service,
    /// It asks to be served.
    Label,
    /// It names a network and can be served.
    Annotation,
    /// The network exists.
    Network,
    /// The system is installed.
    Installation,
    /// A controller writes slices.
    Controller,
    /// Pods are selected, attached and ready.
    Pods,
    /// EndpointSlices say so.
    Slices,
    /// The client can reach the network.
    Client,
    /// The proxy on the client's node works.
    Proxy,
    /// What the client's packets meet.
    Rules,
}

impl Topic {
    /// All, in order.
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

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// As it should be.
    Good,
    /// It holds, and something about it is not as its author may think.
    Warning,
    /// It could not be looked at.
    Unknown,
    /// The chain ends here.
    Broken,
}

/// What to do about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// In words.
    pub text: String,
    /// Commands to paste.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
}

/// One statement about a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What it is about.
    pub topic: Topic,
    /// How it is.
    pub state: State,
    /// Which known situation it is, unless it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What is so.
    pub says: String,
    /// More of it, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// What to do, unless it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

impl Link {
    /// A link that holds.
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

    /// A link that could not be looked at.
    pub fn unknown(topic: Topic, says: impl Into<String>) -> Self {
        Self {
            state: State::Unknown,
            ..Self::good(topic, says)
        }
    }

    /// The same link with more to say.
    #[must_use]
    pub fn with(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// The same link, not broken but a warning.
    #[must_use]
    pub fn softened(mut self) -> Self {
        self.state = State::Warning;
        self
    }
}

/// The links up to the first broken one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// In order.
    pub links: Vec<Link>,
}

impl Chain {
    /// Adds links; those after a broken one are left out. Says whether the chain goes on.
    pub fn push(&mut self, links: impl IntoIterator<Item = Link>) -> bool {
        for link in links {
            if self.broken().is_some() {
                break;
            }
            self.links.push(link);
        }
        self.broken().is_none()
    }

    /// The link at which it ends.
    pub fn broken(&self) -> Option<&Link> {
        self.links.last().filter(|link| link.state == State::Broken)
    }

    /// The worst of its links.
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
