//! The calls against this machine's engine.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use backendai_agent::ids::ContainerId;
use backendai_agent::rooms::docker::{
    Bind, Confinement, Container, ContainerSpec, ContainerState, DEFAULT_HOST, Docker, DockerConfig,
    DockerError, DockerEvent, DockerEventKind, ListFilter, PublishedPort,
};
use backendai_agent::rooms::units::Memory;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use uuid::Uuid;

use super::support::docker::{docker as command, image};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The engine of this machine.
pub(crate) fn real() -> Docker {
    Docker::open(DockerConfig::new(DEFAULT_HOST.parse().unwrap()))
}

/// The smallest kernel image, as Docker names it.
fn tiny_image() -> String {
    format!("lablup/kernel-{}", image::tiny())
}

/// A tiny container as the agent makes them: it sleeps.
fn tiny() -> ContainerSpec {
    ContainerSpec { image: tiny_image(), ..ContainerSpec::default() }
}

/// A container's name that is removed when the test ends, however it ends.
pub(crate) struct TestName(pub(crate) String);

impl TestName {
    pub(crate) fn new(what: &str) -> Self {
        Self(format!("baitest-{what}-{}", Uuid::new_v4().as_simple()))
    }

    /// Starts a tiny container that runs a shell command.
    pub(crate) async fn run(&self, tty: bool, script: &str) -> ContainerId {
        let terminal = if tty { "--tty=true" } else { "--tty=false" };
        let id =
            command(&["run", "-d", terminal, "--name", &self.0, &tiny_image(), "sh", "-c", script]).await;
        ContainerId::new(id)
    }
}

impl Drop for TestName {
    fn drop(&mut self) {
        // Removed by the test already, as a rule; Docker's word for that is nobody's business.
        let _ = std::process::Command::new("docker").args(["rm", "-fv", &self.0]).output();
    }
}

