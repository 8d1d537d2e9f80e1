//! Encoding of the expressions of our rules as netlink attributes.
//!
//! Pure. Where the crate has no type for an expression it is written by attribute number, as in the kernel's
//! `include/uapi/linux/netfilter/nf_tables.h`; integers there are big-endian.

use api::Family;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta,
    MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Expression of a rule.
pub(super) type Expression = ListAttribute<ExpressionAttribute>;

/// Number of a 4-byte register, 0 to 15.
pub(super) type Slot = u32;

/// Number of the first 4-byte register in the kernel.
const FIRST_REGISTER: u32 = 8;

/// Returns the number as the kernel lists it: the start of a 16-byte register has a number of its own.
fn number_of(slot: Slot) -> u32 {
    if slot.is_multiple_of(4) {
        slot / 4 + 1
    } else {
        FIRST_REGISTER + slot
    }
}

fn register(slot: Slot) -> Register {
    number_of(slot).into()
}

/// Fields of an IP header.
pub(super) struct Header {
    family: Family,
    /// 4-byte registers an address takes.
    pub(super) width: Slot,
    source: u32,
    destination: u32,
}

impl Header {
    pub(super) fn of(family: Family) -> Self {
        let (width, source, destination) = match family {
            Family::V4 => (1, 12, 16),
            Family::V6 => (4, 8, 24),
        };
        Self {
            family,
            width,
            source,
            destination,
        }
    }

    /// Destination address → `to` and following.
    pub(super) fn destination(&self, to: Slot) -> Expression {
        payload(NETWORK_HEADER, self.destination, 4 * self.width, to)
    }

    /// Source address → `to` and following.
    pub(super) fn source(&self, to: Slot) -> Expression {
        payload(NETWORK_HEADER, self.source, 4 * self.width, to)
    }

    /// Destination address, protocol and destination port → `to` and following: the key of a port of a VIP.
    pub(super) fn service(&self, to: Slot) -> [Expression; 3] {
        [
            self.destination(to),
            transport_protocol(to + self.width),
            destination_port(to + self.width + 1),
        ]
    }

    /// Destination address of the flow before translation → `to` and following.
    pub(super) fn original_destination(&self, to: Slot) -> Expression {
        const DESTINATION_IPV4: u32 = 20;
        const DESTINATION_IPV6: u32 = 22;
        let address = match self.family {
            Family::V4 => DESTINATION_IPV4,
            Family::V6 => DESTINATION_IPV6,
        };
        of_original(address, to)
    }

    /// The key of a port of a VIP, of the flow before translation.
    pub(super) fn original_service(&self, to: Slot) -> [Expression; 3] {
        const DESTINATION_PORT: u32 = 12;
        [
            self.original_destination(to),
            transport_protocol(to + self.width),
            of_original(DESTINATION_PORT, to + self.width + 1),
        ]
    }

    /// Translates the destination to the endpoint at `from` and following.
    pub(super) fn dnat(&self, from: Slot) -> Expression {
        const DESTINATION: u32 = 1;
        /// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`, as the kernel lists it.
        const ADDRESS_AND_PORT: u32 = 3;
        other(
            "nat",
            [
                number(1, DESTINATION),
                number(2, self.number()),
                number(3, number_of(from)),
                number(5, number_of(from + self.width)),
                number(7, ADDRESS_AND_PORT),
            ],
        )
    }

    /// The loopback address and port 0, which no socket is bound to → `to` and following.
    pub(super) fn closed_port(&self, to: Slot) -> [Expression; 2] {
        let address = match self.family {
            Family::V4 => Ipv4Addr::LOCALHOST.octets().to_vec(),
            Family::V6 => Ipv6Addr::LOCALHOST.octets().to_vec(),
        };
        [immediate(to, address), immediate(to + self.width, vec![0; 2])]
    }

