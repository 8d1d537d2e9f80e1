//! Builds what is published.
//!
//! - [`images`]: the images of operator, controller, proxy and tools (the `images` command);
//! - [`plugin`]: the kubectl plugin for each platform, and the manifest of krew;
//! - [`release`]: images, SBOMs, `install.yaml`, bundle and catalog of a version (the `release` command).

pub mod images;
pub mod plugin;
pub mod release;
