//! Synchronous netlink: one request, one response.
//!
//! Writes: the changes that the caller requests. A socket belongs to the network namespace it was opened in and keeps that
//! namespace and its devices alive, so it lives for one attempt only, or as `kept_sockets` defines.

pub(crate) mod decode;
pub(crate) mod errors;
pub(crate) mod generation;
pub(crate) mod kept_sockets;
pub(crate) mod monitor;
pub(crate) mod netfilter;

use self::decode::guarded;
use self::errors::counted;
use crate::fault_injection;
use crate::netns::memory::{Taken, WEIGHT};
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

/// Attempts of a dump that changes while it is read.
const DUMP_ATTEMPTS: u32 = 5;

/// Receive timeout. The kernel responds before the request returns; a lost response must not block a thread forever.
const PATIENCE_SECONDS: i64 = 10;

/// Size of a datagram that needs no larger send buffer: a safe part of the default `net.core.wmem_default`.
const DEFAULT_SEND_BUFFER: usize = 64 * 1024;

/// Receive buffer of a datagram. The kernel fills as much of it as possible, up to 32 KiB (`netlink_recvmsg`), and skips to its last
/// position at the start of each part of a long list: the cost grows with the square of the number of parts.
const DATAGRAM: usize = 32 * 1024;

/// Types of messages below are netlink's own (`NLMSG_MIN_TYPE`).
const FIRST_OF_FAMILIES: u16 = 0x10;

/// Memory for the slot of a value in a list, doubled because lists grow by doubling.
const PLACE: usize = 64;

/// Socket for messages of one netlink family.
pub(crate) struct Netlink<M> {
    /// `None` until the first request of a socket that was opened [lazily](Self::lazy).
    socket: Option<Socket>,
    protocol: isize,
    /// Port of the socket; 0 lets the kernel choose.
    port: u32,
    /// Sequence number of the first message of the last request.
    first: u32,
    sequence: u32,
    /// A response was abandoned: the kernel may still be working on it.
    is_spoilt: bool,
    messages: PhantomData<M>,
}

fn opened(protocol: isize, port: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    if port == 0 || socket.bind(&SocketAddr::new(port, 0)).is_err() {
        socket.bind_auto()?;
    }
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::seconds(PATIENCE_SECONDS),
    )?;
    // An error message does not repeat the request, which may be long.
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Error of a batch of changes.
#[derive(Debug, thiserror::Error)]
#[error("failed to commit a batch of netlink messages")]
pub(crate) struct BatchError<M> {
    /// Index of the rejected message, if known.
    pub(crate) message: Option<M>,
    pub(crate) source: io::Error,
}

/// Serialized messages that the kernel applies together.
pub(crate) struct Batch {
    pub(crate) datagram: Vec<u8>,
    /// Sequence number of the acknowledged message.
    acknowledged: u32,
}

impl<M> From<io::Error> for BatchError<M> {
    fn from(source: io::Error) -> Self {
        Self {
            message: None,
            source,
        }
    }
}

impl<M> Netlink<M> {
    /// Returns a socket that its first request opens, in the network namespace of the thread that makes it, at a given port, or at any port
    /// if that one is in use.
    pub(crate) fn lazy(protocol: isize, port: u32) -> Self {
        Self {
            socket: None,
            protocol,
            port,
            first: 0,
            sequence: 0,
            is_spoilt: false,
            messages: PhantomData,
        }
    }

    /// Returns the same socket for other messages.
    pub(crate) fn cast<N>(self) -> Netlink<N> {
        let Self {
            socket,
            protocol,
            port,
            first,
            sequence,
            is_spoilt,
            messages: _,
        } = self;
        Netlink {
            socket,
            protocol,
            port,
            first,
            sequence,
            is_spoilt,
            messages: PhantomData,
        }
    }

    /// Returns true after the first request.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    pub(crate) fn protocol(&self) -> isize {
        self.protocol
    }

    /// Returns true when the socket can be used for another request.
    pub(crate) fn is_sound(&self) -> bool {
        !self.is_spoilt
    }
}

