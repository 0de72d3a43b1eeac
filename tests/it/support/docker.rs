//! Docker through its own command, the independent witness of what the agent did.

use std::path::Path;

use serde_json::Value as Json;
use tokio::process::Command;

use super::services::output;
use super::{secs, until};

/// The label by which an agent's containers are found.
pub(crate) const NAMESPACE_LABEL: &str = "ai.backend.namespace";

/// Names of kernel images without `lablup/kernel-`: `scripts/test` builds them.
pub(crate) mod image {
    /// Runs Python with the real runner.
    pub(crate) fn python() -> String {
        named("BACKENDAI_TEST_KERNEL", "python:demo")
    }

    /// The same, with an execution limit of 5 s in its label.
    pub(crate) fn python_t5() -> String {
        named("BACKENDAI_TEST_KERNEL_T5", "python:demo-t5")
    }

    /// Sleeps for ever; starts fast.
    pub(crate) fn tiny() -> String {
        named("BACKENDAI_TEST_TINY", "tiny:demo")
    }

    fn named(variable: &str, default: &str) -> String {
        std::env::var(variable).unwrap_or_else(|_| default.to_owned())
    }
}

/// A kernel image of a test's own, removed with it.
pub(crate) struct TestImage {
    lang: String,
}

impl TestImage {
    /// The tiny image with these labels, `name=value`, on top.
    pub(crate) async fn labelled(labels: &[&str]) -> Self {
        let image = Self { lang: format!("tiny-{}:demo", &super::new_id()[..8]) };
        image.become_labelled(labels).await;
        image
    }

    /// The tiny image whose kernels do this instead of sleeping.
    pub(crate) async fn running(script: &str) -> Self {
        let image = Self { lang: format!("tiny-{}:demo", &super::new_id()[..8]) };
        let base = docker(&["create", &format!("lablup/kernel-{}", image::tiny())]).await;
        let program = format!("ENTRYPOINT {}", serde_json::json!(["/bin/sh", "-c", script]));
        docker(&["commit", "--change", &program, "--change", "CMD []", &base, &image.reference()]).await;
        docker(&["rm", "-v", &base]).await;
        image
    }

    /// The Python image, whose kernels' runners begin to listen only after so many seconds.
    pub(crate) async fn late_python(seconds: u32) -> Self {
        let image = Self { lang: format!("python-{}:late", &super::new_id()[..8]) };
        let python = format!("lablup/kernel-{}", image::python());
        let config = inspect(&python).await["Config"].clone();
        let of = |key: &str| config[key].as_array().cloned().unwrap_or_default();
        let entry = ["/bin/sh", "-c", &format!("sleep {seconds}; exec \"$@\""), "late"].map(Json::from);
        let words: Vec<Json> = entry.into_iter().chain(of("Entrypoint")).collect();
        let base = docker(&["create", &python]).await;
        let entry = format!("ENTRYPOINT {}", Json::from(words));
        let command = format!("CMD {}", Json::from(of("Cmd")));
        docker(&["commit", "--change", &entry, "--change", &command, &base, &image.reference()]).await;
        docker(&["rm", "-v", &base]).await;
        image
    }

    /// The Python image with this program in its runner's place, and these labels.
    pub(crate) async fn with_runner(program: &str, labels: &[&str]) -> Self {
        let image = Self { lang: format!("python-{}:own", &super::new_id()[..8]) };
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("runner.py");
        std::fs::write(&file, program).unwrap();
        let base = docker(&["create", &format!("lablup/kernel-{}", image::python())]).await;
        docker(&["cp", &file.display().to_string(), &format!("{base}:/runner.py")]).await;
        let mut args =
            vec!["commit", "--change", r#"ENTRYPOINT ["python3", "/runner.py"]"#, "--change", "CMD []"];
        let labels: Vec<String> = labels.iter().map(|label| format!("LABEL {label}")).collect();
        for label in &labels {
            args.extend(["--change", label]);
        }
        let reference = image.reference();
        args.extend([base.as_str(), &reference]);
        docker(&args).await;
        docker(&["rm", "-v", &base]).await;
        image
    }

    /// Makes another image of the same name, as a pull of a newer one does; gives its id.
    pub(crate) async fn become_labelled(&self, labels: &[&str]) -> String {
        let base = docker(&["create", &format!("lablup/kernel-{}", image::tiny())]).await;
        let changes: Vec<String> = labels.iter().map(|label| format!("LABEL {label}")).collect();
        let mut args = vec!["commit"];
        for change in &changes {
            args.extend(["--change", change]);
        }
        let reference = self.reference();
        args.extend([base.as_str(), &reference]);
        let id = docker(&args).await;
        docker(&["rm", "-v", &base]).await;
        id
    }

    /// As the manager calls it.
    pub(crate) fn lang(&self) -> &str {
        &self.lang
    }

    /// As Docker calls it.
    pub(crate) fn reference(&self) -> String {
        format!("lablup/kernel-{}", self.lang)
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        // Its kernels may still be there; forcing takes the name away, and the layers go with the last container.
        lines(&["rmi", "-f", &self.reference()]);
    }
}

/// Runs `docker` and gives its output.
pub(crate) async fn docker(args: &[&str]) -> String {
    let mut command = Command::new("docker");
    command.args(args);
    output(command).await.trim_end().to_owned()
}

/// What `docker inspect` says of a container or an image.
pub(crate) async fn inspect(id: &str) -> Json {
    let all: Json = serde_json::from_str(&docker(&["inspect", id]).await).unwrap();
    all[0].clone()
}

/// The ids of containers, dead ones included, whose name holds `part`.
pub(crate) async fn containers_named(part: &str) -> Vec<String> {
    let filter = format!("name={part}");
    let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]).await;
    ids.lines().map(str::to_owned).collect()
}