    /// Translates the source address to the one at `from` and following.
    pub(super) fn snat(&self, from: Slot) -> Expression {
        const SOURCE: u32 = 0;
        let attributes = [
            number(1, SOURCE),
            number(2, self.number()),
            number(3, number_of(from)),
        ];
        other("nat", attributes)
    }

    /// The family's number in the kernel.
    fn number(&self) -> u32 {
        match self.family {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    /// Rejects with ICMP "port unreachable".
    pub(super) fn reject_unreachable(&self) -> Expression {
        const ICMP: u32 = 0;
        let port_unreachable = match self.family {
            Family::V4 => 3,
            Family::V6 => 4,
        };
        other(
            "reject",
            [number(1, ICMP), DefaultNla::new(2, vec![port_unreachable])],
        )
    }
}

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// Destination port → `to`.
pub(super) fn destination_port(to: Slot) -> Expression {
    payload(TRANSPORT_HEADER, 2, 2, to)
}

/// Matches the first packets of a flow, until there is a reply. Uses register 0.
pub(super) fn is_new_flow() -> [Expression; 3] {
    const STATE: u32 = 0;
    /// `NF_CT_STATE_BIT(IP_CT_NEW)`.
    const NEW: u32 = 1 << 3;
    has_flag(STATE, NEW)
}

/// Matches flows whose destination was translated. Uses register 0.
pub(super) fn is_translated() -> [Expression; 3] {
    const STATUS: u32 = 2;
    /// `IPS_DST_NAT`.
    const TRANSLATED: u32 = 1 << 5;
    has_flag(STATUS, TRANSLATED)
}

/// Matches packets whose source is an address of this namespace. Uses register 0.
pub(super) fn has_local_source() -> [Expression; 2] {
    const ADDRESS_TYPE: u32 = 3;
    const OF_SOURCE: u32 = 1;
    /// `RTN_LOCAL`.
    const LOCAL: u32 = 2;
    let attributes = [
        number(1, number_of(0)),
        number(2, ADDRESS_TYPE),
        number(3, OF_SOURCE),
    ];
    [
        other("fib", attributes),
        compare(0, Operator::Equal, LOCAL.to_ne_bytes().to_vec()),
    ]
}

/// Matches packets that connection tracking considers invalid. Uses register 0.
pub(super) fn is_invalid() -> [Expression; 3] {
    const STATE: u32 = 0;
    /// `NF_CT_STATE_INVALID_BIT`.
    const INVALID: u32 = 1;
    has_flag(STATE, INVALID)
}

/// Matches TCP segments that reset a connection. Uses register 0.
pub(super) fn has_tcp_reset() -> [Expression; 3] {
    const FLAGS: u32 = 13;
    const RESET: u8 = 1 << 2;
    [
        payload(TRANSPORT_HEADER, FLAGS, 1, 0),
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(register(0)),
            Bitwise::DestinationRegister(register(0)),
            Bitwise::Length(1),
            Bitwise::Mask(DataAttribute::Value(vec![RESET])),
            Bitwise::Xor(DataAttribute::Value(vec![0])),
        ])
        .into(),
        compare(0, Operator::NotEqual, vec![0]),
    ]
}

/// Matches packets that leave through another interface. Uses registers 0 to 3.
pub(super) fn leaves_not_by(interface: &str) -> [Expression; 2] {
    let mut name = interface.as_bytes().to_vec();
    name.resize(16, 0);
    [
        Expressions::Meta(vec![
            Meta::Key(MetaKey::Oifname),
            Meta::DestinationRegister(register(0)),
        ])
        .into(),
        compare(0, Operator::NotEqual, name),
    ]
}

/// Drops the packet silently.
pub(super) fn drop_packet() -> Expression {
    const DROP: u32 = 0;
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(
            Verdict::Other(DROP),
        )])),
    ])
    .into()
}

