//! Which slices this node needs: those of the networks that its pods are attached to, and all where some do not name their network.
//!
//! Pure. It grows at once and shrinks after minutes, so that pods that come and go leave the watch as it is.

use crate::index::NodePod;
use api::NetworkRef;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, NETWORK_LABEL, PROXY_NAME, PROXY_NAME_LABEL};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

/// More networks than that make a selector longer than it saves: all slices are watched.
pub(super) const MAX_NETWORKS: usize = 50;

/// How long a network that nobody is on any more is watched, and how long all slices are after the last one without a label.
pub(super) const LINGER: Duration = Duration::from_mins(5);

/// A network: what the label on its slices says, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network(u64);

impl Network {
    /// Of a label. A value that we do not write is no network that a pod can be on.
    pub(super) fn of_label(value: &str) -> Self {
        Self(u64::from_str_radix(value, 16).unwrap_or(0))
    }

    /// Of what Multus calls a network attachment.
    fn of_status(name: &str) -> Option<Self> {
        NetworkRef::label_value_of(name).map(|value| Self::of_label(&value))
    }
}

impl From<&NetworkRef> for Network {
    fn from(network: &NetworkRef) -> Self {
        Self::of_label(&network.label_value())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A set of slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// No pod is attached to any network.
    Nothing,
    /// Those of these networks.
    Networks(BTreeSet<Network>),
    /// All of ours.
    Everything,
}

impl Scope {
    /// What the API server is to select by; `None`: it is not asked.
    pub(super) fn selector(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Networks(networks) => {
                let values: Vec<_> = networks.iter().map(ToString::to_string).collect();
                Some(format!("{},{NETWORK_LABEL} in ({})", ours(), values.join(",")))
            }
            Self::Everything => Some(ours()),
        }
    }

    /// Whether all of `other` is in it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Nothing => true,
            Self::Networks(networks) => self.covers_networks(networks),
            Self::Everything => *self == Self::Everything,
        }
    }

    /// Whether the slices of these networks are in it.
    pub(super) fn covers_networks(&self, networks: &BTreeSet<Network>) -> bool {
        match self {
            Self::Nothing => networks.is_empty(),
            Self::Networks(known) => networks.is_subset(known),
            Self::Everything => true,
        }
    }

    /// Whether a slice with this label is in it.
    pub(super) fn has(&self, network: Option<Network>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Networks(known) => network.is_some_and(|network| known.contains(&network)),
            Self::Everything => true,
        }
    }
}

/// Our slices.
fn ours() -> String {
    format!("{PROXY_NAME_LABEL}={PROXY_NAME},{MANAGED_BY_LABEL}={MANAGED_BY}")
}

/// Our slices that do not name their network: of the Go original, or of a controller of an earlier release.
pub(super) fn unlabelled() -> String {
    format!("{},!{NETWORK_LABEL}", ours())
}

/// The networks a pod is attached to; `None`: what was known of it holds.
pub(super) fn networks_of(pod: Option<&NodePod>) -> Option<BTreeSet<Network>> {
    match pod {
        Some(NodePod::Attached(pod)) => {
            let statuses = pod.attachments.iter().flatten();
            Some(
                statuses
                    .filter_map(|status| Network::of_status(&status.network))
                    .collect(),
            )
        }
        Some(NodePod::Unreadable { .. }) => None,
        Some(NodePod::LegacyProxy { .. }) | None => Some(BTreeSet::new()),
    }
}

/// Who needs what.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Networks of the node itself.
    fixed: BTreeSet<Network>,
    /// Networks of pods, by UID.
    pods: BTreeMap<String, BTreeSet<Network>>,
    /// Networks that nobody is on any more, and since when.
    left: BTreeMap<Network, Instant>,
    /// When a slice without a label was seen last.
    unlabelled: Option<Instant>,
}

impl Demand {
    pub(super) fn new(fixed: BTreeSet<Network>) -> Self {
        Self {
            fixed,
            ..Self::default()
        }
    }

    /// A pod is on these networks; on none: it is gone, or attached to nothing.
    pub(super) fn set(&mut self, uid: &str, networks: BTreeSet<Network>, now: Instant) {
        let before = if networks.is_empty() {
            self.pods.remove(uid)
        } else {
            self.pods.insert(uid.to_owned(), networks)
        };
        for network in before.unwrap_or_default() {
            let is_used = self.fixed.contains(&network) || self.pods.values().any(|on| on.contains(&network));
            // Whoever may annotate a pod can name any number of networks.
            if !is_used && self.left.len() < MAX_NETWORKS {
                self.left.insert(network, now);
            }
        }
    }

