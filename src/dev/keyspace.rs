//! Keys and values with revisions, as etcd has them. Pure.

use std::collections::{BTreeMap, VecDeque};

use etcd_client::proto::{PbEvent, PbKeyValue};

/// How many changes are remembered for watches that begin in the past.
const HISTORY: usize = 1024;
/// The kinds of changes on the wire.
const PUT: i32 = 0;
const DELETE: i32 = 1;

/// Which keys a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Span {
    /// One key.
    One(Vec<u8>),
    /// From the first key to the one before the second.
    Between(Vec<u8>, Vec<u8>),
    /// From this key on.
    From(Vec<u8>),
}

impl Span {
    /// As requests say it: no end is one key, an end of one zero byte is no end at all.
    pub(super) fn new(key: Vec<u8>, end: Vec<u8>) -> Self {
        match end.as_slice() {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Between(key, end),
        }
    }

    fn holds(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Between(first, end) => first.as_slice() <= key && key < end.as_slice(),
            Self::From(first) => first.as_slice() <= key,
        }
    }
}

/// A change to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Sets a key.
    Put(Vec<u8>, Vec<u8>),
    /// Deletes keys.
    Delete(Span),
}

/// Everything that is stored.
#[derive(Debug)]
pub(super) struct Keyspace {
    /// Counts changes; 1 when nothing was ever changed.
    revision: i64,
    keys: BTreeMap<Vec<u8>, PbKeyValue>,
    /// The newest changes, oldest first.
    history: VecDeque<PbEvent>,
    /// Changes up to this revision are not in the history any more.
    forgotten: i64,
}

impl Default for Keyspace {
    fn default() -> Self {
        Self { revision: 1, keys: BTreeMap::new(), history: VecDeque::new(), forgotten: 0 }
    }
}

impl Keyspace {
    /// How often anything was changed.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// The entries of these keys, by key.
    pub(super) fn get(&self, span: &Span) -> Vec<PbKeyValue> {
        self.keys.values().filter(|entry| span.holds(&entry.key)).cloned().collect()
    }

    /// Makes the next revision of these changes. Gives how many keys each has deleted.
    pub(super) fn change(&mut self, changes: Vec<Change>) -> Vec<i64> {
        if changes.is_empty() {
            return Vec::new();
        }
        let revision = self.revision + 1;
        let before = self.history.len();
        let deleted = changes
            .into_iter()
            .map(|change| match change {
                Change::Put(key, value) => {
                    self.put(revision, key, value);
                    0
                }
                Change::Delete(span) => self.delete(revision, &span),
            })
            .collect();
        // A delete of nothing changes nothing.
        if self.history.len() > before {
            self.revision = revision;
        }
        while self.history.len() > HISTORY {
            let oldest = self.history.pop_front().and_then(|event| event.kv);
            self.forgotten = oldest.map_or(self.forgotten, |entry| entry.mod_revision);
        }
        deleted
    }

    /// The changes of these keys from revision `from` on, or the first revision that is still known.
    pub(super) fn since(&self, from: i64, span: &Span) -> Result<Vec<PbEvent>, i64> {
        if from <= self.forgotten {
            return Err(self.forgotten + 1);
        }
        let fits = |event: &&PbEvent| {
            event.kv.as_ref().is_some_and(|entry| entry.mod_revision >= from && span.holds(&entry.key))
        };
        Ok(self.history.iter().filter(fits).cloned().collect())
    }

    fn put(&mut self, revision: i64, key: Vec<u8>, value: Vec<u8>) {
        let old = self.keys.get(&key);
        let entry = PbKeyValue {
            create_revision: old.map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.map_or(1, |old| old.version + 1),
            lease: 0,
            key: key.clone(),
            value,
        };
        self.remember(PUT, entry.clone());
        self.keys.insert(key, entry);
    }

    fn delete(&mut self, revision: i64, span: &Span) -> i64 {
        let gone: Vec<_> = self.keys.keys().filter(|key| span.holds(key)).cloned().collect();
        for key in &gone {
            self.keys.remove(key);
            let entry = PbKeyValue { key: key.clone(), mod_revision: revision, ..PbKeyValue::default() };
            self.remember(DELETE, entry);
        }
        i64::try_from(gone.len()).unwrap_or(i64::MAX)
    }

    fn remember(&mut self, kind: i32, entry: PbKeyValue) {
        self.history.push_back(PbEvent { r#type: kind, kv: Some(entry), prev_kv: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Change {
        Change::Put(key.into(), value.into())
    }

    fn one(key: &str) -> Span {
        Span::new(key.into(), Vec::new())
    }

    /// As `--prefix` of etcdctl and `with_prefix` of its clients ask for `a/`: the next key of that length ends it.
    fn below_a() -> Span {
        Span::new(b"a/".to_vec(), b"a0".to_vec())
    }

    fn keys(entries: &[PbKeyValue]) -> Vec<&str> {
        entries.iter().map(|entry| std::str::from_utf8(&entry.key).unwrap()).collect()
    }

    #[test]
    fn a_prefix_one_key_and_all_keys_are_found() {
        let mut space = Keyspace::default();
        space.change(vec![put("b", ""), put("a/1", "x"), put("a/2", ""), put("a", "")]);
        assert_eq!(keys(&space.get(&below_a())), ["a/1", "a/2"]);
        assert_eq!(space.get(&one("a/1"))[0].value, b"x");
        assert!(space.get(&one("a/")).is_empty());
        assert_eq!(keys(&space.get(&Span::new(b"a/2".to_vec(), vec![0]))), ["a/2", "b"]);
    }

    #[test]
    fn changes_that_are_made_together_have_one_revision() {
        let mut space = Keyspace::default();
        space.change(vec![put("a/1", "x"), put("a/2", "y")]);
        assert_eq!(space.revision(), 2);
        assert_eq!(space.change(vec![Change::Delete(below_a()), put("a/1", "z")]), [2, 0]);
        let entry = &space.get(&one("a/1"))[0];
        assert_eq!((entry.create_revision, entry.mod_revision, entry.version), (3, 3, 1));
        space.change(vec![put("a/1", "z")]);
        let entry = &space.get(&one("a/1"))[0];
        assert_eq!((entry.create_revision, entry.mod_revision, entry.version), (3, 4, 2));
        assert_eq!(space.change(vec![Change::Delete(one("none"))]), [0]);
        assert_eq!(space.revision(), 4, "nothing was changed");
    }

    #[test]
    fn a_watch_hears_what_came_since_and_learns_what_is_forgotten() {
        let mut space = Keyspace::default();
        space.change(vec![put("a/1", "x"), put("b", "")]);
        space.change(vec![Change::Delete(below_a())]);
        let kinds = |events: Vec<PbEvent>| events.iter().map(|event| event.r#type).collect::<Vec<_>>();
        assert_eq!(space.since(1, &below_a()).map(kinds), Ok(vec![PUT, DELETE]));
        assert_eq!(space.since(3, &below_a()).map(kinds), Ok(vec![DELETE]));
        assert_eq!(space.since(4, &below_a()).map(kinds), Ok(vec![]));
        for _ in 0..HISTORY {
            space.change(vec![put("c", "")]);
        }
        assert_eq!(space.since(3, &below_a()), Err(4));
        assert_eq!(space.since(4, &one("c")).map(|events| events.len()), Ok(HISTORY));
    }
}
