//! Free loopback ports for servers that take a port number and not a socket.
//!
//! Writes: nothing. The ports are below the range from which the kernel gives ports to connections (`ip_local_port_range`, from 32768): only
//! another server can take one between the check here and the bind.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// First port, and number of ports: below NodePorts (30000).
const FIRST: u16 = 16_000;
const COUNT: u32 = 14_000;

/// Returns a port that is free for TCP and UDP on 127.0.0.1; never the same one twice in a process.
pub fn free() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // Processes that run at the same time begin far from each other.
        let place = std::process::id().wrapping_mul(331).wrapping_add(next) % COUNT;
        let port = FIRST + u16::try_from(place)?;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free loopback port from {FIRST} on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_by_either_protocol_is_skipped() {
        let first = free().unwrap();
        let next = |port: u16| FIRST + (port - FIRST + 1) % u16::try_from(COUNT).unwrap();
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, next(first)));
        let second = free().unwrap();
        assert!(
            second != first && (taken.is_err() || second != next(first)),
            "{second}"
        );
    }
}
