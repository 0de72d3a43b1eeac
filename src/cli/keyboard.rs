//! What a person types while a command runs: lines, and ^C.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Lines of standard input and ^C, as they come.
pub(super) struct Keyboard {
    /// `None` until somebody wants a line.
    lines: Option<mpsc::UnboundedReceiver<String>>,
    interrupts: Signal,
}

impl Keyboard {
    /// From now on, ^C is heard and ends nothing by itself.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { lines: None, interrupts: signal(SignalKind::interrupt())? })
    }

    /// Whether a person types there, who can be asked.
    pub(super) fn is_person() -> bool {
        std::io::stdin().is_terminal()
    }

    /// The next ^C, or, where lines are wanted, the next line without its end. What is typed meanwhile is not lost.
    pub(super) async fn typed(&mut self, with_lines: bool) -> Typed {
        let lines = if with_lines { Some(self.lines.get_or_insert_with(read_lines)) } else { None };
        let line = async {
            match lines {
                Some(lines) => lines.recv().await.map_or(Typed::End, Typed::Line),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(()) = self.interrupts.recv() => Typed::Interrupt,
            typed = line => typed,
        }
    }
}

/// What somebody typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    Line(String),
    Interrupt,
    /// Nothing comes any more.
    End,
}

/// In a thread of its own, which the end of the process cuts off: reading a terminal can't be given up.
fn read_lines() -> mpsc::UnboundedReceiver<String> {
    let (to, lines) = mpsc::unbounded_channel();
    let read = move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if to.send(line).is_err() {
                return;
            }
        }
    };
    // Without a thread, standard input has ended.
    let _ = std::thread::Builder::new().name("keyboard".to_owned()).spawn(read);
    lines
}
