//! A run's code, how far it is on its way to the runner, and what the next life of the agent has to know of the run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::RunId;
use crate::wire::command::Command;

/// Code larger than this is not kept for the next life of the agent, in bytes; it would make a note of that size.
const MAX_KEPT: usize = 1024 * 1024;

/// What a run executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Source.
    Query(String),
    /// Commands on files.
    Batch {
        /// The clean step; `None` where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clean: Option<String>,
        /// The build step.
        build: String,
        /// What runs afterwards.
        exec: String,
    },
}

/// How far a run's code is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The code waits for a connection to the runner: nothing of it has left. `None` for code that is too large to be kept.
    Kept(Option<Arc<Code>>),
    /// The code is being sent: nobody knows whether the runner has it.
    Leaving,
    /// The runner has it.
    #[default]
    Left,
}

/// The run that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GoingRun {
    /// Which; `None` when none does.
    pub run: Option<RunId>,
    /// How far its code is.
    pub way: Way,
    /// Whether it waits for input.
    pub waits: bool,
    /// How many `build-finished` may come that answer no later run: those to questions of this life, and that of the run's build step.
    pub answers: u8,
}

impl Code {
    /// What the runner is sent.
    #[must_use]
    pub(super) fn commands(&self) -> Vec<Command> {
        match self.clone() {
            Self::Query(code) => vec![Command::Code(code)],
            Self::Batch { clean, build, exec } => {
                let steps = [Command::Build(build), Command::Exec(exec)];
                clean.map(Command::Clean).into_iter().chain(steps).collect()
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Query(code) => code.len(),
            Self::Batch { clean, build, exec } => {
                clean.as_ref().map_or(0, String::len) + build.len() + exec.len()
            }
        }
    }
}

impl GoingRun {
    /// Whether the next life of the agent would do the same about either: it asks the runner about a run whose code is leaving and
    /// about one whose code has left.
    pub(super) fn means_the_same_as(&self, other: &Self) -> bool {
        let is_waiting = |way: &Way| matches!(way, Way::Kept(_));
        let is_same_way = self.way == other.way || !(is_waiting(&self.way) || is_waiting(&other.way));
        is_same_way && (&self.run, self.waits, self.answers) == (&other.run, other.waits, other.answers)
    }
}

impl Way {
    /// Of code that waits.
    pub(super) fn kept(code: &Arc<Code>) -> Self {
        Self::Kept((code.len() <= MAX_KEPT).then(|| code.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_not_kept() {
        let large = Arc::new(Code::Query("x".repeat(MAX_KEPT)));
        assert_eq!(Way::kept(&large), Way::Kept(Some(large)));
        let larger = Code::Batch { clean: None, build: "x".repeat(MAX_KEPT), exec: "y".to_owned() };
        assert_eq!(Way::kept(&Arc::new(larger)), Way::Kept(None));
    }

    #[test]
    fn that_code_has_left_is_no_news_after_it_was_leaving_and_everything_else_is() {
        let run = |name: &str, way: Way, waits| GoingRun {
            run: Some(RunId::new(name)),
            way,
            waits,
            ..GoingRun::default()
        };
        let kept = |code: &str| Way::kept(&Arc::new(Code::Query(code.to_owned())));
        let check = |a: &GoingRun, b: &GoingRun, is_same| {
            assert_eq!(a.means_the_same_as(b), is_same, "{a:?} {b:?}");
            assert_eq!(b.means_the_same_as(a), is_same, "{b:?} {a:?}");
        };
        check(&run("r", Way::Leaving, false), &run("r", Way::Left, false), true);
        check(&run("r", kept("1"), false), &run("r", kept("1"), false), true);
        check(&run("r", kept("1"), false), &run("r", kept("2"), false), false);
        for way in [Way::Leaving, Way::Left] {
            check(&run("r", kept("1"), false), &run("r", way.clone(), false), false);
            check(&run("r", Way::Leaving, false), &run("r", way.clone(), true), false);
            check(&run("r", Way::Leaving, false), &run("other", way.clone(), false), false);
            check(&GoingRun::default(), &run("r", way, false), false);
        }
        check(&GoingRun::default(), &GoingRun { answers: 2, ..GoingRun::default() }, false);
    }

    #[test]
    fn a_clean_step_is_sent_where_there_is_one_and_notes_without_are_read() {
        let batch = |clean: Option<&str>| Code::Batch {
            clean: clean.map(str::to_owned),
            build: "b".to_owned(),
            exec: "e".to_owned(),
        };
        let steps = [Command::Build("b".to_owned()), Command::Exec("e".to_owned())];
        assert_eq!(batch(None).commands(), steps);
        assert_eq!(batch(Some("c")).commands()[0], Command::Clean("c".to_owned()));
        assert_eq!(batch(Some("c")).commands()[1..], steps);
        // As earlier versions wrote it, and as they read it.
        let noted = r#"{"batch":{"build":"b","exec":"e"}}"#;
        assert_eq!(serde_json::from_str::<Code>(noted).unwrap(), batch(None));
        assert_eq!(serde_json::to_string(&batch(None)).unwrap(), noted);
    }
}
