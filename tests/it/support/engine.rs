//! A socket in front of Docker's own that can hang, refuse, cut connections, and fail chosen requests.
//!
//! It takes requests apart just far enough to know where each one ends; answers pass through as they are. What was
//! asked while it hung is carried out when it goes on, whether or not the asker is still there: so does a dockerd
//! that was stopped for a while.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::secs;

/// Docker's own socket.
const DOCKER: &str = "/var/run/docker.sock";

/// How the proxy behaves.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    /// Nothing moves in either direction.
    Hang,
    /// Every connection is closed at once, old ones too.
    Refuse,
}

/// Whether Docker gets a request that is going to fail.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fails {
    /// Docker never hears of it; the answer is an error 500.
    Before,
    /// Docker does it; the connection breaks before the answer.
    After,
    /// Docker does it at [`Engine::release`], long after the asker gave up.
    Late,
}

/// Requests that shall fail.
struct Fault {
    method: &'static str,
    path: &'static str,
    fails: Fails,
    left: usize,
}

#[derive(Default)]
struct Faults {
    wanted: Vec<Fault>,
    /// How many requests failed.
    failed: usize,
}

/// A running proxy; its socket and connections go when it is dropped.
pub(crate) struct Engine {
    socket: PathBuf,
    mode: watch::Sender<Mode>,
    faults: Arc<Mutex<Faults>>,
    /// How often [`Engine::release`] was called.
    release: watch::Sender<usize>,
    acceptor: JoinHandle<()>,
}

impl Engine {
    /// A proxy that passes everything, with its socket in `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let socket = dir.join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mode = watch::Sender::new(Mode::Pass);
        let faults = Arc::new(Mutex::new(Faults::default()));
        let release = watch::Sender::new(0);
        let (modes, shared, releases) = (mode.subscribe(), faults.clone(), release.subscribe());
        let acceptor = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, modes.clone(), shared.clone(), releases.clone()));
            }
        });
        Self { socket, mode, faults, release, acceptor }
    }

    /// The value for `--docker-host`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// From now on nothing is answered.
    pub(crate) fn hang(&self) {
        self.mode.send_replace(Mode::Hang);
    }

    /// From now on every connection is closed.
    pub(crate) fn refuse(&self) {
        self.mode.send_replace(Mode::Refuse);
    }

    /// All is well again.
    pub(crate) fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    /// The next `times` requests of this method whose path holds `path` fail; `*` stands for anything.
    pub(crate) fn fail(&self, method: &'static str, path: &'static str, fails: Fails, times: usize) {
        self.faults.lock().unwrap().wanted.push(Fault { method, path, fails, left: times });
    }

    /// Docker now does what was asked of it before and held back.
    pub(crate) fn release(&self) {
        self.release.send_modify(|times| *times += 1);
    }

    /// How many requests failed as they should.
    pub(crate) fn failed(&self) -> usize {
        self.faults.lock().unwrap().failed
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.mode.send_replace(Mode::Refuse);
    }
}

/// Serves one client with a connection of its own to Docker.
async fn serve(
    mut client: UnixStream,
    mut modes: watch::Receiver<Mode>,
    faults: Arc<Mutex<Faults>>,
    mut releases: watch::Receiver<usize>,
) {
    let Ok(mut docker) = UnixStream::connect(DOCKER).await else { return };
    let (mut asked, mut answer) = (Vec::new(), vec![0; 65536]);
    // Asked of Docker and not answered yet.
    let mut open = false;
    loop {
        match modes.wait_for(|mode| *mode != Mode::Hang).await.map(|mode| *mode) {
            Ok(Mode::Pass) => {}
            _ => return,
        }
        while let Some(end) = request_end(&asked) {
            let request: Vec<u8> = asked.drain(..end).collect();
            let fails = take_fault(&faults, &request);
            if fails == Some(Fails::Before) {
                let body = r#"{"message":"it failed on purpose"}"#;
                let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json";
                let text = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                if client.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            if fails == Some(Fails::Late) {
                releases.mark_unchanged();
                let _ = releases.changed().await;
            }
            if docker.write_all(&request).await.is_err() {
                return;
            }
            open = true;
            if fails.is_some() {
                let _ = docker.read(&mut answer).await;
                return;
            }
        }
        tokio::select! {
            Ok(()) = modes.changed() => {}
            read = client.read_buf(&mut asked) => if !matches!(read, Ok(1..)) {
                if open {
                    // The asker is gone; Docker shall do it all the same.
                    let _ = tokio::time::timeout(secs(5), docker.read(&mut answer)).await;
                }
                return;
            },
            read = docker.read(&mut answer) => {
                let Ok(n @ 1..) = read else { return };
                // What was on its way when the hang began hangs, too.
                if modes.wait_for(|mode| *mode != Mode::Hang).await.is_err() {
                    return;
                }
                open = false;
                if client.write_all(&answer[..n]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Where the first request of `bytes` ends, if all of it is there.
fn request_end(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let end = head + length.map_or(0, |length| length.trim().parse::<usize>().unwrap());
    (bytes.len() >= end).then_some(end)
}

fn take_fault(faults: &Mutex<Faults>, request: &[u8]) -> Option<Fails> {
    let line = String::from_utf8_lossy(request);
    let mut words = line.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let mut faults = faults.lock().unwrap();
    let wanted = faults.wanted.iter_mut();
    let mut fitting =
        wanted.filter(|fault| fault.left > 0 && fault.method == method && holds(path, fault.path));
    let fault = fitting.next()?;
    fault.left -= 1;
    let fails = fault.fails;
    faults.failed += 1;
    Some(fails)
}

/// Whether the pieces of `pattern` between its `*` occur in `path`, one behind the other.
fn holds(path: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('*');
    pieces.try_fold(path, |rest, piece| rest.split_once(piece).map(|(_, rest)| rest)).is_some()
}
