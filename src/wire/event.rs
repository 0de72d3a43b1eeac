//! Events to the manager (PROTOCOL section 4; law: its handlers are called with exactly these arguments).

use bytes::Bytes;

use super::value::{self, UnpackError, Value};
use crate::ids::{InstanceId, KernelId};

/// Everything this agent tells the manager.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Once serving; the manager marks the agent ALIVE.
    InstanceStarted,
    /// At once, then every 3 s.
    Heartbeat(Heartbeat),
    /// The last thing at shutdown.
    InstanceTerminated(StopReason),
    /// Before a kernel is made, also at a restart.
    KernelCreating(KernelId),
    /// A kernel is gone. Not idempotent in the manager: exactly once per kernel life.
    KernelTerminated(KernelId, EndReason, Option<Value>),
}

/// What a heartbeat says of the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// The agent's address as an IP.
    pub ip: String,
    /// Where it stands, e.g. `amazon/ap-northeast-2`.
    pub region: String,
    /// The agent's RPC endpoint, `tcp://host:port`.
    pub addr: String,
    /// Memory of the machine in MiB.
    pub mem_slots: u64,
    /// Cores.
    pub cpu_slots: u64,
    /// GPU devices.
    pub gpu_slots: u64,
    /// The image list as [`pack_images`] made it.
    pub images: Bytes,
}

/// Why the agent stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The agent's kernels were ended; the manager ends the sessions.
    Shutdown,
    /// Kernels stay, the agent comes back: the manager keeps the sessions.
    AgentRestart,
}

/// Why a kernel is gone. The manager stores the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// `destroy_kernel`.
    UserRequested,
    /// The kernel's container ended by itself or was removed behind our back.
    SelfTerminated,
    /// Nobody used it for the idle timeout.
    IdleTimeout,
    /// One execution took longer than the image allows.
    ExecTimeout,
    /// The RPC `reset`.
    AgentReset,
    /// The agent stops and takes its kernels down.
    AgentTermination,
    /// Destroyed, but this agent does not know it (section 12, item 4).
    AlreadyTerminated,
}

impl EndReason {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::UserRequested,
        Self::SelfTerminated,
        Self::IdleTimeout,
        Self::ExecTimeout,
        Self::AgentReset,
        Self::AgentTermination,
        Self::AlreadyTerminated,
    ];

    /// The text on the wire, in the journal and in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserRequested => "user-requested",
            Self::SelfTerminated => "self-terminated",
            Self::IdleTimeout => "idle-timeout",
            Self::ExecTimeout => "exec-timeout",
            Self::AgentReset => "agent-reset",
            Self::AgentTermination => "agent-termination",
            Self::AlreadyTerminated => "already-terminated",
        }
    }

    /// Back from the text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl std::fmt::Display for EndReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl StopReason {
    /// The text on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::AgentRestart => "agent-restart",
        }
    }
}

impl Event {
    /// The first frame.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::InstanceStarted => "instance_started",
            Self::Heartbeat(_) => "instance_heartbeat",
            Self::InstanceTerminated(_) => "instance_terminated",
            Self::KernelCreating(_) => "kernel_creating",
            Self::KernelTerminated(..) => "kernel_terminated",
        }
    }

    /// The three frames.
    #[must_use]
    pub fn encode(&self, from: &InstanceId) -> Vec<Bytes> {
        let args = match self {
            Self::InstanceStarted => vec![],
            Self::Heartbeat(info) => vec![info.to_value()],
            Self::InstanceTerminated(reason) => vec![reason.as_str().into()],
            Self::KernelCreating(kernel) => vec![kernel.to_string().into()],
            Self::KernelTerminated(kernel, reason, stats) => {
                vec![kernel.to_string().into(), reason.as_str().into(), stats.clone().unwrap_or(Value::Nil)]
            }
        };
        vec![
            Bytes::from_static(self.name().as_bytes()),
            Bytes::copy_from_slice(from.as_str().as_bytes()),
            value::pack(&Value::Array(args)).into(),
        ]
    }
}

/// The largest list of images that is unpacked, in bytes; one image takes some hundred.
const LARGEST_LIST: u64 = 16 * 1024 * 1024;

/// An event as the manager's side reads it: for client commands that listen.
#[derive(Debug, Clone, PartialEq)]
pub struct HeardEvent {
    /// The event's name.
    pub name: String,
    /// Which agent says so.
    pub instance: InstanceId,
    /// The event's arguments.
    pub args: Vec<Value>,
}

