//! Any sequence of what can happen to a kernel, over several lives of the agent: a model of the disk, of Docker and of the
//! manager follows the steps that are decided, and is asked what must never be.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::ids::KernelId;
use crate::kernel::fate::{Candidate, Fate, decide};
use crate::kernel::notes::{Ending, Found, KernelNote, NotedPhase};

const REASONS: [EndReason; 3] =
    [EndReason::UserRequested, EndReason::AgentReset, EndReason::AgentTermination];

/// What the journal holds of an end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    No,
    UnderWay,
    Yes,
}

/// How a step ended.
enum Ended {
    By(Input),
    /// SIGKILL, or the stop of the agent with the kernel let go.
    Crash,
    Panic,
}

// Each is a fact of its own; any combination can be.
#[allow(clippy::struct_excessive_bools)]
struct World {
    /// What happens; when it is used up, all goes well and the manager ends the kernel.
    choices: std::vec::IntoIter<u8>,
    now: Instant,
    kernel: KernelId,
    /// The disk: the kernel's note and its end.
    note: Option<NotedPhase>,
    /// Whether that says that the manager waits for a restart.
    restart_noted: bool,
    journal: Option<(EndReason, Told)>,
    /// Docker: containers and whether they run, and one that was got ready for a restart.
    containers: Vec<(ContainerId, bool)>,
    spare: Option<ContainerId>,
    made: usize,
    /// This life of the agent. Whether it has to tell an end is known in its memory too, as a disk may refuse.
    life: Option<Life>,
    has_cores: bool,
    is_noted: bool,
    has_stored: bool,
    /// An event that has its place in the queue.
    telling: Option<EndReason>,
    /// The answer of the create did not arrive.
    is_unwanted: bool,
    /// The manager: whether it knows the kernel, has asked for its end, waits for a restart and until when, has got an
    /// answer last, and what it heard.
    knows: bool,
    asked: bool,
    restarting_until: Option<Instant>,
    answered_at: Option<Instant>,
    heard: Vec<EndReason>,
}

impl World {
    fn new(choices: Vec<u8>) -> Self {
        let now = Instant::now();
        Self {
            choices: choices.into_iter(),
            now,
            kernel: KernelId::random(),
            note: None,
            restart_noted: false,
            journal: None,
            containers: Vec::new(),
            spare: None,
            made: 0,
            life: Some(Life::new(Begin::Asked, now)),
            has_cores: false,
            is_noted: false,
            has_stored: false,
            telling: None,
            is_unwanted: false,
            knows: false,
            asked: false,
            restarting_until: None,
            answered_at: None,
            heard: Vec::new(),
        }
    }

    /// One of `n` ways to go on; the first is what happens when all goes well.
    fn choose(&mut self, n: u8) -> u8 {
        self.choices.next().map_or(0, |choice| choice % n)
    }

    fn answered(&mut self) {
        (self.answered_at, self.restarting_until) = (Some(self.now), None);
    }

    /// Somebody wants the end.
    fn terminate(&mut self) -> Ended {
        let reason = REASONS[usize::from(self.choose(3))];
        self.asked |= reason == EndReason::UserRequested;
        Ended::By(Input::Terminate(reason))
    }

    fn make_container(&mut self) -> ContainerId {
        let id = self.new_container();
        self.containers.push((id.clone(), true));
        id
    }

    fn new_container(&mut self) -> ContainerId {
        self.made += 1;
        ContainerId::new(self.made.to_string())
    }

    fn remove_containers(&mut self) {
        self.containers.clear();
        self.spare = None;
    }

    fn newest(&self) -> ContainerId {
        self.containers.last().map_or_else(|| ContainerId::new("gone"), |(id, _)| id.clone())
    }

    fn lives(&self) -> bool {
        self.containers.last().is_some_and(|(_, alive)| *alive)
    }

    /// What is done before something cuts it short.
    fn half_make(&mut self) {
        let done = self.choose(4);
        if done > 0 {
            self.note = Some(NotedPhase::Creating);
        }
        self.has_cores |= done > 1;
        if done > 2 {
            self.make_container();
        }
    }

