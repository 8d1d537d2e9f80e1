//! The controller on a real apiserver: the shipped binary, under its shipped role.

#[path = "apiserver/absent.rs"]
mod absent;
#[path = "apiserver/availability.rs"]
mod availability;
#[path = "apiserver/bed.rs"]
mod bed;
#[path = "apiserver/coredns.rs"]
mod coredns;
#[path = "apiserver/dns.rs"]
mod dns;
#[path = "apiserver/flood.rs"]
mod flood;
#[path = "apiserver/kinds.rs"]
mod kinds;
#[path = "apiserver/leaving.rs"]
mod leaving;
#[path = "apiserver/lists.rs"]
mod lists;
#[path = "apiserver/manual.rs"]
mod manual;
#[path = "apiserver/mirrored.rs"]
mod mirrored;
#[path = "apiserver/neighbours.rs"]
mod neighbours;
#[path = "apiserver/node_addresses.rs"]
mod node_addresses;
#[path = "apiserver/outages.rs"]
mod outages;
#[path = "apiserver/placement.rs"]
mod placement;
#[path = "apiserver/privileges.rs"]
mod privileges;
#[path = "apiserver/ranges.rs"]
mod ranges;
#[path = "apiserver/rate.rs"]
mod rate;
#[path = "apiserver/reference.rs"]
mod reference;
#[path = "apiserver/rejections.rs"]
mod rejections;
#[path = "apiserver/slices.rs"]
mod slices;
#[path = "apiserver/stale.rs"]
mod stale;
#[path = "apiserver/topology.rs"]
mod topology;
#[path = "apiserver/twin.rs"]
mod twin;
