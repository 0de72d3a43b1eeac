//! The real binary on a machine of each cloud, with Sentry and DogStatsD beside it: `tests/peers/cloud.py` plays them in a
//! network namespace of the test's own, where the clouds' address and DogStatsD's port are free.

use std::path::Path;

use tempfile::TempDir;

use crate::support::process::Process;
use crate::support::{docker, new_id, secs, until};

/// What makes a machine one of the cloud's: the text of its firmware, and its DHCP leases.
struct Marks {
    cloud: &'static str,
    bios: &'static str,
    leases: &'static str,
}

/// Inside the namespaces: the marks, the servers, a start that fails, and one that serves.
const SCRIPT: &str = r#"
ip link set lo up
ip address add 169.254.169.254/32 dev lo
mount -t tmpfs tmpfs /sys/devices/virtual
mkdir -p /sys/devices/virtual/dmi/id
printf '%s\n' "$BIOS" >/sys/devices/virtual/dmi/id/bios_version
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/dhcp
printf '%s\n' "$LEASES" >/var/lib/dhcp/dhclient.eth0.leases
printf '127.0.0.1 localhost\n169.254.169.254 metadata.google.internal\n' >"$DIR/hosts"
mount --bind "$DIR/hosts" /etc/hosts
"$PYTHON" "$CLOUD_PY" "$CLOUD" "$DIR" &
until [ -e "$DIR/ready" ]; do sleep 0.02; done
mkdir "$DIR/scratch"
sentry='http://publickey@127.0.0.1:9000/42'
if "$AGENT" --scratch-root "$DIR/scratch" --namespace "$NAME" --agent-port 9000 --raven-uri "$sentry"; then exit 9; fi
exec "$AGENT" dev --instance-id "i-$NAME" --scratch-root "$DIR/scratch" \
    --raven-uri "$sentry" --datadog-api-key key --datadog-app-key key
"#;

/// Such a machine while it runs; with it goes the network of its agent, which is killed.
struct Cloud {
    process: Process,
    /// The agent's instance id.
    instance: String,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.process.kill();
        docker::remove_network(&docker::own_network("dev", &self.instance));
    }
}

impl Marks {
    fn start(&self, dir: &TempDir) -> Cloud {
        let venv = std::env::var("BACKENDAI_TEST_VENV").expect("scripts/test makes BACKENDAI_TEST_VENV");
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let python = path(&Path::new(&venv).join("bin/python"));
        let cloud_py = path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/cloud.py"));
        let (dir, name) = (dir.path(), format!("it-{}", &new_id()[..8]));
        let env = [
            ("BIOS", self.bios),
            ("LEASES", self.leases),
            ("CLOUD", self.cloud),
            ("DIR", &path(dir)),
            ("NAME", &name),
            ("PYTHON", &python),
            ("CLOUD_PY", &cloud_py),
            ("AGENT", env!("CARGO_BIN_EXE_backendai-agent")),
        ];
        let command = ["unshare", "--net", "--mount", "sh", "-ec", SCRIPT].map(str::to_owned);
        let process = Process::spawn("the machine", &command, &env, &dir.join("log")).talkative();
        Cloud { process, instance: format!("i-{name}") }
    }
}

/// Waits until a line of this file holds all of `words`, and gives it.
async fn line(file: &Path, words: &[&str]) -> String {
    until(&format!("{words:?} in {}", file.display()), secs(15), async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
    })
    .await
}

async fn is_known(marks: Marks, identity: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let machine = marks.start(&dir);
    let file = |name: &str| dir.path().join(name);
    line(&file("log"), &[&["this machine is known"], identity].concat()).await;

    // The start that failed has been reported before its process ended, to the project that the address names.
    line(&file("log"), &["In another terminal:"]).await;
    line(&file("sentry"), &["POST /api/42/", "sentry_key=publickey"]).await;
    let report = line(&file("sentry"), &["giving up", "9000"]).await;
    assert!(report.contains("\"release\":\"backendai-agent@"), "{report}");

    // An agent with both keys sends its gauges as they are, and no key with them.
    line(&file("statsd"), &["backendai.agent.kernels:0|g"]).await;
    let sent = std::fs::read_to_string(file("statsd")).unwrap();
    assert!(sent.lines().all(|line| line.starts_with("backendai.agent.")), "{sent}");
    assert!(sent.lines().count() >= 10, "{sent}");
    drop(machine);
}

#[tokio::test]
async fn a_machine_of_amazon_s() {
    let marks = Marks { cloud: "amazon", bios: "4.2.amazon", leases: "" };
    is_known(marks, &["instance=i-0amazon ", "ip=10.1.2.3", "t2.medium", "amazon/ap-northeast-2"]).await;
}

#[tokio::test]
async fn a_machine_of_google_s() {
    let marks = Marks { cloud: "google", bios: "Google", leases: "" };
    is_known(marks, &["instance=4711 ", "ip=10.1.2.3", "n1-standard-1", "google/asia-east1"]).await;
}

#[tokio::test]
async fn a_machine_of_azure_s() {
    let marks = Marks { cloud: "azure", bios: "090007", leases: "option unknown-245 a8:3f:81:10;" };
    is_known(marks, &["instance=7a1c0c80-azure ", "ip=10.1.2.3", "Standard_D2", "azure/koreacentral"]).await;
}
