//! `trace`: what happens to a packet under `PodRules`.
//!
//! Pure. This is the meaning of [`PodRules`]; every backend is tested against it on real packets.

use crate::{Family, PodRules, Port, Source};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The first packet of a flow that leaves the pod, or is forwarded by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it goes.
    pub destination: IpAddr,
    /// Its port; `None` for a protocol without ports, such as ICMP.
    pub port: Option<Port>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Not to a VIP of ours: nothing of ours touches it.
    Pass,
    /// Refused at once (TCP reset, else ICMP port unreachable); it never leaves the pod.
    Reject,
    /// Translated to one of `endpoints`, each as likely as the other; a flow of the pod itself leaves with `source`.
    Translate {
        /// Never empty.
        endpoints: &'a BTreeSet<SocketAddr>,
        /// Interface and source address.
        source: &'a Source,
    },
}

impl PodRules {
    /// Says what happens to the first packet of a flow.
    pub fn trace(&self, packet: Packet) -> Verdict<'_> {
        let vips = self.vips(Family::of(packet.destination));
        let Some((vip, source)) = vips.get(&packet.destination) else {
            return Verdict::Pass;
        };
        let port = packet.port.and_then(|port| vip.ports.get(&port));
        match (port, source) {
            (Some(port), Some(source)) if !port.endpoints.is_empty() => Verdict::Translate {
                endpoints: &port.endpoints,
                source,
            },
            _ => Verdict::Reject,
        }
    }
}
