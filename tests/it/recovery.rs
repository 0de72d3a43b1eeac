//! Sessions outlive the agent (PROTOCOL section 12, items 1, 20 and 21).

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value as Json, json};

use crate::support::docker::{self, docker, image};
use crate::support::engine::{Engine, Fails};
use crate::support::{Agent, Bed, Kernel, earlier, kernel, new_id, secs, until};

const BEGIN: &str = "open('/home/work/begun', 'w').close()\n";

async fn begun(bed: &Bed, kernel: &Kernel) {
    let marker = bed.home(&kernel.id).join("begun");
    until("the run's begin", secs(10), async || marker.exists().then_some(())).await;
}

/// The kernel's end is told once, with this reason, over all lives of the agent.
async fn ends_once(bed: &Bed, agent: &Agent, kernel: &str, reason: &str) {
    let end = bed.wait_end(kernel, secs(15)).await;
    assert_eq!(end.args[1], reason);
    docker::gone(kernel).await;
    until("the removal of its directory", secs(5), async || {
        (!bed.scratch_dirs().contains(&kernel.to_owned())).then_some(())
    })
    .await;
    assert_eq!(bed.ends(agent, kernel).await.len(), 1);
}

#[tokio::test]
async fn a_kernel_is_taken_back_after_kill_9_with_all_it_had() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    std::fs::create_dir_all(bed.folders().join("local/data")).unwrap();
    std::fs::write(bed.folders().join("local/data/of-the-folder"), "").unwrap();
    let mut config = kernel::config(&image::python());
    config["environ"] = json!({ "GREETING": "hello" });
    config["mounts"] = json!([["data", "local", "data"]]);
    let kernel = agent.create_with(config).await.warm().await;
    kernel.run("x = 41").await;
    agent.kill9();

    let mut agent = bed.agent(&[]).await;
    assert_eq!(kernel.run("print(x + 1)").await.stdout(), "42\n");
    let error = kernel.execute("no-such-run", "continue", "", json!({})).await.unwrap_err();
    assert!(error.text().contains("not known"), "{error:?}");
    let again = agent.call("create_kernel", json!([kernel.id, kernel.config])).await.unwrap();
    assert_eq!(again, kernel.created, "ports, cores and container are the same");

    // A third life, and a restart that names neither mounts nor environment.
    agent.stop().await;
    let agent = bed.agent(&[]).await;
    let mut bare = kernel::config(&image::python());
    bare["mounts"] = json!([]);
    bare["environ"] = json!({});
    kernel.call("restart_kernel", json!([bare])).await.expect("restart_kernel");
    let code =
        "import os\nprint(os.environ.get('GREETING'), os.path.exists('/home/work/data/of-the-folder'))";
    assert_eq!(kernel.run(code).await.stdout(), "hello True\n");
    kernel.destroy().await;
    ends_once(&bed, &agent, &kernel.id, "user-requested").await;
}

#[tokio::test]
async fn a_run_goes_on_without_the_agent_and_its_output_is_found() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    let code = format!("import time\n{BEGIN}for i in range(6):\n  time.sleep(1)\n  print('step', i)");
    let first = kernel.execute("long", "query", &code, json!({})).await.unwrap();
    assert_eq!(first["status"], "continued");
    begun(&bed, &kernel).await;
    agent.kill9();

    let _agent = bed.agent(&[]).await;
    // Another run queues behind it, as before.
    let queued = kernel.run("print('after')");
    let followed = async {
        let mut text = String::new();
        loop {
            let answer = kernel.execute("long", "continue", "", json!({})).await.expect("continue");
            for item in answer["console"].as_array().unwrap() {
                text += item[1].as_str().unwrap();
            }
            if answer["status"] == "finished" {
                return text;
            }
            assert_eq!(answer["status"], "continued");
        }
    };
    let (text, after) = tokio::join!(followed, queued);
    assert!(text.ends_with("step 5\n"), "{text:?}");
    assert!(text.contains("step 4\n"), "{text:?}");
    assert_eq!(after.stdout(), "after\n");
}

