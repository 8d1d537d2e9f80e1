//! Every file that names the project agrees with `project.yaml`.

use super::{root, source};
use olm::project::{self, Overrides};
use olm::release::repository;
use olm::{Project, items, text};
use std::collections::BTreeSet;

fn ours() -> Project {
    Project::read(&root()).unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn bundle_and_images_have_the_identity_of_the_project() {
    let (project, base) = (ours(), source().base);
    let repository_fields = ["/metadata/annotations/repository", "/spec/provider/url"];
    for field in repository_fields {
        assert_eq!(text(&base, field), project.repository, "{field}");
    }
    let support = format!("{}/issues", project.repository);
    assert_eq!(text(&base, "/metadata/annotations/support"), support);
    for field in ["/spec/provider/name", "/spec/maintainers/0/name"] {
        assert_eq!(text(&base, field), project.authors, "{field}");
    }
    assert_eq!(text(&base, "/spec/maintainers/0/email"), project.email);
    for link in items(&base, "/spec/links") {
        assert!(text(link, "/url").starts_with(&project.repository), "{link}");
    }
    for (name, image) in source().release.images.running() {
        assert_eq!(repository(image), format!("{}/{name}", project.registry));
    }
}

#[test]
fn static_files_have_the_identity_of_the_project() {
    let project = ours();
    let repository = &project.repository;
    for (path, wanted) in [
        ("Cargo.toml", format!("repository = \"{repository}\"")),
        (
            "Containerfile",
            format!("org.opencontainers.image.source=\"{repository}\""),
        ),
        (
            "config/manager/deployment.yaml",
            format!("image: {}/operator:", project.registry),
        ),
        (
            "config/default/kustomization.yaml",
            format!("- {repository}/config/default"),
        ),
        (
            "config/monitoring/prometheus-rule.yaml",
            format!("{repository}/blob/main/docs/runbooks/"),
        ),
    ] {
        assert!(read(path).contains(&wanted), "{path} lacks {wanted:?}");
    }
    for (path, content) in project.reviewer_files() {
        assert_eq!(read(path), content, "{path} is out of date: run `make identity`");
    }
}

/// A name that is written in parts would keep the old owner after a change of identity.
#[test]
fn no_file_names_another_organisation() {
    let project = ours();
    let path = project.repository.trim_start_matches("https://").to_owned();
    let (host, _) = path.split_once('/').unwrap();
    let name = path.rsplit('/').next().unwrap();
    let suffix = format!("/{name}");
    let mut others = BTreeSet::new();
    for (file, content) in project::files(&root()).unwrap() {
        let is_name = |next: char| next.is_alphanumeric() || "-_./".contains(next);
        for found in content.split(&format!("{host}/")).skip(1) {
            let end = found.find(|next| !is_name(next)).unwrap_or(found.len());
            let owned: Vec<_> = found[..end].split('/').take(2).collect();
            let full = format!("{host}/{}", owned.join("/"));
            if full.ends_with(&suffix) && full != path {
                others.insert((file.clone(), full));
            }
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn another_identity_replaces_ours_in_every_file() {
    let old = ours();
    let new = old.with(&Overrides {
        repository: Some("https://forge.acme.io/net/services".to_owned()),
        registry: Some("registry.acme.io/net".to_owned()),
        authors: Some("Acme networking".to_owned()),
        email: Some("security@acme.io".to_owned()),
        reviewers: vec!["alice".to_owned()],
    });
    let mut changed = 0;
    for (path, content) in project::files(&root()).unwrap() {
        let replaced = old.replace(&new, &content);
        changed += u32::from(replaced != content);
        for value in [&old.repository, &old.authors, &old.email] {
            assert!(
                !replaced.contains(value.as_str()),
                "{} keeps {value}",
                path.display()
            );
        }
    }
    assert!(changed > 10, "only {changed} files have the identity");
}
