//! One cluster for one test: kube-apiserver, kube-controller-manager, two nodes with a fake kubelet, `config/default`, and the
//! operator as a process.

use anyhow::{Context as _, Result};
use api::MultusServiceConfig;
use api::names::{CONFIG_NAME, CONTROLLER, OPERATOR, PROXY};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use testbed::apiserver::{Apiserver, Options};
use testbed::{command, tools, wait};

pub(crate) mod cluster_state;
pub(crate) mod crash_proxy;
pub(crate) mod fake_kubelet;
pub(crate) mod hollow_nodes;

pub(crate) const NAMESPACE: &str = "multus-service";
/// The CRD that Multus installs.
pub(crate) const NETWORK_DEFINITION: &str =
    "testbed/src/cluster/manifests/network-attachment-definition.yaml";
pub(crate) const NODES: [&str; 2] = ["node-a", "node-b"];
/// Generous: a busy machine must not fail a test.
const LIMIT: Duration = Duration::from_mins(2);

pub(crate) struct Fixture {
    pub(crate) server: Apiserver,
    pub(crate) client: Client,
    pub(crate) nodes: Arc<fake_kubelet::Nodes>,
    kubectl: PathBuf,
    /// Environment of operators that are started later, in addition to the release's images or instead of them.
    pub(crate) environment: BTreeMap<&'static str, String>,
    operator: Option<Child>,
    crash_proxied: Option<PathBuf>,
    kubelet: tokio::task::JoinHandle<()>,
}

/// Reads the mask of caught signals in proc_pid_status(5).
fn catches_sigterm(pid: u32) -> Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .context("a process has no mask of caught signals")?;
    let sigterm = 1 << (Signal::SIGTERM as u32 - 1);
    Ok(u64::from_str_radix(caught.trim(), 16)? & sigterm != 0)
}

/// A second operator; dropping it kills the process.
pub(crate) struct SecondOperator(Child);

impl Drop for SecondOperator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.kubelet.abort();
        if let Some(mut operator) = self.operator.take() {
            let _ = operator.kill();
            let _ = operator.wait();
        }
    }
}

