//! What becomes of real packets: servers that say who they are and whom they see, and clients that ask.

use super::bed::Pod;
use rules::Protocol;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Refusal is at once; anything slower is a timeout of somebody.
const AT_ONCE: Duration = Duration::from_millis(500);

/// TCP 8080 and UDP 5353, both families. Each answer is `HOST PEER-ADDRESS`.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(pod: &Pod) -> Self {
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (tcp, udp) = pod.run(|| {
            (
                TcpListener::bind(any(8080)).unwrap(),
                UdpSocket::bind(any(5353)).unwrap(),
            )
        });
        let stop = Arc::new(AtomicBool::new(false));
        let host = pod.host;
        let threads = vec![
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || serve_tcp(&tcp, host, &stop)
            }),
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || serve_udp(&udp, host, &stop)
            }),
        ];
        Self { stop, threads }
    }
}

/// Sockets keep a namespace alive: they must be closed before the bed goes.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, host: u8, stop: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    let mut open = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, peer)) => {
                // In one write, hence one segment.
                let _ = stream.write_all(format!("{host} {}", peer.ip().to_canonical()).as_bytes());
                stream.set_nonblocking(true).unwrap();
                open.push(stream);
            }
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
        open.retain_mut(echo);
    }
}

/// Sends back what came; says whether the flow is still open.
fn echo(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 64];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(n) => stream.write_all(&buffer[..n]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn serve_udp(socket: &UdpSocket, host: u8, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{host} {}", peer.ip().to_canonical()).as_bytes(), peer);
        }
    }
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The host that answered, and the address it saw.
    Answered(u8, IpAddr),
    /// Refused at once.
    Refused,
    /// Anything else: a leak or a timeout.
    Lost(String),
}

/// Asks a VIP once, from inside the pod the caller is in.
pub(crate) fn ask(protocol: Protocol, destination: SocketAddr) -> Outcome {
    let began = Instant::now();
    let answer = match protocol {
        Protocol::Tcp => ask_tcp(destination),
        Protocol::Udp => ask_udp(destination),
        Protocol::Sctp => panic!("no SCTP sockets here"),
    };
    match answer {
        Ok(answer) => {
            let mut words = answer.split_whitespace();
            let (host, seen) = (
                words.next().unwrap().parse().unwrap(),
                words.next().unwrap().parse().unwrap(),
            );
            Outcome::Answered(host, seen)
        }
        // EPERM: how the kernel tells a sender of UDP that the packet was rejected on its way out.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied
            ) && began.elapsed() < AT_ONCE =>
        {
            Outcome::Refused
        }
        Err(error) => Outcome::Lost(format!("{error} after {:?}", began.elapsed())),
    }
}

fn ask_tcp(destination: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&destination, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = [0; 64];
    let n = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

fn ask_udp(destination: SocketAddr) -> std::io::Result<String> {
    let any: IpAddr = if destination.is_ipv4() {
        IpAddr::from([0; 4])
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Only a connected socket is told of an ICMP error.
    socket.connect(destination)?;
    ask_again(&socket, destination)
}

/// One more question on an open UDP socket.
pub(crate) fn ask_again(socket: &UdpSocket, destination: SocketAddr) -> std::io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(b"who", destination)?;
    let mut buffer = [0; 64];
    let (n, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, destination, "an answer comes from whom was asked");
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// Asks `times` times and counts how it ended.
pub(crate) fn ask_often(
    client: &Pod,
    protocol: Protocol,
    destination: SocketAddr,
    times: u32,
) -> BTreeMap<Outcome, u32> {
    client.run(|| {
        let mut outcomes = BTreeMap::new();
        for _ in 0..times {
            *outcomes.entry(ask(protocol, destination)).or_default() += 1;
        }
        outcomes
    })
}
