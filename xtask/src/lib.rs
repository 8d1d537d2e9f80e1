//! Builds what is published.
//!
//! - [`images`]: the images of operator, controller and proxy (the `images` command);
//! - [`release`]: images, SBOMs, `install.yaml`, bundle and catalog of a version (the `release` command).

pub mod images;
pub mod release;