/// Matches flows with this flag in a word of flags, in host byte order.
fn has_flag(key: u32, flag: u32) -> [Expression; 3] {
    let value = |word: u32| DataAttribute::Value(word.to_ne_bytes().to_vec());
    [
        other("ct", [number(1, number_of(0)), number(2, key)]),
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(register(0)),
            Bitwise::DestinationRegister(register(0)),
            Bitwise::Length(4),
            Bitwise::Mask(value(flag)),
            Bitwise::Xor(value(0)),
        ])
        .into(),
        compare(0, Operator::NotEqual, vec![0; 4]),
    ]
}

/// Part of the original tuple of the flow → `to` and following.
fn of_original(key: u32, to: Slot) -> Expression {
    const ORIGINAL: u8 = 0;
    other(
        "ct",
        [
            number(1, number_of(to)),
            number(2, key),
            DefaultNla::new(3, vec![ORIGINAL]),
        ],
    )
}

fn payload(base: u32, offset: u32, length: u32, to: Slot) -> Expression {
    Expressions::Payload(vec![
        Payload::DestinationRegister(register(to)),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
    .into()
}

/// Transport protocol → `to`.
pub(super) fn transport_protocol(to: Slot) -> Expression {
    Expressions::Meta(vec![
        Meta::Key(MetaKey::L4Proto),
        Meta::DestinationRegister(register(to)),
    ])
    .into()
}

/// Matches if `from` is exactly this byte.
pub(super) fn equals(from: Slot, byte: u8) -> Expression {
    compare(from, Operator::Equal, vec![byte])
}

fn compare(from: Slot, operator: Operator, with: Vec<u8>) -> Expression {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(register(from)),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(with)),
    ])
    .into()
}

/// Rejects with a TCP reset.
pub(super) fn reject_with_reset() -> Expression {
    const TCP_RESET: u32 = 1;
    other("reject", [number(1, TCP_RESET)])
}

/// Random number below `below` → `to`.
pub(super) fn random(below: u32, to: Slot) -> Expression {
    const RANDOM: u32 = 1;
    other(
        "numgen",
        [
            number(1, number_of(to)),
            number(2, below),
            number(3, RANDOM),
            number(4, 0),
        ],
    )
}

/// Matches if the key at `from` is in `set`.
pub(super) fn is_in(set: &str, from: Slot) -> Expression {
    Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(register(from)),
    ])
    .into()
}

/// Value of the key at `from` in `map` → `to` and following; matches if there is one.
pub(super) fn value_of(map: &str, from: Slot, to: Slot) -> Expression {
    Expressions::Lookup(vec![
        Lookup::Set(map.to_owned()),
        Lookup::SourceRegister(register(from)),
        Lookup::DestinationRegister(register(to)),
    ])
    .into()
}

/// Adds key and value to `map`, or renews the timeout of the key, which keeps its value.
pub(super) fn remember(map: &str, key: Slot, value: Slot) -> Expression {
    const UPDATE: u32 = 1;
    other(
        "dynset",
        [
            DefaultNla::new(1, c_string(map)),
            number(3, UPDATE),
            number(4, number_of(key)),
            number(5, number_of(value)),
        ],
    )
}

/// Jumps to another chain and returns.
pub(super) fn jump(chain: &str) -> Expression {
    verdict(Verdict::Jump, chain)
}

/// Goes to another chain without return.
pub(super) fn goto(chain: &str) -> Expression {
    verdict(Verdict::Goto, chain)
}

fn verdict(code: Verdict, chain: &str) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![
            VerdictAttribute::Code(code),
            VerdictAttribute::Chain(chain.to_owned()),
        ])),
    ])
    .into()
}

fn immediate(to: Slot, value: Vec<u8>) -> Expression {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(register(to)),
        Immediate::Data(DataAttribute::Value(value)),
    ])
    .into()
}

fn other(name: &str, attributes: impl IntoIterator<Item = DefaultNla>) -> Expression {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes: attributes.into_iter().collect(),
    }
    .into()
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn c_string(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