    fn make(&mut self) -> Ended {
        let choice = self.choose(8);
        if choice > 1 {
            self.half_make();
        }
        match choice {
            0 | 1 => {
                let container = self.make_container();
                (self.note, self.has_cores) = (Some(NotedPhase::Running), true);
                self.is_unwanted = choice == 1;
                self.knows = !self.is_unwanted;
                self.answered();
                Ended::By(Input::Ready(container))
            }
            2 => Ended::By(Input::Failed),
            3 => Ended::By(Input::AskerLeft),
            4 => {
                self.answered();
                self.terminate()
            }
            5 => Ended::By(Input::Detach),
            6 => Ended::Crash,
            _ => Ended::Panic,
        }
    }

    fn look(&mut self) -> Ended {
        if self.note == Some(NotedPhase::Restarting)
            && self.spare == Some(self.newest())
            && self.choose(2) == 0
            && let Some((_, alive)) = self.containers.last_mut()
        {
            // What a restart had come to is gone on with.
            (*alive, self.spare) = (true, None);
        }
        match self.choose(7) {
            2 => self.terminate(),
            3 => Ended::By(Input::Detach),
            4 => Ended::Crash,
            5 => Ended::Panic,
            6 if self.lives() => Ended::By(Input::Odd(self.newest())),
            _ if self.lives() => {
                (self.has_cores, self.restart_noted) = (true, false);
                Ended::By(Input::Ready(self.newest()))
            }
            _ => Ended::By(Input::Dead),
        }
    }

    /// It runs, whether or not it can be worked with.
    fn idle(&mut self, is_odd: bool) -> Ended {
        if self.is_unwanted && !is_odd {
            return Ended::By(Input::AskerLeft);
        }
        if !is_odd {
            self.note = Some(NotedPhase::Running);
        }
        match self.choose(11) {
            0 => self.terminate(),
            1 => Ended::By(Input::Death(ContainerId::new("an old one"))),
            2 | 3 => {
                if let Some((_, alive)) = self.containers.last_mut() {
                    *alive = false;
                }
                Ended::By(Input::Death(self.newest()))
            }
            4 => Ended::By(Input::Death(self.newest())),
            5 if !is_odd => Ended::By(Input::ProcessEnded),
            6 if !is_odd => Ended::By(Input::TimeUp(EndReason::IdleTimeout)),
            7 => {
                self.asked = false;
                if is_odd {
                    self.answered();
                } else {
                    self.restarting_until = Some(self.now + MANAGER_RESTART);
                }
                Ended::By(Input::RestartAsked)
            }
            8 => Ended::By(Input::Detach),
            9 => Ended::Crash,
            _ => Ended::Panic,
        }
    }

    fn check(&mut self) -> Ended {
        match self.choose(6) {
            1 => self.terminate(),
            2 => Ended::By(Input::Detach),
            3 => Ended::Crash,
            4 => Ended::Panic,
            // Docker does not answer.
            5 => Ended::By(Input::NotDead),
            _ => Ended::By(if self.lives() { Input::NotDead } else { Input::Dead }),
        }
    }

    /// It runs, and a restart is got ready.
    fn prepare(&mut self) -> Ended {
        self.restart_noted = true;
        let choice = self.choose(8);
        if choice == 0 || self.choose(2) > 0 {
            self.spare = Some(self.new_container());
        }
        if (1..6).contains(&choice) {
            // Refused, for one of these reasons.
            self.answered();
            self.restart_noted = false;
        }
        match choice {
            0 => Ended::By(Input::Done),
            1 => Ended::By(Input::Failed),
            2 => Ended::By(Input::ProcessEnded),
            3 => Ended::By(Input::Detach),
            // One that was answered has no asker who left.
            4 => Ended::By(if self.knows { Input::Failed } else { Input::AskerLeft }),
            5 => self.terminate(),
            6 => Ended::Crash,
            _ => Ended::Panic,
        }
    }

