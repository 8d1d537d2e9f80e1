//! `NamespaceIsolation`: the networks that a namespace may use.
//!
//! Pure.

use crate::NetworkRef;
use std::collections::BTreeSet;

/// Networks that a Service may name and that clients may use, as Multus' namespace isolation for pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceIsolation {
    /// Networks of its own namespace and of global namespaces.
    Isolated {
        /// Namespaces whose networks every namespace may use.
        global_namespaces: BTreeSet<String>,
    },
    /// Any network, as in the archived multus-service project.
    Open,
}

/// Multus' own default.
impl Default for NamespaceIsolation {
    fn default() -> Self {
        Self::isolated(["default"])
    }
}

impl NamespaceIsolation {
    /// Networks of the own namespace and of `global_namespaces`. Empty names are skipped.
    pub fn isolated<N: Into<String>>(global_namespaces: impl IntoIterator<Item = N>) -> Self {
        let names = global_namespaces.into_iter().map(Into::into);
        Self::Isolated {
            global_namespaces: names.filter(|name| !name.is_empty()).collect(),
        }
    }

    /// Namespaces whose networks every namespace may use; none without isolation.
    pub fn global_namespaces(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::Open => None,
            Self::Isolated { global_namespaces } => Some(global_namespaces),
        };
        names.into_iter().flatten().map(String::as_str)
    }

    /// Whether a Service or a pod of `namespace` may name `network`.
    pub fn allows(&self, namespace: &str, network: &NetworkRef) -> bool {
        match self {
            Self::Open => true,
            Self::Isolated { global_namespaces } => {
                network.namespace() == namespace || global_namespaces.contains(network.namespace())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::own(&["default"], "web", "macvlan1", true)]
    #[case::global(&["default"], "web", "default/macvlan1", true)]
    #[case::of_another(&["default"], "web", "shop/macvlan1", false)]
    #[case::nothing_is_global(&[], "web", "default/macvlan1", false)]
    fn a_service_names_networks_of_its_own_namespace_and_global_ones(
        #[case] global: &[&str],
        #[case] namespace: &str,
        #[case] network: &str,
        #[case] allowed: bool,
    ) {
        let network = NetworkRef::parse(network, namespace).unwrap();
        let isolated = NamespaceIsolation::isolated(global.iter().copied());
        assert_eq!(isolated.allows(namespace, &network), allowed);
        assert!(NamespaceIsolation::Open.allows(namespace, &network));
    }
}
