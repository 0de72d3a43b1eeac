//! `docs/log.md` against what the agent writes.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use crate::support::{Bed, docker, kernel, new_id, secs, until};

/// What of a line does not change from one to the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    level: String,
    message: String,
    fields: Vec<String>,
}

impl Line {
    /// `2026-11-28T09:00:00Z  INFO message name=value …`; `None` for anything else.
    fn read(text: &str) -> Option<Self> {
        let (time, rest) = text.split_once(' ')?;
        if !(time.starts_with("20") && time.ends_with('Z')) {
            return None;
        }
        let (level, rest) = rest.trim_start().split_once(' ')?;
        let mut words = rest.split(' ').peekable();
        let is_field = |word: &&str| word.split_once('=').is_some_and(|(name, _)| is_name(name));
        let mut message = Vec::new();
        while let Some(word) = words.next_if(|word| !is_field(word)) {
            message.push(word);
        }
        let fields = words.filter_map(|word| word.split_once('=')).map(|(name, _)| name);
        let fields = fields.filter(|name| is_name(name)).map(str::to_owned).collect();
        Some(Self { level: level.to_owned(), message: message.join(" "), fields })
    }

    /// Whether this is a line of the same kind as `shown`, which may have fields that this one lacks.
    fn is_like(&self, shown: &Self) -> bool {
        (&self.level, &self.message) == (&shown.level, &shown.message)
            && self.fields.iter().all(|field| shown.fields.contains(field))
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// The lines of the page below this heading.
fn shown(heading: &str) -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/log.md");
    let page = std::fs::read_to_string(path).unwrap();
    let part = page.split("\n## ").find(|part| part.starts_with(heading)).expect("the heading is there");
    part.lines().filter_map(Line::read).collect()
}

#[tokio::test]
async fn a_good_day_is_as_the_page_shows_it() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await;
    kernel.call("restart_kernel", json!([{}])).await.expect("a restart");
    let code = "import time\nfor i in range(60): time.sleep(0.1)";
    kernel.execute("r", "query", code, json!({})).await.unwrap();
    until("statistics", secs(20), async || {
        agent.output().contains("statistics go to this Redis").then_some(())
    })
    .await;
    let first = agent.output();
    agent.kill9();
    let mut agent = bed.agent(&[]).await;
    until("the kernel", secs(10), async || {
        agent.output().contains("took back a running kernel").then_some(())
    })
    .await;
    kernel.destroy().await;
    assert!(agent.stop().await.success());

    let written: BTreeSet<Line> =
        [first, agent.output()].iter().flat_map(|text| text.lines()).filter_map(Line::read).collect();
    let page = shown("A good day");
    for line in &page {
        // What depends on the machine: a network of Docker's, the quota of files, with a file system that knows it.
        let is_elsewhere = ["kernels reach each other", "each kernel's files are held to a limit"]
            .iter()
            .any(|start| line.message.starts_with(start));
        assert!(
            is_elsewhere || written.iter().any(|w| w.is_like(line)),
            "the agent never wrote {line:?} in {written:#?}"
        );
    }
    for line in &written {
        assert!(page.iter().any(|shown| line.is_like(shown)), "docs/log.md does not show {line:?}");
    }
}

#[tokio::test]
async fn the_lines_of_a_bad_day_are_as_the_page_shows_them() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut config = kernel::config(&docker::image::python());
    config["limits"]["mem_slot"] = json!(128);
    let kernel = agent.create_with(config).await.warm().await;
    let said = async |text: &str| {
        until(text, secs(30), async || agent.output().contains(text).then_some(())).await;
    };
    bed.redis.pause().await;
    said("reason=\"statistics don't reach Redis").await;
    bed.redis.resume();
    said("is over condition=\"redis\"").await;
    bed.etcd.pause().await;
    said("etcd can't be reached").await;
    bed.etcd.resume();
    said("is over condition=\"etcd\"").await;
    let _ = kernel.execute("r", "query", "x = bytearray(1 << 30)", json!({})).await;
    bed.wait_end(&kernel.id, secs(10)).await;
    said("ended kernel").await;
    agent.call("create_kernel", json!([new_id(), kernel::config("none:0")])).await.unwrap_err();
    kernel.execute("r", "query", "1", json!({})).await.unwrap_err();
    said("answered with an error").await;

    let page = [shown("A bad day"), shown("A good day")].concat();
    for line in agent.output().lines().filter_map(Line::read) {
        assert!(page.iter().any(|shown| line.is_like(shown)), "docs/log.md does not show {line:?}");
    }
    assert!(!agent.output().contains("no statistics of a kernel"), "an end is no lack of statistics");
}

/// Those that no test brings about here are at least in the sources, word for word.
#[test]
fn every_line_of_the_page_is_in_the_sources() {
    fn texts(dir: &Path, all: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                texts(&path, all);
            } else {
                all.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut sources = String::new();
    texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
    let sources = sources.replace("\\\"", "\"");
    let lines = [shown("A good day"), shown("A bad day")].concat();
    assert!(lines.len() > 30, "{}", lines.len());
    for Line { message, fields, .. } in lines {
        assert!(sources.contains(&format!("\"{message}\"")), "no line says {message:?}");
        for field in fields {
            assert!(sources.contains(&field), "no line has a field {field}");
        }
    }
}