    fn remake(&mut self) -> Ended {
        (self.note, self.restart_noted) = (Some(NotedPhase::Restarting), false);
        let choice = self.choose(6);
        let has_begun = choice == 0 || self.choose(2) > 0;
        if has_begun {
            self.containers.clear();
        }
        if has_begun
            && (choice == 0 || self.choose(2) > 0)
            && let Some(spare) = self.spare.take()
        {
            self.containers.push((spare, true));
        }
        match choice {
            0 => {
                let container = self.newest();
                self.answered();
                Ended::By(Input::Ready(container))
            }
            1 | 2 => {
                self.answered();
                Ended::By(Input::Failed)
            }
            3 => {
                let ended = self.terminate();
                self.answered();
                ended
            }
            4 => Ended::Crash,
            _ => Ended::Panic,
        }
    }

    fn note_end(&mut self, reason: EndReason) -> Ended {
        let choice = self.choose(5);
        if choice == 3 {
            return Ended::Crash;
        }
        // A disk that is full keeps no kernel from ending.
        if choice != 1 {
            self.journal = Some((reason, Told::No));
        }
        self.is_noted = true;
        if choice == 4 { Ended::Panic } else { Ended::By(Input::Done) }
    }

    fn clear(&mut self, has_containers: bool) -> Ended {
        assert!(self.is_noted, "acted upon before it was noted");
        match self.choose(4) {
            1 => {
                self.refuse_restart();
                return Ended::By(Input::RestartAsked);
            }
            2 => return Ended::Crash,
            3 => return Ended::Panic,
            _ => {}
        }
        self.has_stored = true;
        if has_containers {
            self.remove_containers();
            self.has_cores = false;
        }
        Ended::By(Input::Done)
    }

    fn refuse_restart(&mut self) {
        self.asked = false;
        self.answered();
    }

    fn settle(&mut self, until: Instant) -> Ended {
        match self.choose(6) {
            1 => self.terminate(),
            2 => {
                self.refuse_restart();
                Ended::By(Input::RestartAsked)
            }
            3 => Ended::By(Input::Detach),
            4 => Ended::Crash,
            5 => Ended::Panic,
            _ => {
                self.now = until;
                Ended::By(Input::Done)
            }
        }
    }

    fn tell(&mut self, reason: EndReason) -> Ended {
        assert!(self.is_noted && self.has_stored, "told before it was noted and its statistics were stored");
        match self.choose(4) {
            1 => {
                self.refuse_restart();
                return Ended::By(Input::RestartAsked);
            }
            2 => return Ended::Crash,
            3 => return Ended::Panic,
            _ => {}
        }
        (self.telling, self.note) = (Some(reason), None);
        Ended::By(Input::Done)
    }

    fn undo(&mut self) -> Ended {
        // Not before the note says that nobody was answered.
        self.note = Some(NotedPhase::Creating).filter(|_| self.note.is_some());
        match self.choose(3) {
            1 => return Ended::Crash,
            2 => return Ended::Panic,
            _ => {}
        }
        self.remove_containers();
        (self.note, self.has_cores) = (None, false);
        Ended::By(Input::Done)
    }

    /// Whether the event that is queued keeps the agent alive.
    fn go_on_telling(&mut self, reason: EndReason) -> bool {
        let told = |world: &mut Self, told| {
            if let Some((_, state)) = &mut world.journal {
                *state = told;
            }
        };
        match self.choose(6) {
            0 => {
                told(self, Told::UnderWay);
                self.hear(reason);
                told(self, Told::Yes);
                self.telling = None;
            }
            1 => {
                told(self, Told::UnderWay);
                // It stays.
                told(self, Told::No);
            }
            2 => return false,
            3 => {
                told(self, Told::UnderWay);
                return false;
            }
            4 => {
                told(self, Told::UnderWay);
                self.hear(reason);
                return false;
            }
            // Not its turn.
            _ => {}
        }
        true
    }

    fn hear(&mut self, reason: EndReason) {
        let now = self.now;
        let is_deaf = self.answered_at.is_some_and(|at| now < at + SETTLE)
            || self.restarting_until.is_some_and(|until| now < until);
        assert!(!is_deaf || self.asked, "told while the manager does not hear");
        self.heard.push(reason);
        assert!(self.heard.len() == 1, "told twice");
    }

