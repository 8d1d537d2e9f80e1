//! Scope of the watch of slices: the networks that pods of this node are attached to, or all while slices without a network label exist.
//!
//! Pure. The scope grows at once and shrinks after minutes, so that churn of pods does not change the watch.

use crate::index::NodePod;
use api::NetworkRef;
use api::names::{MANAGED_BY, MANAGED_BY_LABEL, NETWORK_LABEL, PROXY_NAME, PROXY_NAME_LABEL};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

/// Largest number of networks in a selector; above it the selector costs more than it saves, and all slices are watched.
pub(super) const MAX_NETWORKS: usize = 50;

/// Time for which a network without pods stays watched, and for which all slices stay watched after the last one without a label.
pub(super) const LINGER: Duration = Duration::from_mins(5);

/// Network: the value of the label on its slices, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network(u64);

impl Network {
    /// Parses the value of a label. A value that the controller does not write is no network of a pod.
    pub(super) fn of_label(value: &str) -> Self {
        Self(u64::from_str_radix(value, 16).unwrap_or(0))
    }

    /// Converts the network name of network-status.
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

/// Set of slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// No pod is attached to any network.
    Nothing,
    /// Slices of these networks.
    Networks(BTreeSet<Network>),
    /// All managed slices.
    Everything,
}

impl Scope {
    /// Returns the label selector; `None`: nothing to watch.
    pub(super) fn selector(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Networks(networks) => {
                let values: Vec<_> = networks.iter().map(ToString::to_string).collect();
                Some(format!("{},{NETWORK_LABEL} in ({})", managed(), values.join(",")))
            }
            Self::Everything => Some(managed()),
        }
    }

    /// Returns true when all of `other` is in the set.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Nothing => true,
            Self::Networks(networks) => self.covers_networks(networks),
            Self::Everything => *self == Self::Everything,
        }
    }

    /// Returns true when the slices of these networks are in the set.
    pub(super) fn covers_networks(&self, networks: &BTreeSet<Network>) -> bool {
        match self {
            Self::Nothing => networks.is_empty(),
            Self::Networks(known) => networks.is_subset(known),
            Self::Everything => true,
        }
    }

    /// Returns true when a slice with this label is in the set.
    pub(super) fn has(&self, network: Option<Network>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Networks(known) => network.is_some_and(|network| known.contains(&network)),
            Self::Everything => true,
        }
    }
}

/// Selector of managed slices.
fn managed() -> String {
    format!("{PROXY_NAME_LABEL}={PROXY_NAME},{MANAGED_BY_LABEL}={MANAGED_BY}")
}

/// Selector of managed slices without a network label: those of the archived multus-service controller, or of an earlier release.
pub(super) fn unlabelled() -> String {
    format!("{},!{NETWORK_LABEL}", managed())
}

/// Returns the networks of a pod; `None`: its last state is kept.
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

/// Networks that pods and the node need.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Networks of the node itself.
    fixed: BTreeSet<Network>,
    /// Networks of pods, by UID.
    pods: BTreeMap<String, BTreeSet<Network>>,
    /// Networks without pods, with the time since then.
    left: BTreeMap<Network, Instant>,
    /// Time at which a slice without a label was last observed.
    unlabelled: Option<Instant>,
}

impl Demand {
    pub(super) fn new(fixed: BTreeSet<Network>) -> Self {
        Self {
            fixed,
            ..Self::default()
        }
    }

    /// Sets the networks of a pod; none when it is deleted or not attached.
    pub(super) fn set(&mut self, uid: &str, networks: BTreeSet<Network>, now: Instant) {
        let before = if networks.is_empty() {
            self.pods.remove(uid)
        } else {
            self.pods.insert(uid.to_owned(), networks)
        };
        for network in before.unwrap_or_default() {
            let is_used = self.fixed.contains(&network) || self.pods.values().any(|on| on.contains(&network));
            // Any client that may annotate a pod can name any number of networks.
            if !is_used && self.left.len() < MAX_NETWORKS {
                self.left.insert(network, now);
            }
        }
    }

    /// Returns the UIDs of the pods on a network.
    pub(super) fn uids(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    /// Records a slice without a label.
    pub(super) fn saw_unlabelled(&mut self, now: Instant) {
        self.unlabelled = Some(now);
    }

    /// Returns the scope to watch.
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

    /// Returns the time at which [`Self::wanted`] changes without a further event.
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
    fn the_number_of_lingering_networks_is_bounded() {
        let (mut demand, now) = (Demand::default(), Instant::now());
        for n in 0..1000 {
            demand.set("a", set(&[n]), now);
        }
        assert!(demand.left.len() <= MAX_NETWORKS);
    }

    #[test]
    fn a_network_is_the_label_value_of_the_controller() {
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
