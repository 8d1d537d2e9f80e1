//! What this node knows of the cluster, and what follows for each of its pods.
//!
//! Pure: fed by watches, asked by the driver. A change names the pods it concerns and no others; the rules of a network are planned
//! once for all pods on it, and kept as they are while nothing about them changed.

mod pod;

pub use pod::{LocalPod, NodePod};

use api::NetworkRef;
use rules::{
    NetworkRules, NotServed, ObjectName, PodRules, RefusedAddress, ServedService, Settings, Shortcoming,
    Slice, Unserved, network_rules, pod_rules,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Services, slices and pods, trimmed to what rules are made of.
#[derive(Debug, Default)]
pub struct Index {
    settings: Settings,
    services: BTreeMap<ObjectName, Result<ServedService, NotServed>>,
    slices: BTreeMap<ObjectName, Slice>,
    /// Names of the slices that say they belong to a Service.
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    /// By UID.
    pods: BTreeMap<String, LocalPod>,
    /// Proxies of the archived Go project on this node, by UID.
    originals: BTreeMap<String, ObjectName>,
    networks: BTreeMap<NetworkRef, Arc<NetworkRules>>,
    stale_networks: BTreeSet<NetworkRef>,
    stale_pods: BTreeSet<String>,
    /// What nobody is served, from the last planning of each network.
    unserved: BTreeMap<NetworkRef, Vec<Unserved>>,
}

impl Index {
    /// With what is known about node and cluster.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// Node or cluster changed.
    pub fn apply_settings(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            let served = self.services.values().filter_map(|service| service.as_ref().ok());
            self.stale_networks
                .extend(served.map(|service| service.network.clone()));
        }
    }

    /// A Service was added or changed.
    pub fn apply_service(&mut self, name: &ObjectName, service: Result<ServedService, NotServed>) {
        if self.services.get(name) == Some(&service) {
            return;
        }
        self.touch_network_of(name);
        self.services.insert(name.clone(), service);
        self.touch_network_of(name);
    }

    /// A Service is gone, or is ours no more.
    pub fn delete_service(&mut self, name: &ObjectName) {
        self.touch_network_of(name);
        self.services.remove(name);
    }

    /// The Services are these and no others.
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

    /// A slice was added or changed.
    pub fn apply_slice(&mut self, slice: Slice) {
        if self.slices.get(&slice.name) == Some(&slice) {
            return;
        }
        self.delete_slice(&slice.name.clone());
        self.touch_network_of(&slice.service);
        self.slices_of
            .entry(slice.service.clone())
            .or_default()
            .insert(slice.name.clone());
        self.slices.insert(slice.name.clone(), slice);
    }

    /// A slice is gone.
    pub fn delete_slice(&mut self, name: &ObjectName) {
        let Some(slice) = self.slices.remove(name) else {
            return;
        };
        self.touch_network_of(&slice.service);
        if let Some(names) = self.slices_of.get_mut(&slice.service) {
            names.remove(name);
            if names.is_empty() {
                self.slices_of.remove(&slice.service);
            }
        }
    }

    /// The slices are these and no others.
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

    /// A pod of this node was added or changed.
    pub fn apply_pod(&mut self, pod: NodePod) {
        let pod = match pod {
            NodePod::Attached(pod) => pod,
            NodePod::OriginalProxy { uid, name } => {
                self.originals.insert(uid, name);
                return;
            }
        };
        if self.pods.get(&pod.uid) != Some(&pod) {
            self.stale_pods.insert(pod.uid.clone());
            self.pods.insert(pod.uid.clone(), pod);
        }
    }

    /// A pod is gone.
    pub fn delete_pod(&mut self, uid: &str) {
        self.originals.remove(uid);
        if self.pods.remove(uid).is_some() {
            self.stale_pods.insert(uid.to_owned());
        }
    }

    /// The pods are these and no others.
    pub fn reset_pods(&mut self, pods: Vec<NodePod>) {
        let listed: BTreeSet<_> = pods.iter().map(|pod| pod.uid().to_owned()).collect();
        let gone: Vec<_> = self
            .pods
            .keys()
            .chain(self.originals.keys())
            .filter(|uid| !listed.contains(*uid))
            .cloned()
            .collect();
        for uid in &gone {
            self.delete_pod(uid);
        }
        for pod in pods {
            self.apply_pod(pod);
        }
    }

    /// A pod of this node.
    pub fn pod(&self, uid: &str) -> Option<&LocalPod> {
        self.pods.get(uid)
    }

    /// All pods of this node that Multus attached, in the order of their UIDs.
    pub fn pods(&self) -> impl Iterator<Item = &LocalPod> {
        self.pods.values()
    }

    /// A proxy of the archived Go project on this node.
    pub fn original_proxy(&self) -> Option<&ObjectName> {
        self.originals.values().next()
    }

    /// What the namespace of a pod must hold, and what the pod lacks.
    pub fn plan(&self, pod: &LocalPod) -> (PodRules, BTreeSet<Shortcoming>) {
        pod.attachments
            .as_ref()
            .map(|attachments| pod_rules(attachments, &self.networks))
            .unwrap_or_default()
    }

    /// The pods that something changed for since the last call, gone ones among them.
    pub fn take_stale(&mut self) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for network in std::mem::take(&mut self.stale_networks) {
            if self.replan(&network) {
                changed.insert(network);
            }
        }
        let mut stale = std::mem::take(&mut self.stale_pods);
        let on_changed = self
            .pods
            .values()
            .filter(|pod| changed.iter().any(|network| pod.is_attached_to(network)));
        stale.extend(on_changed.map(|pod| pod.uid.clone()));
        stale
    }

    /// Services that are served nobody, and why.
    pub fn unserved(&self) -> BTreeMap<&ObjectName, &NotServed> {
        let parsed = self
            .services
            .iter()
            .filter_map(|(name, service)| Some((name, service.as_ref().err()?)));
        let planned = self
            .unserved
            .values()
            .flatten()
            .filter_map(|unserved| match unserved {
                Unserved::Service { service, why } => Some((service, why)),
                Unserved::Address(_) => None,
            });
        parsed.chain(planned).filter(|(_, why)| why.is_fault()).collect()
    }

    /// Addresses of slices nobody is sent to.
    pub fn refused_addresses(&self) -> impl Iterator<Item = &RefusedAddress> {
        let planned = self
            .unserved
            .values()
            .flatten()
            .filter_map(|unserved| match unserved {
                Unserved::Address(refused) => Some(refused),
                Unserved::Service { .. } => None,
            });
        let parsed = self.slices.values().flat_map(|slice| &slice.refused);
        parsed.chain(planned)
    }

    fn touch_network_of(&mut self, service: &ObjectName) {
        if let Some(Ok(service)) = self.services.get(service) {
            self.stale_networks.insert(service.network.clone());
        }
    }

    /// Plans a network anew and says whether anything is different.
    fn replan(&mut self, network: &NetworkRef) -> bool {
        let services = self.services.values().filter_map(|service| service.as_ref().ok());
        let on_it = services.filter(|service| service.network == *network);
        let with_slices = on_it.map(|service| {
            let names = self.slices_of.get(&service.name).into_iter().flatten();
            (service, names.filter_map(|name| self.slices.get(name)))
        });
        let (rules, unserved) = network_rules(&self.settings, with_slices);
        self.unserved.insert(network.clone(), unserved);
        self.unserved.retain(|_, unserved| !unserved.is_empty());
        if rules.vips.is_empty() {
            return self.networks.remove(network).is_some();
        }
        if self.networks.get(network).is_some_and(|held| **held == rules) {
            return false;
        }
        self.networks.insert(network.clone(), Arc::new(rules));
        true
    }
}

#[cfg(test)]
mod tests;