    /// The next life of the agent.
    fn recover(&mut self) {
        (self.telling, self.life, self.has_cores) = (None, None, false);
        (self.is_noted, self.has_stored, self.is_unwanted) = (false, false, false);
        if self.note == Some(NotedPhase::Running) && !self.restart_noted {
            // Not remembered: a restart that was cut off by a crash within the last 30 s, with another crash since.
            self.restarting_until = None;
        }
        let kernel = self.kernel;
        let mut found = Found::default();
        let noted = self.note.map(|phase| {
            let mut note = KernelNote::new(kernel, phase);
            note.restart_asked = self.restart_noted;
            note
        });
        let restarting = noted.as_ref().is_some_and(KernelNote::is_restarting);
        found.kernels.extend(noted.map(|note| (kernel, note)));
        match self.journal {
            Some((reason, Told::No)) => drop(found.untold.insert(kernel, Ending::new(kernel, reason, None))),
            Some(_) => drop(found.over.insert(kernel)),
            None => {}
        }
        let spare = self.spare.clone().map(|id| (id, false));
        let all = self.containers.iter().cloned().chain(spare);
        let candidates =
            all.zip(0..).map(|((container, alive), created)| Candidate { kernel, container, alive, created });
        let candidates: Vec<_> = candidates.collect();
        let fates: HashMap<_, _> = decide(&found, &candidates, &HashSet::new());
        let begin = fates.get(&kernel).map(|fate| match fate {
            Fate::TakeBack(container) => {
                // The one that is looked at; the others go when the kernel ends.
                match self.containers.iter().position(|(id, _)| id == container) {
                    Some(at) => {
                        let best = self.containers.remove(at);
                        self.containers.push(best);
                    }
                    None => self.containers.push((container.clone(), false)),
                }
                Begin::Found { restarting }
            }
            Fate::End(reason) => Begin::Ended { reason: *reason, restarting },
            Fate::Undo => Begin::Leftover,
        });
        self.life = begin.map(|begin| Life::new(begin, self.now));
    }

    fn panic(&mut self, stage: Stage) {
        self.now += SETTLE;
        self.has_cores = false;
        if self.restarting_until.is_some() {
            // Whoever waits for it hears that there is no such kernel.
            self.answered();
            self.now += SETTLE;
        }
        self.life = reborn(stage).map(|begin| Life::new(begin, self.now));
    }

    /// One step; `false` when nothing is left to do.
    fn go_on(&mut self) -> bool {
        let passed = Duration::from_millis(u64::from(self.choose(200)));
        self.now += passed;
        if let Some(reason) = self.telling {
            if !self.go_on_telling(reason) {
                self.recover();
            }
            return true;
        }
        let Some(life) = &self.life else { return false };
        let (step, stage) = (life.step(), life.stage());
        let ended = match step {
            Step::Make => self.make(),
            Step::Look => self.look(),
            Step::Serve => self.idle(false),
            Step::LeaveAlone => self.idle(true),
            Step::Check => self.check(),
            Step::Prepare => self.prepare(),
            Step::Remake => self.remake(),
            Step::Note(reason) => self.note_end(reason),
            Step::Clear { has_containers } => self.clear(has_containers),
            Step::Settle(until) => self.settle(until),
            Step::Tell => match stage {
                Stage::Ending(reason) => self.tell(reason),
                other => panic!("tells the end of a kernel that is {other:?}"),
            },
            Step::Undo => self.undo(),
            Step::LetGo => Ended::Crash,
            Step::Over => {
                assert!(!self.has_cores, "cores are held");
                self.life = None;
                return self.telling.is_some();
            }
        };
        match (ended, &mut self.life) {
            (Ended::By(input), Some(life)) => life.take(input, self.now),
            (Ended::Panic, _) => self.panic(stage),
            _ => self.recover(),
        }
        true
    }

