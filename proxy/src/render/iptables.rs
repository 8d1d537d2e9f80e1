//! PodRules in the words of `iptables-restore`.
//!
//! Pure. Two tables of each family hold chains of ours:
//!
//! ```text
//! filter  OUTPUT, FORWARD    ─► MSP-VIPS      one rule per VIP: what still has a VIP as destination here was not translated
//!                               MSP-REFUSE    TCP reset, else ICMP port unreachable
//! nat     OUTPUT, PREROUTING ─► MSP-SERVICES  one rule per VIP, protocol and port
//!                               MSP-SVC-…     one rule per endpoint, each as likely as the other
//! ```
//!
//! The refusal is in filter because nat chains do not run at all while no rule of the namespace uses connection tracking.

use api::names::CHAIN_PREFIX;
use rules::{Family, ObjectName, PodRules, Port, PortRules};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// Rules of each chain, in order, without the `-A CHAIN`.
pub type Chains = BTreeMap<String, Vec<String>>;

/// A table that has chains of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Where flows are refused.
    Filter,
    /// Where flows are translated.
    Nat,
}

impl Table {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }

    /// Where the kernel enters our chains: the built-in chain, and the rule in it.
    pub fn jumps(self) -> [(&'static str, String); 2] {
        match self {
            // Not for established flows: every packet of the pod would walk all VIPs.
            Self::Filter => ["OUTPUT", "FORWARD"].map(|hook| {
                (
                    hook,
                    format!("-m conntrack ! --ctstate RELATED,ESTABLISHED -j {}", vips_chain()),
                )
            }),
            Self::Nat => ["OUTPUT", "PREROUTING"].map(|hook| (hook, format!("-j {}", services_chain()))),
        }
    }
}

fn vips_chain() -> String {
    format!("{CHAIN_PREFIX}VIPS")
}

fn refuse_chain() -> String {
    format!("{CHAIN_PREFIX}REFUSE")
}

fn services_chain() -> String {
    format!("{CHAIN_PREFIX}SERVICES")
}

/// Our chains of the filter table, refusing the VIPs of `family`.
pub fn filter(vips: &BTreeSet<IpAddr>, family: Family) -> Chains {
    let of_family = vips.iter().filter(|vip| Family::of(**vip) == family);
    let refused = of_family.map(|vip| format!("-d {} -j {}", host(*vip), refuse_chain()));
    let unreachable = match family {
        Family::V4 => "icmp-port-unreachable",
        Family::V6 => "icmp6-port-unreachable",
    };
    let refuse = vec![
        "-p tcp -j REJECT --reject-with tcp-reset".to_owned(),
        format!("-j REJECT --reject-with {unreachable}"),
    ];
    Chains::from([(vips_chain(), refused.collect()), (refuse_chain(), refuse)])
}

/// Our chains of the nat table, translating flows to the VIPs of `family`.
pub fn nat(rules: &PodRules, family: Family) -> Chains {
    let (mut chains, mut dispatch) = (Chains::new(), Vec::new());
    for (vip, (vip_rules, source)) in rules.vips(family) {
        // Without a source the flow would leave by another interface: it stays refused.
        let served = vip_rules
            .ports
            .iter()
            .filter(|(_, rules)| source.is_some() && !rules.endpoints.is_empty());
        for (port, port_rules) in served {
            let chain = service_chain(&vip_rules.service, *port);
            dispatch.push(dispatch_rule(
                vip,
                *port,
                &vip_rules.service,
                &port_rules.name,
                &chain,
            ));
            chains.insert(chain, balance(*port, port_rules));
        }
    }
    chains.insert(services_chain(), dispatch);
    chains
}

fn dispatch_rule(vip: IpAddr, port: Port, service: &ObjectName, name: &str, chain: &str) -> String {
    let Port { protocol, number } = port;
    let separator = if name.is_empty() { "" } else { ":" };
    format!(
        "-d {} -p {protocol} -m {protocol} --dport {number} -m comment --comment \"{service}{separator}{name}\" -j {chain}",
        host(vip)
    )
}

/// Each endpoint gets what the ones before it left: 1/n, then 1/(n-1) of the rest, ...
fn balance(port: Port, rules: &PortRules) -> Vec<String> {
    let PortRules { name: _, endpoints } = rules;
    let count = endpoints.len();
    let rule = |(i, endpoint): (usize, &SocketAddr)| match count - i {
        1 => format!("-p {} -j DNAT --to-destination {endpoint}", port.protocol),
        left => format!(
            "-p {} -m statistic --mode random --probability {} -j DNAT --to-destination {endpoint}",
            port.protocol,
            one_in(left)
        ),
    };
    endpoints.iter().enumerate().map(rule).collect()
}

/// `1/n` with the ten digits that iptables reads.
fn one_in(n: usize) -> String {
    let ten_digits = 10_000_000_000_u64;
    format!(
        "0.{:010}",
        ten_digits / u64::try_from(n.max(2)).unwrap_or(u64::MAX)
    )
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}/32"),
        IpAddr::V6(address) => format!("{address}/128"),
    }
}

/// A chain name has at most 28 characters, so a Service port is named by 80 bits of a hash of it.
fn service_chain(service: &ObjectName, port: Port) -> String {
    let hash = Sha256::digest(format!("{service} {} {}", port.protocol, port.number));
    let mut name = format!("{CHAIN_PREFIX}SVC-");
    for byte in &hash[..10] {
        write!(name, "{byte:02x}").expect("writing to a String cannot fail");
    }
    name
}

/// What is to be done to one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Chains to create or replace.
    pub set: Chains,
    /// Chains to delete.
    pub delete: BTreeSet<String>,
    /// Rules to put first in built-in chains.
    pub jumps: Vec<(&'static str, String)>,
}

impl Change {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.delete.is_empty() && self.jumps.is_empty()
    }

    /// The input of `iptables-restore --noflush` that does it, in one transaction.
    ///
    /// A `:CHAIN` line creates the chain or empties it; nobody sees it empty.
    pub fn text(&self, table: Table) -> String {
        let Self { set, delete, jumps } = self;
        let mut text = format!("*{}\n", table.name());
        for chain in set.keys().chain(delete) {
            text.extend([":", chain, " - [0:0]\n"]);
        }
        for (chain, rules) in set {
            for rule in rules {
                text.extend(["-A ", chain, " ", rule, "\n"]);
            }
        }
        for (hook, rule) in jumps {
            text.extend(["-I ", hook, " 1 ", rule, "\n"]);
        }
        for chain in delete {
            text.extend(["-X ", chain, "\n"]);
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// From what is known to be there to what is wanted; a chain whose content is not known (`None`) is replaced.
pub fn change(held: &BTreeMap<String, Option<Vec<String>>>, wanted: Chains) -> Change {
    let delete = held
        .keys()
        .filter(|chain| !wanted.contains_key(*chain))
        .cloned()
        .collect();
    let differs =
        |chain: &String, rules: &Vec<String>| held.get(chain).and_then(Option::as_ref) != Some(rules);
    let set = wanted
        .into_iter()
        .filter(|(chain, rules)| differs(chain, rules))
        .collect();
    Change {
        set,
        delete,
        jumps: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
