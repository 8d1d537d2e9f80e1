//! The command line.

use crate::connectivity::client::Plan;
use crate::trace::Destination;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use jiff::SignedDuration;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Inspect and troubleshoot Services on secondary networks.
///
/// Reads from the API server with the permissions of the user. Only connectivity-test changes the cluster: it creates a namespace, and
/// deletes it. Objects that the user may not read are reported as such.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "kubectl-multus_service",
    bin_name = "kubectl multus-service",
    version,
    max_term_width = 120,
    after_long_help = "Exit codes: 0 no problem found; 1 problem found; 2 invalid usage, or the requested object could not be read.\n\n\
Examples:\n  \
kubectl multus-service explain service/web\n  \
kubectl multus-service explain service/web --from pod/client -n shop\n  \
kubectl multus-service trace pod/client web:http\n  \
kubectl multus-service rules pod/client\n  \
kubectl multus-service status\n  \
kubectl multus-service check --wait\n  \
kubectl multus-service must-gather"
)]
pub struct Cli {
    /// Command
    #[command(subcommand)]
    pub command: Command,

    /// Options of every command
    #[command(flatten)]
    pub global: Global,
}

/// Arguments of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Namespace scope for this request [default: the namespace of the context]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,

    /// Path to the kubeconfig file [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,

    /// Name of the kubeconfig context to use [default: the current context]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Username to impersonate for the operation
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,

    /// Timeout of a single server request, such as 5s or 1m
    #[arg(long, global = true, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub request_timeout: Duration,

    /// Output format
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t
    )]
    pub output: Output,

    /// When to use colors; $NO_COLOR is respected
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

/// Output format.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Human-readable text
    #[default]
    Text,
    /// One JSON object
    Json,
    /// One YAML document
    Yaml,
}

