//! The real CoreDNS as a child of the test process, and DNS queries to it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;
use testbed::apiserver::Apiserver;
use testbed::{ports, tools, wait};

use crate::bed::Child;

/// Time limit for a change to reach a DNS answer: the controller's write, CoreDNS' watch.
const SOON: Duration = Duration::from_secs(20);

/// A running CoreDNS.
pub(crate) struct CoreDns {
    resolver: TokioResolver,
    log: PathBuf,
    _child: Child,
}

impl CoreDns {
    /// Starts it with the kubernetes plugin on this API server, as cluster DNS is configured but without a cache.
    pub(crate) async fn start(server: &Apiserver) -> Result<Self> {
        let say = |line: &str| eprintln!("{line}");
        let program = tokio::task::spawn_blocking(move || tools::ensure(&[&tools::COREDNS], &say))
            .await??
            .main(&tools::COREDNS)?;
        let port = ports::free()?;
        let corefile = server.folder().join("Corefile");
        std::fs::write(&corefile, text(port, &server.kubeconfig()))?;
        let log = server.folder().join("coredns.log");
        let corefile = corefile.to_string_lossy();
        let child = Child::start(&program, ["-conf", &corefile], &log)?;
        Ok(Self {
            resolver: resolver(port)?,
            log,
            _child: child,
        })
    }

    /// The addresses of a name, sorted; none when it does not exist or has none of this family.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Vec<IpAddr>> {
        match self.resolver.lookup(name, kind).await {
            Ok(answer) => {
                let addresses = answer.answers().iter().filter_map(|record| record.data.ip_addr());
                let mut addresses: Vec<_> = addresses.collect();
                addresses.sort_unstable();
                Ok(addresses)
            }
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until A and AAAA of a name together are exactly these addresses.
    pub(crate) async fn answers_until(&self, name: &str, wanted: &[&str]) -> Result<()> {
        let mut want = wanted
            .iter()
            .map(|text| text.parse())
            .collect::<Result<Vec<IpAddr>, _>>()?;
        want.sort_unstable();
        let mut last = Vec::new();
        let found = wait::eventually(SOON, &format!("{name} to be {want:?}"), async || {
            last = self.ask(name, RecordType::A).await?;
            last.extend(self.ask(name, RecordType::AAAA).await?);
            last.sort_unstable();
            Ok((last == want).then_some(()))
        })
        .await;
        found.with_context(|| {
            format!(
                "the answer is {last:?}; {}",
                testbed::command::tail(&self.log, 10)
            )
        })
    }
}

fn text(port: u16, kubeconfig: &Path) -> String {
    format!(
        ".:{port} {{\n  errors\n  kubernetes cluster.local {{\n    kubeconfig {}\n    ttl 0\n  }}\n}}\n",
        kubeconfig.display()
    )
}

fn resolver(port: u16) -> Result<TokioResolver> {
    let mut udp = ConnectionConfig::udp();
    udp.port = port;
    let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
    server.connections = vec![udp];
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    // Every query goes to the server, also one whose last answer was negative.
    builder.options_mut().cache_size = 0;
    builder.options_mut().timeout = Duration::from_secs(2);
    Ok(builder.build()?)
}
