//! What the configuration asks for, with every default decided.
//!
//! Pure. Behind this step there is no `Option` left and no invalid value; a configuration that cannot be honoured changes nothing
//! in the cluster.

use crate::gather::Observed;
use crate::removal::{self, Removal};
use api::config::{Backend, LogLevel, ManagementState, MultusServiceConfigSpec};
use std::fmt;

/// The images of this release, as the operator's own Deployment names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleaseImages {
    /// From `RELATED_IMAGE_CONTROLLER`.
    pub controller: Option<String>,
    /// From `RELATED_IMAGE_PROXY`.
    pub proxy: Option<String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Install, configure, mend.
    Install(ValidatedConfig),
    /// Unmanaged: write no object.
    Observe,
    /// Removed, or the configuration is being deleted.
    Remove(Removal),
}

/// A configuration without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedConfig {
    /// Container image of the controller.
    pub controller_image: String,
    /// Container image of the proxy.
    pub proxy_image: String,
    /// What both log.
    pub log_level: LogLevel,
    /// How the proxy writes rules.
    pub backend: Backend,
}

/// Why the configuration cannot be honoured: one line per field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct InvalidConfig(Vec<MissingImage>);

/// Neither the configuration nor the operator's Deployment names an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MissingImage {
    field: &'static str,
    variable: &'static str,
}

impl fmt::Display for MissingImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, variable } = self;
        write!(
            f,
            "MultusServiceConfig cluster: {field} is not set and the operator's Deployment has no {variable}; set one of them"
        )
    }
}

/// Decides what is to be done. Deletion and removal come before every check: an invalid configuration can always be removed.
pub fn validate(observed: &Observed, images: &ReleaseImages) -> Result<Intent, InvalidConfig> {
    let Observed {
        config,
        live,
        proxy_pods,
        now,
    } = observed;
    let state = config.spec.management_state;
    if config.metadata.deletion_timestamp.is_some() || state == ManagementState::Removed {
        return Ok(Intent::Remove(removal::next_step(live.proxy(), proxy_pods, *now)));
    }
    if state == ManagementState::Unmanaged {
        return Ok(Intent::Observe);
    }
    complete(&config.spec, images).map(Intent::Install)
}

fn complete(
    spec: &MultusServiceConfigSpec,
    images: &ReleaseImages,
) -> Result<ValidatedConfig, InvalidConfig> {
    let MultusServiceConfigSpec {
        management_state: _,
        log_level,
        controller,
        proxy,
    } = spec;
    let controller_image = image(
        controller
            .as_ref()
            .and_then(|controller| controller.image.as_ref()),
        images.controller.as_ref(),
        MissingImage {
            field: "spec.controller.image",
            variable: "RELATED_IMAGE_CONTROLLER",
        },
    );
    let proxy_image = image(
        proxy.as_ref().and_then(|proxy| proxy.image.as_ref()),
        images.proxy.as_ref(),
        MissingImage {
            field: "spec.proxy.image",
            variable: "RELATED_IMAGE_PROXY",
        },
    );
    match (controller_image, proxy_image) {
        (Ok(controller_image), Ok(proxy_image)) => Ok(ValidatedConfig {
            controller_image,
            proxy_image,
            log_level: log_level.unwrap_or_default(),
            backend: proxy.as_ref().and_then(|proxy| proxy.backend).unwrap_or_default(),
        }),
        (controller, proxy) => Err(InvalidConfig(
            [controller.err(), proxy.err()].into_iter().flatten().collect(),
        )),
    }
}

fn image(
    chosen: Option<&String>,
    release: Option<&String>,
    missing: MissingImage,
) -> Result<String, MissingImage> {
    // An environment variable can be set and empty.
    chosen
        .or(release)
        .filter(|image| !image.is_empty())
        .cloned()
        .ok_or(missing)
}

#[cfg(test)]
mod tests;