    /// The UIDs of pods on a network.
    pub(super) fn uids(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    /// There is a slice without a label.
    pub(super) fn saw_unlabelled(&mut self, now: Instant) {
        self.unlabelled = Some(now);
    }

    /// What is to be watched.
    pub(super) fn wanted(&mut self, now: Instant) -> Scope {
        self.left.retain(|_, since| now < *since + LINGER);
        self.unlabelled = self.unlabelled.filter(|seen| now < *seen + LINGER);
        let networks: BTreeSet<_> = self
            .fixed
            .iter()
            .chain(self.pods.values().flatten())
            .chain(self.left.keys())
            .copied()
            .collect();
        if networks.is_empty() {
            Scope::Nothing
        } else if networks.len() > MAX_NETWORKS || self.unlabelled.is_some() {
            Scope::Everything
        } else {
            Scope::Networks(networks)
        }
    }

    /// When [`Self::wanted`] changes by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.left.values().chain(&self.unlabelled);
        since.map(|since| *since + LINGER).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(networks: &[u64]) -> BTreeSet<Network> {
        networks.iter().copied().map(Network).collect()
    }

    #[test]
    fn a_network_is_wanted_at_once_and_for_minutes_after_its_last_pod() {
        let (mut demand, start) = (Demand::default(), Instant::now());
        assert_eq!(demand.wanted(start), Scope::Nothing);
        demand.set("a", set(&[1]), start);
        demand.set("b", set(&[1, 2]), start);
        assert_eq!(demand.wanted(start), Scope::Networks(set(&[1, 2])));
        demand.set("b", set(&[]), start);
        assert_eq!(demand.wanted(start), Scope::Networks(set(&[1, 2])));
        assert_eq!(demand.due(), Some(start + LINGER));
        assert_eq!(demand.wanted(start + LINGER), Scope::Networks(set(&[1])));
        demand.set("a", set(&[]), start);
        assert_eq!(demand.wanted(start + LINGER), Scope::Nothing);
    }

    #[test]
    fn networks_of_the_node_itself_are_always_wanted() {
        let mut demand = Demand::new(set(&[1]));
        assert_eq!(demand.wanted(Instant::now()), Scope::Networks(set(&[1])));
    }

    #[test]
    fn all_slices_are_wanted_while_one_has_no_label_and_beside_too_many_networks() {
        let (mut demand, start) = (Demand::new(set(&[1])), Instant::now());
        demand.saw_unlabelled(start);
        assert_eq!(demand.wanted(start), Scope::Everything);
        assert_eq!(demand.wanted(start + LINGER), Scope::Networks(set(&[1])));
        let many: BTreeSet<_> = (2..2 + MAX_NETWORKS as u64).map(Network).collect();
        demand.set("a", many, start);
        assert_eq!(demand.wanted(start), Scope::Everything);
    }

    /// A pod whose annotation names other networks all the time.
    #[test]
    fn networks_that_were_left_are_bounded() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        for n in 0..1000 {
            demand.set("a", set(&[n]), now);
        }
        assert!(demand.left.len() <= MAX_NETWORKS);
    }

    #[test]
    fn a_network_is_what_the_controller_writes_on_its_slices() {
        let network = NetworkRef::parse("macvlan1", "shop").unwrap();
        assert_eq!(Network::from(&network).to_string(), network.label_value());
        assert_eq!(Network::of_status("shop/macvlan1"), Some(Network::from(&network)));
        assert_eq!(Network::of_status("cbr0"), None);
    }

    #[test]
    fn a_selector_names_the_networks_and_is_bounded() {
        let ours = "service.kubernetes.io/service-proxy-name=multus-proxy,endpointslice.kubernetes.io/managed-by=multus-endpointslice-controller.npwg.k8s.io";
        assert_eq!(Scope::Nothing.selector(), None);
        assert_eq!(Scope::Everything.selector(), Some(ours.to_owned()));
        assert_eq!(
            Scope::Networks(set(&[10, 11])).selector(),
            Some(format!(
                "{ours},multusservice.cni.cncf.io/network in (000000000000000a,000000000000000b)"
            ))
        );
        assert_eq!(unlabelled(), format!("{ours},!multusservice.cni.cncf.io/network"));
        let longest = (0..MAX_NETWORKS as u64).map(Network).collect();
        let selector = Scope::Networks(longest).selector().unwrap();
        assert!(selector.len() < 1200, "{} characters in a URL", selector.len());
    }
}