#[tokio::test]
async fn kernels_that_died_while_no_agent_ran_are_told_once() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--stats-interval", "1"]).await;
    let (killed, removed) = (agent.create_tiny().await, agent.create_tiny().await);
    let samples = bed.scratch().join(format!(".agent/samples.{}.{}.json", bed.namespace, bed.instance));
    until("their first statistics", secs(10), async || {
        let text = std::fs::read_to_string(&samples).unwrap_or_default();
        (text.contains(&killed.id) && text.contains(&removed.id)).then_some(())
    })
    .await;
    agent.kill9();
    docker(&["kill", killed.container()]).await;
    docker(&["rm", "-f", removed.container()]).await;

    let mut agent = bed.agent(&[]).await;
    for kernel in [&killed, &removed] {
        ends_once(&bed, &agent, &kernel.id, "self-terminated").await;
        let end = bed.wait_end(&kernel.id, secs(1)).await;
        assert!(end.args[2]["cpu_used"].is_number(), "the last statistics are told: {:?}", end.args);
    }
    agent.stop().await;
    let agent = bed.agent(&[]).await;
    assert_eq!(bed.ends(&agent, &killed.id).await.len(), 1, "told again by the next life");
    assert_eq!(killed.destroy().await, Json::Null);
    assert_eq!(bed.ends(&agent, &killed.id).await.len(), 1);
}

#[tokio::test]
async fn a_destroy_that_was_cut_off_is_finished_with_its_own_reason() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let ending = bed.scratch().join(format!(".agent/endings/{}.json", kernel.id));
    {
        // The call is given up as soon as the end is in the journal: that is when the agent is killed.
        let destroy = kernel.call("destroy_kernel", json!([]));
        tokio::select! {
            _ = destroy => {}
            () = until("the journal entry", secs(5), async || ending.exists().then_some(())) => {}
        }
    }
    agent.kill9();
    let agent = bed.agent(&[]).await;
    let end = bed.wait_end(&kernel.id, secs(10)).await;
    assert_eq!(end.args[1], "user-requested");
    docker::gone(&kernel.id).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn a_create_that_was_cut_off_leaves_nothing_and_is_not_told() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let id = new_id();
    let mut config = kernel::config(&image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    {
        let create = agent.call("create_kernel", json!([id, config]));
        tokio::select! {
            answer = create => panic!("it was too quick to cut off: {answer:?}"),
            () = until("its container", secs(5), async || {
                (!docker::containers_named(&id).await.is_empty()).then_some(())
            }) => {}
        }
    }
    agent.kill9();
    let agent = bed.agent(&[]).await;
    docker::gone(&id).await;
    until("the removal of its directory", secs(5), async || bed.scratch_dirs().is_empty().then_some(()))
        .await;
    until("the removal of its note", secs(5), async || {
        std::fs::read_dir(bed.scratch().join(".agent/kernels")).unwrap().next().is_none().then_some(())
    })
    .await;
    let told = bed.manager.all("kernel_terminated", |event| event.args[0] == id);
    assert!(told.is_empty(), "the manager has no such session: {told:?}");
    agent.call("ping", json!(["alive"])).await.unwrap();
}

#[tokio::test]
async fn ends_wait_for_a_manager_that_is_away_over_a_restart_of_the_agent() {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernels = [agent.create_tiny().await, agent.create_tiny().await];
    bed.manager.down();
    for kernel in &kernels {
        kernel.destroy().await;
    }
    agent.kill9();
    // Nobody hears `instance_started`, so there is nothing to wait for but the port.
    let agent = bed.spawn_agent(&[]);
    until("the agent", secs(10), async || {
        agent.rpc().call("ping", json!(["?"]), secs(1)).await.is_ok().then_some(())
    })
    .await;
    bed.manager.up();
    for kernel in &kernels {
        let end = bed.wait_end(&kernel.id, secs(10)).await;
        assert_eq!(end.args[1], "user-requested");
        assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
    }
}

#[tokio::test]
async fn damaged_notes_do_not_stop_the_start() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    agent.kill9();
    let put =
        |file: String, text: &str| std::fs::write(bed.scratch().join(".agent").join(file), text).unwrap();
    put(format!("kernels/{}.json", kernel.id), "{\"version\": 1, \"ker");
    put(format!("endings/{}.json", new_id()), "\u{0}\u{0}\u{0}");
    put("endings/x.json".to_owned(), "{}");
    let agent = bed.agent(&[]).await;
    // The labels are enough to take it back.
    let again = agent.call("create_kernel", json!([kernel.id, kernel.config])).await.unwrap();
    assert_eq!(again["container_id"], kernel.created["container_id"]);
    assert!(agent.output().contains("set a note aside"), "{}", agent.output());
    kernel.destroy().await;
    ends_once(&bed, &agent, &kernel.id, "user-requested").await;
}

