//! Options of the operator.
//!
//! Pure.

use crate::validate::ReleaseImages;
use k8s_openapi::jiff::SignedDuration;

/// Settings from the command line and the environment.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of operator and operands.
    pub namespace: String,
    /// Name of this process in the Lease and in Events: the name of its pod.
    pub holder: String,
    /// Version of this operator and of the operands it applies.
    pub version: String,
    /// Images of the operands, unless the configuration specifies them.
    pub images: ReleaseImages,
    /// The OperatorCondition in the operator's namespace, if OLM v0 installed the operator.
    pub operator_condition: Option<String>,
    /// Removes all operands, overriding the configuration, with this time limit for each node.
    pub removal: Option<SignedDuration>,
}
