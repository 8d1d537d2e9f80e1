//! Brings one pod's network namespace to what is wanted: the only writer of this program besides events.
//!
//! Writes: rules, routes and conntrack deletions in the calling thread's namespace. The order keeps a client from ever seeing a
//! packet to a ClusterIP leave untranslated: refuse, route, translate; and the other way round for what goes; conntrack last.
//! Doing it twice writes nothing.

use crate::addresses::Addresses;
use crate::backend::{self, Backend, Held};
use crate::netlink::Netlink;
use crate::routes::Routes;
use crate::{conntrack, original, routes};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use rules::{Delta, PodRules, Source};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// What a namespace should hold, and how to know that it is the right one.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The rules.
    pub rules: PodRules,
    /// Addresses of the pod, one of which the namespace must hold before anything is written into it.
    pub addresses: BTreeSet<IpAddr>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What the namespace holds now.
    pub rules: PodRules,
    /// Whether rules were written. (Routes are compared with the kernel each time.)
    pub written: bool,
    /// Sources that the namespace does not hold, or not yet: their VIPs are refused.
    pub absent: Vec<Source>,
    /// VIPs to which the pod has a route of its own, which was left alone.
    pub foreign_routes: BTreeSet<IpAddr>,
    /// Why conntrack entries could not be deleted; UDP flows may go on to removed endpoints.
    pub conntrack: Option<String>,
}

/// Why it was not done. The namespace may hold a part of it: nothing is known any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace cannot be read.
    #[error("failed to read the addresses of the network namespace")]
    Addresses(#[source] io::Error),
    /// The namespace is another one than the pod says.
    #[error("the network namespace holds none of the pod's addresses: it is not written into")]
    NotThePod,
    /// Rules.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// Routes.
    #[error(transparent)]
    Routes(#[from] routes::Error),
}

/// Does it, in the namespace of the calling thread.
pub fn apply(backend: &dyn Backend, held: &Held<PodRules>, wanted: &Wanted) -> Result<Applied, Error> {
    let mut netlink: Netlink<RouteNetlinkMessage> = Netlink::open(NETLINK_ROUTE).map_err(Error::Addresses)?;
    let addresses = Addresses::read(&mut netlink).map_err(Error::Addresses)?;
    if !addresses.hold_any(&wanted.addresses) {
        return Err(Error::NotThePod);
    }
    let absent: Vec<Source> = wanted
        .rules
        .sources()
        .filter(|source| !addresses.hold(source))
        .cloned()
        .collect();
    let rules = wanted.rules.without_sources(&absent);
    let read;
    let delta = match held {
        Held::Nothing => Delta::from_nothing(&rules),
        Held::Exactly(held) => Delta::between(held, &rules),
        Held::Unknown => {
            read = backend.dump()?;
            Delta::from_dump(&read, &rules)
        }
    };
    let mut routes = Routes::read(&mut netlink)?;

    let refuses = delta.is_rebuild() || !delta.refuse.is_empty();
    if refuses {
        backend.refuse(&delta)?;
    }
    let foreign_routes = routes.add(&mut netlink, &addresses, &rules.routes())?;
    let translates = delta.is_rebuild() || !delta.ports.is_empty() || !delta.renamed.is_empty();
    if translates {
        backend.translate(&delta)?;
    }
    routes.remove_others(&mut netlink, &rules.routes())?;
    if !delta.release.is_empty() {
        backend.release(&delta)?;
    }
    if matches!(held, Held::Unknown) {
        backend.replace_others()?;
        original::remove()?;
    }
    let written = refuses || translates || !delta.release.is_empty();
    let conntrack = conntrack::forget(&delta.flows)
        .err()
        .map(|error| error.to_string());
    drop(delta);
    Ok(Applied {
        rules,
        written,
        absent,
        foreign_routes,
        conntrack,
    })
}

/// Removes everything of ours from the namespace of the calling thread, whichever of `backends` wrote it.
pub fn remove(backends: &[&dyn Backend]) -> Result<(), Error> {
    for backend in backends {
        backend.remove_translation()?;
    }
    let mut netlink: Netlink<RouteNetlinkMessage> = Netlink::open(NETLINK_ROUTE).map_err(Error::Addresses)?;
    Routes::read(&mut netlink)?.remove_others(&mut netlink, &std::collections::BTreeMap::new())?;
    for backend in backends {
        backend.remove_refusal()?;
    }
    Ok(())
}
