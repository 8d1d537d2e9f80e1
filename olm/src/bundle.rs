//! The files of a bundle in the format `registry+v1`.
//!
//! Pure, except for [`Bundle::read`] and [`Bundle::write`].

use crate::{PACKAGE, Platform, Source, csv, graph, identity, source, text};
use api::names::OPERATOR;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Kinds that a bundle can carry beside the ClusterServiceVersion (OLM v0's InstallPlan and OLM v1 have the same list).
pub const KINDS: [&str; 21] = [
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "PrometheusRule",
    "ServiceMonitor",
    "PodMonitor",
    "PodDisruptionBudget",
    "PriorityClass",
    "VerticalPodAutoscaler",
    "ConsoleYAMLSample",
    "ConsoleQuickStart",
    "ConsoleCLIDownload",
    "ConsoleLink",
    "ConsolePlugin",
    "NetworkPolicy",
];

/// Kinds of `config/default` that a bundle cannot contain, and their source in an installed bundle.
pub const ELSEWHERE: [(&str, &str); 2] = [
    (
        "Namespace",
        "the console makes it of suggested-namespace-template",
    ),
    ("Deployment", "the ClusterServiceVersion holds it"),
];

/// A failure to generate or write a bundle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input files are not usable.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// `config/default` has an object that a bundle cannot contain.
    #[error(
        "a bundle cannot carry {0}: let the operator apply it and name the kind in olm/src/bundle.rs, or take it out of config/default"
    )]
    Kind(String),
    /// A directory cannot be read or written.
    #[error("failed to read or write {path:?}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file of the bundle is not YAML.
    #[error("invalid YAML in {path:?}: {reason}")]
    Parse {
        /// The file.
        path: String,
        /// The error of the parser.
        reason: String,
    },
    /// No channel offers the release.
    #[error("no channel of olm/catalog-template.yaml has an entry {name:?}: add one, to candidate-v0 first")]
    NoChannel {
        /// The release's ClusterServiceVersion.
        name: String,
    },
    /// The release is published already.
    #[error(
        "olm/released has {name:?} already, and what was published never changes: release another version"
    )]
    Published {
        /// The release's ClusterServiceVersion.
        name: String,
    },
}

/// A bundle: content by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Content by path, relative to the directory of the bundle.
    pub files: BTreeMap<String, String>,
}

impl Bundle {
    /// Renders the bundle of the source's release.
    pub fn render(source: &Source, platform: Platform) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        let annotations = annotations(source, platform)?;
        files.insert(
            format!("manifests/{PACKAGE}.clusterserviceversion.yaml"),
            yaml(&csv::render(source, platform)?),
        );
        files.insert(
            format!("manifests/{}", crd_file_name(source.crd()?)),
            source.crd_file.clone(),
        );
        for object in carried(source)? {
            files.insert(format!("manifests/{}", file_name(object)), yaml(object));
        }
        files.insert(
            "metadata/annotations.yaml".to_owned(),
            yaml(&json!({"annotations": annotations})),
        );
        files.insert("tests/scorecard/config.yaml".to_owned(), source.scorecard.clone());
        files.insert("bundle.Dockerfile".to_owned(), dockerfile(&annotations));
        Ok(Self { files })
    }

    /// Reads the directory of a bundle.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        read_into(folder, folder, &mut files).map_err(|source| Error::File {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self { files })
    }

    /// Writes this bundle to `folder` and removes all other files there.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(|source| Error::File {
                path: folder.to_owned(),
                source,
            })?;
        }
        for (name, content) in &self.files {
            write_file(&folder.join(name), content)?;
        }
        Ok(())
    }

    /// The objects of `manifests/`, in the order of their files.
    pub fn manifests(&self) -> Result<Vec<Value>, Error> {
        let mut objects = Vec::new();
        for (path, content) in self
            .files
            .iter()
            .filter(|(path, _)| path.starts_with("manifests/"))
        {
            objects.push(parse(path, content)?);
        }
        Ok(objects)
    }

    /// The ClusterServiceVersion, or null.
    pub fn csv(&self) -> Result<Value, Error> {
        let found = self
            .manifests()?
            .into_iter()
            .find(|object| text(object, "/kind") == "ClusterServiceVersion");
        Ok(found.unwrap_or_default())
    }

    /// `metadata/annotations.yaml`.
    pub fn annotations(&self) -> Result<Value, Error> {
        let path = "metadata/annotations.yaml";
        let content = self.files.get(path).map(String::as_str).unwrap_or_default();
        Ok(parse::<Value>(path, content)?["annotations"].take())
    }
}

