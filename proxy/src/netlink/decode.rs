//! Guard of decoders of other crates: their panics become errors.
//!
//! netlink-packet-netfilter 0.4 assumes that the attribute within `NFTA_*_DATA` is well formed (`NlaBuffer::new` rather than `new_checked`)
//! and panics otherwise. A kernel does not list such a message; if one did, only that listing must fail.

use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `decode` on a message of the kernel. It must not leave inconsistent state behind.
pub(crate) fn guarded<T, E: Display>(decode: impl FnOnce() -> Result<T, E>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(decoded) => decoded.map_err(|error| io::Error::other(error.to_string())),
        Err(_) => Err(io::Error::other("the kernel listed a malformed message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NetlinkMessage;
    use netlink_packet_netfilter::NetfilterMessage;

    /// `fuzz_messages_of_nftables` found it: the key of an element is an attribute of 17,432 bytes in 24.
    const MALFORMED: &str = "bc0000000c0a020006000000ac4cb68002000006110001006d756c7475732d70726f78790000000010000200737469636b792d363030730084000300200001001c00010018440100ac1e000a06000000005000000a0100031f900000200001001c00010018000100ac1e000a11000000003500000a01000314e90000200001001c00010018000100ac1e000a06000000005000000a0100041f900000200001001c00010018000100ac1e000a11000000003500000a01000414e90000";

    #[test]
    fn a_malformed_message_of_the_kernel_is_an_error() {
        let message = testbed::fuzz::from_hex(MALFORMED).remove(0);
        let error = guarded(|| NetlinkMessage::<NetfilterMessage>::deserialize(&message)).unwrap_err();
        assert_eq!(error.to_string(), "the kernel listed a malformed message");
    }
}
