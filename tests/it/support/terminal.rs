//! A terminal with a program in it, as a person has it: a pseudo-terminal of the system's, which the program is led to believe in.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::{secs, until};

/// What a program shows on it, and the keys.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program whose input, output and controlling terminal it is; with nothing in its environment but `env`.
    pub(crate) fn start(command: &[&str], env: &[(&str, &str)]) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let screen = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        // `setsid` makes the terminal the program's own, so that ^C becomes a signal to it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "setsid", "--ctty"])
            .args(command)
            .env_clear()
            .envs([("TERM", "xterm"), ("PATH", &std::env::var("PATH").unwrap())])
            .envs(env.iter().copied())
            .stdin(screen.try_clone().unwrap())
            .stdout(screen.try_clone().unwrap())
            .stderr(screen)
            .spawn()
            .unwrap();
        let keys = File::from(keys);
        let (shown, mut from) = (Arc::new(Mutex::new(Vec::new())), keys.try_clone().unwrap());
        let to = Arc::clone(&shown);
        // Until nobody has the terminal open any more.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes[..n]);
            }
        });
        Self { child, keys, shown }
    }

    /// Types; `\u{3}` is ^C, `\t` and `\r` are the keys of these names.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// All that was shown so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until this has been shown so often, and gives all that was shown.
    pub(crate) async fn shows(&self, text: &str, times: usize) -> String {
        let enough = async || Some(self.text()).filter(|shown| shown.matches(text).count() >= times);
        tokio::time::timeout(secs(20), until(&format!("{text:?} on the terminal"), secs(60), enough))
            .await
            .unwrap_or_else(|_| panic!("no {text:?} on the terminal, but:\n{}", self.text()))
    }

    /// Waits for the program's end; its exit code.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        until("the program's end", secs(20), async || self.child.try_wait().unwrap()).await.code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