#[tokio::test]
async fn idle_time_counts_over_a_restart() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    agent.kill9();
    // Long enough that it can't run out at once, short enough to run out in this test.
    let agent = bed.agent(&["--idle-timeout", "3"]).await;
    ends_once(&bed, &agent, &kernel.id, "idle-timeout").await;
}

#[tokio::test]
async fn the_agent_serves_while_it_takes_kernels_back() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let mut kernels = Vec::new();
    // BACKENDAI_TEST_KERNELS=100 is what the promise is about; it takes a minute to make them.
    let count = std::env::var("BACKENDAI_TEST_KERNELS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    for _ in 0..count {
        kernels.push(agent.create_tiny().await);
    }
    agent.kill9();
    let begin = std::time::Instant::now();
    let agent = bed.spawn_agent(&[]);
    until("an answer", secs(5), async || {
        agent.rpc().call("ping", json!(["?"]), secs(1)).await.is_ok().then_some(())
    })
    .await;
    println!("serving {:?} after the start, with {} running kernels", begin.elapsed(), kernels.len());
    for kernel in &kernels {
        let again = agent.call("create_kernel", json!([kernel.id, kernel.config])).await.unwrap();
        assert_eq!(again["container_id"], kernel.created["container_id"]);
    }
    agent.call("reset", json!([])).await.unwrap();
    for kernel in &kernels {
        assert_eq!(bed.wait_end(&kernel.id, secs(60)).await.args[1], "agent-reset");
    }
}

/// The note of a run is gone before its end is answered: else the next life would wait for an end that was told.
#[tokio::test]
async fn a_run_that_was_answered_is_over_for_the_next_life() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    kernel.run("n = 0").await;
    for round in 1..=6 {
        assert_eq!(kernel.run("n += 1\nprint(n)").await.stdout(), format!("{round}\n"));
        agent.kill9();
        agent = bed.agent(&[]).await;
    }
    assert_eq!(kernel.run("print(n)").await.stdout(), "6\n");
}

/// A node whose agent changed its name, as after a cloud's metadata service did not answer, keeps its sessions for
/// the agent that they belong to.
#[tokio::test]
async fn another_instance_over_the_same_scratch_root_touches_nothing() {
    let mut bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let (kernel, ended) = (agent.create_python().await.warm().await, agent.create_tiny().await);
    kernel.run("x = 1").await;
    ended.destroy().await;
    bed.wait_end(&ended.id, secs(5)).await;
    agent.kill9();
    drop(agent);
    let renamed = format!("{}-renamed", bed.instance);
    let ours = std::mem::replace(&mut bed.instance, renamed);
    let mut other = bed.agent(&["--reconcile-interval", "0.2"]).await;
    let beats = bed.manager.all("instance_heartbeat", |_| true).len();
    bed.manager.wait("instance_heartbeat", beats + 2, |_| true, secs(10)).await;
    // Even when somebody asks it to end the other's kernel, it can only say that it has none.
    let error = other.call("get_logs", json!([kernel.id])).await.unwrap_err();
    assert!(error.text().contains("not running on this agent"), "{error:?}");
    other.stop().await;
    drop(other);
    bed.instance = ours;
    assert!(bed.manager.all("kernel_terminated", |event| event.args[0] == kernel.id.as_str()).is_empty());
    let agent = bed.agent(&[]).await;
    assert_eq!(kernel.run("print(x)").await.stdout(), "1\n");
    kernel.destroy().await;
    ends_once(&bed, &agent, &kernel.id, "user-requested").await;
}

/// A kill, a start, and all kernels to end before Docker has listed them: they end when they are found.
#[tokio::test]
async fn a_reset_reaches_kernels_that_are_not_found_yet() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let kernels = [agent.create_tiny().await, agent.create_tiny().await];
    agent.kill9();
    engine.fail("GET", "/containers/json", Fails::Late, 1);
    let agent = bed.agent(&["--docker-host", &engine.host()]).await;
    assert_eq!(agent.call("reset", json!([])).await, Ok(Json::Null));
    assert!(bed.manager.all("kernel_terminated", |_| true).is_empty(), "they were found already");
    engine.release();
    for kernel in &kernels {
        ends_once(&bed, &agent, &kernel.id, "agent-reset").await;
    }
    let kept = agent.create_tiny().await;
    kept.call("get_logs", json!([])).await.expect("a kernel that was made after the reset");
}

