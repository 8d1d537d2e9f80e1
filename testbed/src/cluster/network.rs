//! The cluster's networks: one switch in the control plane's namespace, two legs to each node, one link to the machine.
//!
//! ```text
//!   machine        control                       node1, node2
//!   msb-host ───── host ┐
//!   .254                ├─ bridge `nodes` .1 ──── eth0   .11, .12   the nodes and their pods' default network
//!                       │
//!                         bridge `data` ───────── data0  no address  one L2: the master of macvlan attachments
//! ```
//! Writes: network namespaces (mounted below the state directory, not in /run/netns) and [`HOST_LINK`]. All routes but
//! the machine's own to the node network are inside the namespaces. Nothing gets out: the default route ends in
//! `unreachable`, so a connection to the outside fails at once instead of hanging.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::layout::{self, DATA_LINK, Families, HOST_LINK, Machine, Node};
use super::mounts;
use crate::{command, control_plane};

/// True when all namespaces and the machine's link are there.
pub(super) fn is_present() -> Result<bool> {
    let mounted = mounts::below(layout::state())?;
    let namespaces = Machine::ALL
        .iter()
        .all(|machine| mounted.contains(&machine.netns()));
    Ok(namespaces && Path::new("/sys/class/net").join(HOST_LINK).exists())
}

/// Makes the networks. There must be nothing of them: see [`remove`].
pub(super) fn create(families: Families) -> Result<()> {
    for machine in Machine::ALL {
        create_namespace(&machine.netns())?;
    }
    let batch = |machine: Option<Machine>, lines: Vec<String>| {
        let name = machine.map_or_else(|| "the machine".to_owned(), Machine::name);
        run_batch(machine, &lines).with_context(|| format!("cannot set up the network of {name}"))
    };
    batch(None, host_lines(families))?;
    batch(Some(Machine::Control), control_lines(families))?;
    for node in Node::ALL {
        batch(Some(Machine::Node(node)), node_lines(node, families))?;
    }
    Ok(())
}

/// Removes what there is of the networks, whole or half.
pub(super) fn remove() -> Result<()> {
    if Path::new("/sys/class/net").join(HOST_LINK).exists() {
        command::run("ip", &["link", "delete", HOST_LINK])?;
    }
    for path in mounts::below(&layout::state().join("netns"))? {
        mounts::unmount(&path)?;
    }
    Ok(())
}

fn create_namespace(path: &Path) -> Result<()> {
    let dir = path.parent().context("a namespace file has a folder")?;
    fs::create_dir_all(dir)?;
    fs::File::create(path)?;
    command::output(
        Command::new("unshare")
            .arg(format!("--net={}", path.display()))
            .arg("true"),
    )?;
    Ok(())
}

fn run_batch(machine: Option<Machine>, lines: &[String]) -> Result<()> {
    let mut ip = match machine {
        None => Command::new("ip"),
        Some(machine) => {
            let mut nsenter = Command::new("nsenter");
            nsenter
                .arg(format!("--net={}", machine.netns().display()))
                .arg("ip");
            nsenter
        }
    };
    ip.args(["-batch", "-"]).stdin(Stdio::piped());
    command::run_with_input(&mut ip, &(lines.join("\n") + "\n"))?;
    Ok(())
}

fn host_lines(families: Families) -> Vec<String> {
    let netns = Machine::Control.netns();
    let mut lines = vec![
        format!(
            "link add {HOST_LINK} type veth peer name host netns {}",
            netns.display()
        ),
        format!("address add {}/24 dev {HOST_LINK}", layout::HOST),
    ];
    if families == Families::Dual {
        lines.push(format!(
            "address add {}/64 dev {HOST_LINK} nodad",
            layout::HOST_V6
        ));
    }
    lines.push(format!("link set {HOST_LINK} up"));
    lines
}

fn control_lines(families: Families) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        "link add nodes type bridge".to_owned(),
        format!("address add {}/24 dev nodes", layout::CONTROL),
        "link add data type bridge mcast_snooping 0".to_owned(),
        "link set host master nodes up".to_owned(),
    ];
    if families == Families::Dual {
        lines.push(format!("address add {}/64 dev nodes nodad", layout::CONTROL_V6));
    }
    for node in Node::ALL {
        let netns = Machine::Node(node).netns();
        lines.push(format!(
            "link add {node} type veth peer name eth0 netns {}",
            netns.display()
        ));
        lines.push(format!("link set {node} master nodes up"));
        lines.push(format!(
            "link add {node}-data type veth peer name {DATA_LINK} netns {}",
            netns.display()
        ));
        lines.push(format!("link set {node}-data master data up"));
    }
    lines.push("link set nodes up".to_owned());
    lines.push("link set data up".to_owned());
    lines.push("route add unreachable default".to_owned());
    // kube-proxy runs on the nodes: a webhook's Service is reached through one of them.
    let (service_v4, service_v6) = service_networks();
    lines.push(format!("route add {service_v4} via {}", Node::ALL[0].address()));
    lines.extend(Node::ALL.map(|node| format!("route add {} via {}", node.pods(), node.address())));
    if families == Families::Dual {
        lines.push("route add unreachable ::/0".to_owned());
        lines.push(format!(
            "route add {service_v6} via {}",
            Node::ALL[0].address_v6()
        ));
        lines.extend(Node::ALL.map(|node| format!("route add {} via {}", node.pods_v6(), node.address_v6())));
    }
    lines
}

fn node_lines(node: Node, families: Families) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("address add {}/24 dev eth0", node.address()),
        "link set eth0 up".to_owned(),
        format!("link set {DATA_LINK} up"),
        format!("route add default via {}", layout::CONTROL),
        format!("route add {} via {}", node.other().pods(), node.other().address()),
    ];
    if families == Families::Dual {
        lines.extend([
            format!("address add {}/64 dev eth0 nodad", node.address_v6()),
            format!("route add default via {}", layout::CONTROL_V6),
            format!(
                "route add {} via {}",
                node.other().pods_v6(),
                node.other().address_v6()
            ),
        ]);
    }
    lines
}

fn service_networks() -> (&'static str, &'static str) {
    control_plane::SERVICE_CIDRS
        .split_once(',')
        .unwrap_or((control_plane::SERVICE_CIDR_V4, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_gets_one_link_and_no_route_of_its_own() {
        let lines = host_lines(Families::Dual);
        assert!(
            lines
                .iter()
                .all(|line| line.contains(HOST_LINK) && !line.starts_with("route")),
            "{lines:?}"
        );
    }

    #[test]
    fn without_ipv6_no_line_names_an_ipv6_address() {
        let all = [
            host_lines(Families::Ipv4),
            control_lines(Families::Ipv4),
            node_lines(Node::ALL[0], Families::Ipv4),
        ];
        assert!(
            all.iter()
                .flatten()
                .all(|line| !line.contains("fd00") && !line.contains("::")),
            "{all:?}"
        );
    }

    #[test]
    fn each_node_reaches_the_others_pods() {
        let lines = node_lines(Node::ALL[0], Families::Dual);
        assert!(
            lines.contains(&"route add 10.128.2.0/24 via 192.168.213.12".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"route add fd00:128:0:2::/64 via fd00:213::12".to_owned()),
            "{lines:?}"
        );
    }
}
