//! Reference for the CPU time of an idle driver: the generation of each namespace's ruleset, asked with as few system calls as possible.
//!
//! Runs beside the driver, so that both meet the same machine: its clock speed, its caches and its other load.

use super::many_pods::ManyPods;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sched::CloneFlags;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN`
const GET_GENERATION: u16 = 10 << 8 | 16;

/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;

/// Starts `rounds` rounds through all namespaces, one per `interval`; returns the CPU time of all of them.
pub(crate) fn start(pods: &ManyPods, rounds: u32, interval: Duration) -> JoinHandle<Duration> {
    let paths: Vec<_> = pods
        .pods()
        .map(|(pod, _)| Path::new("/run/netns").join(&pod.netns))
        .collect();
    std::thread::spawn(move || {
        for _ in 0..rounds {
            std::thread::sleep(interval);
            round(&paths);
        }
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.try_into().unwrap()
    })
}

fn round(paths: &[PathBuf]) {
    for path in paths {
        let netns = File::open(path).unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "a thread of its own, which ends in the last namespace"
        )]
        nix::sched::setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        ask();
    }
}

/// Sends the question and reads the answer.
fn ask() {
    let mut question = Vec::new();
    question.extend(20u32.to_ne_bytes());
    question.extend(GET_GENERATION.to_ne_bytes());
    question.extend(REQUEST.to_ne_bytes());
    // Sequence number and port of the header, then family, version and resource id of netfilter.
    question.resize(20, 0);
    let socket = Socket::new(NETLINK_NETFILTER).unwrap();
    assert_eq!(socket.send(&question, 0).unwrap(), question.len());
    let mut answer = Vec::with_capacity(4096);
    assert!(socket.recv(&mut answer, 0).unwrap() > question.len());
    // `NFT_MSG_NEWGEN`
    assert_eq!(answer[4..6], (10u16 << 8 | 15).to_ne_bytes());
}
