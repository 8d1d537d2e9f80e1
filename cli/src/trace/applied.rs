//! Differences between the applied state of the node and the plan, for one flow.
//!
//! Pure. The proxy's backends read a `KernelState` from the kernel; the plan gives the same type.

use rules::{KernelState, Packet};

/// Returns descriptions of the differences that affect a packet.
pub(super) fn differences(planned: &KernelState, applied: &KernelState, packet: Packet) -> Vec<String> {
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
        if plan != node {
            found.push(format!(
                "endpoints: planned {}, applied {}",
                endpoints(plan),
                endpoints(node)
            ));
        }
    }
    found.extend(applied.damage.iter().cloned());
    found
}

fn shown<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "none".to_owned(), ToString::to_string)
}
