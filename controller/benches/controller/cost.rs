//! Idle cost and memory of the controller, read from `/proc` and the audit log.

use crate::bed::Controller;
use crate::bed::audit::{own_writes, requests};
use crate::row;
use anyhow::{Context as _, Result};
use std::time::Duration;
use testbed::apiserver::Apiserver;

/// Writes and CPU of an idle minute.
pub(crate) async fn idle(server: &Apiserver, controller: &Controller) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (writes, ticks) = (all_writes(server)?, cpu_ticks(controller.child.pid)?);
    tokio::time::sleep(Duration::from_mins(1)).await;
    let (writes, ticks) = (
        all_writes(server)? - writes,
        cpu_ticks(controller.child.pid)? - ticks,
    );
    // USER_HZ is 100 on every Linux architecture we build for, so a tick in 60 s is 1/60 %.
    let percent = f64::from(u32::try_from(ticks)?) / 60.0;
    row(
        "idle, 60 s",
        &format!("{writes} writes beside the Lease, {percent:.2} % of a core"),
        "budget 0 writes, < 0.2 %",
    );
    Ok(())
}

fn all_writes(server: &Apiserver) -> Result<usize> {
    Ok(own_writes(&requests(server)?).len())
}

/// Resident memory, now and at its peak.
pub(crate) fn memory(controller: &Controller, at: &str, budget: &str) -> Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", controller.child.pid))?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no such field")?.parse::<f64>()? / 1024.0)
    };
    let text = format!("{:.1} MB, peak {:.1} MB", field("VmRSS:")?, field("VmHWM:")?);
    row(&format!("memory (RSS) at {at}"), &text, budget);
    Ok(())
}

/// CPU that a process has used, in seconds. USER_HZ is 100.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    Ok(f64::from(u32::try_from(cpu_ticks(pid)?)?) / 100.0)
}

fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("no stat")?.1;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks = |n: usize| -> Result<u64> { Ok(fields.get(n).context("short stat")?.parse()?) };
    Ok(ticks(11)? + ticks(12)?)
}
