//! The manager's own RPC client, `aiozmq.rpc` from PyPI, through `tests/peers/drive.py`.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::support::docker::image;
use crate::support::{Bed, secs};

#[tokio::test]
async fn the_managers_own_client_is_served() {
    let venv = std::env::var("BACKENDAI_TEST_VENV").expect(
        "BACKENDAI_TEST_VENV names a Python environment with aiozmq and msgpack; scripts/test makes it",
    );
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/drive.py");
    let mut python = Command::new(Path::new(&venv).join("bin/python"));
    python.arg(script).arg("--agent").arg(format!("tcp://{}", agent.rpc().address()));
    python.arg("--kernel").arg(image::python()).arg("--tiny").arg(image::tiny());
    python.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(secs(60), python.output()).await.expect("drive.py hangs").unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    println!("{said}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "drive.py: {}", ended.status);
    let passed = said.lines().filter(|line| line.starts_with("PASS ")).count();
    assert!(passed >= 25 && !said.contains("FAIL "), "{passed} checks passed");
}
