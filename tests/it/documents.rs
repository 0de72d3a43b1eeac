//! What README and docs tell a reader to type, typed.
//!
//! In a block of code that begins with ```` ```sh run ```` every line is run, against an agent of `backendai-agent dev`. Of
//! all other calls of the program in code the command and each option must be there: its help has them.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::process::Command;

use crate::dev::Dev;
use crate::support::docker::image;
use crate::support::new_id;

const PROGRAM: &str = "backendai-agent";

/// Code in a document.
struct Block {
    /// The document's name, and what stands behind the three backquotes; `None` for code that is indented.
    place: String,
    info: Option<String>,
    lines: Vec<String>,
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
        for call in block.lines.iter().flat_map(|line| calls(line)) {
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
    assert!(count >= 10, "only {count} calls were found");
}

#[tokio::test]
async fn what_is_marked_to_be_run_runs() {
    let dev = Dev::start(&[]);
    dev.serves().await;
    let bin = Path::new(env!("CARGO_BIN_EXE_backendai-agent")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut count = 0;
    for block in blocks() {
        if block.info.as_deref() != Some("sh run") {
            continue;
        }
        let text = block.lines.join("\n");
        let text = text.replace("tcp://127.0.0.1:6021", &dev.address());
        let text = text.replace("python:3.6-debian", &image::python());
        let mut shell = Command::new("sh");
        shell.args(["-euxc", &text]).env("PATH", &path).env("KERNEL", new_id()).kill_on_drop(true);
        let output = shell.output().await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{}:\n{text}\n\n{said}", block.place);
        count += 1;
    }
    assert!(count >= 1, "nothing is marked");
}

#[test]
fn calls_are_found_in_what_people_type() {
    let found = calls("A=b sudo backendai-agent dev --debug && backendai-agent ping | tail -n 1");
    assert_eq!(found, [vec!["dev", "--debug"], vec!["ping"]]);
    assert!(calls("install backendai-agent /usr/bin").is_empty());
    assert!(has_option("  -v, --verbose\n", "-v") && !has_option("--metrics-addr-x", "--metrics-addr"));
}
