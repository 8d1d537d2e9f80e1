//! The iptables backend: the programs of the image, in the legacy and in the nft variant.
//!
//! Writes: chains `MSP-…` and the jumps to them, by `iptables-restore --noflush`, one transaction per table. Reads by `iptables -S`,
//! only when it is not known what a namespace holds. Nothing is run when nothing differs.

use crate::backend::{Backend, Error, Held};
use crate::netns::{self, Netns};
use crate::render::iptables::{Chains, Change, Table, change, filter, nat};
use ::iptables::IPTables;
use api::names::CHAIN_PREFIX;
use rules::{Family, PodRules};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// The lock file of iptables-legacy. Each namespace is its own lock: pods do not wait for each other, or for kube-proxy on the
/// node, and no writable directory is needed.
pub const LOCK_FILE: (&str, &str) = ("XTABLES_LOCKFILE", "/proc/self/ns/net");

/// Which kernel interface the iptables programs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// nf_tables.
    Nft,
    /// ip_tables, gone from newer kernels.
    Legacy,
}

impl Variant {
    /// Both, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    fn program(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::V4) => "iptables-nft",
            (Self::Nft, Family::V6) => "ip6tables-nft",
            (Self::Legacy, Family::V4) => "iptables-legacy",
            (Self::Legacy, Family::V6) => "ip6tables-legacy",
        }
    }

    fn restore(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::V4) => "iptables-nft-restore",
            (Self::Nft, Family::V6) => "ip6tables-nft-restore",
            (Self::Legacy, Family::V4) => "iptables-legacy-restore",
            (Self::Legacy, Family::V6) => "ip6tables-legacy-restore",
        }
    }
}

/// iptables in one variant.
#[derive(Clone, Copy, Debug)]
pub struct Iptables {
    variant: Variant,
}

/// What a table holds of ours.
struct Found {
    chains: BTreeMap<String, Option<Vec<String>>>,
    missing_jumps: Vec<(&'static str, String)>,
}

impl Iptables {
    /// Uses this variant, whether or not it works.
    pub fn new(variant: Variant) -> Self {
        Self { variant }
    }

    /// The first variant that works on this node, tried with the rules of a full Service in a namespace that ends with the trial:
    /// only that shows that the kernel has every module, as pods will use it.
    pub fn probe() -> Result<Self, Error> {
        let mut failures = Vec::new();
        for backend in Variant::ALL.map(Self::new) {
            match Netns::scratch(|| backend.try_out()) {
                Ok(Ok(())) => return Ok(backend),
                Ok(Err(error)) => failures.push(format!("{}: {error}", backend.name())),
                Err(
                    error @ (netns::Error::Enter(_)
                    | netns::Error::Gone { .. }
                    | netns::Error::Open { .. }
                    | netns::Error::Host { .. }),
                ) => {
                    failures.push(format!(
                        "{}: {error}; are CAP_SYS_ADMIN and CAP_NET_ADMIN granted?",
                        backend.name()
                    ));
                }
            }
        }
        Err(Error::None(failures.join("; ")))
    }

    fn try_out(self) -> Result<(), Error> {
        let trial = [
            "-p tcp -m tcp --dport 80 -m comment --comment \"trial\" -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.1.0.2:80",
            "-p udp -j DNAT --to-destination 10.1.0.3:53",
        ];
        let chains = Chains::from([(format!("{CHAIN_PREFIX}TRIAL"), trial.map(str::to_owned).to_vec())]);
        let nat = Change {
            set: chains,
            ..Change::default()
        };
        self.restore(Family::V4, Table::Nat, &nat)?;
        let filter = Change {
            set: filter(&BTreeSet::new(), Family::V4),
            jumps: Table::Filter.jumps().to_vec(),
            ..Change::default()
        };
        self.restore(Family::V4, Table::Filter, &filter)
    }

    fn crate_iptables(self, family: Family) -> IPTables {
        // Built by hand: its constructor runs `iptables --version` and cannot name a variant.
        IPTables {
            cmd: self.variant.program(family),
            has_check: true,
            has_wait: true,
            is_numeric: true,
        }
    }

    /// Brings one table of one family to `wanted`.
    fn sync(self, family: Family, table: Table, held: Held<Chains>, wanted: Chains) -> Result<bool, Error> {
        let found = match held {
            Held::Nothing => Found {
                chains: BTreeMap::new(),
                missing_jumps: table.jumps().to_vec(),
            },
            Held::Exactly(chains) => Found {
                chains: chains
                    .into_iter()
                    .map(|(chain, rules)| (chain, Some(rules)))
                    .collect(),
                missing_jumps: Vec::new(),
            },
            Held::Unknown => self.read(family, table)?,
        };
        let change = Change {
            jumps: found.missing_jumps,
            ..change(&found.chains, wanted)
        };
        if change.is_empty() {
            return Ok(false);
        }
        self.restore(family, table, &change)?;
        Ok(true)
    }

    /// Which chains and jumps of ours are there, by one run of `iptables -S`.
    fn read(self, family: Family, table: Table) -> Result<Found, Error> {
        let nothing = Found {
            chains: BTreeMap::new(),
            missing_jumps: table.jumps().to_vec(),
        };
        if !self.may_hold(family, table) {
            return Ok(nothing);
        }
        let program = self.variant.program(family);
        // Not the crate's list_chains: it takes a failed run for an empty table.
        let output = self.crate_iptables(family).execute(table.name(), "-S");
        let output = output.map_err(|error| Error::Refused {
            program,
            stderr: excerpt(&error.to_string()),
        })?;
        if !output.status.success() {
            return Err(Error::Refused {
                program,
                stderr: excerpt(&String::from_utf8_lossy(&output.stderr)),
            });
        }
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        let ours = |line: &str| {
            line.strip_prefix("-N ")
                .filter(|chain| chain.starts_with(CHAIN_PREFIX))
                .map(str::to_owned)
        };
        let missing = |(hook, rule): &(&'static str, String)| {
            !listing.lines().any(|line| line == format!("-A {hook} {rule}"))
        };
        Ok(Found {
            chains: listing
                .lines()
                .filter_map(ours)
                .map(|chain| (chain, None))
                .collect(),
            missing_jumps: nothing.missing_jumps.into_iter().filter(missing).collect(),
        })
    }