/// While its container is looked at, a kernel hears that it shall end.
#[tokio::test]
async fn a_kernel_that_is_looked_at_hears_a_destroy_and_a_stop() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let mut agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let (doomed, kept) = (agent.create_tiny().await, agent.create_tiny().await);
    agent.kill9();
    engine.fail("GET", "/containers/*/json", Fails::Late, 2);
    let mut agent = bed.agent(&["--docker-host", &engine.host()]).await;
    until("the look at both", secs(5), async || (engine.failed() == 2).then_some(())).await;
    assert_eq!(doomed.destroy().await, Json::Null, "no agent has seen it in this life");
    ends_once(&bed, &agent, &doomed.id, "user-requested").await;
    let begun = std::time::Instant::now();
    assert!(agent.stop().await.success());
    assert!(begun.elapsed() < secs(2), "it waited for the other's task");
    engine.release();
    assert_eq!(docker::containers_named(&kept.id).await, [kept.container()]);
    let agent = bed.agent(&["--docker-host", &engine.host()]).await;
    kept.destroy().await;
    ends_once(&bed, &agent, &kept.id, "user-requested").await;
}

/// What crashes of other times have left below the scratch root: named, or removed where the operator wants that.
#[tokio::test]
async fn directories_that_are_nobody_s_are_named_once_and_removed_on_request() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    agent.stop().await;
    let [old, young, noted, contained] = [(); 4].map(|()| new_id());
    for id in [&old, &young, &noted, &contained] {
        std::fs::create_dir(bed.scratch().join(id)).unwrap();
    }
    std::fs::write(bed.scratch().join(&old).join("file"), "").unwrap();
    std::fs::create_dir(bed.scratch().join("lost+found")).unwrap();
    // Another agent's note and container; none that this one would look at otherwise.
    let note = json!({ "version": 1, "owner": "another/i-agent", "kernel": noted, "phase": "running",
        "run": null, "last_use": 0, "adopted": null });
    std::fs::write(bed.scratch().join(format!(".agent/kernels/{noted}.json")), note.to_string()).unwrap();
    let label = format!("{}={}", docker::NAMESPACE_LABEL, bed.namespace);
    let image = format!("lablup/kernel-{}", image::tiny());
    docker(&["create", "--name", &format!("kernel.tiny.{contained}"), "--label", &label, &image]).await;
    for id in [&old, &noted, &contained, &kernel.id, &"lost+found".to_owned()] {
        let days = ["-d", "2 days ago", &bed.scratch().join(id).display().to_string()].map(str::to_owned);
        assert!(std::process::Command::new("touch").args(days).status().unwrap().success());
    }

    let mut agent = bed.agent(&[]).await;
    until("a word about it", secs(5), async || agent.output().contains("--sweep-scratch").then_some(()))
        .await;
    assert_eq!(agent.output().matches(&old).count(), 1, "{}", agent.output());
    for id in [&young, &noted, &contained, &kernel.id] {
        assert!(!agent.output().lines().any(|line| line.contains("--sweep-scratch") && line.contains(id)));
    }
    agent.stop().await;
    let mut left = vec![young, noted, contained, kernel.id.clone(), "lost+found".to_owned()];
    left.sort();
    assert!(bed.scratch().join(&old).exists(), "nobody wanted it removed");
    let agent = bed.agent(&["--sweep-scratch"]).await;
    until("its removal", secs(5), async || (bed.scratch_dirs() == left).then_some(())).await;
    kernel.destroy().await;
    ends_once(&bed, &agent, &kernel.id, "user-requested").await;
}

