//! SCTP with raw sockets: kernels without SCTP sockets still track and translate it. A client sends INIT, a server responds with INIT ACK.

use super::packet_capture::send_raw;
use super::testbed::Pod;
use super::traffic::TIMEOUT;
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recvfrom, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// Listening port of the servers.
pub(crate) const PORT: u16 = 3868;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Verification tag that the client requests.
const TAG: u32 = 0x0bad_cafe;

static SOURCE_PORTS: AtomicU16 = AtomicU16::new(20_000);

/// A packet with one INIT or INIT ACK chunk (RFC 9260, 3.3.2 and 3.3.3).
struct Packet {
    from: u16,
    to: u16,
    chunk: u8,
    /// Response of the server, in an INIT ACK.
    cookie: String,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let verification_tag = if self.chunk == INIT { 0 } else { TAG };
        let cookie = self.cookie.as_bytes();
        let parameter = if cookie.is_empty() { 0 } else { 4 + cookie.len() };
        let mut bytes = Vec::new();
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.to.to_be_bytes());
        bytes.extend(u32::to_be_bytes(verification_tag));
        bytes.extend([0; 4]);
        bytes.extend([self.chunk, 0]);
        bytes.extend(u16::try_from(20 + parameter).unwrap().to_be_bytes());
        bytes.extend(TAG.to_be_bytes());
        bytes.extend(u32::to_be_bytes(65_536));
        bytes.extend([0, 1, 0, 1]);
        bytes.extend(u32::to_be_bytes(1));
        if parameter > 0 {
            bytes.extend([0, 7]);
            bytes.extend(u16::try_from(parameter).unwrap().to_be_bytes());
            bytes.extend(cookie);
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let checksum = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let cookie = match word(34) {
            Some(length) => bytes.get(36..32 + usize::from(length))?,
            None => &[],
        };
        Some(Self {
            from: word(0)?,
            to: word(2)?,
            chunk: *bytes.get(12)?,
            cookie: String::from_utf8_lossy(cookie).into_owned(),
        })
    }
}

/// The kernel does not track a packet with a wrong checksum.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc));
    !bytes.iter().fold(!0, byte)
}

fn open(family: AddressFamily, milliseconds: i64) -> nix::Result<OwnedFd> {
    let socket = socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Sctp)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(milliseconds))?;
    Ok(socket)
}

/// Receives a packet and its sender. IPv4 sockets get the IP header, too.
fn receive(socket: &OwnedFd) -> nix::Result<Option<(Packet, IpAddr)>> {
    let mut buffer = [0; 2048];
    let (n, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer)?;
    let from = from.ok_or(Errno::EAFNOSUPPORT)?;
    let bytes = &buffer[..n];
    if let Some(from) = from.as_sockaddr_in() {
        let header = usize::from(bytes[0] & 0xf) * 4;
        Ok(Packet::parse(&bytes[header..]).map(|packet| (packet, from.ip().into())))
    } else {
        let from = from.as_sockaddr_in6().ok_or(Errno::EAFNOSUPPORT)?;
        Ok(Packet::parse(bytes).map(|packet| (packet, from.ip().into())))
    }
}

/// Starts an association from a new port in the namespace of the calling thread; the socket may be bound to an address.
pub(crate) fn request(bound: Option<IpAddr>, destination: SocketAddr) -> io::Result<String> {
    request_from_port(bound, SOURCE_PORTS.fetch_add(1, Ordering::Relaxed), destination)
}

/// Like [`request`], from this port.
pub(crate) fn request_from_port(
    bound: Option<IpAddr>,
    port: u16,
    destination: SocketAddr,
) -> io::Result<String> {
    let family = if destination.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = open(family, 1000)?;
    if let Some(source) = bound {
        bind(
            socket.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(source, 0)),
        )?;
    }
    let init = Packet {
        from: port,
        to: destination.port(),
        chunk: INIT,
        cookie: String::new(),
    };
    send_raw(&socket, &init.bytes(), destination.ip())?;
    let began = Instant::now();
    while began.elapsed() < TIMEOUT {
        // A client that is its own server also receives its INIT.
        if let Some((answer, from)) = receive(&socket)?
            && (answer.chunk, answer.to) == (INIT_ACK, port)
            && SocketAddr::new(from, answer.from) == destination
        {
            return Ok(answer.cookie);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Responds on [`PORT`], both families, with `HOST PORT PEER-ADDRESS` in its cookie.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(pod: &Pod) -> Self {
        let families = [AddressFamily::Inet, AddressFamily::Inet6];
        let sockets = pod.run(|| families.map(|family| open(family, 50).unwrap()));
        let stop = Arc::new(AtomicBool::new(false));
        let host = pod.host;
        let threads = sockets.into_iter().map(|socket| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || serve(&socket, host, &stop))
        });
        let threads = threads.collect();
        Self { stop, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &OwnedFd, host: u8, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(Some((init, peer))) = receive(socket)
            && (init.chunk, init.to) == (INIT, PORT)
        {
            let answer = Packet {
                from: PORT,
                to: init.from,
                chunk: INIT_ACK,
                cookie: format!("{host} {PORT} {peer}"),
            };
            let _ = send_raw(socket, &answer.bytes(), peer);
        }
    }
}