impl<M> Netlink<M>
where
    M: NetlinkSerializable + NetlinkDeserializable + Clone,
{
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut netlink = Self::lazy(protocol, 0);
        netlink.socket()?;
        Ok(netlink)
    }

    fn socket(&mut self) -> io::Result<&mut Socket> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => opened(self.protocol, self.port)?,
        };
        Ok(self.socket.insert(socket))
    }

    /// Dumps what `keep` returns for each message: small values. The owner of a pod decides on the length of a list: other messages are
    /// dropped while it is read, and kept values count against the [memory](crate::netns::memory) of the attempt.
    pub(crate) fn dump_some<T>(
        &mut self,
        request: &M,
        mut keep: impl FnMut(M) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let keep = |message: &[u8]| -> io::Result<Option<T>> {
            Ok(inner(read::<M>(message)?.payload).and_then(&mut keep))
        };
        self.dump_weighed(request, keep, |_| 2 * (size_of::<T>() + PLACE))
    }

    /// Dumps whole messages.
    pub(crate) fn dump_whole<T>(
        &mut self,
        request: &M,
        mut keep: impl FnMut(M) -> io::Result<Option<T>>,
    ) -> io::Result<Vec<T>> {
        self.dump_unread(request, |message| {
            inner(read::<M>(message)?.payload).map_or(Ok(None), &mut keep)
        })
    }

    /// Dumps raw messages, header included: for long ones that are parsed in parts.
    pub(crate) fn dump_unread<T>(
        &mut self,
        request: &M,
        keep: impl FnMut(&[u8]) -> io::Result<Option<T>>,
    ) -> io::Result<Vec<T>> {
        self.dump_weighed(request, keep, |message| WEIGHT * message.len())
    }

    fn dump_weighed<T>(
        &mut self,
        request: &M,
        mut keep: impl FnMut(&[u8]) -> io::Result<Option<T>>,
        weight: impl Fn(&[u8]) -> usize,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut taken = Taken::default();
            let mut keep = |message: &[u8]| -> io::Result<Option<T>> {
                let kept = keep(message)?;
                if kept.is_some() {
                    taken.add(weight(message))?;
                }
                Ok(kept)
            };
            match self.dump_once(request, &mut keep) {
                Ok(Some(complete)) => return Ok(complete),
                Ok(None) => taken.give_back(),
                Err(error) => {
                    taken.give_back();
                    return Err(error);
                }
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the state of the kernel changed during every dump",
        ))
    }

    /// Enables strict checking while `work` runs: the kernel lists only what a request selects. Kernels before 4.20 list everything, so that
    /// the caller has to filter anyway.
    pub(crate) fn strictly<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let _ = self
            .socket()
            .and_then(|socket| socket.set_netlink_get_strict_chk(true));
        let done = work(self);
        let _ = self
            .socket()
            .and_then(|socket| socket.set_netlink_get_strict_chk(false));
        done
    }

    /// Returns the single response to `request`.
    pub(crate) fn ask(&mut self, request: &M) -> io::Result<M> {
        self.send(request, NLM_F_REQUEST)?;
        loop {
            for message in self.receive()? {
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => return Ok(inner),
                    NetlinkPayload::Error(error) => return Err(counted(error.to_io())),
                    _ => {}
                }
            }
        }
    }

    /// Sends one change and waits for its acknowledgement. `flags` are added to request and ack.
    pub(crate) fn change(&mut self, request: &M, flags: u16) -> io::Result<()> {
        let datagram = self.datagram(request, NLM_F_REQUEST | NLM_F_ACK | flags);
        fault_injection::strike(&datagram)?;
        self.socket()?.send(&datagram, 0)?;
        loop {
            for message in self.receive()? {
                if let NetlinkPayload::Error(error) = message.payload {
                    return if error.code.is_none() {
                        Ok(())
                    } else {
                        Err(counted(error.to_io()))
                    };
                }
            }
        }
    }

    /// Requests a single object; `None` when it does not exist.
    pub(crate) fn fetch(&mut self, request: &M) -> io::Result<Option<M>> {
        match self.ask(request) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Serializes messages that the kernel applies together, each with its flags in addition to "request". The last effective one has to
    /// request an acknowledgement; a failed message is reported in any case. Each message is kept only until it is serialized.
    pub(crate) fn batch(&mut self, messages: impl IntoIterator<Item = (M, u16)>) -> io::Result<Batch> {
        let (mut datagram, mut acknowledged) = (Vec::new(), self.sequence);
        self.first = self.sequence + 1;
        for (message, flags) in messages {
            self.sequence += 1;
            if flags & NLM_F_ACK != 0 {
                acknowledged = self.sequence;
            }
            write(&mut datagram, &message, NLM_F_REQUEST | flags, self.sequence);
        }
        if datagram.len() > DEFAULT_SEND_BUFFER {
            setsockopt(self.socket()?, sockopt::SndBufForce, &datagram.len()).map_err(io::Error::from)?;
        }
        Ok(Batch {
            datagram,
            acknowledged,
        })
    }

    /// Sends a batch and waits for its result. A rejected batch may be sent again before any other request.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<(), BatchError<M>> {
        let Batch {
            datagram,
            acknowledged,
        } = batch;
        fault_injection::strike(datagram)?;
        self.socket()?.send(datagram, 0)?;
        loop {
            for message in self.receive()? {
                let sequence = message.header.sequence_number;
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(BatchError {
                            message: parts(datagram)
                                .filter_map(|part| NetlinkMessage::deserialize(part).ok())
                                .find(|sent| sent.header.sequence_number == sequence)
                                .and_then(|sent| inner(sent.payload)),
                            source: counted(error.to_io()),
                        });
                    }
                    NetlinkPayload::Error(_) if sequence == *acknowledged => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    fn dump_once<T>(
        &mut self,
        request: &M,
        keep: &mut impl FnMut(&[u8]) -> io::Result<Option<T>>,
    ) -> io::Result<Option<Vec<T>>> {
        self.send(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        loop {
            let datagram = self.receive_datagram()?;
            for message in parts(&datagram) {
                let header = self.sound(NetlinkBuffer::new_checked(message).map_err(io::Error::other))?;
                if !self.answers(header.sequence_number()) {
                    continue;
                }
                interrupted |= header.flags() & NLM_F_DUMP_INTR != 0;
                if header.message_type() >= FIRST_OF_FAMILIES {
                    found.extend(self.sound(keep(message))?);
                    continue;
                }
                match self.sound(read::<M>(message))?.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(counted(error.to_io()));
                    }
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(found)),
                    _ => {}
                }
            }
            recycle(datagram);
        }
    }

    fn send(&mut self, request: &M, flags: u16) -> io::Result<()> {
        let datagram = self.datagram(request, flags);
        self.socket()?.send(&datagram, 0).map(|_| ())
    }

    fn datagram(&mut self, request: &M, flags: u16) -> Vec<u8> {
        self.sequence += 1;
        self.first = self.sequence;
        let mut datagram = Vec::new();
        write(&mut datagram, request, flags, self.sequence);
        datagram
    }

    /// Receives a datagram and returns the responses to the last request.
    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<M>>> {
        let datagram = self.receive_datagram()?;
        let messages = parts(&datagram).map(read).collect::<io::Result<Vec<_>>>();
        recycle(datagram);
        let mut messages = self.sound(messages)?;
        messages.retain(|message| self.answers(message.header.sequence_number));
        Ok(messages)
    }

    fn receive_datagram(&mut self) -> io::Result<Vec<u8>> {
        let mut datagram = receive_buffer();
        let received = self
            .socket()?
            .recv_from(&mut datagram, MsgFlags::MSG_TRUNC.bits());
        let (length, _) = self.sound(received.map_err(counted))?;
        if length > datagram.len() {
            let why = format!("the kernel sent {length} bytes in one datagram");
            return self.sound(Err(io::Error::other(why)));
        }
        Ok(datagram)
    }

    /// Returns the result and marks the socket as unusable after an error: the next datagram may belong to an earlier request.
    fn sound<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.is_spoilt |= result.is_err();
        result
    }

    /// Returns true for a response to the last request.
    fn answers(&self, sequence: u32) -> bool {
        (self.first..=self.sequence).contains(&sequence)
    }
}