/// What a kernel was made with is not its user's to lose: in kernels of earlier versions the runner's file lies in the user's own
/// directory.
#[tokio::test]
async fn the_environment_outlives_whatever_its_user_does_to_the_file() {
    const ACTS: [&str; 7] = [
        "true",
        "rm .config/environ.txt",
        "rm .config/environ.txt; mkfifo .config/environ.txt",
        "ln -sf /etc/passwd .config/environ.txt",
        "rm .config/environ.txt; mkdir -p .config/environ.txt/not/empty",
        "echo GREETING=bye > .config/environ.txt; truncate -s 1T .config/environ.txt",
        "rm -r .config; ln -s / .config",
    ];
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let mut config = kernel::config(&image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    config["environ"] = json!({ "GREETING": "hello" });
    let mut kernels = Vec::new();
    for _ in ACTS {
        kernels.push(agent.create_with(config.clone()).await);
    }
    agent.kill9();
    for (kernel, act) in kernels.iter().zip(ACTS) {
        let (_, home) = earlier::made_by_an_earlier_version(&bed, kernel).await;
        // By the host: the image need not have these programs, nor its user the right to do so.
        let done = std::process::Command::new("/bin/sh").args(["-ec", act]).current_dir(&home).status();
        assert!(done.unwrap().success(), "{act}");
    }
    let noted = |id: &str| bed.scratch().join(format!(".agent/kernels/{id}.json"));
    for kernel in &kernels {
        let mode = std::fs::metadata(noted(&kernel.id)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "the note of {}", kernel.id);
    }
    // Made by an agent of before, which noted no environment: the file is asked once, and must not stop anything.
    let of_before = [&kernels[0], &kernels[2]];
    for kernel in of_before {
        let text = std::fs::read(noted(&kernel.id)).unwrap();
        let mut note: Json = serde_json::from_slice(&text).unwrap();
        assert_eq!(note.as_object_mut().unwrap().remove("environ"), Some(json!({ "GREETING": "hello" })));
        std::fs::write(noted(&kernel.id), note.to_string()).unwrap();
    }

    let agent = bed.agent(&["--create-deadline", "9"]).await;
    for (kernel, act) in kernels.iter().zip(ACTS) {
        let answer = kernel.call("restart_kernel", json!([{}])).await.expect(act);
        let container = answer["container_id"].as_str().unwrap();
        let env = docker::inspect(container).await;
        let file = docker(&["exec", container, "/bin/sh", "-c", "cat .config/environ.txt"]).await;
        let is_lost = act == ACTS[2];
        let has_env = env["Config"]["Env"].as_array().unwrap().contains(&json!("GREETING=hello"));
        assert_eq!(has_env, !is_lost, "{act}");
        assert_eq!(file, if is_lost { "" } else { "GREETING=hello" }, "{act}");
    }
    assert!(agent.output().contains("can't tell the environment"), "{}", agent.output());
    let note: Json = serde_json::from_slice(&std::fs::read(noted(&kernels[0].id)).unwrap()).unwrap();
    assert_eq!(note["environ"], json!({ "GREETING": "hello" }), "kept from now on");
    assert!(!agent.output().contains("hello"), "the log holds a value");
}

/// What lives through no boot: the note says in which one it was written.
#[tokio::test]
async fn kernels_of_an_earlier_boot_ended_with_it_and_are_told_at_once() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--create-deadline", "9"]).await;
    let (dead, gone, started_again) =
        (agent.create_tiny().await, agent.create_tiny().await, agent.create_tiny().await);
    let of_this_boot = agent.create_tiny().await;
    agent.kill9();
    docker(&["kill", dead.container(), of_this_boot.container()]).await;
    docker(&["rm", "-f", gone.container()]).await;
    for kernel in [&dead, &gone, &started_again] {
        let path = bed.scratch().join(format!(".agent/kernels/{}.json", kernel.id));
        let mut note: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(note["boot"], boot.trim());
        note["boot"] = json!("b0070000-0000-4000-8000-000000000000");
        std::fs::write(&path, note.to_string()).unwrap();
    }
    let agent = bed.agent(&["--create-deadline", "9"]).await;
    for (kernel, reason) in
        [(&dead, "agent-termination"), (&gone, "agent-termination"), (&of_this_boot, "self-terminated")]
    {
        ends_once(&bed, &agent, &kernel.id, reason).await;
    }
    // A restart policy of the operator's.
    started_again.call("get_logs", json!([])).await.expect("it lives");
    started_again.destroy().await;
    ends_once(&bed, &agent, &started_again.id, "user-requested").await;
}
