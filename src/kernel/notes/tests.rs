//! Notes on a real file system, whole and damaged.

use super::*;

fn notes() -> (tempfile::TempDir, Notes) {
    let dir = tempfile::tempdir().unwrap();
    let notes = Notes::open(dir.path()).unwrap();
    (dir, notes)
}

#[test]
fn kernels_and_untold_endings_come_back() {
    let (dir, notes) = notes();
    let (a, b) = (KernelId::random(), KernelId::random());
    let mut note = KernelNote::new(a, NotedPhase::Running);
    note.run = Some("r".into());
    notes.note(a, &note).unwrap();
    let ending = Ending::new(b, EndReason::IdleTimeout, Some(Sample::default()));
    notes.ending(b, &ending).unwrap();

    let again = Notes::open(dir.path()).unwrap();
    let found = again.load().unwrap();
    assert_eq!(found.kernels[&a], note);
    assert_eq!(found.untold[&b], ending);
    assert!(again.has_ended(b) && !again.has_ended(a));
}

#[test]
fn samples_come_back_and_a_damaged_file_of_them_is_set_aside() {
    let (dir, notes) = notes();
    let kernel = KernelId::random();
    let sample = Sample { mem_max_bytes: 7, ..Sample::default() };
    notes.keep_samples(&[(kernel, sample)]).unwrap();
    assert_eq!(notes.load().unwrap().samples[&kernel], sample);
    fs::write(dir.path().join("samples.json"), "{half").unwrap();
    assert!(notes.load().unwrap().samples.is_empty());
    assert!(dir.path().join("samples.json.set-aside").exists());
}

#[test]
fn a_told_ending_is_remembered_but_not_told_again() {
    let (dir, notes) = notes();
    let kernel = KernelId::random();
    notes.told(kernel, Ending::new(kernel, EndReason::UserRequested, None)).unwrap();
    let again = Notes::open(dir.path()).unwrap();
    assert!(again.load().unwrap().untold.is_empty());
    assert!(again.has_ended(kernel));
    again.purge();
    assert!(again.has_ended(kernel), "an hour has not passed");
    again.ended().insert(kernel, Some(unix_now() - REMEMBER_SECS - 1));
    again.purge();
    assert!(!again.has_ended(kernel));
    assert!(!file(&again.endings, kernel).exists());
}

#[test]
fn what_is_damaged_foreign_or_of_the_future_is_set_aside() {
    let (dir, notes) = notes();
    let good = KernelId::random();
    notes.ending(good, &Ending::new(good, EndReason::AgentReset, None)).unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join("endings").join(name), text).unwrap();
    let other = KernelId::random();
    put(&format!("{other}.json"), "{\"version\": 1, \"kern");
    put("../endings/readme.txt", "a stranger's file");
    put("not-a-kernel.json", "{}");
    let future = KernelId::random();
    put(&format!("{future}.json"), &format!(r#"{{"version": 2, "kernel": "{future}", "reason": "x"}}"#));
    put(&format!("{good}.tmp"), "cut off");

    let found = Notes::open(dir.path()).unwrap().load().unwrap();
    assert_eq!(found.untold.keys().collect::<Vec<_>>(), [&good]);
    let names: Vec<_> = fs::read_dir(dir.path().join("endings"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.iter().filter(|n| n.ends_with(".set-aside")).count(), 3, "{names:?}");
    assert!(names.contains(&"readme.txt".to_owned()));
    assert!(!names.iter().any(|n| n.contains(".tmp")));
}