/// Writes a file, and the folders above it.
pub(crate) fn write_file(path: &Path, content: &str) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    let written = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(path, content));
    written.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn parse<T: serde::de::DeserializeOwned>(path: &str, content: &str) -> Result<T, Error> {
    serde_saphyr::from_str(content).map_err(|error| Error::Parse {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn read_into(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_into(root, &path, files)?;
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            files.insert(name, std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// Objects of `config/default` that are files of their own in the bundle. The operator's service account and roles are in the
/// ClusterServiceVersion: OLM creates them from there, and rejects a bundle that has the service account twice.
fn carried(source: &Source) -> Result<Vec<&Value>, Error> {
    let mut carried = Vec::new();
    for object in &source.objects {
        let kind = text(object, "/kind");
        let operators_own = text(object, "/metadata/name") == OPERATOR
            && [
                "ServiceAccount",
                "ClusterRole",
                "ClusterRoleBinding",
                "Role",
                "RoleBinding",
            ]
            .contains(&kind);
        if operators_own
            || kind == "CustomResourceDefinition"
            || ELSEWHERE.iter().any(|(other, _)| *other == kind)
        {
            continue;
        }
        if !KINDS.contains(&kind) {
            return Err(Error::Kind(identity(object)));
        }
        carried.push(object);
    }
    Ok(carried)
}

/// File name in the format of operator-sdk: `<name>_<group>_<version>_<kind>.yaml`.
fn file_name(object: &Value) -> String {
    let kind = text(object, "/kind").to_lowercase();
    let version = text(object, "/apiVersion").replace('/', "_");
    format!("{}_{version}_{kind}.yaml", text(object, "/metadata/name"))
}

/// File name in the format of controller-gen: `<group>_<plural>.yaml`.
fn crd_file_name(crd: &Value) -> String {
    format!(
        "{}_{}.yaml",
        text(crd, "/spec/group"),
        text(crd, "/spec/names/plural")
    )
}

/// The channels of the release, and the default one. In file-based catalogs the template decides, not the bundle: OpenShift's bundle
/// names the first channel, and does not change when the release is promoted.
fn channels(source: &Source, platform: Platform) -> Result<(Vec<String>, String), Error> {
    let name = crate::csv_name(&source.release.version);
    let mut of_this: Vec<_> = graph::channels(&source.template)
        .into_iter()
        .filter(|channel| channel.entry(&name).is_some())
        .map(|channel| channel.name)
        .collect();
    let first = of_this.first().cloned().ok_or(Error::NoChannel { name })?;
    match platform {
        Platform::Openshift => of_this.truncate(1),
        Platform::Kubernetes => return Ok((of_this, graph::default_channel(&source.template).to_owned())),
    }
    Ok((of_this, first))
}

/// `metadata/annotations.yaml` and the image's labels, which must be equal.
fn annotations(source: &Source, platform: Platform) -> Result<BTreeMap<&'static str, String>, Error> {
    let (of_this, default) = channels(source, platform)?;
    Ok(BTreeMap::from([
        (
            "operators.operatorframework.io.bundle.mediatype.v1",
            "registry+v1".to_owned(),
        ),
        (
            "operators.operatorframework.io.bundle.manifests.v1",
            "manifests/".to_owned(),
        ),
        (
            "operators.operatorframework.io.bundle.metadata.v1",
            "metadata/".to_owned(),
        ),
        (
            "operators.operatorframework.io.bundle.package.v1",
            PACKAGE.to_owned(),
        ),
        (
            "operators.operatorframework.io.bundle.channels.v1",
            of_this.join(","),
        ),
        (
            "operators.operatorframework.io.bundle.channel.default.v1",
            default,
        ),
        (
            "operators.operatorframework.io.test.mediatype.v1",
            "scorecard+v1".to_owned(),
        ),
        (
            "operators.operatorframework.io.test.config.v1",
            "tests/scorecard/".to_owned(),
        ),
        // Kubernetes 1.30, the CSV's minKubeVersion.
        ("com.redhat.openshift.versions", "v4.17".to_owned()),
    ]))
}

fn dockerfile(annotations: &BTreeMap<&str, String>) -> String {
    let mut text = format!("{HEADER}# Build it with this folder as context.\nFROM scratch\n\n");
    for (key, value) in annotations {
        let _ = writeln!(text, "LABEL {key}={value}");
    }
    text + "\nCOPY manifests /manifests/\nCOPY metadata /metadata/\nCOPY tests/scorecard /tests/scorecard/\n"
}

const HEADER: &str = "# Generated by `make bundle`; do not edit.\n";

/// Formats an object as a generated YAML file.
pub fn yaml(value: &Value) -> String {
    format!(
        "{HEADER}{}",
        serde_saphyr::to_string(value).expect("a JSON value is YAML")
    )
}
