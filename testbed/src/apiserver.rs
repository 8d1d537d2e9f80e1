//! A real etcd and kube-apiserver, private to one test binary, ready in seconds.
//!
//! Writes: one temporary folder, and processes that listen on free loopback ports. All of it goes when the
//! [`Apiserver`] is dropped, and also when the test process dies in any way (see `apiserver/keeper.rs`).
//!
//! TLS, Node and RBAC authorizers, NodeRestriction, OwnerReferencesPermissionEnforcement and an audit log are on, as in
//! the cluster of [`crate::cluster`]. There are no nodes and no scheduler: Pods stay as the test writes them.
//!
//! One server for the whole test binary, one namespace per test:
//!
//! ```no_run
//! use testbed::apiserver::Apiserver;
//!
//! #[tokio::test]
//! #[ignore = "needs etcd and kube-apiserver: make test-apiserver"]
//! async fn a_slice_follows_its_pods() -> anyhow::Result<()> {
//!     let server = Apiserver::shared().await?; // starts at the first call
//!     let client = server.client().await?;     // a client belongs to one runtime: make one per test
//!     let namespace = server.namespace("slices").await?; // "slices-1", with a `default` service account
//!     # let _ = (client, namespace);
//!     Ok(())
//! }
//! ```
//!
//! | to | use |
//! |---|---|
//! | be somebody else | [`Apiserver::client_as`]`("alice", &["devs"])` (impersonation) |
//! | be a service account | [`Apiserver::service_account_client`] (its real token, optionally bound to a Pod) |
//! | run a binary | `--kubeconfig` [`Apiserver::kubeconfig`], or [`Apiserver::service_account_kubeconfig`] |
//! | count who wrote what | [`Apiserver::audit_log`]: one JSON `audit.k8s.io/v1` Event per line, level Metadata |
//! | garbage collection, token controllers, Deployments | [`Options::controller_manager`] with an own [`Apiserver::start`] |
//! | have thousands of objects at once | [`Apiserver::store`]: straight into etcd |
//! | take the API away for a while | [`Apiserver::stop_apiserver`], [`Apiserver::start_apiserver`]: etcd and its data stay |
//!
//! Under `cargo nextest` every test is a process of its own and would start its own server: use `cargo test`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::OnceCell;

use crate::pki::{self, Ca, Credentials, Usage};
use crate::tools::{self, Tool, ToolDir};
use crate::wait;
use crate::{audit, command, control_plane, ports};
use process_guard::{Folder, Process};

mod bulk;
mod clients;
mod monitoring;
pub mod process_guard;

const READY: Duration = Duration::from_mins(1);
/// Another program may take a free port between our look and the server's bind.
const ATTEMPTS: usize = 3;

/// Optional parts of a server beyond etcd and kube-apiserver.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Runs kube-controller-manager too.
    pub controller_manager: bool,
    /// Further kube-apiserver flags, such as `--feature-gates=...`.
    pub apiserver_flags: Vec<String>,
    /// Further kube-controller-manager flags, such as `--controllers=*,-node-lifecycle-controller`.
    pub controller_manager_flags: Vec<String>,
}

/// A running apiserver; dropping it stops and removes everything.
// Fields drop in this order: the processes end before their folder goes.
pub struct Apiserver {
    processes: Vec<Process>,
    /// Program and flags of kube-apiserver, to start it again.
    start: (PathBuf, Vec<String>),
    folder: Folder,
    url: String,
    namespaces: AtomicUsize,
    controller_manager: bool,
}

