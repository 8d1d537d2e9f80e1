//! The images of operator, controller, proxy and tools.
//!
//! Writes: the cache, through `testbed::images`.

pub mod cross;
pub mod inspect;
pub mod policy;
pub(crate) mod product;
pub mod release;

pub use product::{Profile, product_images, release_images};
