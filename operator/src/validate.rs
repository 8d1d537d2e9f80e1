//! Validates the configuration and applies all defaults.
//!
//! Pure. After this step every value is valid; an invalid configuration changes nothing in the cluster.

mod monitoring;
mod settings;

pub use monitoring::Monitoring;
pub use settings::{Networks, PodSettings, RuntimeSocket, Tracing, ValidatedConfig};

use crate::cleanup::{self, CLEANUP_LIMIT, Removal};
use crate::gather::Observed;
use crate::operands::Operands;
use crate::scheduling::is_schedulable;
use api::config::ManagementState;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use std::fmt;

/// The images of this release, from the operator's Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleaseImages {
    /// From `RELATED_IMAGE_CONTROLLER`.
    pub controller: Option<String>,
    /// From `RELATED_IMAGE_PROXY`.
    pub proxy: Option<String>,
}

/// The action that the configuration asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Intent {
    /// Install, configure, repair.
    Install(Box<ValidatedConfig>),
    /// Unmanaged: write no object.
    Observe,
    /// The state is Removed, or the configuration is being deleted.
    Remove(Removal),
}

/// The errors of an invalid configuration, one line per field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct InvalidConfig(Vec<FieldError>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FieldError {
    /// Neither the configuration nor the operator's Deployment specifies an image.
    MissingImage {
        field: &'static str,
        variable: &'static str,
    },
    /// Pods run now, and none would be scheduled.
    NoNodeMatches { field: &'static str },
    /// A value that this version of the operator does not know.
    Unreadable(String),
    /// Each pod would be rejected.
    NoPriorityClass { field: &'static str, name: String },
    /// The value is not a CIDR.
    NoRange(String),
    /// The key is no label key.
    NoLabelKey(String),
    /// The API server rejects the operands.
    Rejected(String),
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNodeMatches { field } => write!(
                f,
                "MultusServiceConfig cluster: {field}.nodeSelector, .affinity and .tolerations match no node, no changes applied; use labels that nodes have, or set managementState to Removed"
            ),
            Self::Unreadable(why) => write!(
                f,
                "MultusServiceConfig cluster: spec is not valid for this operator version, no changes applied; correct the value or upgrade the operator: {why}"
            ),
            Self::NoPriorityClass { field, name } => write!(
                f,
                "MultusServiceConfig cluster: {field}.priorityClassName: PriorityClass {name} not found, no changes applied; create it or name an existing one"
            ),
            Self::NoRange(value) => write!(
                f,
                "MultusServiceConfig cluster: spec.serviceCIDRs: {value:?} is not a CIDR, no changes applied; specify a CIDR such as 172.30.0.0/16 or fd00:96::/112"
            ),
            Self::NoLabelKey(key) => write!(
                f,
                "MultusServiceConfig cluster: spec.monitoring.labels: {key:?} is not a label key, no changes applied; specify a key such as release or example.com/team"
            ),
            Self::Rejected(why) => write!(
                f,
                "MultusServiceConfig cluster: operand manifests rejected by the API server, no changes applied: {why}"
            ),
            Self::MissingImage { field, variable } => write!(
                f,
                "MultusServiceConfig cluster: {field} is not set and the operator's Deployment does not set {variable}; set one of them"
            ),
        }
    }
}

/// Evaluates the configuration. Deletion and removal precede every check: an invalid configuration can always be removed.
pub fn validate(observed: &Observed, images: &ReleaseImages) -> Result<Intent, InvalidConfig> {
    let config = &observed.config;
    let state = config.spec.management_state;
    if config.metadata.deletion_timestamp.is_some() || state == ManagementState::Removed {
        return Ok(Intent::Remove(cleanup::next_step(observed, CLEANUP_LIMIT)));
    }
    if state == ManagementState::Unmanaged {
        return Ok(Intent::Observe);
    }
    if let Some(why) = &observed.unreadable {
        return Err(InvalidConfig(vec![FieldError::Unreadable(why.clone())]));
    }
    let missing = observed.missing_priority_classes.iter();
    let missing: Vec<_> = missing
        .map(|(field, name)| FieldError::NoPriorityClass {
            field,
            name: name.clone(),
        })
        .collect();
    if !missing.is_empty() {
        return Err(InvalidConfig(missing));
    }
    settings::complete(observed, images)
        .map(|config| Intent::Install(Box::new(config)))
        .map_err(InvalidConfig)
}

/// Rejects scheduling fields that match no node and would remove the last pod of an operand. A first installation may match no
/// node.
pub fn check_scheduling(desired: &Operands, observed: &Observed) -> Result<(), InvalidConfig> {
    let pod_of = |template: &PodTemplateSpec| template.spec.clone();
    let controller = |operands: &Operands| pod_of(&operands.controller()?.spec.as_ref()?.template);
    let proxy = |operands: &Operands| pod_of(&operands.proxy()?.spec.as_ref()?.template);
    let lost = |new: Option<PodSpec>, old: Option<PodSpec>| {
        let matches = |pod: &PodSpec| observed.nodes.iter().any(|node| is_schedulable(pod, node));
        new.zip(old)
            .is_some_and(|(new, old)| !matches(&new) && matches(&old))
    };
    let live = &observed.live;
    let errors: Vec<_> = [
        (lost(controller(desired), controller(live)), "spec.controller"),
        (lost(proxy(desired), proxy(live)), "spec.proxy"),
    ]
    .into_iter()
    .filter_map(|(lost, field)| lost.then_some(FieldError::NoNodeMatches { field }))
    .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(InvalidConfig(errors))
    }
}

impl InvalidConfig {
    /// A rejection by the API server.
    pub fn rejected(why: String) -> Self {
        Self(vec![FieldError::Rejected(why)])
    }

    /// The condition's reason.
    pub fn reason(&self) -> &'static str {
        match self.0.as_slice() {
            [FieldError::NoNodeMatches { .. }, ..] => "InvalidPlacement",
            _ => "InvalidConfig",
        }
    }
}

#[cfg(test)]
mod tests;
