//! Keys and values of elements.
//!
//! Pure.

use api::Family;
use rules::{Port, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Parses a key or value, the inverse of [`Bytes`](crate::backend::nftables::layout::Bytes).
pub(super) struct Parts<'a> {
    family: Family,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(super) fn new(family: Family, bytes: &'a [u8]) -> Self {
        Self { family, rest: bytes }
    }

    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(super) fn address(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            Family::V4 => Ipv4Addr::from(self.take::<4>()?).into(),
            Family::V6 => Ipv6Addr::from(self.take::<16>()?).into(),
        })
    }

    pub(super) fn service(&mut self) -> Option<(IpAddr, Port)> {
        let vip = self.address()?;
        let [number, ..] = self.take::<4>()?;
        let protocol = Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.number() == number)?;
        let number = self.port()?;
        Some((vip, Port { protocol, number }))
    }

    pub(super) fn endpoint(&mut self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address()?, self.port()?))
    }

    fn port(&mut self) -> Option<u16> {
        let [high, low, ..] = self.take::<4>()?;
        Some(u16::from_be_bytes([high, low]))
    }

    pub(super) fn index(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }
}
