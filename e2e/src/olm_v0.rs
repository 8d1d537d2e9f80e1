//! The Operator Lifecycle Manager v0, as OpenShift has it, on the two-node cluster.
//!
//! Writes: OLM's CRDs, namespace and roles on the cluster, and three processes: `olm`, `catalog`, and `opm serve` with the catalog under
//! test. They run in the network namespace of the control plane and not in pods, as administrators; what they do to the cluster is
//! the same. They end with the test's process.

use crate::admin::apply;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use testbed::apiserver::process_guard::Process;
use testbed::tools::{self, ToolDir};
use testbed::{cluster, command, wait};

/// OLM's own namespace; catalogs are here.
pub const NAMESPACE: &str = "olm";
/// The CatalogSource that serves what [`Olm::publish`] was given.
pub const CATALOG: &str = "multus-service-catalog";

const PORT: u16 = 50051;
const START: Duration = Duration::from_mins(2);
/// No image is ever pulled by this name: bundles are in the catalog itself, so OLM starts no pod to unpack them.
const NO_IMAGE: &str = "localhost/unused:1";

/// OLM's processes.
pub struct Olm {
    tools: ToolDir,
    folder: tempfile::TempDir,
    server: Option<Process>,
    _operators: [Process; 2],
}

impl Olm {
    /// Starts OLM on the running cluster.
    pub fn start(say: &dyn Fn(&str)) -> Result<Self> {
        let tools = tools::ensure(&[&tools::OLM, &tools::VALIDATORS, &tools::OPENSHIFT], say)?;
        let folder = tempfile::tempdir()?;
        install(&tools)?;
        let kubeconfig = cluster::kubeconfig()?.display().to_string();
        let flags = [
            "--namespace",
            NAMESPACE,
            "--interval",
            "30s",
            "--writeStatusName=",
        ]
        .map(str::to_owned);
        let program =
            |name: &str| -> Result<String> { Ok(tools.program(&tools::OLM, name)?.display().to_string()) };
        let mut olm = vec![
            "env".to_owned(),
            format!("KUBECONFIG={kubeconfig}"),
            format!("OPERATOR_NAMESPACE={NAMESPACE}"),
            "OPERATOR_NAME=olm-operator".to_owned(),
            program("olm")?,
            "--writePackageServerStatusName=".to_owned(),
        ];
        olm.extend(flags.clone());
        let mut catalog = vec![program("catalog")?, "--kubeconfig".to_owned(), kubeconfig];
        for image in ["--opmImage", "--util-image", "--configmapServerImage"] {
            catalog.extend([image.to_owned(), NO_IMAGE.to_owned()]);
        }
        catalog.extend(["--install-plan-retry-timeout".to_owned(), "1m".to_owned()]);
        catalog.extend(flags);
        let log = |name: &str| folder.path().join(format!("{name}.log"));
        let operators = [
            cluster::beside_the_control_plane("olm", olm, log("olm"))?,
            cluster::beside_the_control_plane("catalog", catalog, log("catalog"))?,
        ];
        Ok(Self {
            tools,
            folder,
            server: None,
            _operators: operators,
        })
    }

    /// Serves a catalog of these blobs, after `opm validate`, in the place of the one before.
    pub fn publish(&mut self, blobs: &[Value]) -> Result<()> {
        let opm = self
            .tools
            .program(&tools::VALIDATORS, "opm")?
            .display()
            .to_string();
        let path = |name: &str| self.folder.path().join(name);
        // A folder of its own each time: the server before may still read.
        let version = tempfile::tempdir_in(self.folder.path())?.keep();
        let documents: Vec<_> = blobs.iter().map(Value::to_string).collect();
        std::fs::write(version.join("catalog.json"), documents.join("\n"))?;
        let folder = version.display().to_string();
        command::run(&opm, &["validate", &folder])?;
        drop(self.server.take());
        let cache = format!("{folder}-cache");
        let serve = [
            &opm,
            "serve",
            &folder,
            "--port",
            &PORT.to_string(),
            "--cache-dir",
            &cache,
            "--cache-enforce-integrity=false",
            "--pprof-addr",
            "",
            "--termination-log",
            &path("termination").display().to_string(),
        ];
        self.server = Some(cluster::beside_the_control_plane(
            "opm",
            serve.map(str::to_owned).to_vec(),
            path("opm.log"),
        )?);
        apply(&json!({
            "apiVersion": "operators.coreos.com/v1alpha1", "kind": "CatalogSource",
            "metadata": {"name": CATALOG, "namespace": NAMESPACE},
            "spec": {"sourceType": "grpc", "address": format!("127.0.0.1:{PORT}"), "displayName": "Multus Service", "publisher": "The multus-service authors"},
        }))?;
        wait::until(START, "the catalog to be read", || {
            let state = "jsonpath={.status.connectionState.lastObservedState}";
            Ok(
                cluster::kubectl(&["-n", NAMESPACE, "get", "catalogsource", CATALOG, "-o", state])?
                    == "READY",
            )
        })
        .map_err(command::with_tail(&path("opm.log"), 10))
    }

    /// The last words of OLM's operators, for a failure's message.
    pub fn last_words(&self) -> String {
        ["olm", "catalog"]
            .map(|name| command::tail(&self.folder.path().join(format!("{name}.log")), 8))
            .join("\n")
    }

    /// Stops OLM and takes its kinds and namespace away, with what is of them.
    pub fn remove(self) -> Result<()> {
        let crds = cluster::kubectl(&["get", "crds", "-o", "name"])?;
        let ours: Vec<_> = crds
            .lines()
            .filter(|name| name.ends_with(".operators.coreos.com"))
            .collect();
        cluster::kubectl(
            &[
                &["delete", "--wait=true", "--timeout=120s", "--ignore-not-found"],
                &ours[..],
            ]
            .concat(),
        )?;
        cluster::kubectl(&[
            "delete",
            "namespace",
            NAMESPACE,
            "--timeout=120s",
            "--ignore-not-found",
        ])?;
        Ok(())
    }
}

fn install(tools: &ToolDir) -> Result<()> {
    let files = tools.dir(&tools::OLM)?;
    let crds: Vec<PathBuf> = std::fs::read_dir(files.join("crds"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    ensure!(crds.len() >= 8, "OLM's module has only {crds:?}");
    let console = tools.dir(&tools::OPENSHIFT)?;
    let names = ["00_consolequickstarts.crd.yaml", "00_consoleyamlsamples.crd.yaml"];
    let roles = files.join("0000_50_olm_09-aggregated.clusterrole.yaml");
    for path in crds
        .into_iter()
        .chain(names.map(|name| console.join(name)))
        .chain([roles])
    {
        // Too big for the annotation of a client-side apply.
        cluster::kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            &path.display().to_string(),
        ])?;
    }
    cluster::kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd",
        "--all",
    ])?;
    apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))?;
    apply(
        &json!({"apiVersion": "operators.coreos.com/v1", "kind": "OLMConfig", "metadata": {"name": "cluster"}}),
    )
}
