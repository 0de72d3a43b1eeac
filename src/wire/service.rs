//! The services that an image declares, as 18.12 knows them (PROTOCOL section 7). Pure.

use super::value::{self, Value};

/// How a service is spoken to, by the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A stream of bytes.
    Tcp,
    /// A terminal.
    Pty,
    /// A web server.
    Http,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Tcp, Self::Pty, Self::Http];

    /// In labels, in answers, and for the runner.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Pty => "pty",
            Self::Http => "http",
        }
    }
}

/// A service and its port in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// By which users ask for it.
    pub name: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// The port in the container.
    pub port: u16,
}

/// A service and where the manager reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedService {
    /// Which.
    pub service: ServicePort,
    /// The port on the kernel host.
    pub host_port: u16,
}

impl ServicePort {
    /// The list in an image's label, `jupyter:http:8080,shell:pty:7681`; `None` where it is none. The runner's own two ports
    /// are nobody's service.
    #[must_use]
    pub fn list(text: &str) -> Option<Vec<Self>> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let list: Vec<Self> = items.map(Self::one).collect::<Option<_>>()?;
        let is_twice =
            |at: usize| list.get(..at).is_some_and(|before| before.iter().any(|s| s.name == list[at].name));
        (!(0..list.len()).any(is_twice)).then_some(list)
    }

    fn one(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (Some(name), Some(protocol), Some(port), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let protocol = Protocol::ALL.into_iter().find(|known| known.as_str() == protocol)?;
        let port = port.parse().ok().filter(|port| *port > 1024 && ![2000, 2001].contains(port))?;
        (!name.is_empty()).then(|| Self { name: name.to_owned(), protocol, port })
    }
}

impl PublishedService {
    /// As it is answered.
    #[must_use]
    pub fn to_value(&self) -> Value {
        value::map([
            ("name", Value::from(self.service.name.as_str())),
            ("protocol", self.service.protocol.as_str().into()),
            ("container_port", self.service.port.into()),
            ("host_port", self.host_port.into()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_services() {
        let list = ServicePort::list("jupyter:http:8080, shell:pty:7681,").unwrap();
        let ports: Vec<_> = list.iter().map(|s| (s.name.as_str(), s.protocol, s.port)).collect();
        assert_eq!(ports, [("jupyter", Protocol::Http, 8080), ("shell", Protocol::Pty, 7681)]);
        assert_eq!(ServicePort::list(" "), Some(vec![]));
        for bad in [
            "jupyter",
            "jupyter:http",
            "jupyter:http:8080:x",
            "j:ftp:8080",
            ":http:8080",
            "j:http:80",
            "j:http:2000",
            "j:http:2001",
            "j:http:70000",
            "j:http:-1",
            "j:http:8080,j:tcp:8081",
        ] {
            assert_eq!(ServicePort::list(bad), None, "{bad}");
        }
    }
}
