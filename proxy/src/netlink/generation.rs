//! Generation of the nftables ruleset of a namespace: a number that grows with every transaction of any process.
//!
//! Reads only. It is polled (`NFT_MSG_GETGEN`), not subscribed to: while any process on the machine is a member of `NFNLGRP_NFTABLES`, the
//! kernel builds a message of 8 KiB for each object of every transaction in every namespace (`nf_tables_setelem_notify` and similar).

use crate::netlink::Netlink;
use crate::netlink::netfilter;
use netlink_packet_netfilter::nftables::{GenAttribute, GenMessage, NfTablesMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::cell::Cell;
use std::io;

/// Returns the generation of the calling thread's namespace. `None`: the kernel has no nftables.
pub fn generation() -> Option<u32> {
    let answer = netfilter::socket().ask(&question()).ok()?;
    generation_in(&answer)
}

/// Reads the generation with a socket that is closed at once, so that no namespace is kept alive. The close takes the lock of nftables
/// transactions: it waits for a running one in that namespace.
pub(crate) fn poll() -> io::Result<Option<u32>> {
    let mut netlink = Netlink::open(NETLINK_NETFILTER)?;
    netlink.ask(&question()).map(|answer| generation_in(&answer))
}

fn question() -> NetfilterMessage {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let attributes = Vec::new();
    NetfilterMessage::new(header, NfTablesMessage::GetGen(GenMessage { attributes }))
}

fn generation_in(message: &NetfilterMessage) -> Option<u32> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewGen(GenMessage { attributes, .. })) =
        &message.inner
    else {
        return None;
    };
    attributes.iter().find_map(|attribute| match attribute {
        GenAttribute::Id(id) => Some(*id),
        _ => None,
    })
}

thread_local! {
    /// Transactions of the job of this thread.
    static COMMITS: Cell<u32> = const { Cell::new(0) };
    /// Generation that the next transaction has to find. `None`: any.
    static EXPECTED: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Resets the state before the next job of this thread.
pub(crate) fn begin() {
    COMMITS.set(0);
    EXPECTED.set(None);
}

/// Records a transaction that wrote nftables rules, directly or through a program.
pub(crate) fn committed() {
    COMMITS.set(COMMITS.get().wrapping_add(1));
    EXPECTED.set(EXPECTED.get().map(next));
}

/// Returns true when the job of this thread made a transaction.
pub(crate) fn has_committed() -> bool {
    COMMITS.get() > 0
}

/// Returns the generation after the transactions of this thread's job, if no other process made one meanwhile.
pub(crate) fn own_generation(before: Option<u32>) -> Option<u32> {
    before.map(|before| before.wrapping_add(COMMITS.get()))
}

/// Makes the kernel verify the generation as part of each transaction (`NFNL_BATCH_GENID`), so that it need not be asked before and after.
pub fn expect(generation: Option<u32>) {
    EXPECTED.set(generation);
}

/// Returns the generation that the next transaction has to find, which is that of the last one. `None`: any, also after another process
/// wrote between two transactions of this job.
pub fn expected() -> Option<u32> {
    EXPECTED.get()
}

/// Returns the generation after one more transaction. The kernel skips 0, which matches any in a transaction.
fn next(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_advance_the_expected_generation_which_is_never_zero() {
        begin();
        committed();
        assert_eq!(expected(), None, "nothing was expected");
        expect(Some(u32::MAX - 1));
        let after = [(); 2].map(|()| {
            committed();
            expected()
        });
        assert_eq!(after, [Some(u32::MAX), Some(1)]);
        begin();
        assert_eq!((expected(), has_committed()), (None, false));
    }
}
