//! The program of a server pod: answers with its name, over TCP and UDP.
//!
//! Pods of the network can reach it: connections are limited in number and time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections at the same time.
const MAX_CONNECTIONS: usize = 64;
/// Longest connection.
const MAX_TIME: Duration = Duration::from_secs(30);

/// Serves until it fails.
///
/// # Errors
/// A port is in use, or a socket fails.
pub async fn serve(name: &str, port: u16) -> io::Result<()> {
    let address = SocketAddr::new(any_address().await, port);
    let (tcp, udp) = (TcpListener::bind(address).await?, UdpSocket::bind(address).await?);
    tokio::try_join!(serve_tcp(&tcp, name), serve_udp(&udp, name))?;
    Ok(())
}

/// The wildcard address of both families, or of IPv4 where IPv6 is disabled.
async fn any_address() -> IpAddr {
    let is_ipv6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await.is_ok();
    if is_ipv6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

async fn serve_tcp(listener: &TcpListener, name: &str) -> io::Result<()> {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&free)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        let greeting = format!("{name}\n");
        tokio::spawn(async move {
            // A client that leaves early is no problem of the server.
            let _ = timeout(MAX_TIME, echo(stream, &greeting)).await;
            drop(permit);
        });
    }
}

/// Sends the name, then everything that it receives.
async fn echo(mut stream: TcpStream, greeting: &str) -> io::Result<()> {
    stream.write_all(greeting.as_bytes()).await?;
    let (mut reads, mut writes) = stream.split();
    copy(&mut reads, &mut writes).await?;
    writes.shutdown().await
}

async fn serve_udp(socket: &UdpSocket, name: &str) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error about an earlier answer arrives here.
        if let Ok((_, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(name.as_bytes(), from).await;
        }
    }
}
