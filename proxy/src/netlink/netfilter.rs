//! Messages to netfilter.
//!
//! Writes: nothing itself.

use super::kept_sockets::KeptSocket;
use api::Family;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;

/// Socket for messages to netfilter.
pub(crate) type Socket = KeptSocket<NetfilterMessage>;

/// Returns a socket in the network namespace of the calling thread.
pub(crate) fn socket() -> Socket {
    KeptSocket::new(NETLINK_NETFILTER, 0)
}

/// Creates a message for `family`.
pub(crate) fn about(family: Family, inner: impl Into<NetfilterMessageInner>) -> NetfilterMessage {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}
