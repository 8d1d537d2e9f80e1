//! Differences between the rules in force in a pod and the plan, for one packet.
//!
//! Pure. The proxy's backends read a `KernelState` from the kernel; the plan gives the same type.

use rules::{AppliedRules, KernelState, Packet, PodRules, UnknownRule};

/// A plan and the rules in force, regardless of the places of endpoints.
pub(crate) struct Compared {
    planned: KernelState,
    applied: KernelState,
}

impl Compared {
    /// # Errors
    /// A newer proxy read something that this version does not know.
    pub(crate) fn new(planned: &PodRules, applied: &AppliedRules) -> Result<Self, UnknownRule> {
        Ok(Self {
            planned: planned.kernel_state().regardless_of_places(),
            applied: applied.kernel_state()?.regardless_of_places(),
        })
    }

    /// Returns descriptions of the differences that affect a packet.
    pub(crate) fn differences(&self, packet: Packet) -> Vec<String> {
        differences(&self.planned, &self.applied, packet)
    }
}

fn differences(planned: &KernelState, applied: &KernelState, packet: Packet) -> Vec<String> {
    let vip = packet.destination;
    let mut found = Vec::new();
    if planned.rejected.contains(&vip) != applied.rejected.contains(&vip) {
        let (has, lacking) = if applied.rejected.contains(&vip) {
            ("node", "plan")
        } else {
            ("plan", "node")
        };
        found.push(format!(
            "the {has} rejects untranslated packets to {vip}, the {lacking} does not"
        ));
    }
    let (plan, node) = (planned.sources.get(&vip), applied.sources.get(&vip));
    if plan != node {
        found.push(format!(
            "source address: planned {}, applied {}",
            shown(plan),
            shown(node)
        ));
    }
    if let Some(port) = packet.port {
        let (plan, node) = (
            planned.translated.get(&(vip, port)),
            applied.translated.get(&(vip, port)),
        );
        let endpoints = |translated: Option<&rules::Translated>| {
            let all = translated
                .iter()
                .flat_map(|translated| translated.endpoints.iter());
            let all: Vec<String> = all.map(ToString::to_string).collect();
            if all.is_empty() {
                "none".to_owned()
            } else {
                all.join(", ")
            }
        };
        if endpoints(plan) != endpoints(node) {
            found.push(format!(
                "endpoints: planned {}, applied {}",
                endpoints(plan),
                endpoints(node)
            ));
        } else if plan != node {
            found.push(format!(
                "session affinity: planned {}, applied {}",
                affinity(plan),
                affinity(node)
            ));
        }
    }
    found.extend(applied.damage.iter().cloned());
    found
}

fn affinity(translated: Option<&rules::Translated>) -> String {
    let timeout = translated.and_then(|translated| translated.affinity);
    timeout.map_or_else(|| "none".to_owned(), |timeout| format!("{} s", timeout.as_secs()))
}

fn shown<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}
