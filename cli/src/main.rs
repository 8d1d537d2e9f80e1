//! `kubectl multus-service`: see the crate `cli`.

use anstream::{AutoStream, ColorChoice};
use api::ObjectName;
use clap::Parser as _;
use cli::args::{Cli, Color, Command, Global, Named, Output};
use cli::connectivity::{self, client, server};
use cli::explain::Explanation;
use cli::facts::{Reader, explain, for_trace, installation, pod_rules};
use cli::must_gather::{self, Folder, gather};
use cli::progress::Progress;
use cli::render::{Outcome, Report};
use cli::situations::Cause;
use cli::trace::Trace;
use cli::{check, completion, connect, status, trace};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Interval of `check --wait`, and pause before a difference is read again.
const PAUSE: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Invalid usage exits with 2 here.
    let Cli { command, global } = Cli::parse_from(arguments(std::env::args_os()));
    match run(command, &global).await {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(Outcome::NoAccess.code())
        }
    }
}

/// Called as `gather`, by `oc adm must-gather`, it is `must-gather` into the folder that `oc` copies.
fn arguments(mut given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let program = given.next().unwrap_or_default();
    let is_gather = Path::new(&program)
        .file_name()
        .is_some_and(|name| name == "gather");
    let gather = is_gather.then_some(["must-gather", "--dest-dir=/must-gather"]);
    let gather = gather.into_iter().flatten().map(OsString::from);
    std::iter::once(program).chain(gather).chain(given).collect()
}

async fn run(command: Command, global: &Global) -> anyhow::Result<Outcome> {
    match &command {
        Command::Completion { shell } => return print(&completion::script(*shell), global),
        Command::Complete { words } => return print(&completion::candidates(words), global),
        Command::ConnectivityServer { name } => {
            server::serve(name, connectivity::SERVER_PORT).await?;
            return Ok(Outcome::Well);
        }
        Command::ConnectivityClient { plan } => return connectivity_client(plan, global).await,
        _ => {}
    }
    let (client, namespace) = connect::connect(global).await?;
    let reader = Reader::new(client, global.request_timeout);
    let key = |named: &Named| {
        let namespace = named.namespace.clone().unwrap_or_else(|| namespace.clone());
        ObjectName::new(namespace, &named.name)
    };
    match command {
        Command::Explain { service, from } => {
            let (service, from) = (key(&service), from.as_ref().map(key));
            let read = || explain(&reader, &service, from.as_ref());
            let explained = async || cli::explain::explain(&read().await, &service);
            let differs = |explanation: &Explanation| explanation.cause() == Some(Cause::RulesDiffer);
            show(&compared(explained, differs).await, global)
        }
        Command::Trace { pod, destination } => {
            let pod = key(&pod);
            let read = || for_trace(&reader, &pod, destination.namespace(&pod.namespace));
            let traced = async || trace::trace(&read().await, &pod, &destination);
            show(&compared(traced, Trace::differs).await, global)
        }
        Command::Rules { pod } => show(&reading(pod_rules(&reader, &key(&pod))).await, global),
        Command::Status => {
            let facts = reading(installation(&reader, &namespace)).await;
            show(&status::status(&facts), global)
        }
        Command::Check { wait } => show(&checked(&reader, &namespace, wait).await, global),
        Command::MustGather {
            dest_dir,
            since,
            since_time,
            max_size,
        } => {
            let folder = Folder::create(&dest_dir, max_size * 1024 * 1024)?;
            let options = must_gather::Options { since, since_time };
            let version = env!("CARGO_PKG_VERSION");
            let gathered = reading(Box::pin(gather(&reader, &namespace, &options, folder, version))).await?;
            show(&gathered, global)
        }
        Command::ConnectivityTest {
            cleanup: true,
            older_than,
            ..
        } => {
            let progress = Progress::new();
            let (deleted, failed) = connectivity::cleanup(&reader, older_than, &progress).await?;
            drop(progress);
            let lines = deleted.iter().map(|name| format!("namespace {name} deleted\n"));
            print(&lines.collect::<String>(), global)?;
            match failed.as_slice() {
                [] => Ok(Outcome::Well),
                failed => anyhow::bail!(failed.join("\n")),
            }
        }
        Command::ConnectivityTest {
            networks,
            nodes,
            image,
            timeout,
            ..
        } => {
            let options = connectivity::Options {
                networks: networks.iter().map(key).collect(),
                nodes,
                image,
                timeout,
            };
            let progress = Progress::new();
            let test = Box::pin(connectivity::test(&reader, &namespace, &options, &progress)).await;
            drop(progress);
            show(&test?, global)
        }
        Command::Completion { .. }
        | Command::Complete { .. }
        | Command::ConnectivityServer { .. }
        | Command::ConnectivityClient { .. } => Ok(Outcome::Well),
    }
}

/// Prints a line per check for `connectivity-test`. With a failed check the client keeps running: its rules can still be read.
async fn connectivity_client(plan: &client::Plan, global: &Global) -> anyhow::Result<Outcome> {
    let mut outcome = Ok(Outcome::Well);
    let mut has_failed = false;
    client::run(plan, |result| {
        has_failed |= result.problem.is_some();
        let line = serde_json::to_string(&result).map_err(Into::into);
        if let Err(error) = line.and_then(|line| print(&format!("{line}\n"), global)) {
            outcome = Err(error);
        }
    })
    .await;
    print(&format!("{}\n", connectivity::END), global)?;
    if has_failed {
        std::future::pending::<()>().await;
    }
    outcome
}

/// Repeats the checks until there are no problems, or until the timeout. Problems are printed to standard error meanwhile.
async fn checked(reader: &Reader, namespace: &str, wait: Option<Duration>) -> check::Check {
    let end = Instant::now() + wait.unwrap_or_default();
    let progress = Progress::on_terminal("reading from the API server");
    let mut shown = String::new();
    loop {
        let check = check::check(&installation(reader, namespace).await);
        if check.is_done() || Instant::now() >= end {
            return check;
        }
        let first = check
            .broken()
            .next()
            .map_or("it is not installed", |line| &line.says);
        if first != shown {
            progress.say(&format!("waiting: {first}"));
            first.clone_into(&mut shown);
        }
        sleep(PAUSE).await;
    }
}

/// Reads, and once more if the rules in force differ from the plan: slices are read before the rules, and a change between the two is no
/// difference.
async fn compared<T>(read: impl AsyncFn() -> T, differs: impl Fn(&T) -> bool) -> T {
    let first = reading(read()).await;
    if !differs(&first) {
        return first;
    }
    sleep(PAUSE).await;
    reading(read()).await
}

/// Shows on a terminal that the program reads, which may take seconds in a large cluster.
async fn reading<T>(facts: impl Future<Output = T>) -> T {
    let _spinner = Progress::on_terminal("reading from the API server");
    Box::pin(facts).await
}

fn show(report: &impl Report, global: &Global) -> anyhow::Result<Outcome> {
    let text = match global.output {
        Output::Text => report.text(),
        Output::Json => serde_json::to_string_pretty(&report.value())? + "\n",
        Output::Yaml => serde_saphyr::to_string(&report.value())?,
    };
    print(&text, global)?;
    Ok(report.outcome())
}

fn print(text: &str, global: &Global) -> anyhow::Result<Outcome> {
    let choice = match global.color {
        Color::Auto => AutoStream::choice(&io::stdout()),
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    };
    let written = AutoStream::new(io::stdout(), choice).write_all(text.as_bytes());
    match written {
        // The reader, such as `head`, has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::Well),
        written => written.map(|()| Outcome::Well).map_err(Into::into),
    }
}