/// Use of colors.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// On a terminal, unless $NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Check a Service step by step, from its label to the rules of a client, up to the first failed step
    #[command(
        after_help = "Examples:\n  kubectl multus-service explain service/web\n  kubectl multus-service explain web -n shop --from pod/client\n  kubectl multus-service explain service/web -o json | jq -r .cause"
    )]
    Explain {
        /// The Service: service/NAME or NAME
        #[arg(value_name = "service/NAME", value_parser = service)]
        service: Named,
        /// Also check this client: pod/NAME, or pod/NAMESPACE/NAME of another namespace
        #[arg(long, value_name = "pod/NAME", value_parser = pod)]
        from: Option<Named>,
    },
    /// Trace a packet of a pod: route, source address, verdict, endpoints
    #[command(
        after_help = "Examples:\n  kubectl multus-service trace pod/client web:http\n  kubectl multus-service trace pod/client service/dns:53/udp\n  kubectl multus-service trace pod/client '[fd00:96::10]:80' -o yaml"
    )]
    Trace {
        /// The client: pod/NAME or NAME
        #[arg(value_name = "pod/NAME", value_parser = pod)]
        pod: Named,
        /// Destination of the packet: an address or a Service (NAME, service/NAME, NAME.NAMESPACE), a port by number or name, a protocol
        #[arg(value_name = "DESTINATION:PORT[/PROTOCOL]", value_parser = Destination::from_str)]
        destination: Destination,
    },
    /// Show the rules and routes in force in the network namespace of a pod, as nft syntax
    ///
    /// The proxy on the pod's node reads them from the kernel: this needs the permission to create pods/exec in the namespace of the operator.
    #[command(
        after_help = "Examples:\n  kubectl multus-service rules pod/client\n  kubectl multus-service rules client -n shop -o json"
    )]
    Rules {
        /// The pod: pod/NAME or NAME
        #[arg(value_name = "pod/NAME", value_parser = pod)]
        pod: Named,
    },
    /// Show the status of the installation, problems first
    #[command(
        after_help = "Examples:\n  kubectl multus-service status\n  kubectl multus-service status -o yaml"
    )]
    Status,
    /// Check the requirements before installation, and the installation afterwards
    #[command(
        after_help = "Examples:\n  kubectl multus-service check\n  kubectl multus-service check --wait=5m   # until the installation has no problems"
    )]
    Check {
        /// Repeat the checks until the installation has no problems, up to this timeout
        #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "10m", value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Test networks with temporary pods on every node: TCP, UDP, balance, large payloads, rejection, DNS
    ///
    /// For each network it creates a namespace with a copy of the network-attachment-definition, two servers, three Services, and a client on
    /// every node with a proxy. It deletes the namespace afterwards, also after Ctrl-C. This needs the permission to create and delete
    /// namespaces.
    #[command(
        after_help = "Examples:\n  kubectl multus-service connectivity-test\n  kubectl multus-service connectivity-test macvlan1 storage/vlan7 --node=node-1 --node=node-2\n  kubectl multus-service connectivity-test --cleanup   # after a test that was killed"
    )]
    ConnectivityTest {
        /// Networks: NAME, or NAMESPACE/NAME of another namespace [default: all of the namespace]
        #[arg(value_name = "NETWORK", value_parser = network)]
        networks: Vec<Named>,
        /// Node with a client; may be given more than once [default: all ready nodes with a proxy]
        #[arg(long = "node", value_name = "NAME")]
        nodes: Vec<String>,
        /// Image of the pods [default: that of the operator's release]
        #[arg(long, value_name = "IMAGE")]
        image: Option<String>,
        /// Timeout of each of the two phases of a network: servers, clients
        #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
        timeout: Duration,
        /// Only delete the namespaces of tests that were killed
        #[arg(long, conflicts_with_all = ["networks", "nodes", "image", "timeout"])]
        cleanup: bool,
        /// Age from which --cleanup deletes a namespace: younger ones may be of tests that run
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration, requires = "cleanup")]
        older_than: Duration,
    },
    /// The program of a server pod of connectivity-test
    #[command(hide = true)]
    ConnectivityServer {
        /// Name that it answers with
        #[arg(long)]
        name: String,
    },
    /// The program of a client pod of connectivity-test
    #[command(hide = true)]
    ConnectivityClient {
        /// Destinations
        #[command(flatten)]
        plan: Plan,
    },
    /// Write what a bug report needs into a folder: objects, Events, logs and rules
    ///
    /// It reads no Secret and no ConfigMap, and removes values of environment variables and unknown annotations. Look at
    /// network-attachment-definitions, which are whole, before you publish it.
    #[command(
        after_help = "Examples:\n  kubectl multus-service must-gather\n  kubectl multus-service must-gather --dest-dir=/tmp/report --since=2h\n  kubectl multus-service must-gather --since-time=2026-11-30T08:00:00Z"
    )]
    MustGather {
        /// Folder; it is created, or is empty
        #[arg(long, value_name = "FOLDER", default_value = "must-gather", overrides_with = "dest_dir", value_hint = ValueHint::DirPath)]
        dest_dir: PathBuf,
        /// Only log lines that are newer than this age, such as 5m or 2h0m0s [default: all]
        #[arg(long, env = "MUST_GATHER_SINCE", value_name = "DURATION", value_parser = duration)]
        since: Option<Duration>,
        /// Only log lines after this time, such as 2026-11-30T08:00:00Z; it has priority over --since [default: all]
        #[arg(long, env = "MUST_GATHER_SINCE_TIME", value_name = "TIME", value_parser = time)]
        since_time: Option<jiff::Timestamp>,
        /// Size of all files in MiB; what is larger is left out and listed in not-gathered.txt
        #[arg(long, value_name = "MIB", default_value_t = MAX_MIB, value_parser = clap::value_parser!(u64).range(1..=65536))]
        max_size: u64,
    },
    /// Print a shell completion script
    #[command(
        after_help = "Examples:\n  source <(kubectl multus-service completion bash)              # for kubectl-multus_service\n  kubectl multus-service completion kubectl > ~/bin/kubectl_complete-multus_service; chmod +x ~/bin/kubectl_complete-multus_service"
    )]
    Completion {
        /// The shell, or kubectl for the program kubectl_complete-multus_service
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Complete a command line for kubectl
    #[command(name = "__complete", hide = true)]
    Complete {
        /// Words of the command line
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// Default of `must-gather --max-size`.
const MAX_MIB: u64 = 256;

/// Target of a completion script.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
    /// kubectl, in any shell: `kubectl_complete-multus_service`
    Kubectl,
}

/// An object by name, in the default namespace unless another is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

fn service(text: &str) -> Result<Named, String> {
    named(text, &["service", "services", "svc"])
}

/// `NAME` or `NAMESPACE/NAME`, as in annotations.
fn network(text: &str) -> Result<Named, String> {
    named(&format!("network/{text}"), &["network"])
        .map_err(|_| format!("{text:?} is not NAME or NAMESPACE/NAME"))
}

fn pod(text: &str) -> Result<Named, String> {
    named(text, &["pod", "pods", "po"])
}

fn named(text: &str, kinds: &[&str]) -> Result<Named, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, name) = match parts.as_slice() {
        [name] => (None, *name),
        [kind, name] if kinds.contains(kind) => (None, *name),
        [kind, namespace, name] if kinds.contains(kind) => (Some(*namespace), *name),
        _ => return Err(format!("write {}/NAME", kinds[0])),
    };
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c))
    };
    if !is_name(name) || !namespace.is_none_or(is_name) {
        return Err(format!("{text:?} is not the name of an object"));
    }
    Ok(Named {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    })
}