/// Waits until a container looks as wanted.
async fn until(docker: &Docker, id: &ContainerId, wanted: impl Fn(&Container) -> bool) -> Container {
    let looking = async {
        loop {
            let container = docker.inspect(id.as_str()).await.unwrap().unwrap();
            if wanted(&container) {
                return container;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.unwrap()
}

#[tokio::test]
async fn a_container_s_life() {
    let docker = real();
    let name = TestName::new("life");
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("a:b");
    std::fs::create_dir(&source).unwrap();
    let spec = ContainerSpec {
        labels: [("baitest".to_owned(), name.0.clone())].into(),
        env: vec!["A=b".into()],
        ports: vec![PublishedPort { container_port: 2000, host_ip: LOOPBACK }],
        binds: vec![Bind {
            source: source.to_str().unwrap().into(),
            target: "/home/work".into(),
            read_only: false,
        }],
        memory: Some(Memory::from_mib(64)),
        memory_swap_bytes: Some(64 << 20),
        pids_limit: Some(99),
        cpuset_cpus: Some("0".into()),
        open_stdin: true,
        stop_signal: Some("SIGINT".into()),
        confinement: Confinement { unfiltered_calls: true, ..Confinement::default() },
        tty: true,
        ..tiny()
    };
    let mine = ListFilter {
        all: true,
        labels: vec![("baitest".into(), name.0.clone())],
        name: Some(name.0.clone()),
    };

    let id = docker.create(&name.0, &spec).await.unwrap();
    let created = docker.inspect(&name.0).await.unwrap().unwrap();
    assert_eq!(
        (created.id.clone(), created.state, created.exit_code),
        (id.clone(), ContainerState::Created, None)
    );
    let again = docker.create(&name.0, &spec).await.unwrap_err();
    assert!(matches!(again, DockerError::NameTaken { .. }), "{again:?}");

    docker.start(&id).await.unwrap();
    docker.start(&id).await.unwrap();
    let running = docker.inspect(id.as_str()).await.unwrap().unwrap();
    assert_eq!((running.name.as_str(), running.image.as_str()), (name.0.as_str(), tiny_image().as_str()));
    assert_eq!(running.state, ContainerState::Running);
    assert!(running.pid.is_some() && running.tty && running.ip.is_some());
    let env = command(&["inspect", "--format", "{{json .Config.Env}}", id.as_str()]).await;
    assert!(env.contains(r#""A=b""#), "{env}");
    assert_eq!((running.ports.len(), running.ports[0].host_ip), (1, Some(LOOPBACK)));
    assert!(running.ports[0].host_port > 0);
    assert_eq!((running.memory, running.cpuset_cpus.as_str()), (Some(Memory::from_mib(64)), "0"));
    assert_eq!(running.mounts[0].target, "/home/work");

    let listed = docker.list(mine.clone()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].id, &listed[0].name, &listed[0].state), (&id, &name.0, &ContainerState::Running));
    assert!(docker.stats(&id).await.unwrap().mem_cur > 0);
    command(&["exec", id.as_str(), "sh", "-c", "echo hello > /home/work/greeting"]).await;
    assert!(source.join("greeting").exists(), "the bind reaches the host");

    command(&["kill", id.as_str()]).await;
    let dead = until(&docker, &id, |container| !container.state.is_alive()).await;
    assert_eq!((dead.state, dead.exit_code), (ContainerState::Exited, Some(137)));
    let unmeasured = docker.stats(&id).await.unwrap_err();
    assert!(matches!(unmeasured, DockerError::Conflict { .. }), "{unmeasured:?}");

    docker.remove(&id).await.unwrap();
    docker.remove(&id).await.unwrap();
    assert_eq!(docker.inspect(id.as_str()).await.unwrap(), None);
    assert_eq!(docker.list(mine).await.unwrap(), []);
    assert!(matches!(docker.start(&id).await, Err(DockerError::NoSuchContainer { .. })));
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let docker = real();
    let name = TestName::new("refused");
    let no_image = ContainerSpec { image: "lablup/kernel-nosuch:1".into(), ..ContainerSpec::default() };
    let error = docker.create(&name.0, &no_image).await.unwrap_err();
    assert!(matches!(error, DockerError::NoSuchImage { .. }), "{error:?}");

    let no_source = ContainerSpec {
        binds: vec![Bind {
            source: "/nonexistent/baitest".into(),
            target: "/home/work".into(),
            read_only: false,
        }],
        ..tiny()
    };
    let error = docker.create(&name.0, &no_source).await.unwrap_err();
    assert!(matches!(error, DockerError::BadRequest { .. }), "{error:?}");
    assert!(!std::path::Path::new("/nonexistent").exists(), "a missing source is not made");
    assert!(!docker.volume_exists("baitest-nosuch").await.unwrap());
}

#[tokio::test]
async fn a_paused_container_goes_and_removals_may_meet() {
    let docker = real();
    let name = TestName::new("paused");
    let id = name.run(false, "sleep 1000").await;
    command(&["pause", id.as_str()]).await;
    assert_eq!(docker.inspect(&name.0).await.unwrap().unwrap().state, ContainerState::Paused);
    let (a, b, c) = tokio::join!(docker.remove(&id), docker.remove(&id), docker.remove(&id));
    a.and(b).and(c).unwrap();
    assert_eq!(docker.inspect(id.as_str()).await.unwrap(), None);
}

#[tokio::test]
async fn anonymous_volumes_go_with_their_container() {
    let docker = real();
    let name = TestName::new("volume");
    let id = command(&["create", "--name", &name.0, "-v", "/extra", &tiny_image()]).await;
    let volume = command(&["inspect", "--format", "{{(index .Mounts 0).Name}}", &id]).await;
    assert!(docker.volume_exists(&volume).await.unwrap());
    docker.remove(&ContainerId::new(id)).await.unwrap();
    assert!(!docker.volume_exists(&volume).await.unwrap());
}

#[tokio::test]
async fn logs_come_as_bytes_of_both_streams() {
    let docker = real();
    let limit = Duration::from_secs(10);
    for tty in [false, true] {
        let name = TestName::new("logs");
        // A terminal's line that begins like a frame's header, and a last line without an end.
        let script = r"printf 'one\n\001\000\000\000\377'; echo two >&2; seq 3000; printf end";
        let id = name.run(tty, script).await;
        until(&docker, &id, |container| container.state == ContainerState::Exited).await;
        let log = docker.logs_tail(&id, 1 << 20, limit).await.unwrap();
        // The log driver keeps bytes that are no UTF-8 as U+FFFD.
        let text = String::from_utf8_lossy(&log).replace("\r\n", "\n");
        // Which stream comes first is Docker's to say.
        for part in ["one\n", "\u{1}\0\0\0", "two\n"] {
            assert!(text.contains(part), "{part:?} is not in {:?}", &text[..40]);
        }
        let stdout = text.replace("two\n", "");
        assert!(stdout.ends_with("2999\n3000\nend"), "{:?}", &text[text.len() - 40..]);
        let newest = docker.logs_tail(&id, 5, limit).await.unwrap();
        assert_eq!(newest, log[log.len() - 5..]);
    }
}

#[tokio::test]
async fn events_tell_of_a_death_and_can_be_continued() {
    let docker = real();
    let name = TestName::new("events");
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let before = i64::try_from(before).unwrap();
    let id = name.run(false, "exit 3").await;

    let (first, exit_code) = next_death(docker.events(Some(before)), &id).await;
    assert_eq!(exit_code, Some(3));
    let (again, _) = next_death(docker.events(Some(first)), &id).await;
    assert_eq!(again, first, "events since that moment begin with it");

    let live = next_death(docker.events(Some(first + 1)), &id);
    let (second, restarted) = tokio::join!(live, docker.start(&id));
    restarted.unwrap();
    assert!(second.0 > first, "one nanosecond later it is left out");
}

async fn next_death(
    mut events: BoxStream<'static, Result<DockerEvent, DockerError>>,
    of: &ContainerId,
) -> (i64, Option<i64>) {
    let listening = async {
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            match event.kind {
                DockerEventKind::Container { id, action, exit_code, .. } if id == *of && action == "die" => {
                    return (event.time_nano, exit_code);
                }
                _ => {}
            }
        }
        panic!("the stream ended");
    };
    tokio::time::timeout(Duration::from_secs(30), listening).await.unwrap()
}

#[tokio::test]
async fn images_show_their_labels() {
    let docker = real();
    let listed = docker.images().await.unwrap();
    let tiny = listed.iter().find(|image| image.tags.iter().any(|tag| *tag == tiny_image())).unwrap();
    let image = docker.image(&tiny_image()).await.unwrap().unwrap();
    assert_eq!((&image.id, &image.labels), (&tiny.id, &tiny.labels));
    assert!(image.id.starts_with("sha256:"));
    assert_eq!(docker.image("lablup/kernel-nosuch:1").await.unwrap(), None);
}

#[tokio::test]
async fn the_engine_describes_itself() {
    let docker = real();
    docker.ping().await.unwrap();
    let info = docker.info().await.unwrap();
    assert_eq!(info.server_version, command(&["version", "--format", "{{.Server.Version}}"]).await);
    assert!(info.cpus > 0 && info.memory > Memory::default());
    assert!(matches!(info.cgroup_version, 1 | 2));
    assert!(["cgroupfs", "systemd", "none"].contains(&info.cgroup_driver.as_str()));
    let told = command(&["network", "inspect", "bridge", "--format", "{{json .Options}}"]).await;
    let is_open = told.contains(r#"enable_icc":"true""#);
    let bridge = docker.network("bridge").await.unwrap().unwrap();
    assert_eq!(bridge.is_open, is_open);
    assert!(docker.bridge_subnets().await.unwrap().contains(&bridge.subnets[0]));
    assert_eq!(docker.network("no-such-network").await.unwrap(), None);
}
