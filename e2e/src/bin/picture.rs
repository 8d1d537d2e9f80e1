//! `make picture`: the dashboard with real data, as `docs/images/dashboard.svg`.

use anyhow::Result;
use clap::Parser;
use e2e::demo::{installed, scenario};
use e2e::picture;
use e2e::prometheus::{Pace, Prometheus};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testbed::cluster;

const STEP: Duration = Duration::from_secs(5);

/// Starts the test cluster with the product and a Prometheus, lets pods and endpoints come and go, and draws the dashboard
#[derive(Parser)]
#[command(name = "picture")]
struct Args {
    /// Minutes of churn, after which the picture is drawn.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// File of the picture, an SVG.
    #[arg(long)]
    into: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    installed()?;
    let prometheus = Prometheus::start(&Pace::DENSE)?;
    let time = Duration::from_secs(60 * args.minutes);
    churn(time)?;
    let drawn = picture::draw(&olm::dashboard::rows(), &mut |query| {
        // Grafana takes the window from the time of the picture.
        let query = query.replace("[5m]", "[1m]");
        picture::samples(&prometheus.query_range(&query, time, STEP * 2)?)
    })?;
    std::fs::write(&args.into, drawn)?;
    prometheus.remove()
}

/// The endpoints of a Service: few, many, others, few, none.
fn churn(time: Duration) -> Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/soak/churn.yaml");
    let manifest = manifest.display().to_string();
    let kubectl = |args: &[&str]| cluster::kubectl(&[&["-n", scenario::NAMESPACE], args].concat());
    let began = Instant::now();
    while began.elapsed() < time {
        kubectl(&["apply", "-f", &manifest])?;
        for replicas in [
            "--replicas=2",
            "--replicas=8",
            "--replicas=3",
            "--replicas=12",
            "--replicas=1",
        ] {
            kubectl(&["scale", "deployment/churn", replicas])?;
            kubectl(&["rollout", "status", "deployment/churn", "--timeout=120s"])?;
            std::thread::sleep(STEP);
        }
        kubectl(&["delete", "pods", "-l", "app=churn", "--grace-period=1"])?;
        kubectl(&["delete", "-f", &manifest, "--timeout=120s"])?;
    }
    Ok(())
}
