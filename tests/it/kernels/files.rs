//! Virtual folders and uploads: what a kernel sees of the host, and what it must not reach.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value as Json, json};

use crate::support::docker::{docker, image};
use crate::support::{Agent, Bed, Kernel, kernel, new_id};

const ASSERTION: &str = "builtins.AssertionError";

async fn tiny_with(agent: &Agent, mounts: Json) -> Result<Json, crate::support::RemoteError> {
    let mut config = kernel::config(&image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    config["mounts"] = mounts;
    agent.call("create_kernel", json!([new_id(), config])).await
}

#[tokio::test]
async fn a_virtual_folder_is_mounted_for_writing() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let folder = bed.folders().join("local/5e884898da28");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("in.txt"), "from the folder").unwrap();
    let created = tiny_with(&agent, json!([["my data", "local", "5e884898da28"]])).await.expect("create");
    let container = created["container_id"].as_str().unwrap();
    let script = "cat '/home/work/my data/in.txt'; echo back >'/home/work/my data/out.txt'";
    assert_eq!(docker(&["exec", container, "/bin/sh", "-c", script]).await, "from the folder");
    assert_eq!(fs::read_to_string(folder.join("out.txt")).unwrap(), "back\n");
}

#[tokio::test]
async fn folders_that_are_not_there_or_lead_elsewhere_are_refused() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let host = bed.folders().join("local");
    fs::create_dir_all(host.join("good")).unwrap();
    fs::create_dir_all(bed.outside().join("secret")).unwrap();
    fs::write(host.join("file"), "not a folder").unwrap();
    symlink(bed.outside().join("secret"), host.join("link")).unwrap();
    let cases = [
        ["name", "local", "missing"],
        ["name", "missing", "good"],
        ["name", "local", "file"],
        ["name", "local", "link"],
        ["name", "local", "../../secret"],
        ["name", "local", ".."],
        ["name", "..", "secret"],
        ["name", "local", ""],
        ["name", "", "good"],
        ["../name", "local", "good"],
        ["a/b", "local", "good"],
        ["..", "local", "good"],
        ["", "local", "good"],
    ];
    for case in cases {
        let error = tiny_with(&agent, json!([case])).await.expect_err(&format!("{case:?} was mounted"));
        assert_eq!(error.name, ASSERTION, "{case:?}: {error:?}");
        assert!(bed.scratch_dirs().is_empty(), "{case:?} left its directory");
    }
    let mut left: Vec<String> =
        fs::read_dir(&host).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["file", "good", "link"], "a missing folder was made");
    assert!(!bed.folders().join("missing").exists());
}

async fn uploaded(bed: &Bed, kernel: &Kernel, name: &str, data: &[u8]) {
    let answer = kernel.upload(name, data).await;
    assert_eq!(answer, Ok(rmpv::Value::Nil), "{name}");
    assert_eq!(fs::read(bed.home(&kernel.id).join(name)).unwrap(), data, "{name}");
}

#[tokio::test]
async fn uploads_land_in_the_scratch_directory() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let every: Vec<u8> = (0..=255).collect();
    uploaded(&bed, &kernel, "main.py", b"print(1)\n").await;
    uploaded(&bed, &kernel, "a/b/c.bin", &every).await;
    uploaded(&bed, &kernel, "ünï cödé ☃", b"").await;
    uploaded(&bed, &kernel, "a/big", &every.repeat(20_000)).await;
    uploaded(&bed, &kernel, "main.py", b"2").await;
    let seen =
        docker(&["exec", kernel.container(), "/bin/sh", "-c", "cat main.py; echo; wc -c <a/big"]).await;
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["2", "5120000"]);
    let error = kernel.upload("a", b"x").await.expect_err("a directory was overwritten");
    assert!(["builtins.AssertionError", "builtins.RuntimeError"].contains(&error.name.as_str()), "{error:?}");
}

#[tokio::test]
async fn uploads_never_leave_the_scratch_directory() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let scratch = bed.home(&kernel.id);
    let outside = bed.outside().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    // What a user can plant from within.
    symlink(&outside, scratch.join("dir-link")).unwrap();
    symlink(outside.join("file"), scratch.join("file-link")).unwrap();
    symlink(outside.join("new"), scratch.join("dangling")).unwrap();
    symlink("../../..", scratch.join("up")).unwrap();
    let absolute = outside.join("absolute").display().to_string();
    let names = [
        "../escaped",
        "a/../../escaped",
        "dir-link/file",
        "dir-link/new",
        "file-link",
        "dangling",
        "up/escaped",
        &absolute,
        "..",
        "",
        "nul\0",
        // Not out of it, but below what is mounted there.
        ".config/environ.txt",
    ];
    for name in names {
        let error = kernel.upload(name, b"escaped").await.expect_err(&format!("{name:?} was taken"));
        assert_eq!(error.name, ASSERTION, "{name:?}: {error:?}");
    }
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["file"]);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
    assert!(!bed.scratch().join("escaped").exists() && !bed.outside().join("escaped").exists());
}

/// A destroy deletes what the kernel wrote, and nothing that its links lead to.
#[tokio::test]
async fn deleting_the_scratch_directory_follows_no_links() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let outside = bed.outside().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept").unwrap();
    symlink(&outside, bed.home(&kernel.id).join("link")).unwrap();
    kernel.destroy().await;
    let scratch = bed.scratch().join(&kernel.id);
    crate::support::until("the removal of the scratch directory", crate::support::secs(5), async || {
        (!scratch.exists()).then_some(())
    })
    .await;
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept");
}
