//! Kernel memory that the proxy causes in other namespaces while it waits for changes.
//!
//! If any process on the machine subscribes to `NFNLGRP_NFTABLES`, the kernel builds an 8 KiB message for each object of every nftables
//! transaction, in every namespace, and keeps all of them until the transaction ends (`nf_tables_setelem_notify`).

use super::fake_node::{Driver, FakeRuntime, object, uid, until};
use super::matrix::{BackendKind, for_every_backend};
use super::objects::Service;
use super::testbed::Testbed;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

for_every_backend![nft_set_of_another_process_costs_no_additional_kernel_memory];

const ELEMENTS: usize = 60_000;

/// Other processes may subscribe for a while, such as `nft monitor`.
const ATTEMPTS: usize = 5;
const TIMEOUT: Duration = Duration::from_mins(4);

fn nft_set_of_another_process_costs_no_additional_kernel_memory(kind: BackendKind) {
    let (mut testbed, runtime) = (Testbed::new(), FakeRuntime::new());
    let (client, unserved) = (testbed.pod(7), testbed.pod(9));
    let object = object(&client);
    runtime.set_sandbox(uid(&object), &client.netns);
    let web = Service::new("web", 10).ready(&[2]);
    let driver = Driver::start(&runtime, kind, &[&web], &[&object]);
    until("ready", || driver.is_ready());
    assert!(
        client.state().contains("172.30.0.10"),
        "{kind:?}: nothing is served"
    );

    let file = tempfile::NamedTempFile::new().unwrap();
    let elements: Vec<_> = (1..=ELEMENTS).map(|n| n.to_string()).collect();
    let set = format!(
        "table ip large\ndelete table ip large\nadd table ip large\nadd set ip large s {{ type mark ; }}\nadd element ip large s {{ {} }}\n",
        elements.join(", ")
    );
    fs::write(file.path(), set).unwrap();
    let load = format!("nft -f {}", file.path().display());
    for attempt in 1..=ATTEMPTS {
        let other_listeners = wait_for_no_other_listener();
        let grown = slab_growth_during(|| unserved.sh(&load));
        let own: Vec<_> = listeners().into_iter().filter(is_own).collect();
        println!(
            "{kind:?}: {grown} objects of 8 KiB, listeners: own {own:?}, other_listeners {other_listeners:?}"
        );
        assert!(
            own.is_empty(),
            "{kind:?}: this process listens to nftables: {grown} objects of 8 KiB"
        );
        if grown < ELEMENTS / 4 {
            return;
        }
        // Another process may have subscribed meanwhile.
        assert!(
            attempt < ATTEMPTS,
            "{kind:?}: {ELEMENTS} elements cost {grown} objects of 8 KiB"
        );
    }
}

/// Waits until no other process subscribes; returns the remaining subscribers.
fn wait_for_no_other_listener() -> Vec<String> {
    let began = Instant::now();
    loop {
        let mut other_listeners = listeners();
        other_listeners.retain(|inode| !is_own(inode));
        if other_listeners.is_empty() || began.elapsed() > TIMEOUT {
            return other_listeners;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Peak growth of the kernel's 8 KiB slabs, in objects.
fn slab_growth_during<T>(work: impl FnOnce() -> T) -> usize {
    let is_done = AtomicBool::new(false);
    let before = objects_of_8k();
    std::thread::scope(|scope| {
        let peak = scope.spawn(|| {
            let mut peak = before;
            while !is_done.load(Ordering::Relaxed) {
                peak = peak.max(objects_of_8k());
                std::thread::sleep(Duration::from_millis(4));
            }
            peak
        });
        work();
        is_done.store(true, Ordering::Relaxed);
        peak.join().unwrap() - before
    })
}

/// Number of objects in `kmalloc-8k` and similar slabs.
fn objects_of_8k() -> usize {
    let slabs = fs::read_to_string("/proc/slabinfo").unwrap();
    let of = |line: &str| {
        let mut columns = line.split_whitespace();
        let name = columns.next()?;
        let is_one = name.starts_with("kmalloc") && name.ends_with("-8k");
        is_one.then(|| columns.next()?.parse::<usize>().ok())?
    };
    slabs.lines().filter_map(of).sum()
}

/// Inodes of sockets subscribed to `NFNLGRP_NFTABLES`.
fn listeners() -> Vec<String> {
    const NETLINK_NETFILTER: &str = "12";
    const MASK: u32 = 1 << (7 - 1);
    let sockets = fs::read_to_string("/proc/net/netlink").unwrap();
    let listens = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let groups = u32::from_str_radix(columns.get(3)?, 16).ok()?;
        (columns[1] == NETLINK_NETFILTER && groups & MASK != 0)
            .then(|| columns.last().map(ToString::to_string))?
    };
    sockets.lines().filter_map(listens).collect()
}

fn is_own(inode: &String) -> bool {
    let link = PathBuf::from(format!("socket:[{inode}]"));
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    descriptors
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .any(|target| target == link)
}