    /// Whether reading a table cannot create it: iptables-legacy makes a table by looking at it, and both variants fail where the
    /// kernel has IPv6 disabled. Of this thread's namespace: `/proc/net` would be that of the process.
    fn may_hold(self, family: Family, table: Table) -> bool {
        let names = match (self.variant, family) {
            (Variant::Nft, Family::V4) => return true,
            (Variant::Nft, Family::V6) => return Path::new("/proc/thread-self/net/if_inet6").exists(),
            (Variant::Legacy, Family::V4) => "/proc/thread-self/net/ip_tables_names",
            (Variant::Legacy, Family::V6) => "/proc/thread-self/net/ip6_tables_names",
        };
        std::fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == table.name()))
    }

    fn restore(self, family: Family, table: Table, change: &Change) -> Result<(), Error> {
        let program = self.variant.restore(family);
        let run = |source| Error::Run { program, source };
        let mut command = Command::new(program);
        command
            .args(["--noflush", "-w", "5"])
            .env(LOCK_FILE.0, LOCK_FILE.1);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(run)?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let written = stdin.write_all(change.text(table).as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(run)?;
        if !output.status.success() {
            // It stops reading at the first error, so what it says matters more than the broken pipe.
            return Err(Error::Refused {
                program,
                stderr: excerpt(&String::from_utf8_lossy(&output.stderr)),
            });
        }
        written.map_err(run)
    }

    /// Removes our jumps and chains from a table of both families, by the crate: rule by rule, whatever state they are in.
    fn remove(self, table: Table) -> Result<(), Error> {
        for family in Family::ALL {
            let found = self.read(family, table)?;
            let iptables = self.crate_iptables(family);
            let refused = |error: Box<dyn std::error::Error>| Error::Refused {
                program: iptables.cmd,
                stderr: excerpt(&error.to_string()),
            };
            if found.chains.is_empty() {
                continue;
            }
            for (hook, rule) in table.jumps() {
                iptables.delete_all(table.name(), hook, &rule).map_err(refused)?;
            }
            // Emptied first: a chain that another refers to cannot be deleted.
            for chain in found.chains.keys() {
                iptables.flush_chain(table.name(), chain).map_err(refused)?;
            }
            for chain in found.chains.keys() {
                iptables.delete_chain(table.name(), chain).map_err(refused)?;
            }
        }
        Ok(())
    }
}

impl Backend for Iptables {
    fn name(&self) -> &'static str {
        match self.variant {
            Variant::Nft => "iptables-nft",
            Variant::Legacy => "iptables-legacy",
        }
    }

    fn refuse(&self, held: &Held<BTreeSet<IpAddr>>, wanted: &BTreeSet<IpAddr>) -> Result<bool, Error> {
        let mut written = false;
        for family in Family::ALL {
            let any = |vips: &BTreeSet<IpAddr>| vips.iter().any(|vip| Family::of(*vip) == family);
            let render = |vips: &BTreeSet<IpAddr>| filter(vips, family);
            if let Some(held) = of_family(held, any, any(wanted), render) {
                written |=
                    self.sync_unless_absent(family, Table::Filter, held, render(wanted), any(wanted))?;
            }
        }
        Ok(written)
    }

    fn translate(&self, held: &Held<PodRules>, wanted: &PodRules) -> Result<bool, Error> {
        let mut written = false;
        for family in Family::ALL {
            let any = |rules: &PodRules| !rules.vips(family).is_empty();
            let render = |rules: &PodRules| nat(rules, family);
            if let Some(held) = of_family(held, any, any(wanted), render) {
                written |= self.sync_unless_absent(family, Table::Nat, held, render(wanted), any(wanted))?;
            }
        }
        Ok(written)
    }

    fn remove_translation(&self) -> Result<(), Error> {
        self.remove(Table::Nat)
    }

    fn remove_refusal(&self) -> Result<(), Error> {
        self.remove(Table::Filter)
    }
}

impl Iptables {
    /// As `sync`; but where nothing is wanted and a look shows nothing of ours, nothing is created.
    fn sync_unless_absent(
        self,
        family: Family,
        table: Table,
        held: Held<Chains>,
        wanted: Chains,
        any_wanted: bool,
    ) -> Result<bool, Error> {
        let absent = !any_wanted && held == Held::Unknown && self.read(family, table)?.chains.is_empty();
        if absent {
            Ok(false)
        } else {
            self.sync(family, table, held, wanted)
        }
    }
}

/// What one family's table is known to hold; `None` when nothing is there and nothing wanted.
///
/// A family without VIPs in what we wrote last may still have the empty chains of an earlier VIP, or none: that has to be read.
fn of_family<T>(
    held: &Held<T>,
    any: impl Fn(&T) -> bool,
    any_wanted: bool,
    render: impl Fn(&T) -> Chains,
) -> Option<Held<Chains>> {
    match held {
        Held::Exactly(rules) if any(rules) => Some(Held::Exactly(render(rules))),
        Held::Exactly(_) => any_wanted.then_some(Held::Unknown),
        Held::Nothing => any_wanted.then_some(Held::Nothing),
        Held::Unknown => Some(Held::Unknown),
    }
}

fn excerpt(text: &str) -> String {
    text.trim().chars().take(500).collect()
}
