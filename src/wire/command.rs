//! What the agent sends to a kernel's runner: two frames each (PROTOCOL section 8).

use bytes::Bytes;
use serde_json::json;

use super::request::Completions;
use super::service::ServicePort;

/// One command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Run a clean command; `*` means the image's default. Only runners from 18.12 on know it.
    Clean(String),
    /// Run a build command; `*` means the image's default, and of an empty one only the end is answered.
    Build(String),
    /// Run an execution command.
    Exec(String),
    /// Run source.
    Code(String),
    /// Text for a run that waits for input.
    Input(String),
    /// Ask for completions.
    Complete(Completions),
    /// Start a service. Only runners from 18.12 on know it.
    StartService(ServiceStart),
    /// Say that it is there; answered beside the run that goes on.
    Status,
    /// Interrupt the run. Only while one goes on: an idle Python runner loses its worker by it.
    Interrupt,
}

/// What a runner has to know of a service to start it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceStart {
    /// Which, and where it is to listen.
    pub port: ServicePort,
    /// As the caller gave them.
    pub options: serde_json::Map<String, serde_json::Value>,
}

impl Command {
    /// The two frames.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let (kind, data) = match self {
            Self::Clean(text) => ("clean", text.clone().into()),
            Self::Build(text) => ("build", text.clone().into()),
            Self::Exec(text) => ("exec", text.clone().into()),
            Self::Code(text) => ("code", text.clone().into()),
            Self::Input(text) => ("input", text.clone().into()),
            Self::Complete(ask) => ("complete", completion_request(ask).into()),
            Self::StartService(start) => ("start-service", service_request(start).into()),
            Self::Status => ("status", Bytes::new()),
            Self::Interrupt => ("interrupt", Bytes::new()),
        };
        vec![Bytes::from_static(kind.as_bytes()), data]
    }
}

/// `{name, port, protocol, options}`.
fn service_request(start: &ServiceStart) -> String {
    let ServiceStart { port: ServicePort { name, protocol, port }, options } = start;
    json!({ "name": name, "port": port, "protocol": protocol.as_str(), "options": options }).to_string()
}

/// `{code, …opts}`; an option named `code` wins, as in the reference's merge. The Python runner reads `line`
/// only and answers nothing without it, so it is filled from the text when the caller left it out.
fn completion_request(ask: &Completions) -> String {
    let mut map = serde_json::Map::new();
    map.insert("code".to_owned(), ask.text.clone().into());
    map.extend(ask.opts.clone());
    map.entry("line").or_insert_with(|| ask.text.clone().into());
    serde_json::Value::Object(map).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_carry_code_line_and_options() {
        let ask = |opts: serde_json::Value| Completions {
            text: "imp".to_owned(),
            opts: opts.as_object().cloned().unwrap(),
        };
        let sent = |opts| String::from_utf8(Command::Complete(ask(opts)).encode()[1].to_vec()).unwrap();
        let given: serde_json::Value =
            serde_json::from_str(&sent(serde_json::json!({"line": "x", "col": 1}))).unwrap();
        assert_eq!(given, serde_json::json!({"code": "imp", "line": "x", "col": 1}));
    }

    #[test]
    fn a_service_is_named_with_its_port() {
        let port = ServicePort::list("jupyter:http:8080").unwrap().remove(0);
        let options = json!({ "x": 1 }).as_object().cloned().unwrap();
        let [kind, data] = Command::StartService(ServiceStart { port, options }).encode().try_into().unwrap();
        let data: serde_json::Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(kind, "start-service");
        assert_eq!(
            data,
            json!({ "name": "jupyter", "port": 8080, "protocol": "http", "options": { "x": 1 } })
        );
    }

    #[test]
    fn every_command_has_two_frames() {
        assert_eq!(Command::Interrupt.encode(), [Bytes::from_static(b"interrupt"), Bytes::new()]);
        assert_eq!(Command::Build(String::new()).encode()[0], "build");
    }
}
