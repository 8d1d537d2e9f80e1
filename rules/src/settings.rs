//! `Settings`: inputs of planning beside Services, slices and pods.
//!
//! Pure. `internalTrafficPolicy` and topology hints depend on the node; namespace isolation and reserved addresses on the cluster.

use api::NamespaceIsolation;
use api::address::ReservedAddresses;

/// Inputs of planning that are not Services, slices or pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Node of the pods.
    pub node: Node,
    /// Networks that a Service may name.
    pub isolation: NamespaceIsolation,
    /// Addresses that no pod can have on a secondary network.
    pub reserved: ReservedAddresses,
    /// Whether the node does not support session affinity: `sessionAffinity` is ignored and reported.
    pub lacks_affinity: bool,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name, which slices call `nodeName`. Empty: no endpoint is local.
    pub name: String,
    /// Its label `topology.kubernetes.io/zone`. `None`: no zone hint fits.
    pub zone: Option<String>,
}
