//! What any file of the Linux kernel's and any answer of a Redis must not do, for the fuzzer and for `tests/decoders.rs`: each
//! function panics where they do it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what each of these is for")]

pub use super::store::fuzz::redis;
use super::{cgroup, membership, netdev};

/// A file of `/proc` or of a control group, taken for each kind of them.
pub fn system_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let id = "5d2f";
    let groups = membership::parse_membership(&text, id);
    let _ = groups.v1_of("memory");
    for path in groups.v1.iter().map(|(_, path)| path).chain(&groups.v2) {
        assert!(
            !path.split('/').any(|part| part == ".." || part.is_empty()),
            "{path:?} leads out of its mount"
        );
        assert!(
            path.rsplit('/').next().is_some_and(|name| name.contains(id)),
            "{path:?} is another container's"
        );
    }
    let _ = netdev::parse_netdev(&text);
    let _ = (cgroup::parse_number(&text), cgroup::parse_v1_cpu_ns(&text), cgroup::parse_v2_cpu_ns(&text));
    let _ = (cgroup::parse_v1_io(&text), cgroup::parse_v2_io(&text));
}
