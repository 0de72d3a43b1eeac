//! The file of settings: TOML, whose keys are the long flags without their dashes. Pure; what a value means, its flag
//! decides.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::inventory::{Form, Setting};
use super::options;
use super::report::{Place, Problem, Shown};
use crate::nearest::nearest;

/// A file of settings and what it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SettingsFile {
    /// In the order of the file.
    pub(super) entries: Vec<Entry>,
    /// What can't be used, in the same order.
    pub(super) problems: Vec<Problem>,
}

/// One setting of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The long flag without its dashes.
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What the file says of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A switch.
    Switch(bool),
    /// Anything else, as it would be typed after the flag.
    Text(String),
}

/// Reads `text`, the content of `path`, of which `settings` may be set.
pub(super) fn read(path: &Path, text: &str, settings: &[Setting]) -> SettingsFile {
    let (table, errors) = DeTable::parse_recoverable(text);
    let place = |at: usize| {
        let before = text.get(..at).unwrap_or(text);
        Place { path: path.to_owned(), line: before.matches('\n').count() + 1 }
    };
    let mut file = SettingsFile::default();
    for error in errors {
        let place = place(error.span().map_or(text.len(), |span| span.start));
        file.problems.push(Problem::of_file(None, place, Shown::Nothing, error.message()));
    }
    // What doesn't parse hides the rest, of which nothing sure can be said.
    if !file.problems.is_empty() {
        return file;
    }
    let mut pairs: Vec<_> = table.get_ref().iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in pairs {
        let (name, place) = (key.get_ref().as_ref(), place(key.span().start));
        let Some(setting) = settings.iter().find(|setting| setting.key == name) else {
            let advice = unknown(name, value.get_ref(), settings);
            file.problems.push(Problem::of_file(Some(name), place, Shown::Nothing, &advice));
            continue;
        };
        match fitting(value.get_ref(), setting.form) {
            Ok(value) => file.entries.push(Entry { key: name.to_owned(), place, value }),
            Err(advice) => {
                file.problems.push(Problem::of_file(Some(name), place, Shown::Nothing, &advice));
            }
        }
    }
    file
}

fn unknown(name: &str, value: &DeValue<'_>, settings: &[Setting]) -> String {
    if value.is_table() {
        return "is a table; settings stand in no [section]".to_owned();
    }
    if name == options::FILE {
        return "names a file of settings and can't stand in one".to_owned();
    }
    let keys = settings.iter().map(|setting| setting.key.as_str());
    let nearest = nearest(name, keys).map_or_else(String::new, |key| format!("; did you mean {key}?"));
    format!("is no setting{nearest}")
}

/// The value, or what would fit.
fn fitting(value: &DeValue<'_>, form: Form) -> Result<Value, String> {
    let wrong = |wanted: &str| Err(format!("is {}; give {wanted}", kind(value)));
    match (form, value) {
        (Form::Switch, DeValue::Boolean(on)) => Ok(Value::Switch(*on)),
        (Form::Switch, _) => wrong("true or false"),
        (Form::List, DeValue::Array(parts)) => {
            let parts: Option<Vec<_>> = parts.iter().map(|part| scalar(part.get_ref())).collect();
            let joined = parts.filter(|parts| !parts.is_empty()).map(|parts| parts.join(","));
            joined.map_or_else(|| wrong("a list of texts, or one text"), |text| Ok(Value::Text(text)))
        }
        (_, value) => match (scalar(value), form) {
            (Some(text), _) => Ok(Value::Text(text)),
            (None, Form::List) => wrong("a list of texts, or one text"),
            (None, _) => wrong("a text or a number"),
        },
    }
}

/// As it would be typed after a flag; `true` and tables never are.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::super::inventory;
    use super::*;

    fn read(text: &str) -> SettingsFile {
        super::read(Path::new("/etc/agent.toml"), text, &inventory::settings())
    }

    fn problems(text: &str) -> Vec<String> {
        read(text).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_are_what_would_be_typed() {
        let file = read(
            "agent-port = 6002\n\
             idle-timeout = \"10m\"\n\
             # a comment\n\
             debug = true\n\
             etcd-addr = [\"a:1\", 'b:2']\n\
             log-file-size = 1.50\n\
             reserved-cpus = 0x301\n",
        );
        assert_eq!(file.problems, []);
        let found: Vec<_> =
            file.entries.iter().map(|entry| (entry.key.as_str(), entry.place.line, &entry.value)).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(
            found,
            [
                ("agent-port", 1, &text("6002")),
                ("idle-timeout", 2, &text("10m")),
                ("debug", 4, &Value::Switch(true)),
                ("etcd-addr", 5, &text("a:1,b:2")),
                ("log-file-size", 6, &text("1.50")),
                ("reserved-cpus", 7, &text("0x301")),
            ]
        );
    }

    #[test]
    fn every_unknown_key_and_wrong_type_is_told_with_its_line() {
        let told = problems(
            "agent-prot = 1\n\
             debug = \"yes\"\n\
             namespace = true\n\
             etcd-addr = []\n\
             region = [\"a\"]\n\
             agent_host_override = \"secretkey\"\n\
             config = \"other.toml\"\n\
             [cluster]\n",
        );
        assert_eq!(
            told,
            [
                "agent-prot (line 1 of /etc/agent.toml): is no setting; did you mean agent-port?",
                "debug (line 2 of /etc/agent.toml): is a text; give true or false",
                "namespace (line 3 of /etc/agent.toml): is true or false; give a text or a number",
                "etcd-addr (line 4 of /etc/agent.toml): is a list; give a list of texts, or one text",
                "region (line 5 of /etc/agent.toml): is a list; give a text or a number",
                "agent_host_override (line 6 of /etc/agent.toml): is no setting; did you mean agent-host-override?",
                "config (line 7 of /etc/agent.toml): names a file of settings and can't stand in one",
                "cluster (line 8 of /etc/agent.toml): is a table; settings stand in no [section]",
            ]
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line_and_without_its_text() {
        let told = problems("debug = true\nraven-uri = https://secretkey@host/1\nregion = \"x\n");
        assert!(told.len() >= 2, "{told:?}");
        assert!(told[0].starts_with("line 2 of /etc/agent.toml: "), "{told:?}");
        assert!(told.iter().all(|line| !line.contains("secretkey")), "{told:?}");
        let twice = problems("debug = true\ndebug = false\n");
        assert_eq!(twice, ["line 2 of /etc/agent.toml: duplicate key"]);
    }
}
