//! The images of the product are what a release promises.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::command;

/// Metadata of shipped images for `kubectl describe`, registries and security scanners.
#[test]
#[ignore = "needs root and Debian packages: make test-e2e"]
fn the_shipped_images_say_what_they_are_and_hold_what_they_need() -> Result<()> {
    let images = xtask::images::product_images(&|line| eprintln!("{line}"))?;
    let targets = ["operator", "controller", "proxy", "tools"];
    ensure!(images.len() == targets.len(), "{images:?}");
    for (image, target) in images.iter().zip(targets) {
        let archive = image.archive.display().to_string();
        let manifest: Value = serde_json::from_str(&member(&archive, "manifest.json")?)?;
        let config = manifest[0]["Config"].as_str().context("no configuration")?;
        let config: Value = serde_json::from_str(&member(&archive, config)?)?;
        let labels = &config["config"]["Labels"];
        ensure!(
            labels["org.opencontainers.image.title"] == format!("multus-service-{target}"),
            "{labels}"
        );
        for name in [
            "description",
            "vendor",
            "licenses",
            "source",
            "documentation",
            "version",
            "revision",
        ] {
            let label = &labels[format!("org.opencontainers.image.{name}")];
            ensure!(
                label.as_str().is_some_and(|text| !text.is_empty()),
                "{target} has no label {name}: {labels}"
            );
        }
        let user = if target == "proxy" { "0:0" } else { "65532:65532" };
        ensure!(
            config["config"]["User"] == user,
            "{target} runs as {}",
            config["config"]["User"]
        );

        let files = files(&archive, &manifest[0]["Layers"])?;
        let has = |file: &str| files.iter().any(|found| found.trim_start_matches("./") == file);
        ensure!(has(&program(target)), "{target} lacks its program");
        // What `oc adm must-gather` needs.
        for file in ["usr/bin/gather", "must-gather/", "usr/bin/tar", "usr/bin/bash"] {
            ensure!(
                target != "tools" || has(file) || has(&file.replacen("usr/", "", 1)),
                "{target} lacks {file}"
            );
        }
        for iptables in ["usr/sbin/xtables-legacy-multi", "usr/sbin/xtables-nft-multi"] {
            ensure!(
                has(iptables) == (target == "proxy"),
                "{iptables} in {target}: {}",
                has(iptables)
            );
        }
        for needless in [
            "usr/bin/curl",
            "usr/bin/python3",
            "usr/sbin/tcpdump",
            "usr/bin/gcc",
            "usr/sbin/nginx",
        ] {
            ensure!(!has(needless), "{target} has {needless}");
        }
    }
    Ok(())
}

fn program(target: &str) -> String {
    match target {
        "tools" => "usr/bin/kubectl-multus_service".to_owned(),
        _ => format!("usr/bin/multus-service-{target}"),
    }
}

fn member(archive: &str, name: &str) -> Result<String> {
    command::run("tar", &["-xOf", archive, name])
}

fn files(archive: &str, layers: &Value) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for layer in layers.as_array().context("no layers")? {
        let layer = layer.as_str().context("a layer has a name")?;
        // bash: a layer that cannot be read must fail, not be empty.
        let list = format!("set -o pipefail; tar -xOf '{archive}' '{layer}' | tar -t");
        files.extend(command::run("bash", &["-c", &list])?.lines().map(str::to_owned));
    }
    Ok(files)
}
