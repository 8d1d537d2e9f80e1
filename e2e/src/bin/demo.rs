//! `make demo`: a Service answering over a second network, shown step by step.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use e2e::demo::{Narrator, checks, install, scenario};
use testbed::cluster;
use testbed::tools;

/// Starts a real two-node cluster, installs the operator and shows a Service answering over a second network
///
/// Runs as root. Takes about two minutes once everything is built. Leaves the cluster running; `make demo-down` removes it.
/// Exit code 0 means that every claim was proved.
#[derive(Parser)]
#[command(name = "demo")]
struct Args {}

fn main() -> ExitCode {
    Args::parse();
    let (narrator, started) = (Narrator::default(), Instant::now());
    match run(&narrator).and_then(|()| conclude(&narrator, started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            narrator.say(&format!(
                "\nNOT PROVED: {error:#}\n\n\
                 The cluster is left as it is. To look closer, as root:\n\
                 \u{20} cargo run -q -p testbed --bin cluster -- status\n\
                 \u{20} cargo run -q -p testbed --bin cluster -- logs\n\
                 \u{20} cargo run -q -p testbed --bin cluster -- kubectl -- describe msc cluster\n\
                 To begin again from nothing: make demo-down demo"
            ));
            ExitCode::FAILURE
        }
    }
}

fn run(narrator: &Narrator) -> Result<()> {
    narrator.say(
        "A pod can have a second network interface, from Multus: a fast NIC, a storage network, a telco network.\n\
         A Kubernetes Service knows only the first one, eth0. This demo shows a Service on the second one, net1,\n\
         on a real two-node cluster, and proves it by what the servers and the wire see.",
    );

    narrator.step("A Kubernetes cluster of two nodes");
    cluster::up(&cluster::UpOptions::default(), &|line| narrator.say(line))?;
    narrator.kubectl(&["get", "nodes", "-o", "wide"])?;

    narrator.step("The operator");
    install::operator(narrator)?;

    narrator.step("One object installs the rest");
    narrator.say(
        "The operator now waits for a MultusServiceConfig named cluster. For it, it deploys a controller, which writes\n\
         EndpointSlices with the pods' addresses on the second network, and on each node a proxy, which programs routes\n\
         and rules inside the pods.",
    );
    install::config(narrator)?;

    narrator.step("Two web servers and a client on a second network");
    scenario::apply(narrator)?;

    narrator.step("The endpoints are the addresses on net1");
    checks::slices_hold_second_network_addresses(narrator)?;
    narrator.step("The Service answers, over net1");
    checks::both_servers_answer_over_net1(narrator)?;
    narrator.step("Nothing takes the way over eth0");
    checks::no_packet_takes_eth0(narrator)?;
    narrator.step("Readiness is followed");
    checks::readiness_is_followed(narrator)?;
    narrator.step("Other Services are left alone");
    checks::an_ordinary_service_is_untouched(narrator)
}

fn conclude(narrator: &Narrator, started: Instant) -> Result<()> {
    narrator.step("Your turn");
    let claims = narrator.proofs().join("\n - ");
    let kubectl = tools::ensure(&[&tools::KUBECTL], &|_| {})?;
    narrator.say(&format!(
        "Every claim held, after {} s in all:\n - {claims}\n\n\
         The cluster keeps running. Talk to it, as root, with\n\
         \u{20} export KUBECONFIG={} PATH=$PATH:{}\n\n\
         Things to try:\n\
         \u{20} kubectl -n demo get endpointslices --watch &\n\
         \u{20} kubectl -n demo scale deployment/web --replicas=1\n\
         \u{20} kubectl -n demo exec client -- curl -sS http://web:81/     # rejected at once, not a timeout\n\
         \u{20} kubectl -n demo describe service web\n\
         \u{20} kubectl -n demo label service web service.kubernetes.io/service-proxy-name-   # kube-proxy takes it back\n\
         \u{20} kubectl explain msc.spec\n\
         \u{20} kubectl delete msc cluster     # removes every rule, then the operands; curl fails from here on\n\n\
         `make demo` shows it all again. `make demo-down` removes every trace.",
        started.elapsed().as_secs(),
        cluster::kubeconfig()?.display(),
        kubectl.dir(&tools::KUBECTL)?.display(),
    ));
    Ok(())
}
