//! What README and docs tell a reader to type, typed.
//!
//! Commands stand in blocks of code that say how they are tried: of ```` ```sh run ```` every line is run here, against an agent
//! of `backendai-agent dev`; ```` ```sh by scripts/NAME ```` names the script that does it; ```` ```sh by hand ```` is for the
//! few of [`BY_HAND`]. Wherever the program is called, the command and each option must be there: its help has them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::process::Command;

use crate::dev::Dev;
use crate::support::docker::image;
use crate::support::new_id;
use crate::support::ports::Port;

const PROGRAM: &str = "backendai-agent";

/// What no test can do, and why: the first word of each such command.
const BY_HAND: [&str; 9] = [
    // Another engine than Docker, of which `docs/engines.md` tells who tried what.
    "podman",
    "backendai-agent --docker-host unix:///run/podman",
    // An image of the reader's own.
    "docker build",
    // Measurements, which want a machine that does nothing else, and the table that is made of them.
    "export BACKENDAI_TEST_KERNEL",
    "BENCH_OUT",
    "scripts/chart",
    // A whole release build for another target.
    "apt install git musl-tools",
    "rustup",
    "scripts/package",
];

/// Stands in the program's place where lines are run. What has no end is interrupted after a while, as a person would; `check` finds something
/// on a machine of tests, and a run is over when `attach` asks for it; the settings of an agent are read, and no second one started.
const WRAPPER: &str = r#"#!/bin/sh
case "$1" in
    dev) exec timeout --preserve-status --signal INT 5 "$AGENT" "$@" $OTHER_DEV ;;
    top | events) exec timeout --preserve-status --signal INT 3 "$AGENT" "$@" ;;
    check | attach) "$AGENT" "$@"; [ $? -le 1 ] ;;
    -*) exec "$AGENT" config "$@" ;;
    *) exec "$AGENT" "$@" ;;
esac
"#;

/// What a test must not do, or can't without systemd.
const STUBS: [&str; 5] = ["reboot", "systemctl", "systemd-run", "journalctl", "groupadd"];

/// Code in a document.
struct Block {
    /// The document's name, and what stands behind the three backquotes; `None` for code that is indented.
    place: String,
    info: Option<String>,
    lines: Vec<String>,
}

impl Block {
    fn commands(&self) -> impl Iterator<Item = &str> {
        let is_shell = self.info.as_deref().is_some_and(|info| info.starts_with("sh"));
        let lines = self.lines.iter().filter(move |_| is_shell).map(|line| line.trim());
        lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
    }
}

fn blocks() -> Vec<Block> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md"), root.join("SECURITY.md"), root.join("CONTRIBUTING.md")];
    paths.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.iter().flat_map(|path| blocks_of(path)).collect()
}

fn blocks_of(path: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(path).unwrap();
    let place = path.file_name().unwrap().to_string_lossy().into_owned();
    let (mut found, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(info), None) => {
                let info = Some(info.trim().to_owned());
                open = Some(Block { place: place.clone(), info, lines: Vec::new() });
            }
            (None, Some(block)) => block.lines.push(line.to_owned()),
            (None, None) => {
                if let Some(code) = line.strip_prefix("    ") {
                    let lines = vec![code.to_owned()];
                    found.push(Block { place: place.clone(), info: None, lines });
                }
            }
        }
    }
    assert!(open.is_none(), "{place}: a block of code without an end");
    found
}

/// The words of each call of the program in a line of shell, without its name.
fn calls(line: &str) -> Vec<Vec<String>> {
    let commands = line.split(['|', ';', '&', '>', '#']);
    let calls = commands.filter_map(|command| {
        let mut words = command.split_whitespace().skip_while(|word| word.contains('=') || *word == "sudo");
        (words.next()? == PROGRAM).then(|| words.map(str::to_owned).collect())
    });
    calls.collect()
}

/// The help of a command, or of the agent; `None` where there is no such command.
async fn help(command: Option<&str>) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_backendai-agent"))
        .args(command)
        .arg("--help")
        .output()
        .await
        .unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn has_option(help: &str, option: &str) -> bool {
    help.split(|c: char| !(c.is_alphanumeric() || c == '-')).any(|word| word == option)
}

#[tokio::test]
async fn each_command_and_option_in_code_exists() {
    let mut helps: BTreeMap<Option<String>, Option<String>> = BTreeMap::new();
    let mut count = 0;
    for block in blocks() {
        for call in block.commands().flat_map(calls) {
            let command = call.first().filter(|word| !word.starts_with('-') && *word != "…").cloned();
            // What follows are options of the agent.
            let helped = command.clone().filter(|command| command != "dev");
            if !helps.contains_key(&helped) {
                helps.insert(helped.clone(), help(helped.as_deref()).await);
            }
            let help = helps[&helped].as_ref();
            let help = help.unwrap_or_else(|| panic!("{}: no command {command:?}", block.place));
            for option in call.iter().filter(|word| word.starts_with('-') && *word != "-") {
                let option = option.split('=').next().unwrap();
                assert!(has_option(help, option), "{}: {command:?} has no {option}", block.place);
            }
            count += 1;
        }
    }
    assert!(count >= 30, "only {count} calls were found");
}

