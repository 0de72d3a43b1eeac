//! A run of the session that goes on while other things happen, and what must be true of its output and its end
//! (PROTOCOL section 12, item 21).

use serde_json::json;

use crate::support::{Kernel, new_id};

/// A run that was begun and whose end was not seen yet.
pub(super) struct Going {
    id: String,
    /// How many words it writes.
    words: usize,
    /// What came of it so far.
    seen: String,
    /// How often the agent was killed since it began: each may cost what was read in the moment before.
    kills: usize,
    /// The agent was killed before it had answered; the run may not have begun.
    is_unsure: bool,
}

impl Going {
    pub(super) fn new(words: usize) -> Self {
        Self { id: new_id(), words, seen: String::new(), kills: 0, is_unsure: false }
    }

    /// The arguments of its first call. It writes a word each 20 ms, each by one write.
    pub(super) fn begin(&self, kernel: &Kernel) -> serde_json::Value {
        let code = format!(
            "import sys, time\nfor i in range({}):\n    sys.stdout.write(f'{}-{{i}};')\n    time.sleep(0.02)",
            self.words,
            &self.id[..8]
        );
        json!([2, kernel.id, self.id, "query", code, {}])
    }

    /// SIGKILL came; `is_unsure`: before the first answer.
    pub(super) fn killed(&mut self, is_unsure: bool) {
        self.kills += 1;
        self.is_unsure |= is_unsure;
    }

    /// One more call about it; `true` when that tells its end.
    pub(super) async fn follow(&mut self, kernel: &Kernel) -> bool {
        match kernel.execute(&self.id, "continue", "", json!({})).await {
            Ok(answer) => self.take(&answer),
            Err(error) if self.is_unsure && self.seen.is_empty() && error.text().contains("not known") => {
                true
            }
            Err(error) => panic!("run {} of {} words: {error:?}", self.id, self.words),
        }
    }

    /// Takes an answer in; `true` when that tells the run's end, which is checked.
    pub(super) fn take(&mut self, answer: &serde_json::Value) -> bool {
        let records = answer["console"].as_array().unwrap_or_else(|| panic!("no output: {answer}"));
        for record in records.iter().filter(|record| record[0] == "stdout") {
            self.seen += record[1].as_str().unwrap();
        }
        match answer["status"].as_str() {
            Some("continued") => false,
            Some("finished") => {
                self.check(answer);
                true
            }
            _ => panic!("run {}: {answer}", self.id),
        }
    }

    /// Its output is whole, but for what kills cost: no word twice, none out of order, at most one gap for each kill.
    fn check(&self, last: &serde_json::Value) {
        let tag = format!("{}-", &self.id[..8]);
        let number = |word: &str| {
            let number = word.strip_prefix(&tag).and_then(|n| n.parse::<usize>().ok());
            number.unwrap_or_else(|| panic!("not of this run: {word:?} in {:?}", self.seen))
        };
        let numbers: Vec<usize> = self.seen.split_terminator(';').map(number).collect();
        let ends = [None]
            .into_iter()
            .chain(numbers.iter().copied().map(Some))
            .zip(numbers.iter().copied().chain([self.words]));
        let mut gaps = 0;
        for (before, after) in ends {
            let next = before.map_or(0, |before| before + 1);
            assert!(after >= next, "run {}: {after} after {before:?} in {:?}", self.id, self.seen);
            gaps += usize::from(after > next);
        }
        println!("  run {}: {} of {} words, {} kills", self.id, numbers.len(), self.words, self.kills);
        assert!(gaps <= self.kills, "run {}: {gaps} gaps, {} kills: {:?}", self.id, self.kills, self.seen);
        let exit_code = &last["exitCode"];
        assert!(*exit_code == 0 || (self.kills > 0 && exit_code.is_null()), "{last}");
    }

    /// The end was told, so nobody knows the run any more.
    pub(super) async fn has_ended_once(&self, kernel: &Kernel) {
        let again = kernel.execute(&self.id, "continue", "", json!({})).await;
        let error = again.expect_err("the end of a run was told twice");
        assert!(error.text().contains("not known"), "{error:?}");
    }
}
