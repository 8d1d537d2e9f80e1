//! Builds what is published.
//!
//! - [`images`]: the images of operator, controller, proxy and tools (the `images` command);
//! - [`plugin`]: the kubectl plugin for each platform, and the manifest of krew;
//! - [`release`]: images, SBOMs, `install.yaml`, bundle and catalog of a version (the `release` command).

pub mod images;
pub mod plugin;
pub mod release;

use std::path::Path;

/// The checkout that this program is compiled from.
pub(crate) fn checkout() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
