//! Hashes that expire, as Redis has them, and the commands that the agent and `redis-cli` use on them. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::resp::Reply;

/// The most hashes; further ones are refused.
const MOST: usize = 10_000;

/// What was stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The key: a kernel's id.
    pub key: String,
    /// Names and values.
    pub fields: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Hash {
    fields: BTreeMap<Bytes, Bytes>,
    expires: Option<Instant>,
}

/// All that is stored.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    hashes: BTreeMap<Bytes, Hash>,
}

impl Hashes {
    /// Carries one command out, at `now`. Gives what it stored as well.
    pub(super) fn answer(&mut self, command: &[Bytes], now: Instant) -> (Reply, Option<Stored>) {
        self.hashes.retain(|_, hash| hash.expires.is_none_or(|expires| expires > now));
        let Some((name, args)) = command.split_first() else {
            return (Reply::Error("ERR an empty command".to_owned()), None);
        };
        let name = String::from_utf8_lossy(name).to_ascii_uppercase();
        if let ("HSET" | "HMSET", [key, pairs @ ..]) = (name.as_str(), args) {
            return self.set(key, pairs, name == "HMSET");
        }
        (self.look(&name, args, now), None)
    }

    fn look(&mut self, name: &str, args: &[Bytes], now: Instant) -> Reply {
        let int = |number: usize| Reply::Int(i64::try_from(number).unwrap_or(i64::MAX));
        match (name, args) {
            ("PING", []) => Reply::Simple("PONG"),
            ("PING" | "ECHO", [text]) => Reply::Bulk(text.to_vec()),
            ("SELECT" | "CLIENT" | "QUIT", _) => Reply::Simple("OK"),
            // `redis-cli` asks for its help.
            ("COMMAND", _) => Reply::Array(Vec::new()),
            ("EXPIRE", [key, seconds]) => match (self.hashes.get_mut(key), number(seconds)) {
                (_, None) => Reply::Error("ERR value is not an integer or out of range".to_owned()),
                (Some(hash), Some(seconds)) => {
                    hash.expires = now.checked_add(Duration::from_secs(seconds));
                    Reply::Int(1)
                }
                (None, _) => Reply::Int(0),
            },
            ("TTL", [key]) => match self.hashes.get(key).map(|hash| hash.expires) {
                Some(Some(expires)) => {
                    let left = expires.saturating_duration_since(now);
                    Reply::Int(i64::try_from(left.as_millis().div_ceil(1000)).unwrap_or(i64::MAX))
                }
                Some(None) => Reply::Int(-1),
                None => Reply::Int(-2),
            },
            ("HGETALL", [key]) => {
                let fields = self.hashes.get(key).into_iter().flat_map(|hash| &hash.fields);
                Reply::Array(fields.flat_map(|(name, value)| [name, value]).map(bulk).collect())
            }
            ("HGET", [key, name]) => {
                self.hashes.get(key).and_then(|hash| hash.fields.get(name)).map_or(Reply::Nil, bulk)
            }
            ("EXISTS", keys @ [_, ..]) => {
                int(keys.iter().filter(|key| self.hashes.contains_key(*key)).count())
            }
            ("DEL", keys @ [_, ..]) => int(keys.iter().filter_map(|key| self.hashes.remove(key)).count()),
            ("KEYS", [_]) => Reply::Array(self.hashes.keys().map(bulk).collect()),
            ("DBSIZE", []) => int(self.hashes.len()),
            _ => Reply::Error(format!("ERR the Redis of backendai-agent dev knows no such command: {name}")),
        }
    }

    fn set(&mut self, key: &Bytes, pairs: &[Bytes], is_old: bool) -> (Reply, Option<Stored>) {
        let (pairs, rest) = pairs.as_chunks::<2>();
        if pairs.is_empty() || !rest.is_empty() {
            return (Reply::Error("ERR wrong number of arguments".to_owned()), None);
        }
        if self.hashes.len() >= MOST && !self.hashes.contains_key(key) {
            return (Reply::Error("OOM too many keys for the Redis of backendai-agent dev".to_owned()), None);
        }
        let hash = self.hashes.entry(key.clone()).or_default();
        let before = hash.fields.len();
        hash.fields.extend(pairs.iter().map(|[name, value]| (name.clone(), value.clone())));
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let fields = hash.fields.iter().map(|(name, value)| (text(name), text(value))).collect();
        let new = i64::try_from(hash.fields.len() - before).unwrap_or(i64::MAX);
        let reply = if is_old { Reply::Simple("OK") } else { Reply::Int(new) };
        (reply, Some(Stored { key: text(key), fields }))
    }
}

fn bulk(bytes: &Bytes) -> Reply {
    Reply::Bulk(bytes.to_vec())
}

fn number(text: &Bytes) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(hashes: &mut Hashes, command: &str, now: Instant) -> Reply {
        let words: Vec<_> =
            command.split_whitespace().map(|w| Bytes::copy_from_slice(w.as_bytes())).collect();
        hashes.answer(&words, now).0
    }

    fn texts(texts: &[&str]) -> Reply {
        Reply::Array(texts.iter().map(|text| Reply::Bulk(text.as_bytes().to_vec())).collect())
    }

    #[test]
    fn a_hash_is_stored_told_read_and_gone_when_it_expires() {
        let (mut hashes, now) = (Hashes::default(), Instant::now());
        let words = ["hmset", "k", "b", "2", "a", "1"].map(Bytes::from);
        let (reply, stored) = hashes.answer(&words, now);
        assert_eq!(reply, Reply::Simple("OK"));
        let fields = [("a", "1"), ("b", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(stored, Some(Stored { key: "k".to_owned(), fields: fields.into() }));
        assert_eq!(ask(&mut hashes, "TTL k", now), Reply::Int(-1));
        assert_eq!(ask(&mut hashes, "EXPIRE k 30", now), Reply::Int(1));
        let later = now + Duration::from_millis(29_500);
        assert_eq!(ask(&mut hashes, "TTL k", later), Reply::Int(1));
        assert_eq!(ask(&mut hashes, "HSET k c 3 a 4", later), Reply::Int(1));
        assert_eq!(ask(&mut hashes, "HGETALL k", later), texts(&["a", "4", "b", "2", "c", "3"]));
        assert_eq!(ask(&mut hashes, "HGET k b", later), Reply::Bulk(b"2".to_vec()));
        assert_eq!(ask(&mut hashes, "KEYS *", later), texts(&["k"]));
        let gone = now + Duration::from_secs(30);
        assert_eq!(ask(&mut hashes, "EXISTS k", gone), Reply::Int(0));
        assert_eq!(ask(&mut hashes, "TTL k", gone), Reply::Int(-2));
        assert_eq!(ask(&mut hashes, "HGET k b", gone), Reply::Nil);
        assert_eq!(ask(&mut hashes, "EXPIRE k 30", gone), Reply::Int(0));
    }

    #[test]
    fn what_it_does_not_know_is_an_error() {
        let (mut hashes, now) = (Hashes::default(), Instant::now());
        for command in ["", "SET a b", "HMSET k", "HMSET k a", "HMSET k a 1 b", "EXPIRE k x", "HGETALL"] {
            let reply = ask(&mut hashes, command, now);
            assert!(matches!(reply, Reply::Error(_)), "{command}: {reply:?}");
        }
        assert_eq!(ask(&mut hashes, "DBSIZE", now), Reply::Int(0));
    }
}
