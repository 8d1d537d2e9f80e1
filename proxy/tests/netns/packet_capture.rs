//! Captured frames, and packets without ports.

use super::testbed::Pod;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recvfrom,
    sendto, socket,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

/// Sends an echo request from the namespace of the calling thread. The kernel returns EPERM if the packet is rejected on its way out.
pub(crate) fn ping(destination: IpAddr) -> nix::Result<usize> {
    let (family, protocol, request) = match destination {
        IpAddr::V4(_) => (
            AddressFamily::Inet,
            SockProtocol::Icmp,
            [8, 0, 0xf7, 0xff, 0, 0, 0, 0],
        ),
        IpAddr::V6(_) => (
            AddressFamily::Inet6,
            SockProtocol::IcmpV6,
            [128, 0, 0, 0, 0, 0, 0, 0],
        ),
    };
    let socket = socket(family, SockType::Raw, SockFlag::empty(), protocol)?;
    send_raw(&socket, &request, destination)
}

/// Sends bytes over IP through a raw socket.
pub(crate) fn send_raw(socket: &OwnedFd, bytes: &[u8], destination: IpAddr) -> nix::Result<usize> {
    let (fd, none) = (socket.as_raw_fd(), MsgFlags::empty());
    match destination {
        IpAddr::V4(ip) => sendto(fd, bytes, &SockaddrIn::from(SocketAddrV4::new(ip, 0)), none),
        IpAddr::V6(ip) => sendto(
            fd,
            bytes,
            &SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0)),
            none,
        ),
    }
}

/// A capture of all frames on some of a pod's interfaces.
pub(crate) struct Capture {
    socket: OwnedFd,
    interfaces: BTreeSet<usize>,
}

impl Capture {
    /// Captures on all interfaces except loopback, where the kernel's own rejections travel.
    pub(crate) fn start(pod: &Pod) -> Self {
        let interfaces = pod.status.iter().map(|status| status.interface.clone());
        Self::on_interfaces(pod, interfaces)
    }

    /// Captures on one interface.
    pub(crate) fn on(pod: &Pod, interface: &str) -> Self {
        Self::on_interfaces(pod, std::iter::once(interface.to_owned()))
    }

    fn on_interfaces(pod: &Pod, interfaces: impl Iterator<Item = String> + Send) -> Self {
        let index = |name: String| nix::net::if_::if_nametoindex(name.as_str()).unwrap() as usize;
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_NONBLOCK);
        pod.run(|| Self {
            socket: socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll).unwrap(),
            interfaces: interfaces.map(index).collect(),
        })
    }

    /// Frames so far that contain this address: as destination, in an ARP request, or in a neighbour solicitation. Sent frames are visible
    /// once the sender's system call has returned.
    pub(crate) fn frames_with(&self, address: IpAddr) -> Vec<Vec<u8>> {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut buffer = vec![0; 65_536];
        let mut frames = Vec::new();
        while let Ok((n, from)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            let frame = &buffer[..n];
            let is_captured = from.is_some_and(|from| self.interfaces.contains(&from.ifindex()));
            if is_captured && frame.windows(octets.len()).any(|window| window == octets) {
                frames.push(frame.to_vec());
            }
        }
        frames
    }
}
