//! Index of the cluster as this node needs it, and the rules that follow for each of its pods.
//!
//! Pure: updated by watches, read by the driver. A change marks only the pods that it affects; a Service is planned once for all pods on
//! its network, and its plan is kept until it changes.

mod network;
mod pod;
mod traced;
mod trigger;
mod unsupported;
mod update;

pub(crate) use pod::HOST_UID;
pub use pod::{LocalPod, NodePod};
pub(crate) use traced::Traced;
pub(crate) use trigger::Trigger;
pub use update::{Kind, Update};

use api::{NamespaceIsolation, NetworkRef, ObjectName};
use network::Network;
use process::traces::Traces;
use rules::{
    InvalidAddress, NetworkRules, NotServed, PodRules, ServedService, Settings, Shortcoming, Slice, Unserved,
    pod_rules, service_plan,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trigger::Triggers;

/// Services, slices and pods, reduced to the fields that rules depend on.
#[derive(Debug, Default)]
pub struct Index {
    settings: Settings,
    services: BTreeMap<ObjectName, Result<ServedService, NotServed>>,
    /// Services with an error: a change of one Service does not read all others.
    invalid_services: BTreeSet<ObjectName>,
    slices: BTreeMap<ObjectName, Slice>,
    /// Slices with ignored addresses.
    invalid_slices: BTreeSet<ObjectName>,
    /// Services, each with the name of a slice of it.
    slices_of: BTreeSet<(ObjectName, ObjectName)>,
    /// By UID.
    pods: BTreeMap<String, LocalPod>,
    /// Namespaces in which the archived multus-service proxy is recognized.
    legacy_namespaces: BTreeSet<String>,
    /// Legacy proxies on this node, by UID.
    legacy_proxies: BTreeMap<String, ObjectName>,
    /// Pods that look like a legacy proxy outside of these namespaces, by UID.
    impostors: BTreeMap<String, ObjectName>,
    networks: BTreeMap<NetworkRef, Network>,
    /// Rules of the networks that have a VIP.
    rules: BTreeMap<NetworkRef, Arc<NetworkRules>>,
    /// Services to plan again, each with its present or former network.
    stale_services: BTreeSet<(NetworkRef, ObjectName)>,
    stale_pods: BTreeSet<String>,
    triggers: Triggers,
}

impl Index {
    /// Creates an empty index.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            legacy_namespaces: default_legacy_namespaces(),
            ..Self::default()
        }
    }

    /// Sets the namespaces in which the legacy proxy is recognized.
    #[must_use]
    pub fn with_legacy_namespaces(mut self, namespaces: BTreeSet<String>) -> Self {
        self.legacy_namespaces = namespaces;
        self
    }

    /// Traces changes of slices.
    #[must_use]
    pub fn with_traces(mut self, traces: Traces) -> Self {
        self.triggers.trace(traces);
        self
    }

    /// Returns the settings of node and cluster.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Applies changed settings.
    pub fn apply_settings(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            let served = self.services.values().filter_map(|service| service.as_ref().ok());
            self.stale_services
                .extend(served.map(|service| (service.network.clone(), service.name.clone())));
        }
    }

    /// Adds or changes a Service.
    pub fn apply_service(&mut self, name: &ObjectName, service: Result<ServedService, NotServed>) {
        if self.services.get(name) == Some(&service) {
            return;
        }
        self.delete_service(name);
        if service.is_err() {
            self.invalid_services.insert(name.clone());
        }
        self.services.insert(name.clone(), service);
        self.touch(name);
    }

    /// Removes a Service that was deleted or lost its label.
    pub fn delete_service(&mut self, name: &ObjectName) {
        self.touch(name);
        self.services.remove(name);
        self.invalid_services.remove(name);
    }

    /// Replaces all Services by a complete list.
    pub fn reset_services(&mut self, services: Vec<(ObjectName, Result<ServedService, NotServed>)>) {
        let listed: BTreeSet<_> = services.iter().map(|(name, _)| name.clone()).collect();
        let gone: Vec<_> = self
            .services
            .keys()
            .filter(|name| !listed.contains(name))
            .cloned()
            .collect();
        for name in &gone {
            self.delete_service(name);
        }
        for (name, service) in services {
            self.apply_service(&name, service);
        }
    }

    /// Adds or changes a slice.
    pub fn apply_slice(&mut self, slice: Slice) {
        let known = self.slices.get(&slice.name);
        if known == Some(&slice) {
            return;
        }
        self.triggers.note(known, &slice);
        self.delete_slice(&slice.name.clone());
        self.touch(&slice.service);
        self.slices_of.insert((slice.service.clone(), slice.name.clone()));
        if !slice.rejected.is_empty() {
            self.invalid_slices.insert(slice.name.clone());
        }
        self.slices.insert(slice.name.clone(), slice);
    }

    /// Removes a slice.
    pub fn delete_slice(&mut self, name: &ObjectName) {
        let Some(slice) = self.slices.remove(name) else {
            return;
        };
        self.touch(&slice.service);
        self.slices_of.remove(&(slice.service, name.clone()));
        self.invalid_slices.remove(name);
    }

    /// Replaces all slices by a complete list.
    pub fn reset_slices(&mut self, slices: Vec<Slice>) {
        let listed: BTreeSet<_> = slices.iter().map(|slice| slice.name.clone()).collect();
        let gone: Vec<_> = self
            .slices
            .keys()
            .filter(|name| !listed.contains(name))
            .cloned()
            .collect();
        for name in &gone {
            self.delete_slice(name);
        }
        for slice in slices {
            self.apply_slice(slice);
        }
    }

    /// Adds or changes a pod of this node.
    pub fn apply_pod(&mut self, pod: NodePod) {
        let pod = match pod {
            NodePod::Attached(pod) => pod,
            NodePod::LegacyProxy {
                uid,
                name,
                of_a_daemon_set,
            } => {
                // Its owner may have changed.
                self.legacy_proxies.remove(&uid);
                self.impostors.remove(&uid);
                let is_trusted = of_a_daemon_set && self.legacy_namespaces.contains(&name.namespace);
                let proxies = if is_trusted {
                    &mut self.legacy_proxies
                } else {
                    &mut self.impostors
                };
                proxies.insert(uid, name);
                return;
            }
            NodePod::Unreadable { .. } => return,
        };
        if self.pods.get(&pod.uid) != Some(&pod) {
            self.stale_pods.insert(pod.uid.clone());
            self.pods.insert(pod.uid.clone(), pod);
        }
    }

    /// Removes a pod.
    pub fn delete_pod(&mut self, uid: &str) {
        self.legacy_proxies.remove(uid);
        self.impostors.remove(uid);
        if self.pods.remove(uid).is_some() {
            self.stale_pods.insert(uid.to_owned());
        }
    }

    /// Replaces all pods by a complete list.
    pub fn reset_pods(&mut self, pods: Vec<NodePod>) {
        let listed: BTreeSet<_> = pods.iter().map(|pod| pod.uid().to_owned()).collect();
        let gone: Vec<_> = self
            .pods
            .keys()
            .chain(self.legacy_proxies.keys())
            .chain(self.impostors.keys())
            .filter(|uid| !listed.contains(*uid) && *uid != HOST_UID)
            .cloned()
            .collect();
        for uid in &gone {
            self.delete_pod(uid);
        }
        for pod in pods {
            self.apply_pod(pod);
        }
    }

    /// Returns a pod of this node.
    pub fn pod(&self, uid: &str) -> Option<&LocalPod> {
        self.pods.get(uid)
    }

    /// Returns all pods of this node with a network namespace of their own, ordered by UID.
    pub fn pods(&self) -> impl Iterator<Item = &LocalPod> {
        self.pods.values()
    }

    /// Returns a legacy proxy on this node.
    pub fn legacy_proxy(&self) -> Option<&ObjectName> {
        self.legacy_proxies.values().next()
    }

    /// Returns pods of this node, by UID, that look like a legacy proxy and are not recognized as one.
    pub fn impostors(&self) -> &BTreeMap<String, ObjectName> {
        &self.impostors
    }

    /// Returns the namespaces in which the legacy proxy is recognized.
    pub fn legacy_namespaces(&self) -> &BTreeSet<String> {
        &self.legacy_namespaces
    }

    /// Plans the rules of a pod; returns them with the shortcomings.
    pub fn plan(&self, pod: &LocalPod) -> (PodRules, BTreeSet<Shortcoming>) {
        let Ok(attachments) = &pod.attachments else {
            return Default::default();
        };
        // The administrator maps the node's networks, so isolation does not apply.
        let isolation = if pod.is_host {
            &NamespaceIsolation::Open
        } else {
            &self.settings.isolation
        };
        let (rules, mut shortcomings) = pod_rules(isolation, &pod.name.namespace, attachments, &self.rules);
        shortcomings.extend(pod.unsupported_shortcomings(&rules));
        shortcomings.extend(pod.faults.iter().cloned().map(Shortcoming::NetworkStatus));
        if !pod.is_host {
            shortcomings.extend(pod.elsewhere(&self.rules, &self.settings.isolation));
        }
        (rules, shortcomings)
    }

    /// Returns the times of changes of slices since the last call.
    pub(crate) fn take_triggers(&mut self) -> Vec<Trigger> {
        self.triggers.take()
    }

    /// Returns the pods that changed since the last call, deleted ones included.
    pub fn take_stale(&mut self) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        let mut touched = BTreeSet::new();
        for (network, service) in std::mem::take(&mut self.stale_services) {
            if self.replan(&network, &service) {
                changed.insert(network.clone());
            }
            touched.insert(network);
        }
        let mut appeared_or_gone = BTreeSet::new();
        for network in &touched {
            if self.publish(network) {
                appeared_or_gone.insert(network);
            }
        }
        let mut stale = std::mem::take(&mut self.stale_pods);
        let concerns = |pod: &LocalPod| {
            changed.iter().any(|network| pod.is_attached_to(network))
                || appeared_or_gone
                    .iter()
                    .any(|network| pod.is_attached_to_namesake(network))
        };
        let on_changed = self.pods.values().filter(|pod| concerns(pod));
        stale.extend(on_changed.map(|pod| pod.uid.clone()));
        stale
    }

    /// Adopts the places of endpoints that a namespace was found to have, so that other pods and the next change do not move any; and makes
    /// `held` share equal rules with all pods. The wanted rules do not change.
    pub fn adopt(&mut self, held: &mut PodRules) {
        for (network, attached) in &mut held.networks {
            let is_shared = |rules: &Arc<NetworkRules>| Arc::ptr_eq(rules, &attached.rules);
            if self.rules.get(network).is_none_or(is_shared) {
                continue;
            }
            if let Some(known) = self.networks.get_mut(network) {
                known.adopt(&mut attached.rules);
                self.rules.insert(network.clone(), Arc::clone(&known.rules));
            }
        }
    }

    /// Returns Services that are not served, with the reason.
    pub fn unserved(&self) -> BTreeMap<ObjectName, NotServed> {
        let parsed = self.invalid_services.iter().filter_map(|name| {
            let why = self.services.get(name)?.as_ref().err()?;
            why.is_fault().then(|| (name.clone(), why.clone()))
        });
        let planned = self.networks.values().flat_map(Network::unserved);
        let planned = planned.filter_map(|unserved| match unserved {
            Unserved::Service { service, why } if why.is_fault() => Some((service, why)),
            _ => None,
        });
        parsed.chain(planned).collect()
    }

    /// Returns Services that are served without their session affinity, with the reason.
    pub fn without_affinity(&self) -> impl Iterator<Item = (ObjectName, String)> {
        let planned = self.networks.values().flat_map(Network::unserved);
        planned.filter_map(|unserved| match &unserved {
            Unserved::Affinity { service } => Some((service.clone(), unserved.to_string())),
            _ => None,
        })
    }

    /// Returns ignored addresses of slices.
    pub fn invalid_addresses(&self) -> impl Iterator<Item = InvalidAddress> {
        let planned = self.networks.values().flat_map(Network::unserved);
        let planned = planned.filter_map(|unserved| match unserved {
            Unserved::Address(rejected) => Some(rejected),
            _ => None,
        });
        let slices = self
            .invalid_slices
            .iter()
            .filter_map(|name| self.slices.get(name));
        let parsed = slices.flat_map(|slice| &slice.rejected);
        parsed.cloned().chain(planned)
    }

    /// Marks a Service as stale, before and after a change.
    fn touch(&mut self, service: &ObjectName) {
        if let Some(Ok(served)) = self.services.get(service) {
            self.stale_services
                .insert((served.network.clone(), service.clone()));
        }
    }

    /// Plans a Service again for a network; returns true when its rules changed.
    fn replan(&mut self, network: &NetworkRef, name: &ObjectName) -> bool {
        let served = self.services.get(name).and_then(|service| service.as_ref().ok());
        let plan = served
            .filter(|service| service.network == *network)
            .map(|service| service_plan(&self.settings, service, self.slices_of(name)));
        self.networks.entry(network.clone()).or_default().set(name, plan)
    }

    /// Returns the slices of a Service.
    fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> {
        let named = self.slices_of.range((service.clone(), ObjectName::FIRST)..);
        let named = named.take_while(move |(of, _)| of == service);
        named.filter_map(|(_, name)| self.slices.get(name))
    }

    /// Publishes the rules of a network to pods. Returns true when the network had no rules before, or has none now.
    fn publish(&mut self, network: &NetworkRef) -> bool {
        let Some(held) = self.networks.get(network) else {
            return false;
        };
        let had_rules = self.rules.contains_key(network);
        if held.rules.is_empty() {
            self.rules.remove(network);
        } else {
            self.rules.insert(network.clone(), Arc::clone(&held.rules));
        }
        if held.is_empty() {
            self.networks.remove(network);
        }
        had_rules != self.rules.contains_key(network)
    }
}

/// Namespace of the archived multus-service proxy in its manifest.
pub fn default_legacy_namespaces() -> BTreeSet<String> {
    BTreeSet::from(["kube-system".to_owned()])
}

#[cfg(test)]
mod tests;
