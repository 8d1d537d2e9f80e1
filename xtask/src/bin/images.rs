//! Builds the images of operator, controller, proxy and tools and prints their names and archives.

use clap::Parser;

/// Builds the images of operator, controller, proxy and tools, as docker-archives in the cache
///
/// Needs no docker engine and no registry. Load an archive with `docker load`, `podman load` or `ctr images import`.
#[derive(Parser)]
#[command(name = "images")]
struct Args {}

fn main() -> anyhow::Result<()> {
    Args::parse();
    for image in xtask::images::product_images(&|line| eprintln!("{line}"))? {
        println!("{}\t{}", image.name, image.archive.display());
    }
    Ok(())
}
