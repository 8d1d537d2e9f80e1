//! Errors of netlink requests, counted by errno. Some are expected, such as EEXIST for a route that the pod has already.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use std::io;
use std::sync::LazyLock;

use nix::libc;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    errno: &'static str,
}

/// Global: requests are made by threads in the namespaces of pods, far from the registry.
static ERRORS: LazyLock<Family<Labels, Counter>> = LazyLock::new(Family::default);

/// The errnos with a series of their own: those of netlink, routes, nf_tables and conntrack.
const NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::ESRCH, "ESRCH"),
    (libc::EINTR, "EINTR"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::ENODEV, "ENODEV"),
    (libc::EINVAL, "EINVAL"),
    (libc::ENFILE, "ENFILE"),
    (libc::EMFILE, "EMFILE"),
    (libc::ERANGE, "ERANGE"),
    (libc::EMSGSIZE, "EMSGSIZE"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (libc::ENETDOWN, "ENETDOWN"),
    (libc::ENETUNREACH, "ENETUNREACH"),
    (libc::ENOBUFS, "ENOBUFS"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::EHOSTUNREACH, "EHOSTUNREACH"),
];

pub(crate) fn register(registry: &mut Registry) {
    for errno in ["EPERM", "EBUSY", "ENOMEM", "EINVAL"] {
        // A series that appears with its first error hides that error from `rate()`.
        drop(ERRORS.get_or_create(&Labels { errno }));
    }
    registry.register(
        "netlink_errors",
        "Errors of netlink requests by errno, expected ones included",
        ERRORS.clone(),
    );
}

/// Counts an error, and returns it.
pub(super) fn counted(error: io::Error) -> io::Error {
    let errno = name(error.raw_os_error());
    ERRORS.get_or_create(&Labels { errno }).inc();
    error
}

fn name(errno: Option<i32>) -> &'static str {
    let known = NAMES.iter().find(|(known, _)| Some(*known) == errno);
    known.map_or("other", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Netlink;
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::LinkMessage;
    use netlink_sys::protocols::NETLINK_ROUTE;
    use std::collections::BTreeSet;

    fn count(errno: &'static str) -> u64 {
        ERRORS.get_or_create(&Labels { errno }).get()
    }

    #[test]
    fn an_error_of_the_kernel_is_counted_by_its_errno() {
        let mut netlink = Netlink::<RouteNetlinkMessage>::open(NETLINK_ROUTE).unwrap();
        let mut absent = LinkMessage::default();
        absent.header.index = u32::from(u16::MAX);
        let before = count("ENODEV");
        let error = netlink.ask(&RouteNetlinkMessage::GetLink(absent)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(count("ENODEV") > before);
    }

    #[test]
    fn errnos_have_a_label_of_a_fixed_set() {
        let labels: BTreeSet<_> = (-1..5000).map(|errno| name(Some(errno))).collect();
        assert_eq!(labels.len(), NAMES.len() + 1);
        assert_eq!(
            (name(Some(libc::EPERM)), name(Some(4999)), name(None)),
            ("EPERM", "other", "other")
        );
    }
}
