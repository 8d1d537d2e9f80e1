//! Selection of the lines of `iptables -S` that are parsed: the rest of a table belongs to the pod's owner and can have any length.
//!
//! Pure.

use crate::backend::iptables::render::Table;
use api::names::CHAIN_PREFIX;
use std::collections::BTreeSet;

/// Selects what is read of our chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    Kept,
    /// Names of chains only.
    Dropped,
}

/// Selects our chains, each of our jumps once, and the first rule of each chain with a jump, which shows whether foreign rules precede it.
pub(super) fn ours(table: Table, rules: Rules) -> impl FnMut(&str) -> bool {
    let jumps = table.jumps(true);
    let mut hooks: BTreeSet<_> = jumps.iter().map(|(hook, _)| *hook).collect();
    let mut jumps: BTreeSet<_> = jumps
        .iter()
        .map(|(hook, rule)| format!("-A {hook} {rule}"))
        .collect();
    move |line| {
        let Some((command, chain)) = of_chain(line) else {
            return false;
        };
        if chain.starts_with(CHAIN_PREFIX) {
            return command == "-N" || rules == Rules::Kept;
        }
        let is_first = command == "-A" && hooks.remove(chain);
        jumps.remove(line) || is_first
    }
}

/// Returns true when a line is about a chain whose name begins with `prefix`, or jumps to one.
pub(super) fn concerns(line: &str, prefix: &str) -> bool {
    of_chain(line).is_some_and(|(_, chain)| chain.starts_with(prefix) || leads_to(line, prefix))
}

/// Returns true when a rule jumps to a chain whose name begins with `prefix`.
pub(super) fn leads_to(rule: &str, prefix: &str) -> bool {
    let mut words = rule.split(' ').skip_while(|word| !matches!(*word, "-j" | "-g"));
    words.nth(1).is_some_and(|target| target.starts_with(prefix))
}

/// Splits a line into the name of its chain and the rest.
fn of_chain(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    let command = words.next().filter(|command| matches!(*command, "-A" | "-N"))?;
    Some((command, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> String {
        let jumps = Table::Nat.jumps(true);
        let jumps = jumps.iter().flat_map(|(hook, rule)| {
            [
                "-d 192.0.2.1/32 -j OWNERS",
                "-d 192.0.2.2/32 -j OWNERS",
                rule,
                rule,
            ]
            .map(|rule| format!("-A {hook} {rule}"))
        });
        let others = [
            "-P OUTPUT ACCEPT",
            "-N MSP-SERVICES",
            "-N OWNERS",
            "-A MSP-SERVICES -d 172.30.0.10/32 -p tcp -j MSP-SVC-1",
            "-A OWNERS -p tcp -g MSP-SVC-1",
        ];
        others
            .map(str::to_owned)
            .into_iter()
            .chain(jumps)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn kept(keep: impl FnMut(&&str) -> bool) -> Vec<String> {
        listing().lines().filter(keep).map(str::to_owned).collect()
    }

    #[test]
    fn only_the_first_foreign_rule_of_a_hook_is_kept() {
        let jumps = Table::Nat.jumps(true);
        let mut want: Vec<_> = [
            "-N MSP-SERVICES",
            "-A MSP-SERVICES -d 172.30.0.10/32 -p tcp -j MSP-SVC-1",
        ]
        .map(str::to_owned)
        .into();
        for (hook, rule) in &jumps {
            want.extend([
                format!("-A {hook} -d 192.0.2.1/32 -j OWNERS"),
                format!("-A {hook} {rule}"),
            ]);
        }
        let mut keep = ours(Table::Nat, Rules::Kept);
        assert_eq!(kept(|line| keep(line)), want);
        want.remove(1);
        let mut keep = ours(Table::Nat, Rules::Dropped);
        assert_eq!(kept(|line| keep(line)), want);
    }

    #[test]
    fn a_jump_concerns_its_target_chain() {
        let concerning = kept(|line| concerns(line, CHAIN_PREFIX));
        assert!(
            concerning.iter().all(|line| line.contains(CHAIN_PREFIX)),
            "{concerning:?}"
        );
        assert!(concerning.contains(&"-A OWNERS -p tcp -g MSP-SVC-1".to_owned()));
        assert!(
            !kept(|line| concerns(line, "MULTUS-S"))
                .iter()
                .any(|line| line.contains("OWNERS"))
        );
    }
}
