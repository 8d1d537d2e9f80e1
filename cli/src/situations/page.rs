//! docs/user/troubleshooting.md, generated from the table.
//!
//! Pure.

use super::{SITUATIONS, Situation};
use crate::chain::Topic;
use std::fmt::Write as _;

const HEAD: &str = "<!-- Written by `make manifests` from cli/src/situations/table.rs. -->
# Troubleshooting

`kubectl multus-service explain service/NAME --from pod/CLIENT` follows the chain from the Service's label to the client's rules, stops
at the first link that is broken, and says what to do ([how to install and use it](plugin.md)). This page lists every situation that it
names: what is seen, what `explain` says, what to do. CAPITALS and words in braces stand for what differs from case to case. The causes
are the values of `cause` with `-o json`.
";

pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for topic in Topic::ALL {
        let rows = SITUATIONS.iter().filter(|situation| situation.topic == topic);
        let rows: String = rows.map(row).collect();
        if !rows.is_empty() {
            let _ = write!(
                page,
                "\n## {}\n\n| symptom | cause | `explain` says | remedy |\n|---|---|---|---|\n{rows}",
                title(topic)
            );
        }
    }
    page
}

fn row(situation: &Situation) -> String {
    let Situation {
        cause,
        symptom,
        says,
        remedy,
        command,
        ..
    } = situation;
    let command = if command.is_empty() {
        String::new()
    } else {
        format!(": `{}`", command.replace('|', "\\|"))
    };
    format!(
        "| {symptom} | {} | {says} | {remedy}{command} |\n",
        cause.as_str()
    )
}

fn title(topic: Topic) -> &'static str {
    match topic {
        Topic::Service => "The Service",
        Topic::Label => "Its label",
        Topic::Annotation => "Its annotations and spec",
        Topic::Network => "The network",
        Topic::Installation => "The installation",
        Topic::Controller => "The controller",
        Topic::Pods => "The pods that should answer",
        Topic::Slices => "EndpointSlices",
        Topic::Client => "The client",
        Topic::Proxy => "The proxy on the client's node",
        Topic::Rules => "The client's rules",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_up_to_date() {
        let committed = include_str!("../../../docs/user/troubleshooting.md");
        assert!(
            committed == page(),
            "docs/user/troubleshooting.md is out of date: run `make manifests`"
        );
    }
}
