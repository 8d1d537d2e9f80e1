//! Lower bound: one batch of netlink messages to each pod's namespace through sockets that are already open, without planning, reading or
//! thread hand-over.

use crate::testbed::Testbed;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList, SetElementMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sys::socket::{setsockopt, sockopt};
use std::ops::Range;
use std::sync::Mutex;
use std::thread::available_parallelism;

/// A map with the key and value types of the proxy's endpoint map, in a table of its own.
const MAP: &str = "add table ip raw_netlink; add map ip raw_netlink m { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }";

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;

/// Maximum elements per message: an attribute is at most 64 KiB long.
const PER_MESSAGE: u32 = 500;

pub(crate) struct RawNetlink {
    sockets: Vec<Mutex<Socket>>,
    elements: u32,
    round: u8,
    _testbed: Testbed,
}

impl RawNetlink {
    /// Creates `pods` namespaces for maps of this many elements.
    pub(crate) fn new(pods: u8, elements: u32) -> Self {
        let mut testbed = Testbed::new();
        let sockets = (2..=pods + 1).map(|host| {
            let pod = testbed.pod(host);
            pod.sh(&format!("nft '{MAP}'"));
            Mutex::new(pod.run(|| Socket::new(NETLINK_NETFILTER).unwrap()))
        });
        Self {
            sockets: sockets.collect(),
            elements,
            round: 0,
            _testbed: testbed,
        }
    }

    /// Adds all elements to the empty map.
    pub(crate) fn fill(&self) {
        self.send(&whole(add(self.elements, 0)));
    }

    /// Replaces the value of all elements.
    pub(crate) fn change(&mut self) {
        let (old, new) = (self.round % 2, (self.round + 1) % 2);
        self.round = new;
        let replace = delete(self.elements, old).chain(add(self.elements, new));
        self.send(&whole(replace));
    }

    /// Sends the batch to every namespace, on one thread per CPU.
    fn send(&self, batch: &[u8]) {
        let cpus = available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for sockets in self.sockets.chunks(self.sockets.len().div_ceil(cpus)) {
                scope.spawn(move || {
                    for socket in sockets {
                        transact(&socket.lock().unwrap(), batch);
                    }
                });
            }
        });
    }
}

fn add(elements: u32, value: u8) -> impl Iterator<Item = BatchMessage> {
    lists(elements, value).map(|list| batch(NfTablesMessage::NewSetElement(list), NLM_F_CREATE))
}

fn delete(elements: u32, value: u8) -> impl Iterator<Item = BatchMessage> {
    lists(elements, value).map(|list| batch(NfTablesMessage::DeleteSetElement(list), 0))
}

fn lists(elements: u32, value: u8) -> impl Iterator<Item = SetElementMessage> {
    let firsts = (0..elements).step_by(PER_MESSAGE as usize);
    firsts.map(move |first| list(first..elements.min(first + PER_MESSAGE), value))
}

type BatchMessage = (NetfilterMessage, u16);

fn whole(parts: impl Iterator<Item = BatchMessage>) -> Vec<u8> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
    let control = |message| (NetfilterMessage::new(header.clone(), message), 0);
    let mut parts: Vec<BatchMessage> = parts.collect();
    if let Some((_, flags)) = parts.last_mut() {
        *flags |= NLM_F_ACK;
    }
    parts.insert(0, control(ControlMessage::BatchBegin));
    parts.push(control(ControlMessage::BatchEnd));
    let mut bytes = Vec::new();
    for (message, flags) in parts {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let at = bytes.len();
        bytes.resize(at + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[at..]);
    }
    bytes
}

fn batch(message: NfTablesMessage, flags: u16) -> BatchMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    (NetfilterMessage::new(header, message), flags)
}

fn list(indices: Range<u32>, value: u8) -> SetElementMessage {
    let of = |index: u32| {
        let key = [
            &[172, 30, 0, 10, 6, 0, 0, 0, 0, 80, 0, 0][..],
            &index.to_ne_bytes(),
        ]
        .concat();
        let value = vec![10, 1, 0, value, 0x1f, 0x90, 0, 0];
        ListAttribute::Element(vec![
            SetElementAttribute::Key(DataAttribute::Value(key)),
            SetElementAttribute::Data(DataAttribute::Value(value)),
        ])
    };
    SetElementMessage {
        attributes: vec![
            SetElementList::Table("raw_netlink".to_owned()),
            SetElementList::Set("m".to_owned()),
            SetElementList::Elements(indices.map(of).collect()),
        ],
    }
}

/// Sends the batch and waits for the acknowledgement.
fn transact(socket: &Socket, batch: &[u8]) {
    setsockopt(socket, sockopt::SndBufForce, &(batch.len() + (1 << 16))).unwrap();
    socket.send(batch, 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    let answer = NetlinkMessage::<NetfilterMessage>::deserialize(&answer).unwrap();
    let NetlinkPayload::Error(error) = answer.payload else {
        panic!("no answer to a batch: {answer:?}");
    };
    assert!(error.code.is_none(), "{error:?}");
}
