//! What a person at a terminal sees and types: colours, ^C, completions. Each on a terminal of the system's.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::ports::Port;
use crate::support::terminal::Terminal;
use crate::support::{Bed, new_id, secs};

const AGENT: &str = env!("CARGO_BIN_EXE_backendai-agent");

/// What begins each colour.
const ESCAPE: char = '\u{1b}';

/// The command line of an agent that waits for a Docker that isn't there, and so does no more than log.
fn that_waits(root: &TempDir, port: &Port) -> Vec<String> {
    let line = format!(
        "{AGENT} --config /dev/null --docker-host unix:///nowhere --scratch-root {} --agent-port {} --socket none \
         --instance-id i-{} --log-format text",
        root.path().display(),
        port.number(),
        &new_id()[..8],
    );
    line.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn colour_is_for_a_terminal_only() {
    let (root, port) = (tempfile::tempdir().unwrap(), Port::lease());
    let line = that_waits(&root, &port);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let terminal = Terminal::start(&line, &[]);
    let shown = terminal.shows("waiting for Docker", 1).await;
    assert!(shown.contains(ESCAPE), "{shown:?}");
    drop(terminal);

    let terminal = Terminal::start(&line, &[("NO_COLOR", "1")]);
    let shown = terminal.shows("waiting for Docker", 1).await;
    assert!(!shown.contains(ESCAPE), "{shown:?}");
    drop(terminal);

    let mut piped = Command::new(line[0]);
    piped.args(&line[1..]).env_clear().stderr(Stdio::piped()).kill_on_drop(true);
    let mut piped = piped.spawn().unwrap();
    let mut lines = BufReader::new(piped.stderr.take().unwrap()).lines();
    let read = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            assert!(!line.contains(ESCAPE), "{line:?}");
            if line.contains("waiting for Docker") {
                return;
            }
        }
        panic!("it ended");
    };
    tokio::time::timeout(secs(20), read).await.expect("no line about Docker");
}

#[tokio::test]
async fn an_interrupt_asks_first_and_the_second_one_does_it() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.1)";
    let at = agent.rpc().address().to_string();
    let mut exec = Terminal::start(&[AGENT, "exec", &kernel.id, code, "--agent", &at], &[]);
    exec.shows("begun", 1).await;
    exec.type_in("\u{3}");
    exec.shows("[^C: interrupt the run? y: yes (or ^C again), d: leave it running, anything else: no]", 1)
        .await;
    exec.type_in("n\r");
    exec.shows("[the run goes on]", 1).await;
    exec.type_in("\u{3}");
    exec.shows("[^C: interrupt the run?", 2).await;
    assert!(!exec.text().contains("[interrupting the run"), "{}", exec.text());
    exec.type_in("\u{3}");
    exec.shows("[interrupting the run; ^C again leaves it]", 1).await;
    exec.shows("[finished, exit code", 1).await;
    exec.end().await;

    let mut exec = Terminal::start(&[AGENT, "exec", &kernel.id, code, "--agent", &at], &[]);
    exec.shows("begun", 1).await;
    exec.type_in("\u{3}");
    exec.shows("d: leave it running", 1).await;
    exec.type_in("d\r");
    exec.shows("[left; the run may go on: backendai-agent attach ", 1).await;
    assert_eq!(exec.end().await, Some(130));
}

/// A shell, how it is begun without anybody's settings, and how it takes completions from a file.
struct Shell {
    name: &'static str,
    begin: &'static [&'static str],
    load: &'static str,
}

const SHELLS: [Shell; 3] = [
    Shell { name: "bash", begin: &["bash", "--norc", "-i"], load: "source $FILE" },
    Shell {
        name: "zsh",
        begin: &["zsh", "-f", "-i"],
        load: "autoload -Uz compinit; compinit -D -u; source $FILE",
    },
    Shell { name: "fish", begin: &["fish", "--no-config", "--interactive"], load: "source $FILE" },
];

/// In each shell that this machine has.
#[tokio::test]
async fn each_shell_completes_commands_and_options() {
    let home = tempfile::tempdir().unwrap();
    // In the agent's place, so that what was completed can be seen without guessing at how a shell redraws its line.
    let echo = home.path().join("backendai-agent");
    std::fs::write(&echo, "#!/bin/sh\necho \"called with: $*.\"\n").unwrap();
    std::fs::set_permissions(&echo, std::fs::Permissions::from_mode(0o755)).unwrap();
    for shell in SHELLS {
        if !is_here(shell.name) {
            eprintln!("{} is not installed", shell.name);
            continue;
        }
        completes(&shell, home.path()).await;
    }
}

fn is_here(shell: &str) -> bool {
    let path = std::env::var("PATH").unwrap();
    path.split(':').any(|directory| Path::new(directory).join(shell).exists())
}

async fn completes(shell: &Shell, home: &Path) {
    let file = home.join(shell.name);
    let script = Command::new(AGENT).args(["completions", shell.name]).output().await.unwrap();
    assert!(script.status.success());
    std::fs::write(&file, script.stdout).unwrap();
    let checked = Command::new(shell.name).arg("-n").arg(&file).output().await.unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{}: {checked:?}", shell.name);

    let path = format!("{}:{}", home.display(), std::env::var("PATH").unwrap());
    let env = [("PATH", &*path), ("HOME", home.to_str().unwrap()), ("FILE", file.to_str().unwrap())];
    let mut terminal = Terminal::start(shell.begin, &env);
    // What is typed before a shell reads its terminal may be lost.
    terminal.type_in("\r");
    // The quotes tell what is shown from what was typed.
    terminal.type_in(&format!("{} && echo load''ed\r", shell.load));
    terminal.shows("loaded", 1).await;
    terminal.type_in("backendai-agent drai\t--wai\t\r");
    terminal.shows("called with: drain --wait.", 1).await;
}
