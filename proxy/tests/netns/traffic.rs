//! Test clients, and the outcomes of their requests.

pub(crate) use super::echo_server::Server;
use super::testbed::Pod;
use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, bind, connect,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use rules::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bound for an immediate rejection. Generous for a loaded machine; a leaked packet takes much longer.
const REJECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// Timeout of a response.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);

/// Outcome of one request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The host that responded, and the client address it saw.
    Answered(u8, IpAddr),
    /// Rejected at once.
    Rejected,
    /// Anything else: a leak or a timeout.
    Lost(String),
}

impl Outcome {
    /// Host that responded; panics otherwise.
    pub(crate) fn host(&self) -> u8 {
        let Self::Answered(host, _) = self else {
            panic!("{self:?}");
        };
        *host
    }

    /// Host that responded, if any.
    pub(crate) fn host_if_any(&self) -> Option<u8> {
        match self {
            Self::Answered(host, _) => Some(*host),
            _ => None,
        }
    }

    pub(crate) fn is_rejected(&self) -> bool {
        *self == Self::Rejected
    }
}

/// Sends one request to a VIP from the namespace of the calling thread and returns its outcome.
pub(crate) fn probe(protocol: Protocol, destination: SocketAddr) -> Outcome {
    let began = Instant::now();
    match request(protocol, destination) {
        Ok(answer) => Outcome::Answered(answer.host, answer.seen),
        Err(error) if is_rejection(&error) && began.elapsed() < REJECT_TIMEOUT => Outcome::Rejected,
        Err(error) => Outcome::Lost(format!("{error} after {:?}", began.elapsed())),
    }
}

/// EPERM is the kernel's error for a packet that is rejected on its way out.
fn is_rejection(error: &io::Error) -> bool {
    [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied].contains(&error.kind())
}

/// Response of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) host: u8,
    /// Listening port of the server.
    pub(crate) port: u16,
    /// Client address as seen by the server.
    pub(crate) seen: IpAddr,
}

impl Response {
    /// Parses `HOST PORT SEEN`.
    pub(crate) fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        Self {
            host: words[0].parse().unwrap(),
            port: words[1].parse().unwrap(),
            seen: words[2].parse().unwrap(),
        }
    }
}

/// Sends one request to a VIP from the namespace of the calling thread.
pub(crate) fn request(protocol: Protocol, destination: SocketAddr) -> io::Result<Response> {
    request_from(None, protocol, destination)
}

/// Like [`request`], from a socket that is bound to an address.
pub(crate) fn request_from(
    bound: Option<IpAddr>,
    protocol: Protocol,
    destination: SocketAddr,
) -> io::Result<Response> {
    let answer = match protocol {
        Protocol::Tcp => request_tcp(bound, destination),
        Protocol::Udp => request_udp(bound, destination),
        Protocol::Sctp => super::sctp::request(bound, destination),
    };
    answer.map(|text| Response::parse(&text))
}

fn request_tcp(bound: Option<IpAddr>, destination: SocketAddr) -> io::Result<String> {
    let mut flow = match bound {
        None => Flow::open(destination)?,
        Some(source) => Flow::open_from(source, destination)?,
    };
    let greeting = std::mem::take(&mut flow.greeting);
    flow.close()?;
    Ok(greeting)
}

fn request_udp(bound: Option<IpAddr>, destination: SocketAddr) -> io::Result<String> {
    let socket = match bound {
        None => udp(destination)?,
        Some(source) => UdpSocket::bind((source, 0))?,
    };
    // Only a connected socket receives ICMP errors.
    socket.connect(destination)?;
    request_on(&socket, destination)
}

