//! `trace`: the verdict on a packet under `PodRules`.
//!
//! Pure. It defines the meaning of [`PodRules`]; every backend is tested against it on real packets.

use crate::{Places, PodRules, Port, Source};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The first packet of a flow that leaves the pod, or is forwarded by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Origin of the packet.
    pub origin: Origin,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port; `None` for a protocol without ports, such as ICMP.
    pub port: Option<Port>,
}

/// Origin of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A socket of the pod, bound to any of the pod's addresses or to none.
    Pod,
    /// Another host, with this address, for which the pod forwards.
    Forwarded(IpAddr),
}

/// Verdict on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Not to a VIP: no rule matches it.
    Pass,
    /// Rejected at once (TCP reset, else ICMP port unreachable); it never leaves the pod.
    Reject,
    /// Translated to one of `endpoints`, with equal probability.
    Translate {
        /// Endpoints; never empty. Their places do not affect flows.
        endpoints: &'a Places,
        /// The pod's interface and address on the VIP's network.
        source: &'a Source,
        /// Source address that the endpoint receives.
        seen: IpAddr,
        /// Time for which a client stays with its endpoint; see [`Verdict::endpoints_after`].
        affinity: Option<Duration>,
    },
}

/// The previous flow from the same source address to the same port of the same VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousFlow {
    /// Endpoint of the flow.
    pub endpoint: SocketAddr,
    /// Time between the beginnings of the two flows.
    pub age: Duration,
}

impl Verdict<'_> {
    /// Returns the possible endpoints of the flow after the previous one. Empty unless it is translated.
    ///
    /// Each flow to an endpoint restarts the time. A removed endpoint loses its clients at once, also when it returns within the time.
    pub fn endpoints_after(&self, previous: Option<PreviousFlow>) -> BTreeSet<SocketAddr> {
        let Self::Translate {
            endpoints, affinity, ..
        } = self
        else {
            return BTreeSet::new();
        };
        let kept = previous.filter(|previous| {
            affinity.is_some_and(|time| previous.age < time) && endpoints.contains(&previous.endpoint)
        });
        match kept {
            Some(previous) => BTreeSet::from([previous.endpoint]),
            None => endpoints.to_set(),
        }
    }
}

impl PodRules {
    /// Returns the verdict on the first packet of a flow.
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
