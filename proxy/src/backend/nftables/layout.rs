//! Layout of our table: names, shapes of keys and values, and the registers of keys.
//!
//! Pure. One table per family, so that everything in it has one address length:
//!
//! ```text
//! table ip multus-proxy {                                            # "ip6": the same with ipv6_addr
//!   set vips        { ipv4_addr }                                    # rejected unless translated
//!   map eps         { vip . proto . port . index : endpoint . port } # index 0 to the number of endpoints - 1
//!   set svc-3       { vip . proto . port }                           # ports with 3 endpoints; made when first needed
//!   chain lb-3      { dnat to vip . proto . port . numgen random mod 3 map @eps }
//!   chain dispatch  { vip . proto . port @svc-3 goto lb-3; ... }
//!   chain output, prerouting { type nat hook ... priority -101; jump affinity; jump dispatch
//!                     meta l4proto udp ip daddr @vips dnat to 127.0.0.1:0 }  # output only: rejected, and send() succeeds
//!   map sources     { vip : address }                                # of the pod on the VIP's network
//!   chain source    { type nat hook postrouting priority 99;         # replaces the source address of a bound socket
//!                     ct status dnat fib saddr type local snat to ct original ip daddr map @sources }
//!   chain reject-output { type filter hook output; ip daddr @vips reject     # forwarded packets: the same
//!                     oifname != "eth0" tcp flags rst ct state invalid drop }
//!                                                                    # only where a port has session affinity:
//!   set sticky-60s  { vip . proto . port . endpoint . port }         # endpoints that may be remembered, of ports with an affinity of 60 s
//!   map aff-60s     { vip . proto . port . client : endpoint . port }    # flags dynamic; timeout 60s
//!   chain affinity  { dnat to vip . proto . port . client map @aff-60s }
//!   chain remember  { type filter hook output priority -99;          # after translation, so that the endpoint is known
//!                     ct state new ct status dnat, original vip . proto . port . endpoint . port @sticky-60s: update @aff-60s }
//! }
//! ```
//!
//! A change of Services or endpoints changes elements only: the kernel then validates no rule, and the cost does not depend on how
//! many Services there are. Sets and chains are added when a number of endpoints, or an affinity, occurs for the first time.

use api::Family;
use rules::Protocol;
use smallvec::SmallVec;
use std::net::IpAddr;

/// Version in the comment of the table; a table with another version is rebuilt. Increment it with every change of names, shapes or rules.
pub(super) const VERSION: u32 = 5;

/// Set of all VIPs.
pub(super) const VIPS: &str = "vips";
/// Map of all endpoints.
pub(super) const ENDPOINTS: &str = "eps";
/// Map from VIPs to the source addresses that flows to them leave with.
pub(super) const SOURCES: &str = "sources";
/// Chain that both nat hooks jump to.
pub(super) const DISPATCH: &str = "dispatch";

/// Chain of the rules that keep a client with its endpoint.
pub(super) const AFFINITY: &str = "affinity";

/// Sets and chains that exist once per number of endpoints, or once per affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    /// Ports with this many endpoints, at least one.
    Count(u32),
    /// Ports with session affinity for this many seconds, at least one, since a client's last new flow.
    Affinity(u32),
}

impl Class {
    /// Name of the set of its ports; of an affinity, with their endpoints.
    pub(super) fn set(self) -> String {
        match self {
            Self::Count(count) => format!("svc-{count}"),
            Self::Affinity(seconds) => format!("sticky-{seconds}s"),
        }
    }

    /// Parses the name of a set.
    pub(super) fn of_set(name: &str) -> Option<Self> {
        let class = if let Some(count) = name.strip_prefix("svc-") {
            Self::Count(count.parse().ok()?)
        } else {
            Self::Affinity(name.strip_prefix("sticky-")?.strip_suffix('s')?.parse().ok()?)
        };
        (class.set() == name).then_some(class)
    }
}

/// Name of the chain that picks one of `count` endpoints.
pub(super) fn balancer(count: u32) -> String {
    format!("lb-{count}")
}

/// Name of the map from clients to endpoints for an affinity of `seconds`.
pub(super) fn clients(seconds: u32) -> String {
    format!("aff-{seconds}s")
}

/// Returns true when a class has a set or map of this name.
pub(super) fn is_set_of_a_class(name: &str) -> bool {
    Class::of_set(name).is_some() || affinity_of_clients(name).is_some()
}

/// Returns true when a class has a chain of this name.
pub(super) fn is_chain_of_a_class(name: &str) -> bool {
    let count = name.strip_prefix("lb-").and_then(|count| count.parse().ok());
    count.is_some_and(|count| balancer(count) == name)
}

/// Parses the name of a map from clients to endpoints.
pub(super) fn affinity_of_clients(name: &str) -> Option<u32> {
    let seconds = name.strip_prefix("aff-")?.strip_suffix('s')?.parse().ok()?;
    (clients(seconds) == name).then_some(seconds)
}