    /// The manager has not heard and asks: the end is told, unless this life is about to tell it anyway.
    fn ask_for_end(&mut self) {
        self.asked = true;
        let reason = match self.journal {
            Some((_, Told::No)) => panic!("an end is lost"),
            Some((reason, _)) => reason,
            None => EndReason::AlreadyTerminated,
        };
        self.life = Some(Life::new(Begin::Unheard(reason), self.now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn an_end_is_noted_then_told_once_when_it_is_heard_and_nothing_is_held(
        choices in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut world = World::new(choices);
        while world.go_on() {}
        // What the manager was never told of, but has in its books; it asks again when it gets no answer.
        while world.knows && world.heard.is_empty() {
            world.ask_for_end();
            while world.go_on() {}
        }
        prop_assert!(world.heard.len() == usize::from(world.knows) || !world.knows, "{:?}", world.heard);
        prop_assert!(world.containers.is_empty() && world.spare.is_none() && world.note.is_none() && !world.has_cores);
    }
}

fn container(id: &str) -> ContainerId {
    ContainerId::new(id)
}

#[test]
fn an_end_goes_from_the_journal_to_the_event_in_order() {
    let now = Instant::now();
    let mut life = Life::new(Begin::Asked, now);
    life.take(Input::Ready(container("a")), now);
    assert_eq!((life.step(), life.stage()), (Step::Serve, Stage::Running));
    let mut steps = Vec::new();
    life.take(Input::TimeUp(EndReason::IdleTimeout), now);
    while life.step() != Step::Over {
        steps.push(life.step());
        life.take(Input::Done, now + SETTLE);
    }
    let clear = Step::Clear { has_containers: true };
    assert_eq!(steps, [Step::Note(EndReason::IdleTimeout), clear, Step::Tell]);
    assert_eq!(life.stage(), Stage::Ended(EndReason::IdleTimeout));
}

#[test]
fn a_death_of_a_container_that_was_replaced_is_nobody_s() {
    let now = Instant::now();
    let mut life = Life::new(Begin::Asked, now);
    life.take(Input::Ready(container("old")), now);
    life.take(Input::RestartAsked, now);
    life.take(Input::Done, now);
    life.take(Input::Ready(container("new")), now);
    life.take(Input::Death(container("old")), now);
    assert_eq!(life.step(), Step::Serve);
    life.take(Input::Death(container("new")), now);
    assert_eq!(life.step(), Step::Check);
}

#[test]
fn a_kernel_that_is_looked_at_or_checked_hears_an_end_and_a_stop() {
    let now = Instant::now();
    let looking = || Life::new(Begin::Found { restarting: false }, now);
    let checking = || {
        let mut life = looking();
        life.take(Input::Odd(container("odd")), now);
        life.take(Input::Death(container("odd")), now);
        assert_eq!((life.step(), life.stage()), (Step::Check, Stage::LeftAlone));
        life
    };
    for mut life in [looking(), checking()] {
        life.take(Input::Terminate(EndReason::AgentReset), now);
        assert_eq!(life.step(), Step::Note(EndReason::AgentReset));
    }
    for mut life in [looking(), checking()] {
        life.take(Input::Detach, now);
        assert_eq!(life.step(), Step::LetGo);
    }
}

#[test]
fn a_restart_that_is_refused_changes_nothing_and_the_manager_writes_it_down() {
    let now = Instant::now();
    let mut life = Life::new(Begin::Asked, now);
    life.take(Input::Ready(container("a")), now);
    let asked = now + SETTLE * 9;
    life.take(Input::RestartAsked, asked);
    assert_eq!((life.step(), life.stage()), (Step::Prepare, Stage::Running));
    life.take(Input::Failed, asked);
    assert_eq!((life.step(), life.stage()), (Step::Serve, Stage::Running));
    life.take(Input::Death(container("a")), asked);
    life.take(Input::Dead, asked);
    life.take(Input::Done, asked);
    life.take(Input::Done, asked);
    assert_eq!(life.step(), Step::Settle(asked + SETTLE));
}

#[test]
fn a_process_that_ended_unknown_to_docker_counts_after_a_while() {
    let now = Instant::now();
    let mut life = Life::new(Begin::Asked, now);
    life.take(Input::Ready(container("a")), now);
    assert_eq!(life.process_ended(), None);
    life.take(Input::ProcessEnded, now);
    life.take(Input::NotDead, now);
    assert_eq!((life.step(), life.process_ended()), (Step::Serve, Some(now + DOCKER_LAG)));
}
