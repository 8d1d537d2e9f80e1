//! Test matrix: each check is one function, run for every backend and family.

use api::Family;
use proxy::backend::Backend;
use proxy::backend::iptables::{Iptables, Variant};
use proxy::backend::nftables::Nftables;

/// A backend under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackendKind {
    IptablesNft,
    IptablesLegacy,
    Nftables,
}

impl BackendKind {
    pub(crate) const ALL: [Self; 3] = [Self::Nftables, Self::IptablesNft, Self::IptablesLegacy];

    pub(crate) fn backend(self) -> Box<dyn Backend> {
        match self {
            Self::IptablesNft => Box::new(Iptables::new(Variant::Nft)),
            Self::IptablesLegacy => Box::new(Iptables::new(Variant::Legacy)),
            Self::Nftables => Box::new(Nftables),
        }
    }
}

/// One combination of backend and family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) kind: BackendKind,
    pub(crate) family: Family,
}

/// Generates tests for functions that take a [`Case`]: one for each backend and family.
macro_rules! for_every_backend_and_family {
    ($($check:ident),* $(,)?) => { $(
        mod $check {
            use $crate::matrix::{Case, BackendKind};
            use api::Family;
            $crate::matrix::tests!(super::$check:
                iptables_nft_ipv4 => Case { kind: BackendKind::IptablesNft, family: Family::V4 },
                iptables_nft_ipv6 => Case { kind: BackendKind::IptablesNft, family: Family::V6 },
                iptables_legacy_ipv4 => Case { kind: BackendKind::IptablesLegacy, family: Family::V4 },
                iptables_legacy_ipv6 => Case { kind: BackendKind::IptablesLegacy, family: Family::V6 },
                nftables_ipv4 => Case { kind: BackendKind::Nftables, family: Family::V4 },
                nftables_ipv6 => Case { kind: BackendKind::Nftables, family: Family::V6 },
            );
        }
    )* };
}

/// Generates tests for functions that take a [`BackendKind`]: one for each backend.
macro_rules! for_every_backend {
    ($($check:ident),* $(,)?) => { $(
        mod $check {
            use $crate::matrix::BackendKind;
            $crate::matrix::tests!(super::$check:
                iptables_nft => BackendKind::IptablesNft,
                iptables_legacy => BackendKind::IptablesLegacy,
                nftables => BackendKind::Nftables,
            );
        }
    )* };
}

macro_rules! tests {
    ($check:path: $($name:ident => $case:expr),* $(,)?) => { $(
        #[test]
        #[ignore = "needs root and network namespaces: make test-netns"]
        fn $name() {
            $check($case);
        }
    )* };
}

pub(crate) use {for_every_backend, for_every_backend_and_family, tests};
