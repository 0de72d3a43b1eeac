//! A Docker engine of a test's own, to be killed, frozen and started again; the shared one is never touched.
//!
//! It has its own data, sockets and bridge, a containerd beside it as on hosts with systemd, and holds copies of the kernel images. With `--live-restore`
//! containers outlive it, as an operator may have set it; without, it ends them when it starts again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::docker::image;
use super::ports::Port;
use super::process::Process;
use super::services::output;
use super::{secs, until};

/// A running or dead engine; everything of it goes when it is dropped.
pub(crate) struct Dockerd {
    dir: PathBuf,
    bridge: String,
    live_restore: bool,
    /// Where it looks for programs before the usual places.
    programs: Option<PathBuf>,
    /// Makes its bridge's name and addresses its own.
    number: Port,
    process: Option<Process>,
    /// Outlives dockerd.
    containerd: Process,
}

impl Dockerd {
    /// An engine with all of its files below `dir`, which holds these kernel images (names without `lablup/kernel-`).
    pub(crate) async fn start(dir: &Path, live_restore: bool, images: &[String]) -> Self {
        Self::start_with(dir, live_restore, None, images).await
    }

    /// The same, with programs of the test's own.
    pub(crate) async fn with_programs(dir: &Path, programs: &Path, images: &[String]) -> Self {
        Self::start_with(dir, false, Some(programs), images).await
    }

    async fn start_with(dir: &Path, live_restore: bool, programs: Option<&Path>, images: &[String]) -> Self {
        let number = Port::lease();
        // At most 15 characters, as the kernel wants it.
        let bridge = format!("bai-it-{}", number.number());
        let dir = dir.join("dockerd");
        std::fs::create_dir_all(&dir).unwrap();
        let containerd = spawn_containerd(&dir);
        let mut engine = Self {
            dir,
            bridge,
            live_restore,
            programs: programs.map(Path::to_owned),
            number,
            process: None,
            containerd,
        };
        engine.make_bridge();
        engine.restart().await;
        for name in images {
            engine.load(&format!("lablup/kernel-{name}"));
        }
        engine
    }

    /// The same with the small image, and the Python one when a test runs code.
    pub(crate) async fn with_usual_images(dir: &Path, live_restore: bool, python: bool) -> Self {
        let images = [Some(image::tiny()), python.then(image::python)];
        Self::start(dir, live_restore, &images.into_iter().flatten().collect::<Vec<_>>()).await
    }

