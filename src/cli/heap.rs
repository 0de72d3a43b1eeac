//! What the C library does with memory that the agent has given back.
//!
//! glibc keeps freed memory in heaps that only shrink at their ends, and learns from the first large piece that is freed to serve such pieces
//! from these heaps, too. After a flood of calls whose answers nobody takes, 1.3 GiB stayed with an agent that needed 12 MiB.
//! With a fixed threshold large pieces are mappings of their own, which go back to the system at once. glibc takes it from the
//! environment of a process that begins, and from a call that is not safe; so the agent begins once more under its own id.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// glibc's own names (`mallopt(3)`): from which size on a piece is a mapping, and how many of these there are at most, of the 65,530
/// that Linux allows a process by default.
const THRESHOLD: &str = "MALLOC_MMAP_THRESHOLD_";
const MOST: &str = "MALLOC_MMAP_MAX_";

/// A buffer for what is read of a socket at once is half of it: as mappings of their own, these cost a ping half as much again. What is
/// held of large calls and answers is more.
const BYTES: &str = "65536";
const MAPPINGS: &str = "49152";

/// Begins the process once more, with glibc told, unless its environment tells glibc something already. A system that can't do
/// that, or has another C library, goes on as it is.
pub(super) fn tell() {
    if !cfg!(target_env = "gnu") || std::env::var_os(THRESHOLD).is_some() {
        return;
    }
    let mut args = std::env::args_os();
    let name = args.next();
    let Ok(program) = std::env::current_exe() else { return };
    let mut again = Command::new(program);
    again.arg0(name.as_deref().unwrap_or(OsStr::new("backendai-agent"))).args(args);
    // Comes back only when it failed, and there is no log yet to say so.
    let _ = again.env(THRESHOLD, BYTES).env(MOST, MAPPINGS).exec();
}
