//! No file of `src` imports another that imports it, on whatever way round.
//!
//! A file that declares or re-exports something does not import it by that; a use of it in the file's own code does. A
//! name is followed through re-exports to the file that defines it. Methods are not seen: they belong to their type.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::sources::{Source, sources};

/// A module's path from the crate's root, `["kernel", "notes"]`.
type Path = Vec<String>;

/// One file, as far as imports go.
#[derive(Default)]
struct Module {
    /// `mod x;`, without those for tests.
    children: BTreeSet<String>,
    /// What `use` binds: the name, its target from the root, and whether it is only passed on (`pub use`).
    bindings: BTreeMap<String, (Path, bool)>,
    /// Every path in the code outside of `use`.
    paths: BTreeSet<Path>,
}

/// Text without comments, strings and characters.
fn bare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        if rest.starts_with(&['/', '/']) {
            at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
        } else if let Some(hashes) = raw_string(rest).filter(|_| !out.ends_with(is_word)) {
            let end: String = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body: String = chars[at + hashes + 2..].iter().collect();
            let length = body.find(&end).map_or(body.len(), |found| found + end.len());
            at += hashes + 2 + body[..length].chars().count();
            out.push_str("\"\"");
        } else if rest[0] == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            out.push_str("\"\"");
        } else if rest[0] == '\'' && rest.len() > 2 && (rest[1] == '\\' || rest[2] == '\'') {
            let from = if rest[1] == '\\' { 3 } else { 2 };
            at += from + rest[from..].iter().position(|c| *c == '\'').unwrap_or(0) + 1;
        } else {
            out.push(rest[0]);
            at += 1;
        }
    }
    out
}

/// The number of `#` of a raw string that begins here.
fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest.strip_prefix(&['r'])?.iter().take_while(|c| **c == '#').count();
    (rest.get(hashes + 1) == Some(&'"')).then_some(hashes)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// From `src/a/b.rs` to `["a", "b"]`; `lib.rs` is the root.
fn module_of(file: &str) -> Path {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    if stem == "lib" { Vec::new() } else { stem.split('/').map(str::to_owned).collect() }
}

/// A path as written in `module`, from the root; `None` for another crate's. What begins with a name of the module's own
/// is taken as below it.
fn absolute(module: &[String], written: &[String]) -> Path {
    let mut base = match written.first().map(String::as_str) {
        Some("crate") => return written[1..].to_vec(),
        _ => module.to_vec(),
    };
    let mut rest = written;
    while let [first, more @ ..] = rest {
        match first.as_str() {
            "self" => {}
            "super" => drop(base.pop()),
            _ => break,
        }
        rest = more;
    }
    base.extend_from_slice(rest);
    base
}

/// The leaves of a tree of `use`: each path, and the name that it is bound to.
fn leaves(tree: &str, prefix: &[String], out: &mut Vec<(Path, String)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let inner = tree[open + 1..].trim_end().strip_suffix('}').unwrap_or_default();
        let mut base = prefix.to_vec();
        base.extend(tree[..open].split("::").map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned));
        let (mut depth, mut from) = (0, 0);
        for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    leaves(&inner[from..at], &base, out);
                    from = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    if tree.is_empty() {
        return;
    }
    let (path, alias) = tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias)));
    let mut whole = prefix.to_vec();
    whole.extend(path.split("::").map(|s| s.trim().to_owned()));
    if whole.len() > 1 && whole.last().is_some_and(|last| last == "self") {
        whole.pop();
    }
    let name = alias.map_or_else(|| whole.last().unwrap().clone(), |alias| alias.trim().to_owned());
    out.push((whole, name));
}

/// Every path in a text: `a`, `a::b`, `crate::c::D`.
fn paths(code: &str) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    for piece in code.split(|c: char| !is_word(c) && c != ':') {
        // `a::<B>` leaves an end of colons, a type's mark one in front.
        for path in piece.split(':').fold(vec![Vec::new()], |mut paths: Vec<Path>, segment| {
            let last = paths.len() - 1;
            match (segment, paths[last].last().map(String::as_str)) {
                ("", Some("") | None) => paths.push(Vec::new()),
                ("", Some(_)) => paths[last].push(String::new()),
                (word, Some("")) => {
                    paths[last].pop();
                    paths[last].push(word.to_owned());
                }
                (word, _) => paths.push(vec![word.to_owned()]),
            }
            paths
        }) {
            let path: Path = path.into_iter().filter(|segment| !segment.is_empty()).collect();
            if !path.is_empty() {
                found.insert(path);
            }
        }
    }
    found
}

