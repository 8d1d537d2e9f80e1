//! Synchronous netlink: one request, its answer, done.
//!
//! Writes: whatever the caller asks of the kernel. A socket belongs to the network namespace it was opened in and keeps that
//! namespace and its devices alive, so it lives for one piece of work only, or as `netfilter` says.

pub(crate) mod decode;
pub(crate) mod generation;
pub(crate) mod monitor;
pub(crate) mod netfilter;

use self::decode::guarded;
use crate::fault_injection;
use crate::netns::memory::{Taken, WEIGHT};
use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{MsgFlags, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::marker::PhantomData;

/// A dump that the kernel keeps changing under us is read again this often before it is an error.
const DUMP_ATTEMPTS: u32 = 5;

/// The kernel answers before the request returns; a lost answer must not hold a thread for ever.
const PATIENCE_SECONDS: i64 = 10;

/// What a socket takes in one datagram without being asked to take more: a safe part of the default `net.core.wmem_default`.
const DEFAULT_SEND_BUFFER: usize = 64 * 1024;

/// Room for a datagram. The kernel fills as much of it as it can, up to 32 KiB (`netlink_recvmsg`), and begins each piece of a long list
/// by counting its way to where it was: the larger the pieces the fewer the steps, which grow with the square of their number.
const DATAGRAM: usize = 32 * 1024;

/// Types of messages below are netlink's own (`NLMSG_MIN_TYPE`).
const FIRST_OF_FAMILIES: u16 = 0x10;

/// What the place of a value in a list costs beside the value itself, twice over, for lists grow by doubling.
const PLACE: usize = 64;

/// A socket for messages of one netlink family.
pub(crate) struct Netlink<M> {
    /// `None` until the first request of a socket that was opened [lazily](Self::lazy).
    socket: Option<Socket>,
    protocol: isize,
    /// 0: any.
    port: u32,
    /// Of the first message of the last request.
    first: u32,
    sequence: u32,
    /// Whether an answer was given up: the kernel may still be at it.
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
    // An error shall not carry the message it is about, which may be long.
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Why the kernel did not make a batch of changes.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(crate) struct BatchError<M> {
    /// The message it did not like, if that is known.
    pub(crate) message: Option<M>,
    pub(crate) source: io::Error,
}

impl<M> From<io::Error> for BatchError<M> {
    fn from(source: io::Error) -> Self {
        Self {
            message: None,
            source,
        }
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

    /// A socket that the first request opens, in the network namespace of the thread that makes it. `port`: the socket's own, or any if
    /// that one is taken.
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

    fn socket(&mut self) -> io::Result<&mut Socket> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => opened(self.protocol, self.port)?,
        };
        Ok(self.socket.insert(socket))
    }

    /// Whether it can be used for another request.
    pub(crate) fn is_sound(&self) -> bool {
        !self.is_spoilt
    }

    /// What `keep` makes of what the kernel has: small values. A pod's owner can make a list as long as he likes: the rest is dropped
    /// while it is read, and what is kept counts against the attempt's [memory](crate::netns::memory).
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

    /// The same where messages are kept as a whole.
    pub(crate) fn dump_whole<T>(
        &mut self,
        request: &M,
        mut keep: impl FnMut(M) -> io::Result<Option<T>>,
    ) -> io::Result<Vec<T>> {
        self.dump_unread(request, |message| {
            inner(read::<M>(message)?.payload).map_or(Ok(None), &mut keep)
        })
    }

    /// The same of messages as they come, header included: for long ones that are read piece by piece.
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
            "the kernel changed during every dump",
        ))
    }

    /// Lets the kernel leave out of lists what a request does not ask for, while `work` is done. Kernels before 4.20 do not know
    /// that and list everything, so whoever asks has to pick all the same.
    pub(crate) fn strictly<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let _ = self.socket().and_then(|socket| socket.set_netlink_get_strict_chk(true));
        let done = work(self);
        let _ = self.socket().and_then(|socket| socket.set_netlink_get_strict_chk(false));
        done
    }

    /// The one message that answers `request`.
    pub(crate) fn ask(&mut self, request: &M) -> io::Result<M> {
        self.send(request, NLM_F_REQUEST)?;
        loop {
            for message in self.receive()? {
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => return Ok(inner),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    /// Sends one change and waits until the kernel has made it. `flags` beside request and ack.
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
                        Err(error.to_io())
                    };
                }
            }
        }
    }

    /// The same; `None` when the kernel has no such thing.
    pub(crate) fn fetch(&mut self, request: &M) -> io::Result<Option<M>> {
        match self.ask(request) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends messages that the kernel takes together, each with its flags beside "request", and waits until it has. One of them, the
    /// last that counts, has to ask for an acknowledgement; a message that fails is answered without asking. They may be many: each is
    /// held only until it is written down.
    pub(crate) fn change_together(
        &mut self,
        messages: impl IntoIterator<Item = (M, u16)>,
    ) -> Result<(), BatchError<M>> {
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
        fault_injection::strike(&datagram)?;
        self.socket()?.send(&datagram, 0)?;
        loop {
            for message in self.receive()? {
                let sequence = message.header.sequence_number;
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(BatchError {
                            message: parts(&datagram)
                                .filter_map(|part| NetlinkMessage::deserialize(part).ok())
                                .find(|sent| sent.header.sequence_number == sequence)
                                .and_then(|sent| inner(sent.payload)),
                            source: error.to_io(),
                        });
                    }
                    NetlinkPayload::Error(_) if sequence == acknowledged => return Ok(()),
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
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(found)),
                    _ => {}
                }
            }
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

    /// The messages of one datagram that answer the last request.
    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<M>>> {
        let datagram = self.receive_datagram()?;
        let messages = parts(&datagram).map(read).collect::<io::Result<Vec<_>>>();
        let mut messages = self.sound(messages)?;
        messages.retain(|message| self.answers(message.header.sequence_number));
        Ok(messages)
    }

    fn receive_datagram(&mut self) -> io::Result<Vec<u8>> {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        let received = self.socket()?.recv_from(&mut datagram, MsgFlags::MSG_TRUNC.bits());
        let (length, _) = self.sound(received)?;
        if length > datagram.len() {
            let why = format!("the kernel answers {length} bytes at once");
            return self.sound(Err(io::Error::other(why)));
        }
        Ok(datagram)
    }

    /// Passes it on. After an error what comes next may be the rest of what was asked for before.
    fn sound<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.is_spoilt |= result.is_err();
        result
    }

    /// Whether it is an answer to the last request.
    fn answers(&self, sequence: u32) -> bool {
        (self.first..=self.sequence).contains(&sequence)
    }
}

pub(crate) fn read<M: NetlinkDeserializable>(message: &[u8]) -> io::Result<NetlinkMessage<M>> {
    guarded(|| NetlinkMessage::deserialize(message))
}

/// The messages of a datagram. They are aligned to 4 bytes, the last one need not be padded.
pub(crate) fn parts(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let left = Some(rest).filter(|rest| !rest.is_empty())?;
        let length = left
            .first_chunk()
            .map_or(0, |length| u32::from_ne_bytes(*length) as usize);
        // At least a length, so that it ends.
        rest = &left[length.next_multiple_of(4).max(4).min(left.len())..];
        // Only its own bytes: whoever reads one writes all he is given into an error that he then does not return.
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