fn time(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no time: write for example 2026-11-30T08:00:00Z"))
}

/// Go's durations, such as 2h0m0s, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(Duration::from_secs);
    let duration = seconds
        .ok()
        .or_else(|| Duration::try_from(text.parse::<SignedDuration>().ok()?).ok());
    duration
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("{text:?} is no duration: write for example 30s, 5m or 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use rstest::rstest;

    #[rstest]
    #[case("2026-11-30T08:00:00Z", true)]
    #[case("2026-11-30T08:00:00+01:00", true)]
    #[case("yesterday", false)]
    fn times_are_parsed(#[case] text: &str, #[case] want: bool) {
        assert_eq!(time(text).is_ok(), want);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[rstest]
    #[case("service/web", Some((None, "web")))]
    #[case("web", Some((None, "web")))]
    #[case("svc/web.v2", Some((None, "web.v2")))]
    #[case("service/shop/web", Some((Some("shop"), "web")))]
    #[case("pod/web", None)]
    #[case("service/", None)]
    #[case("a/b/c/d", None)]
    #[case("service/We_b", None)]
    fn a_service_is_named_as_for_kubectl(#[case] text: &str, #[case] want: Option<(Option<&str>, &str)>) {
        let found = service(text).ok();
        let found = found
            .as_ref()
            .map(|named| (named.namespace.as_deref(), named.name.as_str()));
        assert_eq!(found, want);
    }

    #[rstest]
    #[case("5s", Some(5))]
    #[case("90", Some(90))]
    #[case("10m", Some(600))]
    #[case("1h", Some(3600))]
    #[case("2h0m0s", Some(7200))]
    #[case("1m30s", Some(90))]
    #[case("-5m", None)]
    #[case("0", None)]
    #[case("5d", None)]
    #[case("m", None)]
    #[case("99999999999999999999h", None)]
    fn durations_are_parsed(#[case] text: &str, #[case] want: Option<u64>) {
        assert_eq!(duration(text).ok().map(|time| time.as_secs()), want);
    }

    /// The help has an example of every argument, and each example parses.
    #[test]
    fn the_examples_of_the_help_parse() {
        let mut command = Cli::command();
        let mut help = command.render_long_help().to_string();
        for sub in command.get_subcommands_mut() {
            help.push_str(&sub.render_long_help().to_string());
        }
        let examples = help
            .lines()
            .filter_map(|line| line.trim().strip_prefix("kubectl multus-service "));
        let mut count = 0;
        for example in examples.filter(|example| !example.contains('>')) {
            let words = example.split(['|', '#']).next().unwrap().split_whitespace();
            let words = words.map(|word| word.trim_matches('\''));
            let parsed = Cli::try_parse_from(std::iter::once("kubectl-multus_service").chain(words));
            assert!(parsed.is_ok(), "{example}: {parsed:?}");
            count += 1;
        }
        assert!(count >= 12, "{count} examples");
    }
}
