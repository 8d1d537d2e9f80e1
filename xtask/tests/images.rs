//! The images of the product are what a release promises.

use anyhow::{Result, ensure};
use xtask::images::{Profile, inspect, policy};

/// Metadata of shipped images for `kubectl describe`, registries and security scanners; licences; nothing that the programs do not need.
#[test]
#[ignore = "needs root and Debian packages: make test-e2e"]
fn the_shipped_images_say_what_they_are_and_hold_what_they_need() -> Result<()> {
    let images = xtask::images::product_images(&|line| eprintln!("{line}"))?;
    let targets = ["operator", "controller", "proxy", "tools"];
    ensure!(images.len() == targets.len(), "{images:?}");
    for (image, target) in images.iter().zip(targets) {
        let image = inspect::docker(&image.archive, target)?;
        let mut findings = image.findings();
        // Binaries of the profile dev are several times as large.
        let is_dev = Profile::of_environment() == Profile::Dev;
        findings.retain(|finding| !(is_dev && finding.contains(" MiB, more than ")));
        ensure!(findings.is_empty(), "{findings:#?}");
        holds_what_it_needs(&image, target)?;
    }
    Ok(())
}

fn holds_what_it_needs(image: &policy::Image, target: &str) -> Result<()> {
    let title = &image.labels["org.opencontainers.image.title"];
    ensure!(*title == format!("multus-service-{target}"), "{title}");
    let user = if target == "proxy" { "0:0" } else { "65532:65532" };
    ensure!(image.user == user, "{target} runs as {}", image.user);
    let has = |file: &str| image.files.contains_key(file);
    let program = match target {
        "tools" => "usr/bin/kubectl-multus_service".to_owned(),
        _ => format!("usr/bin/multus-service-{target}"),
    };
    ensure!(has(&program), "{target} lacks {program}");
    ensure!(
        has("run") && image.links.contains("var/run"),
        "{target} lacks /var/run, below which runtimes name network namespaces"
    );
    ensure!(has("lib64/ld-linux-x86-64.so.2"), "{target} lacks the loader");
    for iptables in ["usr/sbin/xtables-legacy-multi", "usr/sbin/xtables-nft-multi"] {
        ensure!(has(iptables) == (target == "proxy"), "{iptables} in {target}");
    }
    // What `oc adm must-gather` needs.
    for file in ["usr/bin/gather", "must-gather", "bin/tar", "bin/bash"] {
        ensure!(has(file) == (target == "tools"), "{file} in {target}");
    }
    let packages = image.package_names();
    ensure!(
        packages.contains("libc6"),
        "scanners find no packages: {packages:?}"
    );
    for needless in ["apt", "dpkg", "perl-base", "curl", "gcc-12"] {
        ensure!(!packages.contains(needless), "{target} has {needless}");
    }
    Ok(())
}
