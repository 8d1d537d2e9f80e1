//! Index of all watched objects.
//!
//! Pure. Each update returns what it did; `triggers` derives the Services that it affects. Written slices are recorded at once, so a plan never starts from slices older
//! than the controller's own writes (Kubernetes keeps a tracker and retries instead).

mod manual_slices;
mod pods_by_label;
mod slices;
mod store;

pub use manual_slices::{AuthorSlices, Manual};
pub use process::watch::Event;
pub use slices::Slices;
#[cfg(test)]
pub(crate) use store::metadata;
pub use store::{Keyed, Step, Store};

use crate::manual::{ManualSlice, Scope};
use crate::objects::{Node, Nodes, Pod, ServiceCidr};
use crate::selector::Selector;
use crate::service_status::problem::Problem;
use crate::settings::Settings;
use crate::validate::{Acceptance, is_headless, validate};
use api::ObjectName;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pods_by_label::PodsByLabel;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A managed Service and its acceptance, evaluated once per change.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceEntry {
    pub service: Service,
    pub acceptance: Acceptance,
    /// Problems of the Service itself.
    pub problems: Vec<Problem>,
}

/// Change that a watch reported.
#[expect(clippy::large_enum_variant, reason = "few are held at a time")]
#[derive(Clone, Debug)]
pub enum Change {
    /// A Service with our label.
    Service(Event<Service>),
    /// Any Pod.
    Pod(Event<Pod>),
    /// An EndpointSlice with our managed-by value.
    Slice(Event<EndpointSlice>),
    /// Scope of the next list of manual slices.
    ManualScope(Scope),
    /// An EndpointSlice that another client wrote for one of these Services.
    ManualSlice(Event<ManualSlice>),
    /// Any Node.
    Node(Event<Node>),
    /// Any `ServiceCIDR`.
    ServiceCidr(Event<ServiceCidr>),
    /// Any network-attachment-definition.
    Network(Event<ObjectName>),
}

/// What a change did to the index.
#[derive(Debug)]
pub enum Update {
    /// Services changed.
    Services {
        /// The changed ones.
        steps: Vec<Step<ServiceEntry>>,
        /// Those that left the scope of manual slices.
        left_scope: Vec<ObjectName>,
    },
    /// Pods changed.
    Pods(Vec<Step<Pod>>),
    /// Nodes changed.
    Nodes(Vec<Step<Node>>),
    /// Network attachment definitions changed.
    Networks {
        /// The changed ones.
        steps: Vec<Step<ObjectName>>,
        /// The first complete list of them.
        is_first_list: bool,
    },
    /// Slices or Service CIDRs changed, which affects these Services.
    Affected(BTreeSet<ObjectName>),
}

impl Update {
    /// Nothing that a Service depends on changed.
    const NONE: Self = Self::Affected(BTreeSet::new());
}

/// All watched objects.
#[derive(Debug, Default)]
pub struct Index {
    settings: Settings,
    /// The Service CIDRs of the command line; those of the cluster are added in the settings.
    given_ranges: Vec<IpNet>,
    ranges: Store<ServiceCidr>,
    /// Services with our label.
    pub services: Store<ServiceEntry>,
    pub pods: Store<Pod>,
    pods_by_label: PodsByLabel,
    /// Our slices.
    pub slices: Slices,
    /// The slices that authors of Services wrote.
    pub manual: Manual,
    pub nodes: Nodes,
    node_store: Store<Node>,
    /// Network attachment definitions; not synced where the cluster has no such kind.
    pub networks: Store<ObjectName>,
}

impl Index {
    /// Returns an empty index.
    pub fn new(settings: Settings) -> Self {
        Self {
            given_ranges: settings.service_cidrs.clone(),
            settings,
            ..Self::default()
        }
    }

    /// The administrator's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns true once everything that a plan needs has been listed.
    pub fn is_synced(&self) -> bool {
        self.services.is_synced()
            && self.pods.is_synced()
            && self.slices.is_synced()
            && self.node_store.is_synced()
            && self.ranges.is_synced()
    }

