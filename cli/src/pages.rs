//! Writes: pages generated from this crate: `cli-pages man FOLDER`, `cli-pages troubleshooting`.

use clap::{CommandFactory as _, Parser, Subcommand};
use std::io::Write as _;
use std::path::PathBuf;

/// Generates pages from the tables of the plugin.
#[derive(Parser, Debug)]
struct Args {
    #[command(subcommand)]
    page: Page,
}

#[derive(Subcommand, Debug)]
enum Page {
    /// Man pages, one per command, into a folder
    Man {
        /// The folder; created if it does not exist
        folder: PathBuf,
    },
    /// docs/user/troubleshooting.md, to standard output
    Troubleshooting,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().page {
        Page::Man { folder } => {
            std::fs::create_dir_all(&folder)?;
            let command = cli::args::Cli::command().bin_name("kubectl-multus_service");
            clap_mangen::generate_to(command, folder)?;
        }
        Page::Troubleshooting => std::io::stdout().write_all(cli::situations::page().as_bytes())?,
    }
    Ok(())
}
