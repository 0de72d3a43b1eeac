//! `events`: listens where agents send their events, and prints them as they come.

use std::io::Write;

use super::{EventsArgs, Exit};
use crate::wire::Value;
use crate::wire::event::{HeardEvent, unpack_images};
use crate::wire::value;
use crate::zmtp::{ListenError, Pull};

/// Prints events until as many came as were asked for, or for ever.
pub(super) async fn listen(args: EventsArgs) -> Result<Exit, ListenError> {
    let mut pull = Pull::bind(&args.bind.to_string())?;
    let mut left = args.count.map(std::num::NonZeroU64::get);
    while left != Some(0) {
        let frames = tokio::select! {
            message = pull.recv() => message.frames,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        };
        let Some(heard) = HeardEvent::decode(&frames) else {
            eprintln!("backendai-agent: {} frames that are no event", frames.len());
            continue;
        };
        if args.no_heartbeats && heard.name == "instance_heartbeat" {
            continue;
        }
        let line = if args.json { as_json(&heard) } else { as_text(&heard) };
        // Whoever reads may be gone; then there is nobody to print for.
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return Ok(Exit::Done);
        }
        left = left.map(|n| n - 1);
    }
    Ok(Exit::Done)
}

fn as_json(heard: &HeardEvent) -> String {
    let args: Vec<_> = heard.args.iter().map(|a| value::to_json(&readable(a))).collect();
    serde_json::json!({"event": heard.name, "agent": heard.instance.as_str(), "args": args}).to_string()
}

/// An event on one line, for a person.
pub(super) fn as_text(heard: &HeardEvent) -> String {
    let args: Vec<_> = heard.args.iter().map(|a| value::to_json(&readable(a)).to_string()).collect();
    format!("{} {} {}", heard.name, heard.instance, args.join(" "))
}

/// The names in the image list of a heartbeat, which is compressed.
pub(super) fn image_names(info: &Value) -> Option<Vec<String>> {
    let Some(Value::Binary(packed)) = value::get(info, "images") else { return None };
    let list = unpack_images(packed).ok()?;
    let name = |pair: &Value| Some(pair.as_array()?.first()?.as_str()?.to_owned());
    Some(list.as_array()?.iter().filter_map(name).collect())
}

/// A heartbeat with its image list as a person wants to read it.
fn readable(arg: &Value) -> Value {
    let (Value::Map(pairs), Some(names)) = (arg, image_names(arg)) else { return arg.clone() };
    let names = Value::Array(names.into_iter().map(Value::from).collect());
    let unpacked = pairs.iter().map(|(k, v)| {
        let is_list = k.as_str() == Some("images");
        (k.clone(), if is_list { names.clone() } else { v.clone() })
    });
    Value::Map(unpacked.collect())
}
