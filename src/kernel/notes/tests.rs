//! Notes on a real file system, whole and damaged.

use std::path::Path;

use super::entries::Told;
use super::journal::{CROSSING_SECS, REMEMBER_SECS};
use super::*;
use crate::ids::RunId;
use crate::runner::GoingRun;
use crate::wire::event::EndReason;

fn owner(instance: &str) -> Owner {
    Owner { namespace: "n".to_owned(), instance: crate::ids::InstanceId::new(instance) }
}

fn notes() -> (tempfile::TempDir, Notes) {
    let dir = tempfile::tempdir().unwrap();
    let notes = notes_in(dir.path(), "i");
    (dir, notes)
}

/// The notes that an agent has in a directory, once there is such a one.
fn notes_in(dir: &Path, instance: &str) -> Notes {
    for part in ["kernels", "runs", "endings", "reserve"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    NotesDir::new(dir.to_owned(), Some(dir.join("elsewhere"))).of(&owner(instance))
}

fn must_tell(notes: &Notes, kernel: KernelId) -> bool {
    notes.journal.to_be_told(kernel).is_some()
}

fn told_at(notes: &Notes, kernel: KernelId, at: u64) {
    notes.journal.ended().get_mut(&kernel).unwrap().told = Told::At(at);
}

#[test]
fn kernels_and_untold_endings_come_back() {
    let (dir, notes) = notes();
    let (a, b) = (KernelId::random(), KernelId::random());
    let note = KernelNote::new(a, NotedPhase::Running);
    notes.note(a, &note, true).unwrap();
    let going = GoingRun { run: Some(RunId::new("r")), ..GoingRun::default() };
    notes.run(a, RunNote::new(a, &going)).unwrap();
    let ending = Ending::new(b, EndReason::IdleTimeout, Some(Sample::default()));
    notes.journal.ending(b, &ending).unwrap();

    let again = notes_in(dir.path(), "i");
    let found = again.load().unwrap();
    assert!(!found.kernels[&a].is_of_another_boot(again.boot()));
    assert!(
        found.kernels[&a].is_of_another_boot(Some("another")) && !note.is_of_another_boot(Some("another"))
    );
    let note = KernelNote { boot: again.boot().map(str::to_owned), ..note };
    assert_eq!(found.kernels[&a], note);
    let Noted { kernel: of_kernel, run: of_run, .. } = again.of(a);
    assert_eq!((of_kernel, of_run.map(|run| run.going())), (Some(note), Some(going)));
    again.forget(a);
    let of_a = again.of(a);
    assert_eq!((of_a.kernel, of_a.run, of_a.output), (None, None, vec![]));
    assert_eq!(found.untold[&b], ending);
    assert!(!must_tell(&again, b) && must_tell(&again, a));
}

#[test]
fn samples_come_back_and_a_damaged_file_of_them_is_set_aside() {
    let (dir, notes) = notes();
    let kernel = KernelId::random();
    let sample = Sample { mem_max_bytes: 7, ..Sample::default() };
    notes.keep_samples(&[(kernel, sample)]).unwrap();
    assert_eq!(notes.load().unwrap().samples[&kernel], sample);
    fs::write(dir.path().join("samples.n.i.json"), "{half").unwrap();
    assert!(notes.load().unwrap().samples.is_empty());
    assert!(dir.path().join("samples.n.i.json.set-aside").exists());
}

/// What the next life of the agent finds.
fn next_life(dir: &tempfile::TempDir) -> (Notes, Found) {
    let notes = notes_in(dir.path(), "i");
    let found = notes.load().unwrap();
    (notes, found)
}

#[test]
fn a_told_ending_is_remembered_but_not_told_again() {
    let (dir, notes) = notes();
    let kernel = KernelId::random();
    notes.journal.told(kernel, Ending::new(kernel, EndReason::UserRequested, None)).unwrap();
    let (again, found) = next_life(&dir);
    assert!(found.untold.is_empty() && found.over.contains(&kernel));
    again.journal.purge();
    assert!(!must_tell(&again, kernel), "the request may have crossed the event");
    told_at(&again, kernel, unix_now() - CROSSING_SECS + 10);
    assert!(!must_tell(&again, kernel), "a minute has not passed");
    told_at(&again, kernel, unix_now() - CROSSING_SECS);
    assert!(must_tell(&again, kernel), "the manager asks so late because it did not hear");
    assert!(!must_tell(&again, kernel), "it is being told");
    told_at(&again, kernel, unix_now() - REMEMBER_SECS + 60);
    again.journal.purge();
    assert!(again.journal.knows(kernel), "an hour has not passed");
    told_at(&again, kernel, unix_now() - REMEMBER_SECS - 1);
    again.journal.purge();
    assert!(!again.journal.knows(kernel));
    assert!(must_tell(&again, kernel));
}

#[test]
fn an_ending_that_was_under_way_at_a_kill_is_told_only_when_asked_for() {
    let (dir, notes) = notes();
    let (kernel, ending) = (KernelId::random(), |k| Ending::new(k, EndReason::IdleTimeout, None));
    notes.journal.ending(kernel, &ending(kernel)).unwrap();
    notes.journal.under_way(kernel, ending(kernel), true).unwrap();
    assert!(!must_tell(&notes, kernel), "this life will know whether it arrives");

    let (again, found) = next_life(&dir);
    assert!(found.untold.is_empty() && found.over.contains(&kernel));
    assert!(must_tell(&again, kernel), "the manager asks, so it does not know");
    assert!(!must_tell(&again, kernel), "once");

    notes.journal.under_way(kernel, ending(kernel), false).unwrap();
    let (_, found) = next_life(&dir);
    assert_eq!(found.untold[&kernel], ending(kernel), "it did not arrive, and waits again");
}

#[test]
fn an_end_that_was_not_heard_is_told_when_asked_for() {
    let (dir, notes) = notes();
    let (told, waits) = (KernelId::random(), KernelId::random());
    notes.journal.told(told, Ending::new(told, EndReason::SelfTerminated, None)).unwrap();
    notes.journal.ending(waits, &Ending::new(waits, EndReason::SelfTerminated, None)).unwrap();
    for kernel in [told, waits, KernelId::random()] {
        notes.journal.unheard(kernel).unwrap();
    }
    let (again, found) = next_life(&dir);
    assert_eq!(found.untold.keys().collect::<Vec<_>>(), [&waits], "it is going to be told anyway");
    assert!(must_tell(&notes, told) && must_tell(&again, told));
    // The one that was on its way arrives now, at a manager that does not listen.
    notes.journal.told(waits, Ending::new(waits, EndReason::SelfTerminated, None)).unwrap();
    let (again, found) = next_life(&dir);
    assert!(found.untold.is_empty() && must_tell(&notes, waits) && must_tell(&again, waits));
}

#[test]
fn entries_of_earlier_versions_of_the_agent_are_understood() {
    let (dir, _) = notes();
    let kernel = KernelId::random();
    let text = format!(
        r#"{{"version":1,"kernel":"{kernel}","reason":"idle-timeout","sample":null,"told_at":null}}"#
    );
    fs::write(file(&dir.path().join("endings"), kernel), text).unwrap();
    assert_eq!(next_life(&dir).1.untold[&kernel], Ending::new(kernel, EndReason::IdleTimeout, None));
}

#[test]
fn what_is_damaged_foreign_or_of_the_future_is_set_aside() {
    let (dir, notes) = notes();
    let good = KernelId::random();
    notes.journal.ending(good, &Ending::new(good, EndReason::AgentReset, None)).unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join("endings").join(name), text).unwrap();
    let other = KernelId::random();
    put(&format!("{other}.json"), "{\"version\": 1, \"kern");
    put("../endings/readme.txt", "a stranger's file");
    put("not-a-kernel.json", "{}");
    let future = KernelId::random();
    put(&format!("{future}.json"), &format!(r#"{{"version": 2, "kernel": "{future}", "reason": "x"}}"#));
    put(&format!("{good}.tmp"), "cut off");

    let found = notes_in(dir.path(), "i").load().unwrap();
    assert_eq!(found.untold.keys().collect::<Vec<_>>(), [&good]);
    let names: Vec<_> = fs::read_dir(dir.path().join("endings"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.iter().filter(|n| n.ends_with(".set-aside")).count(), 3, "{names:?}");
    assert!(names.contains(&"readme.txt".to_owned()));
    assert!(!names.iter().any(|n| n.contains(".tmp")));
}

/// Two agents, or one that changed its name, over one scratch root.
#[test]
fn another_agent_s_notes_are_neither_read_nor_touched() {
    let (dir, notes) = notes();
    let (kernel, ended) = (KernelId::random(), KernelId::random());
    notes.note(kernel, &KernelNote::new(kernel, NotedPhase::Running), false).unwrap();
    notes.journal.ending(ended, &Ending::new(ended, EndReason::IdleTimeout, None)).unwrap();
    notes.keep_samples(&[(kernel, Sample::default())]).unwrap();
    let other = notes_in(dir.path(), "another");
    let found = other.load().unwrap();
    assert!(found.kernels.is_empty() && found.untold.is_empty() && found.samples.is_empty());
    assert!(must_tell(&other, ended), "it knows nothing of it");
    let (_, found) = next_life(&dir);
    assert_eq!((found.kernels.len(), found.untold.len(), found.samples.len()), (1, 1, 1));
}

/// The scratch root is read-only or not mounted, and the agent is killed before it is back.
#[test]
fn an_end_that_the_disk_did_not_take_is_known_to_the_next_life_and_reaches_the_disk_later() {
    let (dir, notes) = notes();
    let (told, untold) = (KernelId::random(), KernelId::random());
    let ending = |kernel| Ending::new(kernel, EndReason::IdleTimeout, None);
    let away = dir.path().join("away");
    notes.journal.ending(told, &ending(told)).unwrap();
    fs::rename(dir.path().join("endings"), &away).unwrap();
    notes.journal.under_way(told, ending(told), true).unwrap_err();
    notes.journal.told(told, ending(told)).unwrap_err();
    notes.journal.ending(untold, &ending(untold)).unwrap_err();

    // It is back, with what it had.
    fs::rename(&away, dir.path().join("endings")).unwrap();
    let (again, found) = next_life(&dir);
    assert!(found.over.contains(&told) && !found.untold.contains_key(&told));
    assert_eq!(found.untold[&untold], ending(untold));
    let elsewhere = dir.path().join("elsewhere/endings.n.i");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 2);
    again.catch_up(false);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    let (_, found) = next_life(&dir);
    assert!(found.over.contains(&told) && found.untold.contains_key(&untold));
}

#[test]
fn a_run_that_the_disk_did_not_take_is_known_to_the_next_life() {
    let (dir, notes) = notes();
    let kernel = KernelId::random();
    let going = |run: Option<&str>| GoingRun { run: run.map(RunId::new), ..GoingRun::default() };
    let note = |run| RunNote::new(kernel, &going(run));
    let known = |notes: &Notes| notes.of(kernel).run.map(|run| run.going());
    notes.run(kernel, note(Some("before"))).unwrap();
    let (runs, away) = (dir.path().join("runs"), dir.path().join("away"));
    for run in [None, Some("during")] {
        fs::rename(&runs, &away).unwrap();
        let written = notes.run(kernel, note(run));
        fs::rename(&away, &runs).unwrap();
        written.unwrap_err();
        assert_eq!(known(&next_life(&dir).0), Some(going(run)));
    }
    notes.run(kernel, note(Some("after"))).unwrap();
    assert_eq!(known(&next_life(&dir).0), Some(going(Some("after"))));
    assert_eq!(fs::read_dir(dir.path().join("elsewhere/runs.n.i")).unwrap().count(), 0);
}

#[test]
fn a_note_of_a_run_is_written_over_while_it_is_small_and_whole_whatever_was_there() {
    let (dir, notes) = notes();
    let kernel = KernelId::random();
    let file = dir.path().join(format!("runs/{kernel}.json"));
    let mut inodes = Vec::new();
    for (length, is_new) in [(10, true), (900, false), (1, false), (9000, true), (20, true), (300, false)] {
        let going = GoingRun { run: Some(RunId::new("r".repeat(length))), ..GoingRun::default() };
        notes.run(kernel, RunNote::new(kernel, &going)).unwrap();
        assert_eq!(next_life(&dir).0.of(kernel).run.map(|run| run.going()), Some(going));
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).unwrap());
        assert_eq!(inodes.last() != Some(&inode), is_new, "{length}");
        inodes.push(inode);
    }
}