impl Fixture {
    /// A cluster with `config/default` applied; the operator is not running yet.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// [`Self::start`] with further flags of kube-controller-manager.
    pub(crate) async fn start_with(controller_manager_flags: &[&str]) -> Result<Self> {
        let server = Apiserver::start(Options {
            controller_manager: true,
            controller_manager_flags: controller_manager_flags
                .iter()
                .map(|&flag| flag.to_owned())
                .collect(),
            ..Options::default()
        })
        .await?;
        let client = server.client().await?;
        let kubectl =
            tokio::task::spawn_blocking(|| tools::ensure(&[&tools::KUBECTL], &|line| eprintln!("{line}")))
                .await??;
        let nodes = Arc::new(fake_kubelet::Nodes::default());
        for name in NODES {
            let node: Node = serde_json::from_value(
                json!({ "metadata": { "name": name, "labels": { "kubernetes.io/os": "linux" } } }),
            )?;
            Api::all(client.clone())
                .create(&PostParams::default(), &node)
                .await?;
        }
        let fixture = Self {
            kubelet: tokio::spawn(fake_kubelet::play(client.clone(), Arc::clone(&nodes))),
            kubectl: kubectl.main(&tools::KUBECTL)?,
            environment: BTreeMap::new(),
            operator: None,
            crash_proxied: None,
            server,
            client,
            nodes,
        };
        fixture.kubectl(&["apply", "-f", &repository(NETWORK_DEFINITION)])?;
        fixture.kubectl(&["apply", "-k", &repository("config/default")])?;
        fixture.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd/multusserviceconfigs.multusservice.cni.cncf.io",
        ])?;
        Ok(fixture)
    }

    /// [`Self::start`] with the operator running and the sample applied and installed.
    pub(crate) async fn installed() -> Result<Self> {
        Self::start().await?.install().await
    }

    /// Runs the operator, and applies and installs the sample.
    pub(crate) async fn install(mut self) -> Result<Self> {
        self.start_operator(true).await?;
        self.kubectl(&["apply", "-k", &repository("config/samples")])?;
        self.until_installed().await?;
        Ok(self)
    }

    /// Runs the real kubectl as admin.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        command::output(&mut self.kubectl_command(args))
    }

    /// Runs kubectl; returns whether it succeeded, and its warnings and errors.
    pub(crate) fn kubectl_warnings(&self, args: &[&str]) -> Result<(bool, String)> {
        let output = self.kubectl_command(args).output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.success(), text))
    }

    fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .args(args)
            .env("KUBECONFIG", self.server.kubeconfig())
            .stdin(Stdio::null());
        command
    }

    /// The messages of all events about cluster-scoped objects.
    pub(crate) fn events(&self) -> Result<String> {
        let messages = "jsonpath={.items[*].message}";
        self.kubectl(&["get", "events", "-n", "default", "-o", messages])
    }

    /// Starts the operator as its own service account, with the images of the release or without any.
    pub(crate) async fn start_operator(&mut self, with_images: bool) -> Result<()> {
        let kubeconfig = self
            .server
            .service_account_kubeconfig(NAMESPACE, OPERATOR)
            .await?;
        self.operator = Some(self.spawn_operator(&kubeconfig, OPERATOR, with_images)?);
        Ok(())
    }

    /// Starts the operator on an API server that does not serve ServiceCIDRs.
    pub(crate) async fn start_operator_without_service_cidrs(&mut self) -> Result<()> {
        let (kubeconfig, _) = self
            .crash_proxy(crash_proxy::CrashProxy::without_service_cidrs())
            .await?;
        self.operator = Some(self.spawn_operator(&kubeconfig, OPERATOR, true)?);
        Ok(())
    }

    /// Starts the operator behind a crash proxy.
    pub(crate) async fn start_operator_behind_crash_proxy(&mut self) -> Result<Arc<crash_proxy::CrashProxy>> {
        let (kubeconfig, crash_proxy) = self.crash_proxy(crash_proxy::CrashProxy::default()).await?;
        self.operator = Some(self.spawn_operator(&kubeconfig, OPERATOR, true)?);
        self.crash_proxied = Some(kubeconfig);
        Ok(crash_proxy)
    }

    /// Starts a second operator, as another pod.
    pub(crate) async fn start_second_operator(
        &self,
        pod: &str,
    ) -> Result<(SecondOperator, Arc<crash_proxy::CrashProxy>)> {
        let (kubeconfig, crash_proxy) = self.crash_proxy(crash_proxy::CrashProxy::default()).await?;
        Ok((
            SecondOperator(self.spawn_operator(&kubeconfig, pod, true)?),
            crash_proxy,
        ))
    }

    async fn crash_proxy(
        &self,
        crash_proxy: crash_proxy::CrashProxy,
    ) -> Result<(PathBuf, Arc<crash_proxy::CrashProxy>)> {
        let crash_proxy = Arc::new(crash_proxy);
        let client = self.server.service_account_client(NAMESPACE, OPERATOR).await?;
        let url = crash_proxy.open(client).await?;
        let direct = self
            .server
            .service_account_kubeconfig(NAMESPACE, OPERATOR)
            .await?;
        let text = std::fs::read_to_string(direct)?.replace(self.server.url(), &url);
        let kubeconfig = self.server.folder().join("crash-proxy.kubeconfig");
        std::fs::write(&kubeconfig, text)?;
        Ok((kubeconfig, crash_proxy))
    }

    pub(crate) fn operator_pid(&self) -> Result<u32> {
        Ok(self
            .operator
            .as_ref()
            .context("the operator is not running")?
            .id())
    }

    /// The address of probes and metrics: the operator logs its port.
    pub(crate) async fn operator_http(&self) -> Result<SocketAddr> {
        self.eventually("the operator to log its port", async || {
            let log = testbed::log_file::complete_lines(&self.log(), 0)?;
            let mut words = log.split_whitespace().rev();
            Ok(words.find_map(|word| word.strip_prefix("http=")?.parse().ok()))
        })
        .await
    }

    /// Address of its metrics.
    pub(crate) async fn operator_metrics(&self) -> Result<SocketAddr> {
        self.eventually("the operator to log the port of its metrics", async || {
            let log = testbed::log_file::complete_lines(&self.log(), 0)?;
            let mut words = log.split_whitespace().rev();
            Ok(words.find_map(|word| word.strip_prefix("metrics=")?.parse().ok()))
        })
        .await
    }

    pub(crate) fn operator_is_alive(&mut self) -> Result<bool> {
        let operator = self.operator.as_mut().context("the operator is not running")?;
        Ok(operator.try_wait()?.is_none())
    }

    /// Restarts it like the kubelet restarts a container: the same pod and the same holder of the Lease.
    pub(crate) async fn restart_killed_operator(&mut self) -> Result<()> {
        let mut child = self.operator.take().context("the operator is not running")?;
        self.eventually("the operator to be dead", async || Ok(child.try_wait()?))
            .await?;
        let kubeconfig = self.crash_proxied.clone().context("there is no crash proxy")?;
        self.operator = Some(self.spawn_operator(&kubeconfig, OPERATOR, true)?);
        Ok(())
    }

    /// Replaces the operator, with the current environment and behind the same crash proxy.
    pub(crate) async fn replace_proxied_operator(&mut self) -> Result<()> {
        self.stop_operator().await?;
        let kubeconfig = self.crash_proxied.clone().context("there is no crash proxy")?;
        self.operator = Some(self.spawn_operator(&kubeconfig, OPERATOR, true)?);
        Ok(())
    }

    /// Applies an object that kubectl reads from a file.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let file = self.server.folder().join("object.json");
        std::fs::write(&file, object.to_string())?;
        self.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()])?;
        Ok(())
    }

    fn spawn_operator(&self, kubeconfig: &Path, pod: &str, with_images: bool) -> Result<Child> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_multus-service-operator"));
        command.arg("--kubeconfig").arg(kubeconfig).args([
            "--namespace",
            NAMESPACE,
            "--pod-name",
            pod,
            "--health-probe-bind-address",
            "127.0.0.1:0",
            "--metrics-bind-address",
            "127.0.0.1:0",
        ]);
        command
            .env_remove("RELATED_IMAGE_CONTROLLER")
            .env_remove("RELATED_IMAGE_PROXY");
        if with_images {
            command
                .env("RELATED_IMAGE_CONTROLLER", "release/controller:v1")
                .env("RELATED_IMAGE_PROXY", "release/proxy:v1");
        }
        Ok(command
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?)
    }

    /// Stops it like the kubelet; its exit code must be 0.
    pub(crate) async fn stop_operator(&mut self) -> Result<()> {
        let mut child = self.operator.take().context("the operator is not running")?;
        // Before the process catches SIGTERM the kernel would kill it, which it does not do to the first process of a container.
        self.eventually("the operator to listen for SIGTERM", async || {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("the operator has ended already, with {status}");
            }
            Ok(catches_sigterm(child.id())?.then_some(()))
        })
        .await?;
        command::run("kill", &["-TERM", &child.id().to_string()])?;
        let status = self
            .eventually("the operator to stop", async || Ok(child.try_wait()?))
            .await?;
        anyhow::ensure!(
            status.success(),
            "the operator ended with {status}: {}",
            command::tail(&self.log(), 12)
        );
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.server.folder().join("operator.log")
    }

    /// Waits; a timeout prints the operator's log.
    pub(crate) async fn eventually<T>(
        &self,
        what: &str,
        probe: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait::eventually(LIMIT, what, probe)
            .await
            .with_context(|| command::tail(&self.log(), 30))
    }

    pub(crate) fn here<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(crate) fn configs(&self) -> Api<MultusServiceConfig> {
        Api::all(self.client.clone())
    }

    pub(crate) async fn config(&self) -> Result<MultusServiceConfig> {
        Ok(self.configs().get(CONFIG_NAME).await?)
    }

    pub(crate) async fn set_spec(&self, spec: Value) -> Result<()> {
        self.configs()
            .patch(
                CONFIG_NAME,
                &PatchParams::default(),
                &Patch::Merge(json!({ "spec": spec })),
            )
            .await?;
        Ok(())
    }

    pub(crate) async fn controller(&self) -> Result<Option<Deployment>> {
        Ok(self.here().get_opt(CONTROLLER).await?)
    }

    pub(crate) async fn proxy(&self) -> Result<Option<DaemonSet>> {
        Ok(self.here().get_opt(PROXY).await?)
    }

    /// Waits for a status of the current generation with these conditions, such as "Available=True/AsExpected".
    pub(crate) async fn until_conditions(&self, want: &[&str]) -> Result<MultusServiceConfig> {
        self.eventually(&format!("conditions {want:?}"), async || {
            let config = self.config().await?;
            let conditions = conditions(&config);
            let current = config
                .status
                .as_ref()
                .and_then(|status| status.observed_generation)
                == config.metadata.generation;
            if current && want.iter().all(|&want| conditions.iter().any(|is| is == want)) {
                return Ok(Some(config));
            }
            anyhow::bail!("conditions are {conditions:?}, of the current generation: {current}")
        })
        .await
    }

    pub(crate) async fn until_installed(&self) -> Result<MultusServiceConfig> {
        self.until_conditions(&[
            "Available=True/AsExpected",
            "Progressing=False/AsExpected",
            "Degraded=False/AsExpected",
        ])
        .await
    }

    pub(crate) async fn until_config_deleted(&self) -> Result<()> {
        self.eventually("the configuration to be deleted", async || {
            let config = self.configs().get_opt(CONFIG_NAME).await?;
            Ok(config.is_none().then_some(()))
        })
        .await
    }
}

pub(crate) fn conditions(config: &MultusServiceConfig) -> Vec<String> {
    let conditions = config.status.iter().flat_map(|status| &status.conditions);
    conditions
        .map(|condition| format!("{}={}/{}", condition.type_, condition.status, condition.reason))
        .collect()
}

pub(crate) fn message(config: &MultusServiceConfig, type_: &str) -> String {
    let mut conditions = config.status.iter().flat_map(|status| &status.conditions);
    conditions
        .find(|condition| condition.type_ == type_)
        .map(|condition| condition.message.clone())
        .unwrap_or_default()
}

/// A path in the repository.
pub(crate) fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
        .display()
        .to_string()
}
