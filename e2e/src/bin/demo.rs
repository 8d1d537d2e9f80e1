//! `make demo`: a Service answering over a second network, shown step by step.

use anyhow::Result;
use clap::Parser;
use e2e::cluster;
use e2e::demo::{Narrator, install, proof, scenario};

/// Starts a real two-node cluster, installs the operator and shows a Service answering over a second network
///
/// Runs as root. Takes about two minutes once everything is built. Leaves the cluster running; `make demo-down` removes it.
#[derive(Parser)]
#[command(name = "demo")]
struct Args {}

fn main() -> Result<()> {
    Args::parse();
    let narrator = Narrator::default();
    introduce(&narrator);

    narrator.step("A Kubernetes cluster of two nodes");
    cluster::up(&cluster::UpOptions::default(), &|line| narrator.say(line))?;
    narrator.kubectl(&["get", "nodes", "-o", "wide"])?;

    narrator.step("The operator");
    install::operator(&narrator)?;

    narrator.step("One object installs the rest");
    narrator.say("The operator deploys a controller (it writes EndpointSlices) and a proxy on each node (it programs routes and rules inside the pods).");
    install::config(&narrator)?;

    narrator.step("Two web servers and a client on a second network");
    scenario::apply(&narrator)?;

    narrator.step("The endpoints are the addresses on net1");
    proof::slices_hold_second_network_addresses(&narrator)?;
    narrator.step("The Service answers, over net1");
    proof::both_servers_answer_over_net1(&narrator)?;
    narrator.step("Nothing takes the way over eth0");
    proof::no_packet_takes_eth0(&narrator)?;
    narrator.step("Readiness is followed");
    proof::readiness_is_followed(&narrator)?;
    narrator.step("Other Services are left alone");
    proof::an_ordinary_service_is_untouched(&narrator)?;

    conclude(&narrator)
}

fn introduce(narrator: &Narrator) {
    narrator.say(
        "A pod can have a second network interface, from Multus: a fast NIC, a storage network, a telco network.\n\
         A Kubernetes Service knows only the first one. This demo shows a Service on the second one.",
    );
}

fn conclude(narrator: &Narrator) -> Result<()> {
    narrator.step("Your turn");
    let kubeconfig = cluster::kubeconfig()?;
    narrator.say(&format!(
        "All {} claims held. The cluster keeps running; talk to it with\n\
         \u{20} export KUBECONFIG={}\n\
         Things to try:\n\
         \u{20} kubectl -n demo scale deployment/web --replicas=1\n\
         \u{20} kubectl -n demo get endpointslices -o wide --watch\n\
         \u{20} kubectl -n demo label service web service.kubernetes.io/service-proxy-name-   (kube-proxy takes it back)\n\
         \u{20} kubectl -n demo describe service web\n\
         \u{20} kubectl explain msc.spec\n\
         Remove every trace of it with: make demo-down",
        narrator.proofs(),
        kubeconfig.display(),
    ));
    Ok(())
}
