//! What the commands print, and what they read from standard input.

use std::io::{ErrorKind, IsTerminal, Read, Write};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::Exit;
use crate::wire::{Value, value};

/// Prints an answer for a person or for a program.
pub(super) fn say(json: bool, answer: &Value, text: &str) {
    let line = if json { value::to_json(answer).to_string() } else { text.to_owned() };
    print(&format!("{line}\n"));
}

/// Prints what ends in line breaks itself. Whoever read may have gone, as `head` does; then there is nobody to go on for.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if printed.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        std::process::exit(Exit::Unread.number().into());
    }
}

/// Ends when whoever read the output has gone, which a command that prints nothing meanwhile would not notice; never where
/// nobody can go, as with a file.
pub(super) async fn unread() {
    let (gone, is_gone) = oneshot::channel();
    let wait = move || {
        let stdout = std::io::stdout();
        // Nothing is asked for: an end at the other side is told without that.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match poll(&mut watched, None) {
                Err(Errno::INTR) => {}
                Ok(_) if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
                    // Nobody waits for it where the command is done.
                    let _ = gone.send(());
                    return;
                }
                Ok(_) | Err(_) => return,
            }
        }
    };
    // In a thread of its own, which the end of the process cuts off. Without it the next output notices.
    let started = std::thread::Builder::new().name("reader".to_owned()).spawn(wait);
    if started.is_err() || is_gone.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A line beside the output.
pub(super) fn note(text: &str) {
    // The work goes on without it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The code's own words on stderr.
pub(super) fn print_beside(text: &str) {
    let _ = write!(std::io::stderr(), "{text}");
}

/// What did not work.
pub(super) fn complain(text: &str) {
    note(&format!("backendai-agent: {text}"));
}

/// All of standard input, for `exec -`. Whoever waits for it may give up: a thread of its own reads, which the end of the
/// process cuts off.
pub(super) async fn standard_input() -> std::io::Result<String> {
    if std::io::stdin().is_terminal() {
        note("reading code from the terminal; end with ^D");
    }
    let (done, is_done) = oneshot::channel();
    let read = move || {
        let mut text = String::new();
        // Nobody waits for it where the command has been given up.
        let _ = done.send(std::io::stdin().read_to_string(&mut text).map(|_| text));
    };
    std::thread::Builder::new().name("input".to_owned()).spawn(read)?;
    is_done.await.unwrap_or_else(|_| Err(ErrorKind::UnexpectedEof.into()))
}
