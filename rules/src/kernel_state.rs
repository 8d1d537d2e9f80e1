//! `KernelState`: what a namespace holds of ours, as a backend reads it back from the kernel.
//!
//! Pure. The same value follows from [`PodRules`]: comparing the two finds what an earlier proxy left, and what somebody changed.

use crate::{Family, Places, PodRules, Port, Translation};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Rules of ours in one network namespace. Routes are not part of it: they are the same for every backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelState {
    /// VIPs to which untranslated packets are rejected.
    pub rejected: BTreeSet<IpAddr>,
    /// VIPs of which rejected UDP flows of the pod's own end at the loopback address, so that `send()` succeeds.
    pub rejected_udp: BTreeSet<IpAddr>,
    /// By VIP: the source address that the pod's own translated flows leave with.
    pub sources: BTreeMap<IpAddr, IpAddr>,
    /// Ports of VIPs whose new flows are translated.
    pub translated: BTreeMap<(IpAddr, Port), Translated>,
    /// What is there of ours but not as we write it, in words: a missing hook, a rule that somebody added. Not empty: only writing
    /// everything anew helps.
    pub damage: BTreeSet<String>,
    /// What was not read, because it is not ours or more than what is wanted explains, in words. It is rebuilt, too.
    pub unread: BTreeSet<String>,
}

/// A [`Translation`] that stands by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// Who may get a new flow, each with equal weight, and the places that the kernel has them in.
    pub endpoints: Places,
    /// As [`PortRules::affinity`](crate::PortRules::affinity).
    pub affinity: Option<Duration>,
}

impl Translated {
    /// Looks at it.
    pub fn as_translation(&self) -> Translation<'_> {
        Translation {
            endpoints: &self.endpoints,
            affinity: self.affinity,
        }
    }
}

impl KernelState {
    /// Whether nothing of ours is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same with endpoints in the order of their addresses: places mean nothing to a flow.
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
    /// What a namespace holds that has exactly these rules.
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