/// So that no command gets into a document that nothing tries.
#[test]
fn each_block_of_commands_says_how_it_is_tried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for block in blocks() {
        let place = &block.place;
        let Some(info) = block.info.as_deref() else {
            let line = &block.lines[0];
            let typed = [PROGRAM, "scripts/", "cargo ", "docker ", "systemctl ", "apt ", "install ", "curl "];
            let is_command = typed.iter().any(|start| line.trim_start().starts_with(start));
            assert!(!is_command, "{place}: put this into a block of code that begins with ```sh run: {line}");
            continue;
        };
        match info.split_once(' ').unwrap_or((info, "")) {
            ("sh", "run") | ("log" | "text" | "toml" | "yaml", "") => {}
            ("sh", "by hand") => {
                for command in block.commands() {
                    let is_known = BY_HAND.iter().any(|start| command.starts_with(start));
                    assert!(is_known, "{place}: something can try this: {command}");
                }
            }
            ("sh", by) if by.starts_with("by scripts/") => {
                let script = by.trim_start_matches("by ");
                assert!(root.join(script).is_file(), "{place}: there is no {script}");
            }
            _ => panic!("{place}: what is a block of {info:?}?"),
        }
    }
}

/// So that whoever looks for a line of the log finds it.
#[test]
fn each_line_of_the_log_in_the_table_of_troubles_is_one_of_the_agent_s() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut source = String::new();
    let mut directories = vec![root.join("src")];
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                source += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let text = std::fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
    let (_, table) = text.split_once("| in the log |").unwrap();
    let lines = table.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    // A condition is a field behind the text.
    let lines: Vec<&str> = lines.filter_map(|line| line.split(" condition=").next()).collect();
    assert!(lines.len() >= 20, "{lines:?}");
    for line in lines {
        assert!(source.contains(line), "no such line: {line}");
    }
}

/// A program of this name among those that are run.
fn put(bin: &Path, name: &str, text: &str) {
    let path = bin.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn what_is_marked_to_be_run_runs() {
    let (outside, other, other_page) = (tempfile::tempdir().unwrap(), Port::lease(), Port::lease());
    let socket = outside.path().join("agent.sock");
    let mut dev = Dev::start(&["--socket", socket.to_str().unwrap()]);
    dev.serves().await;

    let bin = outside.path().join("bin");
    // Where the lines that install put things.
    let root = outside.path().join("root");
    for directory in
        ["usr/local/bin", "etc/default", "etc/systemd/system", "usr/share/bash-completion/completions"]
    {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::create_dir(&bin).unwrap();
    put(&bin, PROGRAM, WRAPPER);
    for name in STUBS {
        put(&bin, name, "#!/bin/sh\necho \"$0 $*\"\n");
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let other_dev = format!(
        "--agent-port {} --metrics-addr 127.0.0.1:{} --instance-id i-dev-{}",
        other.number(),
        other_page.number(),
        &new_id()[..8]
    );
    let replaced = [
        ("tcp://127.0.0.1:6021".to_owned(), dev.address()),
        ("127.0.0.1:6021".to_owned(), dev.address()),
        ("10.0.0.11:6001".to_owned(), dev.address()),
        ("10.0.0.5:2379".to_owned(), dev.etcd()),
        ("/sorna/local/".to_owned(), "/sorna/dev/".to_owned()),
        ("127.0.0.1:6090".to_owned(), dev.page()),
        ("127.0.0.1:6022".to_owned(), dev.page()),
        ("python:3.6-debian".to_owned(), image::python()),
        (
            "target/static/".to_owned(),
            format!("{}/", Path::new(env!("CARGO_BIN_EXE_backendai-agent")).parent().unwrap().display()),
        ),
        (" /usr/".to_owned(), format!(" {}/usr/", root.display())),
        (" /etc/".to_owned(), format!(" {}/etc/", root.display())),
    ];
    let mut count = 0;
    for block in blocks() {
        if block.info.as_deref() != Some("sh run") {
            continue;
        }
        let mut text = block.lines.join("\n");
        for (from, to) in &replaced {
            text = text.replace(from, to);
        }
        // A kernel that is there; `$KERNEL` is one that is made.
        if text.contains(" KERNEL") {
            let create = format!("{PROGRAM} create --lang {} --kernel-id $THERE\n", image::python());
            text = create + &text.replace(" KERNEL", " $THERE").replace(" RUN", " r-1");
        }
        // For the next one, which may wait until there is none.
        let text = format!("{text}\n{PROGRAM} reset --yes");
        let mut shell = Command::new("sh");
        shell.args(["-euxc", &text]).current_dir(env!("CARGO_MANIFEST_DIR")).kill_on_drop(true);
        shell
            .env("PATH", &path)
            .env("AGENT", env!("CARGO_BIN_EXE_backendai-agent"))
            .env("OTHER_DEV", &other_dev);
        shell.env("KERNEL", new_id()).env("THERE", new_id()).env("HOME", outside.path());
        shell.env("BACKENDAI_AGENT", dev.address()).env("BACKENDAI_AGENT_SOCKET", &socket);
        let output = shell.output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{}:\n{text}\n\n{said}", block.place);
        count += 1;
    }
    assert!(count >= 15, "only {count} blocks are marked");
    assert!(dev.interrupt().await.success());
}

#[test]
fn calls_are_found_in_what_people_type() {
    let found = calls("A=b sudo backendai-agent dev --debug && backendai-agent ping | tail -n 1");
    assert_eq!(found, [vec!["dev", "--debug"], vec!["ping"]]);
    assert!(calls("install backendai-agent /usr/bin").is_empty());
    assert!(has_option("  -v, --verbose\n", "-v") && !has_option("--metrics-addr-x", "--metrics-addr"));
}