impl Module {
    /// Reads a file's code; also gives the children that only tests have.
    fn read(path: &[String], code: &str) -> (Self, BTreeSet<String>) {
        let mut module = Self::default();
        let (mut own, mut for_tests) = (String::new(), BTreeSet::new());
        let (mut imports, mut is_test) = (Vec::new(), false);
        for item in items(code) {
            let words = item.trim_start();
            let (visibility, rest) = visibility(words);
            if words == "#[cfg(test)]" {
                is_test = true;
                continue;
            }
            if let Some(tree) = rest.strip_prefix("use ").and_then(|rest| rest.strip_suffix(';')) {
                if !is_test {
                    imports.push((tree.to_owned(), visibility));
                }
            } else if let Some(name) = rest.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                let children = if is_test { &mut for_tests } else { &mut module.children };
                children.insert(name.trim().to_owned());
            } else {
                own.push_str(&item);
            }
            is_test = false;
        }
        // The children are known now: a `use` may begin with one.
        for (tree, passed_on) in imports {
            module.take_use(path, &tree, passed_on);
        }
        module.paths = paths(&own);
        (module, for_tests)
    }

    fn take_use(&mut self, path: &[String], tree: &str, passed_on: bool) {
        let mut found = Vec::new();
        leaves(tree, &[], &mut found);
        for (written, name) in found {
            let is_ours = ["crate", "self", "super"].contains(&written[0].as_str());
            let is_child = self.children.contains(&written[0]) || self.bindings.contains_key(&written[0]);
            if !is_ours && !is_child {
                continue;
            }
            let target = absolute(path, &written);
            // Only tests import all of a file.
            if name != "*" {
                self.bindings.insert(name, (target, passed_on));
            }
        }
    }
}

fn visibility(item: &str) -> (bool, &str) {
    let Some(rest) = item.strip_prefix("pub") else { return (false, item) };
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest);
    (true, rest.trim_start())
}

/// A file's lines, those of one `use` or `mod` joined into one.
fn items(code: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut open: Option<String> = None;
    for line in code.lines() {
        let (_, rest) = visibility(line);
        if let Some(mut item) = open.take().or_else(|| rest.starts_with("use ").then(String::new)) {
            item.push_str(line);
            item.push(' ');
            if line.trim_end().ends_with(';') {
                items.push(item.trim_end().to_owned());
            } else {
                open = Some(item);
            }
        } else {
            items.push(format!("{line}\n").trim_end_matches('\r').to_owned());
        }
    }
    for item in &mut items {
        if visibility(item).1.starts_with("mod ") || item.starts_with("#[cfg") {
            *item = item.trim_end().to_owned();
        }
    }
    items
}

/// The modules by their paths, those for tests left out.
fn modules(sources: &[Source]) -> BTreeMap<Path, Module> {
    let mut modules = BTreeMap::new();
    let mut for_tests: Vec<Path> = Vec::new();
    for source in sources.iter().filter(|source| source.path != "main.rs") {
        let path = module_of(&source.path);
        let text = bare(&source.text);
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let (module, tests) = Module::read(&path, &text[..end]);
        for_tests.extend(tests.into_iter().map(|name| path.iter().cloned().chain([name]).collect()));
        modules.insert(path, module);
    }
    modules.retain(|path: &Path, _| !for_tests.iter().any(|test| path.starts_with(test)));
    modules
}

/// The file that defines what a path from the root names.
fn definer(modules: &BTreeMap<Path, Module>, target: &[String], steps: usize) -> Option<Path> {
    let mut at: Path = Vec::new();
    for (index, segment) in target.iter().enumerate() {
        let module = modules.get(&at)?;
        if module.children.contains(segment) {
            at.push(segment.clone());
            continue;
        }
        if steps == 0 {
            return None;
        }
        if let Some((next, _)) = module.bindings.get(segment) {
            let next: Path = next.iter().chain(&target[index + 1..]).cloned().collect();
            return definer(modules, &next, steps - 1);
        }
        return Some(at);
    }
    // A module itself, which is no more than a way to what is in it.
    None
}

