//! Puts images from archives into the nodes' runtimes.
//!
//! Writes: each node's image store, and beside it a note of what was loaded, so that nothing is loaded twice.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::layout::{Machine, Node};
use super::machine;
use super::options::Choices;
use crate::images::Image;
use crate::tools::ToolDir;
use crate::{command, wait};

const RUNTIME: Duration = Duration::from_mins(2);

/// Loads `images` into both nodes at once.
pub(super) fn load(images: &[Image], choices: &Choices, tools: &ToolDir, say: &dyn Fn(&str)) -> Result<()> {
    let loaded = std::thread::scope(|scope| {
        let nodes = Node::ALL.map(|node| scope.spawn(move || load_into(node, images, choices, tools)));
        nodes.map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("loading panicked"))))
    });
    for (node, lines) in Node::ALL.into_iter().zip(loaded) {
        for line in lines.with_context(|| format!("cannot load images into {node}"))? {
            say(&line);
        }
    }
    Ok(())
}

fn load_into(node: Node, images: &[Image], choices: &Choices, tools: &ToolDir) -> Result<Vec<String>> {
    let runtime = choices.runtime(node);
    wait::until(RUNTIME, &format!("{runtime} on {node} to listen"), || {
        let mut test = machine::enter(Machine::Node(node), &["test", "-S", runtime.socket()])?;
        Ok(test.status()?.success())
    })?;
    let mut lines = Vec::new();
    for image in images {
        let content = identity(image)?;
        if fs::read_to_string(note(node, image)).is_ok_and(|noted| noted == content) {
            continue;
        }
        let started = Instant::now();
        let load = runtime.load(tools, &image.archive, &image.name)?;
        command::output(&mut machine::enter(Machine::Node(node), &load)?)?;
        fs::create_dir_all(node.dir().join("images"))?;
        fs::write(note(node, image), content)?;
        lines.push(format!(
            "{node}: loaded {} in {:.1?}",
            image.name,
            started.elapsed()
        ));
    }
    Ok(lines)
}

fn note(node: Node, image: &Image) -> PathBuf {
    node.dir()
        .join("images")
        .join(image.name.replace(['/', ':'], "_"))
}

/// An archive is written once and renamed into place: its inode and time are its content.
fn identity(image: &Image) -> Result<String> {
    let file = fs::metadata(&image.archive)
        .with_context(|| format!("cannot read the image archive {}", image.archive.display()))?;
    let (inode, size, time) = (file.ino(), file.size(), file.mtime());
    Ok(format!(
        "{} {inode} {size} {time}.{:09}\n",
        image.archive.display(),
        file.mtime_nsec()
    ))
}