/// Opens a UDP socket of the family of `destination` in the namespace of the calling thread.
pub(crate) fn udp(destination: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if destination.is_ipv4() {
        IpAddr::from([0; 4])
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    UdpSocket::bind((any, 0))
}

/// Sends another request on an open UDP socket.
pub(crate) fn request_on(socket: &UdpSocket, destination: SocketAddr) -> io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(b"ping", destination)?;
    let mut buffer = [0; 128];
    let (n, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, destination, "the response comes from the requested address");
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// Sends another request on a connected UDP socket, which keeps the route and source address of its `connect()` while they are valid.
pub(crate) fn request_connected(socket: &UdpSocket) -> io::Result<Response> {
    request_connected_within(socket, Duration::from_secs(1))
}

/// Like [`request_connected`], with this timeout.
pub(crate) fn request_connected_within(socket: &UdpSocket, timeout: Duration) -> io::Result<Response> {
    socket.set_read_timeout(Some(timeout))?;
    socket.send(b"ping")?;
    let mut buffer = [0; 128];
    let n = socket.recv(&mut buffer)?;
    Ok(Response::parse(&String::from_utf8_lossy(&buffer[..n])))
}

/// Host that responds on an open UDP socket now; `None` without a response.
pub(crate) fn responding_host(socket: &UdpSocket, destination: SocketAddr) -> Option<u8> {
    // The first call may report an ICMP error from a time without endpoints.
    let answer = request_on(socket, destination).or_else(|_| request_on(socket, destination));
    answer.ok().map(|answer| Response::parse(&answer).host)
}

/// Sends the SYN of a TCP connection from the namespace of the calling thread, without waiting.
pub(crate) fn start_connect(destination: SocketAddr) -> OwnedFd {
    let (family, address): (_, Box<dyn SockaddrLike>) = match destination {
        SocketAddr::V4(to) => (AddressFamily::Inet, Box::new(SockaddrIn::from(to))),
        SocketAddr::V6(to) => (AddressFamily::Inet6, Box::new(SockaddrIn6::from(to))),
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    assert_eq!(
        connect(socket.as_raw_fd(), address.as_ref()),
        Err(Errno::EINPROGRESS)
    );
    socket
}

/// A TCP flow to an echo server.
pub(crate) struct Flow {
    stream: TcpStream,
    greeting: String,
}

impl Flow {
    /// Opens a flow from the namespace of the calling thread.
    pub(crate) fn open(destination: SocketAddr) -> io::Result<Self> {
        Self::with_greeting(TcpStream::connect_timeout(&destination, TIMEOUT)?)
    }

    /// Like [`Self::open`], from a socket that is bound to an address.
    pub(crate) fn open_from(source: IpAddr, destination: SocketAddr) -> io::Result<Self> {
        let family = match destination {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let socket = socket(family, SockType::Stream, SockFlag::empty(), None)?;
        // Limits connect(), too.
        let timeout = TimeVal::milliseconds(i64::try_from(TIMEOUT.as_millis()).map_err(io::Error::other)?);
        setsockopt(&socket, SendTimeout, &timeout)?;
        bind(
            socket.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(source, 0)),
        )?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(destination))?;
        Self::with_greeting(TcpStream::from(socket))
    }

    fn with_greeting(mut stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut greeting = [0; 128];
        let n = stream.read(&mut greeting)?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let greeting = String::from_utf8_lossy(&greeting[..n]).into_owned();
        Ok(Self { stream, greeting })
    }

    /// Closes the flow and waits for the peer's FIN. After that the client sends no more segments, which another route could take.
    fn close(mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        while self.stream.read(&mut [0; 128])? > 0 {}
        Ok(())
    }

    pub(crate) fn host(&self) -> u8 {
        Response::parse(&self.greeting).host
    }

    /// Address and port of the client.
    pub(crate) fn source(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends data and returns true if the flow is reset.
    pub(crate) fn is_reset(&mut self) -> bool {
        let sent = self.stream.write_all(b"still there?");
        let answered = sent.and_then(|()| self.stream.read(&mut [0; 16]));
        answered.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }

    /// Sends `bytes` and asserts that they are echoed.
    pub(crate) fn echo(&mut self, bytes: &[u8]) {
        let mut sending = self.stream.try_clone().unwrap();
        let mut back = vec![0; bytes.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| sending.write_all(bytes).unwrap());
            self.stream.read_exact(&mut back).unwrap();
        });
        assert!(back == bytes, "the echo differs from the request");
    }
}

/// Sends `times` requests and counts the outcomes.
pub(crate) fn probe_repeatedly(
    client: &Pod,
    protocol: Protocol,
    destination: SocketAddr,
    times: u32,
) -> BTreeMap<Outcome, u32> {
    client.run(|| {
        let mut outcomes = BTreeMap::new();
        for _ in 0..times {
            *outcomes.entry(probe(protocol, destination)).or_default() += 1;
        }
        outcomes
    })
}

/// Hosts that respond, with enough requests that an eligible host is practically never missed.
pub(crate) fn hosts(client: &Pod, protocol: Protocol, destination: SocketAddr) -> BTreeSet<u8> {
    let outcomes = probe_repeatedly(client, protocol, destination, 40);
    outcomes.keys().map(Outcome::host).collect()
}
