//! `trace`: what happens to a packet under `PodRules`.
//!
//! Pure. This is the meaning of [`PodRules`]; every backend is tested against it on real packets.

use crate::{Places, PodRules, Port, Source};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The first packet of a flow that leaves the pod, or is forwarded by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Whose it is.
    pub origin: Origin,
    /// Where it goes.
    pub destination: IpAddr,
    /// Its port; `None` for a protocol without ports, such as ICMP.
    pub port: Option<Port>,
}

/// Whose packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A socket of the pod, bound to any of the pod's addresses or to none.
    Pod,
    /// Another host, with this address, for which the pod forwards.
    Forwarded(IpAddr),
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Not to a VIP of ours: nothing of ours touches it.
    Pass,
    /// Rejected at once (TCP reset, else ICMP port unreachable); it never leaves the pod.
    Reject,
    /// Translated to one of `endpoints`, each as likely as the other.
    Translate {
        /// Never empty. Their places mean nothing.
        endpoints: &'a Places,
        /// The pod's interface and address on the VIP's network.
        source: &'a Source,
        /// The source address that the endpoint sees.
        seen: IpAddr,
        /// How long a client stays with the endpoint it had; see [`Verdict::endpoints_after`].
        affinity: Option<Duration>,
    },
}

/// The flow before, from the same source address to the same port of the same VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousFlow {
    /// Which endpoint it went to.
    pub endpoint: SocketAddr,
    /// How long before this one it began.
    pub ago: Duration,
}

impl Verdict<'_> {
    /// Where the flow can go, given the one before. Empty unless it is translated.
    ///
    /// Each flow to an endpoint begins its time anew. An endpoint that is removed is forgotten at once: when it comes back within
    /// the time it has no old clients.
    pub fn endpoints_after(&self, earlier: Option<PreviousFlow>) -> BTreeSet<SocketAddr> {
        let Self::Translate {
            endpoints, affinity, ..
        } = self
        else {
            return BTreeSet::new();
        };
        let kept = earlier.filter(|earlier| {
            affinity.is_some_and(|time| earlier.ago < time) && endpoints.contains(&earlier.endpoint)
        });
        match kept {
            Some(earlier) => BTreeSet::from([earlier.endpoint]),
            None => endpoints.to_set(),
        }
    }
}

impl PodRules {
    /// Says what happens to the first packet of a flow.
    pub fn trace(&self, packet: Packet) -> Verdict<'_> {
        let Some((vip, source)) = self.vip(packet.destination) else {
            return Verdict::Pass;
        };
        let port = packet.port.and_then(|port| vip.ports.get(&port));
        let translation = port.and_then(|port| port.translation(source));
        match (translation, source) {
            (Some(translation), Some(source)) => Verdict::Translate {
                endpoints: translation.endpoints,
                source,
                seen: match packet.origin {
                    Origin::Pod => source.address,
                    Origin::Forwarded(address) => address,
                },
                affinity: translation.affinity,
            },
            _ => Verdict::Reject,
        }
    }
}
