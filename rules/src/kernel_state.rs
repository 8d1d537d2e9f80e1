//! `KernelState`: the managed rules of a network namespace, as a backend reads them from the kernel.
//!
//! Pure. The same value follows from [`PodRules`]: comparing the two finds leftovers of an earlier proxy and changes by another process.

use crate::{Places, PodRules, Port, Translation};
use api::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Managed rules in one network namespace. Routes are not part of it: they are the same for every backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelState {
    /// VIPs to which untranslated packets are rejected.
    pub rejected: BTreeSet<IpAddr>,
    /// VIPs whose rejected UDP flows of the pod itself end at the loopback address, so that `send()` succeeds.
    pub rejected_udp: BTreeSet<IpAddr>,
    /// By VIP: the source address of the pod's own translated flows.
    pub sources: BTreeMap<IpAddr, IpAddr>,
    /// Ports of VIPs whose new flows are translated.
    pub translated: BTreeMap<(IpAddr, Port), Translated>,
    /// Descriptions of managed objects that differ from the layout: a missing hook, a rule of another process. Not empty: only a
    /// rebuild repairs it.
    pub damage: BTreeSet<String>,
    /// Descriptions of objects that were not read, because they are not managed or exceed the wanted size. They cause a rebuild, too.
    pub unread: BTreeSet<String>,
}

/// An owned [`Translation`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// Endpoints of new flows, each with equal weight, in their places in the kernel.
    pub endpoints: Places,
    /// As [`PortRules::affinity`](crate::PortRules::affinity).
    pub affinity: Option<Duration>,
}

impl Translated {
    /// Borrows it.
    pub fn as_translation(&self) -> Translation<'_> {
        Translation {
            endpoints: &self.endpoints,
            affinity: self.affinity,
        }
    }
}

impl KernelState {
    /// Whether there are no managed rules.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the state with endpoints in the order of their addresses: places do not affect flows.
    #[must_use]
    pub fn regardless_of_places(mut self) -> Self {
        for translated in self.translated.values_mut() {
            translated.endpoints = translated.endpoints.iter().copied().collect();
        }
        self
    }

    /// Whether it holds a VIP of `family`.
    pub(crate) fn has(&self, family: Family) -> bool {
        let translated = self.translated.keys().map(|(vip, _)| vip);
        self.rejected
            .iter()
            .chain(translated)
            .any(|vip| Family::of(*vip) == family)
    }
}

impl PodRules {
    /// Returns the state of a namespace that has exactly these rules.
    pub fn kernel_state(&self) -> KernelState {
        let mut state = KernelState::default();
        for (vip, (rules, source)) in Family::ALL.into_iter().flat_map(|family| self.vips(family)) {
            state.rejected.insert(vip);
            state.rejected_udp.insert(vip);
            state.sources.extend(source.map(|source| (vip, source.address)));
            for (port, rules) in &rules.ports {
                let Some(Translation { endpoints, affinity }) = rules.translation(source) else {
                    continue;
                };
                let translated = Translated {
                    endpoints: endpoints.clone(),
                    affinity,
                };
                state.translated.insert((vip, *port), translated);
            }
        }
        state
    }
}