thread_local! {
    /// Receive buffer of this thread between two datagrams.
    static RECEIVE_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Returns an empty buffer of [`DATAGRAM`] bytes: that of the last datagram, if it was [recycled](recycle). Allocating and freeing it costs
/// more than a small request.
fn receive_buffer() -> Vec<u8> {
    let mut buffer = RECEIVE_BUFFER.take();
    buffer.clear();
    buffer.reserve_exact(DATAGRAM);
    buffer
}

fn recycle(buffer: Vec<u8>) {
    RECEIVE_BUFFER.set(buffer);
}

pub(crate) fn read<M: NetlinkDeserializable>(message: &[u8]) -> io::Result<NetlinkMessage<M>> {
    guarded(|| NetlinkMessage::deserialize(message))
}

/// Splits a datagram into messages. They are aligned to 4 bytes; the last one need not be padded.
pub(crate) fn parts(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let left = Some(rest).filter(|rest| !rest.is_empty())?;
        let length = left
            .first_chunk()
            .map_or(0, |length| u32::from_ne_bytes(*length) as usize);
        // At least the length field, so that the loop ends.
        rest = &left[length.next_multiple_of(4).max(4).min(left.len())..];
        // Only its own bytes: the parser copies its whole input into an error, even if it does not return it.
        Some(&left[..length.max(4).min(left.len())])
    })
}

fn inner<M>(payload: NetlinkPayload<M>) -> Option<M> {
    match payload {
        NetlinkPayload::InnerMessage(inner) => Some(inner),
        _ => None,
    }
}

/// Appends a message, aligned to 4 bytes.
pub(crate) fn write<M: NetlinkSerializable>(datagram: &mut Vec<u8>, message: &M, flags: u16, sequence: u32) {
    let start = datagram.len();
    let mut header = NetlinkHeader::default();
    let length = header.buffer_len() + message.buffer_len();
    header.length = u32::try_from(length).expect("a message is made of attributes of at most 64 KiB");
    header.message_type = message.message_type();
    header.flags = flags;
    header.sequence_number = sequence;
    datagram.resize(start + length.next_multiple_of(4), 0);
    header.emit(&mut datagram[start..]);
    message.serialize(&mut datagram[start + header.buffer_len()..start + length]);
}
