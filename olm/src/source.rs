//! The input files of bundle and catalog.
//!
//! Reads `config/` and `olm/` of a checkout like kustomize: `config/default` and the resources it names. An unknown field is an
//! error, so that a bundle cannot silently lack an object that `kubectl apply -k` installs.

use crate::community::config::Ci;
use crate::{Project, Release, identity, text};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Input files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("failed to read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be decoded.
    #[error("invalid {path:?}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        reason: String,
    },
    /// An object is missing or exists more than once.
    #[error("config/ must have exactly one {kind} {name:?}, found {found}")]
    NotOne {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// The number of such objects.
        found: usize,
    },
}

/// All input files.
#[derive(Clone, Debug)]
pub struct Source {
    /// The identity of the project.
    pub project: Project,
    /// The base of the ClusterServiceVersion (`config/manifests/bases`).
    pub base: Value,
    /// Its description, as Markdown; `{oc}` is replaced by the command of the platform.
    pub description: String,
    /// Its icon, as SVG.
    pub icon: String,
    /// All objects that `kubectl apply -k config/default` installs, without the namespace that kustomize adds.
    pub objects: Vec<Value>,
    /// The bytes of the CustomResourceDefinition's file.
    pub crd_file: String,
    /// Patches of these objects in `config/openshift`.
    pub openshift_patches: Vec<Value>,
    /// The sample configuration.
    pub sample: Value,
    /// The configuration of `operator-sdk scorecard`.
    pub scorecard: String,
    /// The bytes of `olm/ci.yaml`, the configuration of the community catalogs' pipelines.
    pub ci_file: String,
    /// Static files of the Helm chart by path (`olm/chart`).
    pub chart: BTreeMap<String, String>,
    /// The release.
    pub release: Release,
    /// Packages, channels and deprecations (`olm/catalog-template.yaml`).
    pub template: Vec<Value>,
    /// The catalog's entries of earlier releases (`olm/released/*/catalog.yaml`), sorted by version as text.
    pub released: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kustomization {
    resources: Vec<String>,
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
}

/// Kustomization of `config/openshift`: patches of objects of `config/default`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Openshift {
    #[serde(rename = "resources")]
    _resources: Vec<String>,
    patches: Vec<Patch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(rename = "target")]
    _target: Value,
    patch: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    #[serde(rename = "schema")]
    _schema: String,
    entries: Vec<Value>,
}

const CI: &str = "olm/ci.yaml";
const CRD: &str = "config/crd/multusservice.cni.cncf.io_multusserviceconfigs.yaml";

impl Source {
    /// Reads the checkout at `root`.
    pub fn read(root: &Path) -> Result<Self, Error> {
        let bases = root.join("config/manifests/bases");
        Ok(Self {
            project: Project::read(root)?,
            base: one(&bases.join("multus-service-operator.clusterserviceversion.yaml"))?,
            description: file(&bases.join("description.md"))?,
            icon: file(&bases.join("icon.svg"))?,
            objects: kustomized(&root.join("config/default"))?,
            crd_file: file(&root.join(CRD))?,
            openshift_patches: patches(&root.join("config/openshift/kustomization.yaml"))?,
            sample: one(&root.join("config/samples/multusservice_v1alpha1_multusserviceconfig.yaml"))?,
            scorecard: file(&root.join("config/scorecard/config.yaml"))?,
            ci_file: file(&root.join(CI))?,
            chart: chart(&root.join("olm/chart"))?,
            release: one(&root.join("olm/release.yaml"))?,
            template: template(&root.join("olm"))?,
            released: released(&root.join("olm/released"))?,
        })
    }

    /// This source with the update graph of another folder: its `catalog-template.yaml` and `released`.
    pub fn with_graph(self, folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            template: template(folder)?,
            released: released(&folder.join("released"))?,
            ..self
        })
    }

    /// `olm/ci.yaml`.
    pub fn ci(&self) -> Result<Ci, Error> {
        let ci: Ci = parse(Path::new(CI), &self.ci_file)?;
        Ok(Ci {
            reviewers: self.project.reviewers.clone(),
            ..ci
        })
    }

    /// The only object of `config/default` with this kind and name.
    pub fn object(&self, kind: &'static str, name: &str) -> Result<&Value, Error> {
        let found: Vec<_> = self
            .objects
            .iter()
            .filter(|object| text(object, "/kind") == kind && text(object, "/metadata/name") == name)
            .collect();
        match found[..] {
            [object] => Ok(object),
            _ => Err(Error::NotOne {
                kind,
                name: name.to_owned(),
                found: found.len(),
            }),
        }
    }

    /// The CustomResourceDefinition.
    pub fn crd(&self) -> Result<&Value, Error> {
        self.object(
            "CustomResourceDefinition",
            text(&self.base, "/spec/customresourcedefinitions/owned/0/name"),
        )
    }
}

/// The objects of a directory's `kustomization.yaml` and of those it names, in that order.
fn kustomized(folder: &Path) -> Result<Vec<Value>, Error> {
    let Kustomization {
        resources,
        _namespace: _,
    } = one(&folder.join("kustomization.yaml"))?;
    let mut objects = Vec::new();
    for resource in resources {
        let path = folder.join(resource);
        objects.append(&mut if path.is_dir() {
            kustomized(&path)?
        } else {
            all(&path)?
        });
    }
    Ok(objects)
}

fn patches(path: &Path) -> Result<Vec<Value>, Error> {
    let Openshift { patches, .. } = one(path)?;
    let parsed = patches
        .iter()
        .map(|Patch { patch, .. }| serde_saphyr::from_str(patch));
    parsed.collect::<Result<_, _>>().map_err(|error| Error::Parse {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn template(folder: &Path) -> Result<Vec<Value>, Error> {
    Ok(one::<Template>(&folder.join("catalog-template.yaml"))?.entries)
}

/// None while nothing is released: git keeps no empty folder.
fn released(folder: &Path) -> Result<Vec<Value>, Error> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).map_err(|source| Error::Read {
        path: folder.to_owned(),
        source,
    })?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()
        .map_err(|source| Error::Read {
            path: folder.to_owned(),
            source,
        })?;
    paths.sort();
    paths.iter().map(|path| one(&path.join("catalog.yaml"))).collect()
}

fn chart(folder: &Path) -> Result<BTreeMap<String, String>, Error> {
    const FILES: [&str; 5] = [
        ".helmignore",
        "README.md",
        "templates/NOTES.txt",
        "templates/validate.yaml",
        "values.schema.json",
    ];
    let read = |name: &str| Ok((name.to_owned(), file(&folder.join(name))?));
    FILES.into_iter().map(read).collect()
}

fn file(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// The only document of a file.
pub(crate) fn one<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    parse(path, &file(path)?)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, content: &str) -> Result<T, Error> {
    serde_saphyr::from_str(content).map_err(|error| Error::Parse {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// All documents of a file.
pub(crate) fn all(path: &Path) -> Result<Vec<Value>, Error> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(&file(path)?).map_err(|error| Error::Parse {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    match objects
        .iter()
        .find(|object| text(object, "/kind").is_empty() && text(object, "/schema").is_empty())
    {
        None => Ok(objects),
        Some(object) => Err(Error::Parse {
            path: path.to_owned(),
            reason: format!("{} is no object", identity(object)),
        }),
    }
}