impl HeardEvent {
    /// From the three frames; `None` for anything else.
    #[must_use]
    pub fn decode(frames: &[Bytes]) -> Option<Self> {
        let [name, instance, args] = frames else { return None };
        let text = |bytes: &Bytes| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let Ok(Value::Array(args)) = value::unpack(args) else { return None };
        Some(Self { name: text(name)?, instance: InstanceId::new(text(instance)?), args })
    }
}

impl HeardEvent {
    /// For programs: `{"event": …, "agent": …, "args": […]}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let args: Vec<_> = self.args.iter().map(readable).collect();
        serde_json::json!({"event": self.name, "agent": self.instance.as_str(), "args": args})
    }
}

/// The names in the image list of a heartbeat, which is compressed.
#[must_use]
pub fn image_names(info: &Value) -> Option<Vec<String>> {
    let Some(Value::Binary(packed)) = value::get(info, "images") else { return None };
    let list = unpack_images(packed).ok()?;
    let name = |pair: &Value| Some(pair.as_array()?.first()?.as_str()?.to_owned());
    Some(list.as_array()?.iter().filter_map(name).collect())
}

/// An argument of an event as JSON, the image list of a heartbeat as a person wants to read it.
#[must_use]
pub fn readable(arg: &Value) -> serde_json::Value {
    let mut json = value::to_json(arg);
    if let (Some(names), Some(map)) = (image_names(arg), json.as_object_mut()) {
        map.insert("images".to_owned(), names.into());
    }
    json
}

impl Heartbeat {
    /// The info map.
    #[must_use]
    pub fn to_value(&self) -> Value {
        value::map([
            ("ip", Value::from(self.ip.as_str())),
            ("region", self.region.as_str().into()),
            ("addr", self.addr.as_str().into()),
            ("mem_slots", self.mem_slots.into()),
            ("cpu_slots", self.cpu_slots.into()),
            ("gpu_slots", self.gpu_slots.into()),
            ("images", Value::Binary(self.images.to_vec())),
            // 18.12 can't do without; no other manager looks at it.
            ("tpu_slots", 0.into()),
        ])
    }
}

/// The image list: raw snappy of the packed list of `[name:tag, image id]`.
#[must_use]
pub fn pack_images<'a>(images: impl IntoIterator<Item = (&'a str, &'a str)>) -> Bytes {
    let list = images.into_iter().map(|(name, id)| Value::Array(vec![name.into(), id.into()])).collect();
    let packed = value::pack(&Value::Array(list));
    // Fails only beyond 4 GiB, where an empty list is the better heartbeat than none.
    snap::raw::Encoder::new().compress_vec(&packed).unwrap_or_default().into()
}

/// The image list of a heartbeat, for client commands that listen.
pub fn unpack_images(bytes: &[u8]) -> Result<Value, ImagesError> {
    let given = snap::raw::decompress_len(bytes)? as u64;
    if given > LARGEST_LIST {
        // A few bytes can announce 4 GiB, which the library would take at once.
        Err(snap::Error::TooBig { given, max: LARGEST_LIST })?;
    }
    Ok(value::unpack(&snap::raw::Decoder::new().decompress_vec(bytes)?)?)
}

/// An image list that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// Not raw snappy.
    #[error("the image list is not raw snappy: {0}")]
    Snappy(#[from] snap::Error),
    /// Not msgpack.
    #[error("the image list: {0}")]
    Unpack(#[from] UnpackError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arities_are_exact() {
        let me = InstanceId::new("i-test");
        let kernel: KernelId = "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10".parse().unwrap();
        let arity = |event: Event| {
            let heard = HeardEvent::decode(&event.encode(&me)).unwrap();
            assert_eq!((heard.name.as_str(), &heard.instance), (event.name(), &me));
            heard.args.len()
        };
        assert_eq!(arity(Event::InstanceStarted), 0);
        assert_eq!(arity(Event::InstanceTerminated(StopReason::AgentRestart)), 1);
        assert_eq!(arity(Event::KernelCreating(kernel)), 1);
        assert_eq!(arity(Event::KernelTerminated(kernel, EndReason::IdleTimeout, None)), 3);
    }

    #[test]
    fn reasons_come_back_from_their_texts() {
        for reason in EndReason::ALL {
            assert_eq!(EndReason::from_text(reason.as_str()), Some(reason));
        }
        assert_eq!(EndReason::from_text("boredom"), None);
    }

    #[test]
    fn images_are_raw_snappy() {
        let packed = pack_images([("python:latest", "sha256:ab")]);
        assert_eq!(unpack_images(&packed).unwrap().to_string(), r#"[["python:latest", "sha256:ab"]]"#);
        assert!(unpack_images(b"\xff\xff\xff").is_err());
    }
}