    /// The value for `--docker-host`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.display())
    }

    /// SIGKILL. Its proxies of ports die with it, containers don't.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// SIGSTOP to dockerd alone: connections are taken by the system and nothing answers. Containers go on.
    pub(crate) async fn pause(&self) {
        let process = self.process.as_ref().expect("it runs");
        signal(process, Signal::STOP);
        process.stands_still().await;
    }

    /// Ends [`Dockerd::pause`].
    pub(crate) fn resume(&self) {
        signal(self.process.as_ref().expect("it runs"), Signal::CONT);
    }

    /// Starts it over what is there, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        // A pid file that was left behind names a process that may be anybody's by now.
        let _ = std::fs::remove_file(self.dir.join("docker.pid"));
        self.process = Some(self.spawn());
        until("a Docker engine of its own", secs(60), async || {
            let process = self.process.as_mut().unwrap();
            assert!(process.ended().is_none(), "dockerd ended:\n{}", process.output());
            self.cli(&["version"]).output().is_ok_and(|answer| answer.status.success()).then_some(())
        })
        .await;
    }

    fn spawn(&self) -> Process {
        let dir = self.dir.display();
        let mut line = format!(
            "dockerd --host {host} --data-root {dir}/data --exec-root {dir}/exec --pidfile {dir}/docker.pid \
             --containerd {dir}/containerd.sock \
             --bridge {bridge} --iptables=false --ip-masq=false --log-level warn",
            host = self.host(),
            bridge = self.bridge,
        );
        if self.live_restore {
            line += " --live-restore";
        }
        let command: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let usual = std::env::var("PATH").unwrap();
        let path = self.programs.as_ref().map(|own| format!("{}:{usual}", own.display()));
        let env: Vec<(&str, &str)> = path.iter().map(|path| ("PATH", path.as_str())).collect();
        Process::spawn("dockerd", &command, &env, &self.dir.join("dockerd.log"))
    }

    /// Runs `docker` against this engine and gives its output.
    pub(crate) async fn docker(&self, args: &[&str]) -> String {
        output(self.cli(args).into()).await.trim_end().to_owned()
    }

    /// The ids of containers, dead ones included, whose name holds `part`.
    pub(crate) async fn containers_named(&self, part: &str) -> Vec<String> {
        let filter = format!("name={part}");
        let ids = self.docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]).await;
        ids.lines().map(str::to_owned).collect()
    }

    /// Waits until no container's name holds `part`.
    pub(crate) async fn gone(&self, part: &str) {
        let what = format!("the removal of the container of {part}");
        until(&what, secs(15), async || self.containers_named(part).await.is_empty().then_some(())).await;
    }

    fn cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host()]).args(args);
        command
    }

    /// Copies an image from the shared engine.
    pub(crate) fn load(&self, name: &str) {
        let mut saving = Command::new("docker").args(["save", name]).stdout(Stdio::piped()).spawn().unwrap();
        let loaded = self.cli(&["load", "-q"]).stdin(saving.stdout.take().unwrap()).output().unwrap();
        assert!(saving.wait().unwrap().success() && loaded.status.success(), "copy {name}: {loaded:?}");
    }

    /// A bridge with a small network of its own, since the usual one is the shared engine's.
    fn make_bridge(&self) {
        let n = self.number.number() - 20_000;
        let address = format!("10.{}.{}.1/24", 200 + n / 256, n % 256);
        // A bridge without a link address of its own takes over its containers', and another when one goes; the others then
        // send to where nobody is, until they ask again.
        let link = format!("02:00:0a:{:02x}:{:02x}:01", 200 + n / 256, n % 256);
        for line in [
            format!("link add name {} address {link} type bridge", self.bridge),
            format!("addr add {address} dev {}", self.bridge),
            format!("link set {} up", self.bridge),
        ] {
            let made = Command::new("ip").args(line.split(' ')).output().unwrap();
            assert!(made.status.success(), "ip {line}: {made:?}");
        }
    }

    /// How many ports it publishes: one proxy each, with the container's address in its arguments.
    pub(crate) fn published_ports(&self) -> usize {
        let n = self.number.number() - 20_000;
        let network = format!("10.{}.{}.", 200 + n / 256, n % 256);
        let lines = processes().map(|(_, line)| line);
        lines.filter(|line| line.contains("docker-proxy") && line.contains(&network)).count()
    }

    /// An engine that could not be started again leaves its containers behind, each the child of a shim.
    fn kill_shims(&self) {
        let dir = self.dir.display().to_string();
        for (pid, line) in processes() {
            if !line.starts_with("/usr/bin/containerd-shim") || !line.contains(&dir) {
                continue;
            }
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let doomed = children.split_whitespace().filter_map(|child| child.parse().ok()).chain([pid]);
            for pid in doomed.filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// What is mounted below its directory, the innermost first.
    fn mounts(&self) -> Vec<String> {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = format!("{}/", self.dir.display());
        let places = table.lines().filter_map(|line| line.split(' ').nth(1));
        let mut mounts: Vec<String> = places.filter(|at| at.starts_with(&below)).map(str::to_owned).collect();
        mounts.sort_by_key(|at| std::cmp::Reverse(at.len()));
        mounts
    }
}

fn spawn_containerd(dir: &Path) -> Process {
    let (config, at) = (dir.join("containerd.toml"), dir.display());
    let text = format!(
        "version = 2\nroot = \"{at}/containerd/root\"\nstate = \"{at}/containerd/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{at}/containerd.sock\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let command = ["containerd", "--log-level", "warn", "--config", &config.display().to_string()];
    Process::spawn("containerd", &command.map(str::to_owned), &[], &dir.join("containerd.log"))
}

/// Every process and its command line, with zeros between the words.
fn processes() -> impl Iterator<Item = (i32, String)> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).into_owned()))
    })
}

/// To the process and not to its group: its proxies of ports are not meant.
fn signal(process: &Process, signal: Signal) {
    let pid = Pid::from_raw(process.pid().try_into().unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // Only a running engine can end its containers; a test may have left it dead or frozen.
        let mut process = self.process.take().unwrap_or_else(|| {
            let _ = std::fs::remove_file(self.dir.join("docker.pid"));
            self.spawn()
        });
        signal(&process, Signal::CONT);
        let deadline = Instant::now() + secs(30);
        while Instant::now() < deadline {
            let listed = self.cli(&["ps", "-aq", "--no-trunc"]).output();
            if let Ok(listed) = listed.map_err(|_| ()).and_then(|l| l.status.success().then_some(l).ok_or(()))
            {
                let ids = String::from_utf8_lossy(&listed.stdout).into_owned();
                let ids: Vec<&str> = ids.lines().collect();
                if !ids.is_empty() {
                    let _ = self.cli(&[&["rm", "-fv"], &ids[..]].concat()).output();
                }
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        signal(&process, Signal::TERM);
        while process.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(process);
        self.containerd.kill();
        self.kill_shims();
        for at in self.mounts() {
            let _ = Command::new("umount").args(["--lazy", &at]).output();
        }
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).output();
    }
}