/// From each file to those that it uses, with what it uses there.
fn uses(modules: &BTreeMap<Path, Module>) -> BTreeMap<Path, BTreeMap<Path, String>> {
    let mut uses: BTreeMap<Path, BTreeMap<Path, String>> = BTreeMap::new();
    for (path, module) in modules {
        let mut add = |target: &[String]| {
            if let Some(file) = definer(modules, target, 8).filter(|file| file != path) {
                uses.entry(path.clone()).or_default().entry(file).or_insert_with(|| target.join("::"));
            }
        };
        for (target, _) in module.bindings.values().filter(|(_, passed_on)| !passed_on) {
            add(target);
        }
        for written in &module.paths {
            let first = &written[0];
            if ["crate", "self", "super"].contains(&first.as_str()) || module.children.contains(first) {
                add(&absolute(path, written));
            } else if let Some((target, _)) = module.bindings.get(first) {
                add(&target.iter().chain(&written[1..]).cloned().collect::<Vec<_>>());
            }
        }
    }
    uses
}

/// The shortest way from a file back to itself.
fn way_round(uses: &BTreeMap<Path, BTreeMap<Path, String>>, from: &Path) -> Option<Vec<Path>> {
    let mut ways = vec![vec![from.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let Some(next) = uses.get(way.last().unwrap()) else { continue };
            for file in next.keys() {
                let mut way = way.clone();
                way.push(file.clone());
                if file == from {
                    return Some(way);
                }
                if seen.insert(file.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

fn file_name(module: &[String]) -> String {
    if module.is_empty() { "lib.rs".to_owned() } else { format!("{}.rs", module.join("/")) }
}

/// Every circle once, as a line with what is used at each step.
fn circles(modules: &BTreeMap<Path, Module>) -> Vec<String> {
    let uses = uses(modules);
    let mut told: BTreeSet<BTreeSet<Path>> = BTreeSet::new();
    let mut lines = Vec::new();
    for file in modules.keys() {
        let Some(way) = way_round(&uses, file) else { continue };
        if told.insert(way.iter().cloned().collect()) {
            let mut line = file_name(&way[0]);
            for step in way.windows(2) {
                let _ = write!(line, " -({})-> {}", uses[&step[0]][&step[1]], file_name(&step[1]));
            }
            lines.push(line);
        }
    }
    lines
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found = circles(&modules(&sources()));
    assert!(found.is_empty(), "{} circles:\n{}", found.len(), found.join("\n"));
}

#[cfg(test)]
fn of(files: &[(&str, &str)]) -> Vec<String> {
    let source = |(path, text): &(&str, &str)| Source {
        path: (*path).to_owned(),
        room: String::new(),
        text: (*text).to_owned(),
    };
    circles(&modules(&files.iter().map(source).collect::<Vec<_>>()))
}

#[test]
fn circles_are_seen_through_re_exports_and_declarations_are_none() {
    let lib = ("lib.rs", "mod a;\nmod b;\n");
    let a = ("a.rs", "mod x;\npub use x::X;\n");
    assert_eq!(
        of(&[lib, a, ("a/x.rs", "pub struct X;\n"), ("b.rs", "use crate::a::X;\n")]),
        Vec::<String>::new()
    );
    let back = ("a/x.rs", "use crate::b::B;\npub struct X(B);\n");
    let b = ("b.rs", "use crate::a::{\n    X,\n};\npub struct B(X);\n");
    assert_eq!(of(&[lib, a, back, b]), ["a/x.rs -(b::B)-> b.rs -(a::X)-> a/x.rs"]);
    let uses = ("a.rs", "mod x;\npub use x::X;\npub struct A(X);\n");
    let child = ("a/x.rs", "pub struct X;\nfn f(_: super::A) {}\n");
    assert_eq!(of(&[lib, uses, child, ("b.rs", "")]).len(), 1);
    let only_in_tests = ("a/x.rs", "pub struct X;\n#[cfg(test)]\nmod tests {\n    use super::super::A;\n}\n");
    assert_eq!(of(&[lib, uses, only_in_tests, ("b.rs", "")]), Vec::<String>::new());
    let only_in_a_comment = ("a/x.rs", "pub struct X; // as super::A\nconst T: &str = \"super::A\";\n");
    assert_eq!(of(&[lib, uses, only_in_a_comment, ("b.rs", "")]), Vec::<String>::new());
}