    /// Returns every Service that needs a reconciliation: managed Services, and the owners of slices whose Service is no longer managed.
    pub fn all_keys(&self) -> BTreeSet<ObjectName> {
        self.services.keys().chain(self.slices.services()).collect()
    }

    /// The pods of a namespace that a selector selects, in the order of names.
    pub fn selected(&self, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
        let candidates = self.pods_by_label.candidates(namespace, selector);
        let candidates = candidates.unwrap_or_else(|| self.pods.in_namespace(namespace).collect());
        let mut selected: Vec<_> = candidates
            .into_iter()
            .filter(|pod| *pod.namespace == *namespace && selector.matches(&pod.labels))
            .cloned()
            .collect();
        selected.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        selected.dedup_by(|one, other| Arc::ptr_eq(one, other));
        selected
    }

    /// Applies a change.
    pub fn update(&mut self, change: Change) -> Update {
        match change {
            Change::Service(event) => {
                let settings = &self.settings;
                let steps = self
                    .services
                    .update(event.map(|service| entry(service, settings)));
                let left_scope = self.follow_manual(&steps);
                Update::Services { steps, left_scope }
            }
            Change::Pod(event) => {
                let steps = self.pods.update(event);
                for step in &steps {
                    self.pods_by_label.update(step);
                }
                // Before the first complete lists no Service can be reconciled, and evaluating every pod would be wasted.
                if self.is_synced() {
                    Update::Pods(steps)
                } else {
                    Update::NONE
                }
            }
            Change::Slice(event) => Update::Affected(self.slices.update(event)),
            Change::ManualScope(scope) => {
                self.manual.announce(scope);
                Update::NONE
            }
            Change::ManualSlice(event) => Update::Affected(self.manual.update(event)),
            Change::ServiceCidr(event) => Update::Affected(self.update_service_cidrs(event)),
            Change::Node(event) => {
                let steps = self.node_store.update(event);
                for step in &steps {
                    match &step.after {
                        Some(node) => drop(self.nodes.insert((**node).clone())),
                        None => drop(self.nodes.remove(&step.key.name)),
                    }
                }
                if self.is_synced() {
                    Update::Nodes(steps)
                } else {
                    Update::NONE
                }
            }
            Change::Network(event) => {
                let was_synced = self.networks.is_synced();
                let steps = self.networks.update(event);
                let is_first_list = !was_synced && self.networks.is_synced();
                Update::Networks { steps, is_first_list }
            }
        }
    }

    /// Updates the scope of manual slices after Services changed; returns the Services that left it.
    fn follow_manual(&mut self, steps: &[Step<ServiceEntry>]) -> Vec<ObjectName> {
        let services = &mut self.manual.services;
        for step in steps.iter().filter(|step| !step.is_idle()) {
            services.note(&step.key, step.after.as_deref().and_then(manual_since));
        }
        // Before the list is complete the oldest are unknown.
        if self.services.is_synced() {
            services.choose()
        } else {
            Vec::new()
        }
    }

    /// Service CIDRs change rarely: all Services are reconciled then.
    fn update_service_cidrs(&mut self, event: Event<ServiceCidr>) -> BTreeSet<ObjectName> {
        self.ranges.update(event);
        let found = self.ranges.iter().flat_map(|range| range.ranges.iter().copied());
        let all: Vec<_> = self.given_ranges.iter().copied().chain(found).collect();
        if all == self.settings.service_cidrs {
            return BTreeSet::new();
        }
        self.settings.service_cidrs = all;
        self.services.keys().collect()
    }
}

/// Creation time of a Service whose author writes its endpoints; `None` for any other. Without a ClusterIP there is nothing to serve.
fn manual_since(entry: &ServiceEntry) -> Option<Timestamp> {
    let is_manual = matches!(entry.acceptance, Acceptance::Manual(_)) && !is_headless(&entry.service);
    let created = entry.service.metadata.creation_timestamp.as_ref();
    // The API server sets it.
    is_manual.then(|| created.map_or(Timestamp::MAX, |Time(at)| *at))
}

fn entry(service: Service, settings: &Settings) -> ServiceEntry {
    let (acceptance, problems) = validate(&service, settings);
    ServiceEntry {
        service,
        acceptance,
        problems,
    }
}

#[cfg(test)]
mod tests;