impl Apiserver {
    /// The test binary's common server with default [`Options`], started by the first caller.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Apiserver> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(Options::default())).await
    }

    /// Starts a server and waits until it is ready. Builds the tools when they are not cached.
    pub async fn start(options: Options) -> Result<Self> {
        let tools = tokio::task::spawn_blocking(|| {
            let wanted: [&'static Tool; 3] = [
                &tools::ETCD,
                &tools::KUBE_APISERVER,
                &tools::KUBE_CONTROLLER_MANAGER,
            ];
            tools::ensure(&wanted, &|line| eprintln!("{line}"))
        })
        .await??;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::attempt(&options, &tools).await {
                Ok(server) => return Ok(server),
                Err(error) if format!("{error:#}").contains("address already in use") => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last
            .context("no attempt was made")?
            .context(format!("{ATTEMPTS} attempts found their ports taken")))
    }

    async fn attempt(options: &Options, tools: &ToolDir) -> Result<Self> {
        let folder = Folder::create()?;
        let [etcd, peer, port, manager] = free_ports()?;
        let url = format!("https://127.0.0.1:{port}");
        write_pki(folder.path(), &url)?;
        let mut flags = control_plane::apiserver(&control_plane::Apiserver {
            pki: folder.path(),
            address: "127.0.0.1",
            port,
            etcd,
            service_cidrs: control_plane::SERVICE_CIDRS,
            audit_log: folder.path().join("audit.log"),
        });
        // With 127.0.0.1 as the advertised address no EndpointSlice of default/kubernetes can be valid.
        flags.push("--endpoint-reconciler-type=none".to_owned());
        flags.extend(options.apiserver_flags.iter().cloned());
        let mut server = Self {
            processes: Vec::new(),
            start: (tools.main(&tools::KUBE_APISERVER)?, flags),
            url,
            namespaces: AtomicUsize::new(0),
            controller_manager: options.controller_manager,
            folder,
        };
        server.spawn(
            tools.main(&tools::ETCD)?,
            control_plane::etcd(&server.file("etcd"), etcd, peer),
        )?;
        server.start_apiserver().await?;
        if options.controller_manager {
            // Not before the apiserver is ready: it exits when a bootstrap role is not there yet.
            let mut flags = control_plane::controller_manager(
                server.folder.path(),
                manager,
                control_plane::SERVICE_CIDRS,
            );
            flags.extend(options.controller_manager_flags.iter().cloned());
            server.spawn(tools.main(&tools::KUBE_CONTROLLER_MANAGER)?, flags)?;
            server.wait_controller_manager().await?;
        }
        Ok(server)
    }

    fn spawn(&mut self, program: PathBuf, args: Vec<String>) -> Result<()> {
        let name = program
            .file_name()
            .context("the program has no name")?
            .to_string_lossy()
            .into_owned();
        let log = self.file(&format!("{name}.log"));
        self.processes.push(Process::spawn(name, program, args, log)?);
        Ok(())
    }

    /// Starts kube-apiserver, also again after [`Self::stop_apiserver`], on the same port, and waits until it is ready.
    pub async fn start_apiserver(&mut self) -> Result<()> {
        let (program, flags) = self.start.clone();
        self.spawn(program, flags)?;
        self.wait_ready().await
    }

    /// Kills kube-apiserver. Its clients see broken connections, then rejected ones; what is in etcd stays.
    pub fn stop_apiserver(&mut self) {
        self.processes
            .retain(|process| process.name() != tools::KUBE_APISERVER.name);
    }

    /// Waits until kube-controller-manager listens; without, another program may have taken its port, and it is gone.
    async fn wait_controller_manager(&self) -> Result<()> {
        let name = tools::KUBE_CONTROLLER_MANAGER.name;
        let log = self.file(&format!("{name}.log"));
        self.wait(name, "to listen", async || {
            Ok(std::fs::read_to_string(&log)?.contains("Serving securely"))
        })
        .await
    }

    async fn wait_ready(&self) -> Result<()> {
        let client = self.client().await?;
        self.wait(tools::KUBE_APISERVER.name, "to become ready", async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            client.request_text(request).await?;
            Ok(true)
        })
        .await
    }

    /// Waits for a program, as long as all programs run.
    async fn wait(
        &self,
        program: &str,
        what: &str,
        mut probe: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let what = format!("{program} {what}");
        let waited = wait::eventually(READY, &what, async || {
            if let Some(dead) = self.processes.iter().find(|process| process.has_ended()) {
                return Ok(Some(Err(dead.obituary())));
            }
            Ok(probe().await?.then_some(Ok(())))
        });
        match waited.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(obituary)) => bail!("{obituary}"),
            Err(error) => Err(command::with_tail(&self.file(&format!("{program}.log")), 15)(
                error,
            )),
        }
    }

    /// The admin's kubeconfig file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.file("admin.kubeconfig")
    }

    /// The audit log: a request is in it when its response has been sent.
    pub fn audit_log(&self) -> audit::Log {
        audit::Log::whole(self.file("audit.log"))
    }

    /// The folder with everything above and the logs `etcd.log`, `kube-apiserver.log`; gone with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's URL, `https://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn next_namespace(&self) -> usize {
        self.namespaces.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Identity of OpenShift's Prometheus in its client certificate.
const MONITORING_USER: &str = "system:serviceaccount:openshift-monitoring:prometheus-k8s";

fn write_pki(dir: &Path, url: &str) -> Result<()> {
    let ca = Ca::new("kubernetes-ca")?;
    for (file, content) in control_plane::pki_files(&ca, &[])? {
        std::fs::write(dir.join(file), content)?;
    }
    for (file, user, group) in [
        ("admin.kubeconfig", "admin", Some("system:masters")),
        (
            "controller-manager.kubeconfig",
            "system:kube-controller-manager",
            None,
        ),
    ] {
        let identity = ca.issue(user, group, Usage::Client, &[])?;
        let text = pki::kubeconfig(url, &ca.certificate(), user, &Credentials::Certificate(&identity))?;
        std::fs::write(dir.join(file), text)?;
    }
    let monitoring = ca.issue(MONITORING_USER, None, Usage::Client, &[])?;
    std::fs::write(dir.join("monitoring.crt"), monitoring.certificate)?;
    std::fs::write(dir.join("monitoring.key"), monitoring.key)?;
    Ok(())
}

async fn client_from(kubeconfig: Kubeconfig) -> Result<Client> {
    // A test binary may link more than one TLS provider; the first caller decides for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut free = [0; N];
    for port in &mut free {
        *port = ports::free()?;
    }
    Ok(free)
}
