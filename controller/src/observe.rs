//! Observation: everything in the index that concerns one Service.
//!
//! Pure. The values are shared snapshots, so that a decision blocks no update and sees no change.

use crate::index::{AuthorSlices, Index, ServiceEntry};
use crate::objects::{Pod, owners};
use crate::service_status::orphaned_slices::OrphanedSlices;
use crate::validate::{Acceptance, is_headless};
use api::ObjectName;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::sync::Arc;

/// Everything known that concerns one Service.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Service, when it has our label.
    pub service: Option<Arc<ServiceEntry>>,
    /// It exists but cannot be decoded.
    pub is_unreadable: bool,
    /// The pods it selects.
    pub pods: Vec<Arc<Pod>>,
    /// The slices that carry its name and our managed-by value.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// True if its network exists; `None` if that is unknown.
    pub has_network: Option<bool>,
    /// The slices that its author wrote, when it selects no pods.
    pub written: Option<AuthorSlices>,
    /// Slices of other controllers on a Service without selector.
    pub orphaned_slices: Vec<String>,
}

impl Observed {
    /// Returns true if it is served by the selector annotation.
    pub fn is_selectorless(&self) -> bool {
        let acceptance = self.service.as_ref().map(|entry| &entry.acceptance);
        matches!(acceptance, Some(Acceptance::Served(binding)) if binding.is_selectorless)
    }

    /// Returns true if nothing can be decided yet: the slices that its author wrote have not been listed.
    pub fn is_pending(&self) -> bool {
        self.written == Some(AuthorSlices::Unknown)
    }

    /// UID of a Service that is no longer managed, from the owner references of its slices: so also a process that did not run when the
    /// Service changed knows it.
    pub fn former_uid(&self) -> Option<&str> {
        let is_managed = self.service.is_some() || self.is_unreadable;
        let slices = self.slices.iter().filter(|_| !is_managed);
        slices.flat_map(|slice| owners(slice)).next()
    }
}

/// Collects everything that concerns a Service.
pub fn observe(index: &Index, orphaned: &OrphanedSlices, key: &ObjectName) -> Observed {
    let service = index.services.get(key).cloned();
    let binding = service.as_ref().and_then(|entry| match &entry.acceptance {
        Acceptance::Served(binding) => Some(binding),
        _ => None,
    });
    let pods = binding.map(|binding| index.selected(&key.namespace, &binding.selector));
    let network = service.as_ref().and_then(|entry| entry.acceptance.network());
    let network = network.map(|network| ObjectName::new(network.namespace(), network.name()));
    let is_manual = |entry: &&Arc<ServiceEntry>| {
        matches!(entry.acceptance, Acceptance::Manual(_)) && !is_headless(&entry.service)
    };
    let manual = service.as_ref().filter(is_manual);
    Observed {
        is_unreadable: index.services.is_unreadable(key),
        pods: pods.unwrap_or_default(),
        slices: index.slices.of(key),
        has_network: network
            .filter(|_| index.networks.is_synced())
            .map(|network| index.networks.get(&network).is_some()),
        written: manual.map(|_| index.manual.of(key)),
        orphaned_slices: orphaned.of(key).to_vec(),
        service,
    }
}
