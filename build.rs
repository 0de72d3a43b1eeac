//! Tells the compiler what `--version` says: in a release build the commit and its day, too; and the linker, in which order functions
//! lie.
//!
//! The day is the commit's, or `SOURCE_DATE_EPOCH`'s, and never the clock's, so that the same sources make the same bytes.
//! A debug build has the plain version, so that tests are not built anew for each commit; so has one without git.

use std::process::Command;

/// What `scripts/order-functions` writes.
const FUNCTIONS: &str = "config/functions.ld";

/// The flags of `.cargo/config.toml`.
const FLAGS: &str = "-Csymbol-mangling-version=v0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let version = env!("CARGO_PKG_VERSION");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = if is_release { commit() } else { None };
    let version = commit.map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"));
    println!("cargo:rustc-env=BACKENDAI_VERSION={version}");
    order_functions(is_release);
}

/// Only with the flags of `.cargo/config.toml`: without them the names of functions are others, and whoever sets their own may have a linker
/// that reads no scripts.
fn order_functions(is_release: bool) {
    println!("cargo:rerun-if-changed={FUNCTIONS}");
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if is_release && flags == FLAGS && std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{here}/{FUNCTIONS}");
    }
}

/// Such as `commit 1f3a9c2b7d04, 2026-11-28`.
fn commit() -> Option<String> {
    // Sources that lie in somebody else's checkout have no commit of ours.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if std::fs::canonicalize(top).ok()? != std::env::current_dir().ok()? {
        return None;
    }
    // What a commit and a change of the sources move; in a worktree `.git` is elsewhere.
    for moved in ["HEAD", "logs/HEAD", "index"] {
        println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", moved])?);
    }
    for sources in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={sources}");
    }
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.toml", "Cargo.lock"])?;
    let mark = if changed.is_empty() { "" } else { " and changes" };
    let day = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => day(&seconds)?,
        Err(_) => git(&["show", "--no-patch", "--format=%cd", "--date=format-local:%Y-%m-%d", "HEAD"])?,
    };
    Some(format!("commit {hash}{mark}, {day}"))
}

/// The day in UTC of seconds since 1970.
fn day(seconds: &str) -> Option<String> {
    said(Command::new("date").args(["-u", "-d", &format!("@{}", seconds.trim()), "+%Y-%m-%d"]))
}

/// What git says; `None` without it.
fn git(args: &[&str]) -> Option<String> {
    said(Command::new("git").args(args).env("TZ", "UTC"))
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