/// Waits until no container's name holds `part`.
pub(crate) async fn gone(part: &str) {
    let what = format!("the removal of the container of {part}");
    until(&what, secs(10), async || containers_named(part).await.is_empty().then_some(())).await;
}

/// Removes what agents of this namespace left behind, and containers without labels (other agents can be tried
/// in these tests) that work below `scratch`; then the network of the kernels of `instance`. Blocking: it is called while a
/// test is being torn down.
pub(crate) fn remove_leftovers(namespace: &str, instance: &str, scratch: &Path) {
    let label = format!("label={NAMESPACE_LABEL}={namespace}");
    let mut ids = lines(&["ps", "-aq", "--filter", &label]);
    let sources = "{{.Id}} {{range .Mounts}}{{.Source}} {{end}}";
    let below = format!("{}/", scratch.display());
    for id in lines(&["ps", "-aq", "--filter", "name=kernel."]) {
        let inspected = lines(&["inspect", "--format", sources, &id]);
        if inspected.iter().any(|line| line.split(' ').any(|source| source.starts_with(&below))) {
            ids.push(id);
        }
    }
    ids.sort();
    ids.dedup();
    if !ids.is_empty() {
        let remove: Vec<&str> = ["rm", "-fv"].into_iter().chain(ids.iter().map(String::as_str)).collect();
        lines(&remove);
    }
    remove_network(&own_network(namespace, instance));
}

/// How the network of this agent's kernels is called: also where it is gone, and its rules may still be there.
pub(crate) fn own_network(namespace: &str, instance: &str) -> String {
    let owner = format!("backendai-agent:{namespace}/{instance}");
    let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, owner.as_bytes());
    format!("backendai-{}", &digest.simple().to_string()[..8])
}

/// The chain of rules that goes with a network, and its bridge.
pub(crate) fn chain_of(network: &str) -> String {
    network.replace("backendai-", "bai-")
}

/// Whether the packet filter has this chain.
pub(crate) fn is_chain_there(chain: &str) -> bool {
    mangle(&["-S", chain])
}

/// Removes an agent's own network, unless a container is on it, and the rules that go with it.
pub(crate) fn remove_network(name: &str) {
    lines(&["network", "rm", name]);
    let chain = chain_of(name);
    // An agent that was killed between the two has taken its network away and left the rules.
    let is_used = !lines(&["network", "ls", "-q", "--filter", &format!("name=^{name}$")]).is_empty();
    if is_used || !is_chain_there(&chain) {
        return;
    }
    while mangle(&["-D", "PREROUTING", "-i", &chain, "-j", &chain]) {}
    mangle(&["-F", &chain]);
    mangle(&["-X", &chain]);
}

/// Whether `iptables` did this to the table of the agents' rules.
fn mangle(args: &[&str]) -> bool {
    let ended = std::process::Command::new("iptables").args(["--wait", "-t", "mangle"]).args(args).output();
    ended.is_ok_and(|ended| ended.status.success())
}

/// Removes the networks of agents of tests that were killed.
pub(crate) fn remove_old_networks() {
    let format = "{{.Name}} {{.Label \"ai.backend.namespace\"}} {{.CreatedAt}}";
    for line in lines(&["network", "ls", "--filter", &format!("label={NAMESPACE_LABEL}"), "--format", format])
    {
        let mut words = line.split(' ');
        let (Some(name), Some(namespace), Some(day)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if namespace.starts_with("it-") && !is_recent(day, words.next().unwrap_or_default()) {
            remove_network(name);
        }
    }
}

/// Whether this time, of a day and a clock as `docker network ls` shows them in UTC or not, is of the last hours: a network
/// of a test that runs is some seconds old.
fn is_recent(day: &str, clock: &str) -> bool {
    let text = format!("{day} {}", clock.split('.').next().unwrap_or_default());
    let asked = std::process::Command::new("date").args(["-d", &text, "+%s"]).output();
    let then = asked.ok().and_then(|said| String::from_utf8_lossy(&said.stdout).trim().parse::<u64>().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    then.is_none_or(|then| now.saturating_sub(then) < 2 * 3600)
}

/// Output lines of a `docker` command that may fail: another test may remove its containers at the same time.
fn lines(args: &[&str]) -> Vec<String> {
    let ended = std::process::Command::new("docker").args(args).output();
    let stdout = ended.map(|ended| ended.stdout).unwrap_or_default();
    String::from_utf8_lossy(&stdout).lines().map(str::to_owned).collect()
}