/// Types as nft knows them (`enum datatypes` in its datatype.h); a concatenation is six bits each.
mod kind {
    pub(super) const IPV4_ADDR: u32 = 7;
    pub(super) const IPV6_ADDR: u32 = 8;
    pub(super) const INET_PROTO: u32 = 12;
    pub(super) const INET_SERVICE: u32 = 13;
    /// Type of the index: a plain integer cannot be declared, and `nft list` crashes on it.
    pub(super) const MARK: u32 = 19;
}

/// Type and length in bytes of a key or a value. Each part fills whole registers of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) kind: u32,
    pub(super) length: u32,
}

impl Shape {
    fn of(parts: &[(u32, u32)]) -> Self {
        parts
            .iter()
            .fold(Self { kind: 0, length: 0 }, |shape, (kind, length)| Self {
                kind: shape.kind << 6 | kind,
                length: shape.length + length,
            })
    }

    /// A VIP, or a source address.
    pub(super) fn vip(family: Family) -> Self {
        Self::of(&[address(family)])
    }

    /// A port of a VIP.
    pub(super) fn service(family: Family) -> Self {
        Self::of(&[address(family), PROTOCOL, PORT])
    }

    /// One endpoint of a port of a VIP, by index.
    pub(super) fn slot(family: Family) -> Self {
        Self::of(&[address(family), PROTOCOL, PORT, (kind::MARK, 4)])
    }

    /// A port of a VIP and one of its endpoints.
    pub(super) fn member(family: Family) -> Self {
        Self::of(&[address(family), PROTOCOL, PORT, address(family), PORT])
    }

    /// A client of a port of a VIP.
    pub(super) fn client(family: Family) -> Self {
        Self::of(&[address(family), PROTOCOL, PORT, address(family)])
    }

    /// An endpoint.
    pub(super) fn endpoint(family: Family) -> Self {
        Self::of(&[address(family), PORT])
    }
}

const PROTOCOL: (u32, u32) = (kind::INET_PROTO, 4);
const PORT: (u32, u32) = (kind::INET_SERVICE, 4);

fn address(family: Family) -> (u32, u32) {
    match family {
        Family::V4 => (kind::IPV4_ADDR, 4),
        Family::V6 => (kind::IPV6_ADDR, 16),
    }
}

/// Bytes of a key or value: as many as the longest has, that of an endpoint that may be remembered, without an allocation.
pub(super) type ElementData = SmallVec<[u8; 44]>;

/// Builds the bytes of a key or value, part by part.
#[derive(Default)]
pub(super) struct Bytes(ElementData);

impl Bytes {
    pub(super) fn address(mut self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.0.extend(address.octets()),
            IpAddr::V6(address) => self.0.extend(address.octets()),
        }
        self
    }

    pub(super) fn protocol(mut self, protocol: Protocol) -> Self {
        self.0.extend([protocol.number(), 0, 0, 0]);
        self
    }

    pub(super) fn port(mut self, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        self.0.extend([high, low, 0, 0]);
        self
    }

    /// Host byte order, as `numgen` writes its register.
    pub(super) fn index(mut self, index: u32) -> Self {
        self.0.extend(index.to_ne_bytes());
        self
    }

    pub(super) fn build(self) -> ElementData {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sets_are_parsed() {
        for class in [Class::Count(1), Class::Count(1000), Class::Affinity(10_800)] {
            assert_eq!(Class::of_set(&class.set()), Some(class));
        }
        for other in [
            "svc-",
            "svc-01",
            "svc-1-60s",
            "sticky-60",
            "vips",
            "eps",
            "aff-60s",
        ] {
            assert_eq!(Class::of_set(other), None, "{other}");
        }
    }

    #[test]
    fn names_of_classes_are_distinguished_from_others() {
        for set in ["svc-3", "sticky-60s", "aff-60s"] {
            assert!(is_set_of_a_class(set), "{set}");
        }
        for other in ["vips", "aff-060s", "aff-60", "owners"] {
            assert!(!is_set_of_a_class(other), "{other}");
        }
        assert!(is_chain_of_a_class("lb-3") && !is_chain_of_a_class("lb-03") && !is_chain_of_a_class("lb-"));
    }

    #[test]
    fn a_key_has_the_length_of_its_shape() {
        for (family, address) in [(Family::V4, "10.96.0.1"), (Family::V6, "fd00:96::1")] {
            let address = address.parse().unwrap();
            let key = Bytes::default()
                .address(address)
                .protocol(Protocol::Udp)
                .port(53)
                .index(7)
                .build();
            assert_eq!(key.len(), Shape::slot(family).length as usize);
        }
    }

    #[test]
    fn types_are_packed_six_bits_each() {
        // As `nft --debug=netlink add map` shows it for ipv4_addr . inet_proto . inet_service . mark.
        assert_eq!(Shape::slot(Family::V4).kind, 1_885_011);
    }
}
