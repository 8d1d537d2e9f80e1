//! Synchronous netlink: one request, its answer, done.
//!
//! Writes: whatever the caller asks of the kernel. A socket belongs to the network namespace it was opened in and keeps that
//! namespace and its devices alive, so it lives for one piece of work only.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::marker::PhantomData;

/// A dump that the kernel keeps changing under us is read again this often before it is an error.
const DUMP_ATTEMPTS: u32 = 5;

/// A socket for messages of one netlink family.
pub(crate) struct Netlink<M> {
    socket: Socket,
    sequence: u32,
    messages: PhantomData<M>,
}

impl<M> Netlink<M>
where
    M: NetlinkSerializable + NetlinkDeserializable + Clone,
{
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            messages: PhantomData,
        })
    }

    /// Everything the kernel has of what `request` asks for.
    pub(crate) fn dump(&mut self, request: &M) -> io::Result<Vec<M>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(complete) = self.dump_once(request)? {
                return Ok(complete);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel changed during every dump",
        ))
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
        self.send(request, NLM_F_REQUEST | NLM_F_ACK | flags)?;
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

    fn dump_once(&mut self, request: &M) -> io::Result<Option<Vec<M>>> {
        self.send(request, NLM_F_REQUEST | NLM_F_DUMP)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        loop {
            for message in self.receive()? {
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(found)),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, request: &M, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.clone()));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    /// The messages of one datagram that answer the last request.
    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<M>>> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut messages = Vec::new();
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
            // Messages are aligned to 4 bytes, the last one need not be padded.
            let length = (message.header.length as usize)
                .next_multiple_of(4)
                .clamp(4, rest.len());
            rest = &rest[length..];
            if message.header.sequence_number == self.sequence {
                messages.push(message);
            }
        }
        Ok(messages)
    }
}
