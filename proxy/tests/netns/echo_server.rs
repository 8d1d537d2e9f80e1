//! Servers that report their host number and the client's address.

use super::testbed::Pod;
use nix::sys::socket::{Shutdown, shutdown};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Listening ports, both families.
pub(crate) const TCP: [u16; 2] = [8080, 8081];
pub(crate) const UDP: [u16; 2] = [5353, 8080];

/// Responds with `HOST PORT PEER-ADDRESS`. TCP then echoes; UDP pads the response to the length of the request.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    listeners: Vec<Arc<TcpListener>>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(pod: &Pod) -> Self {
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (tcp, udp) = pod.run(|| {
            let tcp = TCP.map(|port| Arc::new(TcpListener::bind(any(port)).unwrap()));
            (tcp, UDP.map(|port| UdpSocket::bind(any(port)).unwrap()))
        });
        let stop = Arc::new(AtomicBool::new(false));
        let host = pod.host;
        let mut threads = Vec::new();
        for listener in &tcp {
            let (stop, listener) = (Arc::clone(&stop), Arc::clone(listener));
            threads.push(std::thread::spawn(move || serve_tcp(&listener, host, &stop)));
        }
        for socket in udp {
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || serve_udp(&socket, host, &stop)));
        }
        Self {
            stop,
            listeners: tcp.to_vec(),
            threads,
        }
    }
}

/// Sockets keep a namespace alive: they must be closed before the test bed is removed.
impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // Unblocks accept().
            let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, host: u8, stop: &AtomicBool) {
    let port = listener.local_addr().unwrap().port();
    while let Ok((stream, peer)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let greeting = format!("{host} {port} {}", peer.ip().to_canonical());
        std::thread::spawn(move || echo(stream, &greeting));
    }
}

/// Echoes until the client closes the connection.
fn echo(mut stream: TcpStream, greeting: &str) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    // One write, hence one segment.
    if stream.write_all(greeting.as_bytes()).is_err() {
        return;
    }
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

fn serve_udp(socket: &UdpSocket, host: u8, stop: &AtomicBool) {
    let port = socket.local_addr().unwrap().port();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((n, peer)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{host} {port} {} ", peer.ip().to_canonical()).into_bytes();
            answer.resize(n.max(answer.len()), b'.');
            let _ = socket.send_to(&answer, peer);
        }
    }
}
