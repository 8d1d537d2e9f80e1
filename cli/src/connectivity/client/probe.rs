//! Single requests to a server of this program.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

/// Name of the server that answered.
pub(super) type Answer = String;

/// Timeout of a connection or an answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A rejection takes less than a millisecond; a lost SYN is sent again after one second.
const MAX_REJECTION: Duration = Duration::from_millis(900);
/// Size of a large payload in bytes: more than any window that begins.
const PAYLOAD: usize = 1024 * 1024;
/// Timeout of a large payload.
const PAYLOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest name of a pod, and the end of its line.
const MAX_NAME: u64 = 254;

/// Opens a connection and returns the name of the server.
pub(super) async fn tcp(to: SocketAddr) -> io::Result<Answer> {
    within(TIMEOUT, async {
        let (_, name) = connect(to).await?;
        Ok(name)
    })
    .await
}

/// Sends a datagram and returns the name of the server.
pub(super) async fn udp(to: SocketAddr) -> io::Result<Answer> {
    let any = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // Only a connected socket receives ICMP errors.
    socket.connect(to).await?;
    within(TIMEOUT, async {
        let mut buffer = [0; 256];
        socket.send(b"name?").await?;
        let n = socket.recv(&mut buffer).await?;
        Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
    })
    .await
}

/// Sends a large payload, compares its echo and returns the name of the server.
pub(super) async fn payload(to: SocketAddr) -> io::Result<Answer> {
    let sent: Vec<u8> = (0_u8..251).cycle().take(PAYLOAD).collect();
    let exchange = async {
        let (mut stream, name) = connect(to).await?;
        let (mut reads, mut writes) = stream.split();
        let mut received = vec![0; PAYLOAD];
        tokio::try_join!(writes.write_all(&sent), reads.read_exact(&mut received))?;
        Ok((received, name))
    };
    match within(PAYLOAD_TIMEOUT, exchange).await {
        Ok((received, name)) if received == sent => Ok(name),
        Ok(_) => Err(io::Error::other("the echo differs from what was sent")),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("{PAYLOAD} bytes and their echo: {error}"),
        )),
    }
}

/// Checks that a connection is rejected at once.
pub(super) async fn rejected(to: SocketAddr) -> Result<(), String> {
    let began = Instant::now();
    let Err(error) = within(TIMEOUT, TcpStream::connect(to)).await else {
        return Err("the connection is accepted".to_owned());
    };
    // EPERM: the kernel rejected the packet on its way out.
    let is_rejection = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied].contains(&error.kind());
    if is_rejection && began.elapsed() < MAX_REJECTION {
        return Ok(());
    }
    Err(format!(
        "not rejected at once: {error} after {:.1?}",
        began.elapsed()
    ))
}

/// Connects and reads the name of the server.
async fn connect(to: SocketAddr) -> io::Result<(TcpStream, Answer)> {
    let mut stream = TcpStream::connect(to).await?;
    let mut name = String::new();
    // The server sends nothing else before it is asked.
    BufReader::new(&mut stream)
        .take(MAX_NAME)
        .read_line(&mut name)
        .await?;
    match name.strip_suffix('\n') {
        Some(name) => Ok((stream, name.to_owned())),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

async fn within<T>(limit: Duration, request: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(limit, request).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            ErrorKind::TimedOut,
            format!("no answer within {limit:?}"),
        )),
    }
}
