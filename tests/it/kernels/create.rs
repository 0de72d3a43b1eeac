//! What `create_kernel` answers and makes.

use serde_json::{Value as Json, json};

use crate::support::docker::{self, NAMESPACE_LABEL, TestImage, image};
use crate::support::msgpack::keys;
use crate::support::{Bed, kernel, new_id, secs, until};

/// Its container is gone when anybody looks, so the answer has to say why it ended.
#[tokio::test]
async fn a_container_that_ends_at_once_is_answered_with_its_exit_code_and_last_words() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--create-deadline", "9"]).await;
    let noise = "noise ".repeat(1000);
    let image =
        TestImage::running(&format!("echo {noise}; echo 'no licence for this machine'; exit 42")).await;
    let silent = TestImage::running("exit 0").await;
    for (image, told) in [
        (&image, &["exit code 42", "noise | no licence for this machine"][..]),
        (&silent, &["exit code 0", "it wrote nothing"]),
    ] {
        // One that is quicker than its end is answered, and its kernel told as ended.
        let (id, error) = until("a create that is slower than the end", secs(60), async || {
            let id = new_id();
            let answer = agent.call("create_kernel", json!([id, kernel::config(image.lang())])).await;
            answer.err().map(|error| (id, error))
        })
        .await;
        assert!(told.iter().all(|told| error.text().contains(told)), "{error:?}");
        assert!(error.text().len() < 1200, "{error:?}");
        docker::gone(&id).await;
        assert!(bed.ends(&agent, &id).await.is_empty());
    }
}

#[tokio::test]
async fn the_answer_is_what_the_manager_stores() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let answer = &kernel.created;
    let expected = [
        "container_id",
        "cpu_set",
        "gpu_set",
        "id",
        "kernel_host",
        "repl_in_port",
        "repl_out_port",
        "stdin_port",
        "stdout_port",
    ];
    for key in expected {
        assert!(keys(answer).contains(&key), "no {key} in {answer}");
    }
    assert_eq!(answer["id"], kernel.id.as_str());
    assert_eq!(answer["kernel_host"], "127.0.0.1");
    let container = docker::inspect(kernel.container()).await;
    assert_eq!(container["Id"], answer["container_id"], "the full id");
    assert_eq!(container["State"]["Running"], true);
    assert_eq!(answer["gpu_set"], json!([]));
    let cpus = answer["cpu_set"].as_array().unwrap();
    assert!(cpus.len() == 1 && cpus[0].is_u64(), "one core: {answer}");
    for port in ["repl_in_port", "repl_out_port", "stdin_port", "stdout_port"] {
        assert!(answer[port].as_u64().is_some_and(|port| port > 0 && port < 65536), "{port}: {answer}");
    }
    let creating = bed.wait_event("kernel_creating", |_| true, secs(1)).await;
    assert_eq!((&creating.instance, &creating.args), (&bed.instance, &json!([kernel.id])));
    assert!(creating.at < kernel.created_at, "kernel_creating came after the kernel");
}

#[tokio::test]
async fn the_container_is_set_up_as_kernel_images_expect() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let container = docker::inspect(kernel.container()).await;
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    let tiny = image::tiny();
    let short = tiny.split(':').next().unwrap();
    assert_eq!(container["Name"], format!("/kernel.{short}.{}", kernel.id));
    assert_eq!(config["Image"], format!("lablup/kernel-{tiny}"));
    assert_eq!((&config["Tty"], &config["OpenStdin"]), (&json!(true), &json!(true)));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(host["Privileged"], false);
    assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
    assert_eq!(host["Memory"], 64 << 20, "mem_slot is in MiB");
    assert_eq!(host["MemorySwap"], host["Memory"], "no swap on top of the limit");
    assert_eq!(host["PidsLimit"], 16384, "a kernel can not take all processes of the machine");
    assert_eq!(host["CpusetCpus"], kernel.created["cpu_set"][0].to_string());
    assert_eq!(host["CpusetMems"], "0");
    let mounts = container["Mounts"].as_array().unwrap();
    let work: Vec<&Json> = mounts.iter().filter(|mount| mount["Destination"] == "/home/work").collect();
    assert_eq!(work.len(), 1, "{mounts:?}");
    assert_eq!(work[0]["Source"], bed.home(&kernel.id).display().to_string());
    assert_eq!(work[0]["RW"], true);
    for inside in ["/home/work/.config", "/home/config"] {
        let settings = mounts.iter().find(|mount| mount["Destination"] == inside).expect(inside);
        assert_eq!(settings["Source"], bed.scratch().join(&kernel.id).join("config").display().to_string());
        assert_eq!(settings["RW"], false, "{inside}");
    }
    let labels = config["Labels"].as_object().unwrap();
    assert_eq!(labels[NAMESPACE_LABEL], bed.namespace);
    let ours: Vec<&Json> =
        labels.iter().filter(|(name, _)| name.starts_with("ai.backend.")).map(|(_, value)| value).collect();
    for value in [&kernel.id, &bed.instance] {
        assert!(ours.contains(&&json!(value)), "no label ai.backend.* with {value}: {labels:?}");
    }
}

#[tokio::test]
async fn only_the_terminal_ports_leave_the_machine() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let container = docker::inspect(kernel.container()).await;
    let published = container["NetworkSettings"]["Ports"].as_object().unwrap();
    assert_eq!(published.len(), 4, "{published:?}");
    let names = [
        ("2000/tcp", "repl_in_port"),
        ("2001/tcp", "repl_out_port"),
        ("2002/tcp", "stdin_port"),
        ("2003/tcp", "stdout_port"),
    ];
    for (inside, name) in names {
        let bindings = published[inside].as_array().unwrap_or_else(|| panic!("{inside}: {published:?}"));
        // The kernel host of this bed is loopback, too.
        assert_eq!(bindings.len(), 1, "{inside}: {bindings:?}");
        assert_eq!(bindings[0]["HostIp"], "127.0.0.1", "{inside}");
        assert_eq!(bindings[0]["HostPort"], kernel.created[name].to_string(), "{inside}");
    }
}

#[tokio::test]
async fn the_environment_reaches_the_runner_and_the_container() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut config = kernel::config(&image::python());
    config["environ"] = json!({ "GREETING": "héllo = ☃", "EMPTY": "" });
    let kernel = agent.create_with(config).await;
    let file = bed.scratch().join(&kernel.id).join("config/environ.txt");
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["EMPTY=", "GREETING=héllo = ☃"]);
    let code = "import os\nprint([os.environ.get(n) for n in \
                ('GREETING', 'OPENBLAS_NUM_THREADS', 'NPROC', 'LOCAL_USER_ID')], os.getcwd(), os.getuid())";
    let uid = 9001;
    let expected = format!("['héllo = ☃', '1', '1', '{uid}'] /home/work {uid}\n");
    assert_eq!(kernel.run(code).await.stdout(), expected);
}

#[tokio::test]
async fn mounts_and_environ_may_be_nil_or_absent() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let limits = json!({ "mem_slot": 64, "cpu_slot": 1, "gpu_slot": 0 });
    let nil = json!({ "lang": image::tiny(), "limits": limits, "mounts": null, "environ": null });
    let absent = json!({ "lang": image::tiny(), "limits": limits });
    for config in [nil, absent] {
        let kernel = agent.create_with(config).await;
        kernel.destroy().await;
    }
}

#[tokio::test]
async fn the_same_id_again_is_the_same_kernel() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let again = agent.call("create_kernel", json!([kernel.id, kernel.config])).await.unwrap();
    assert_eq!(again, kernel.created);
    assert_eq!(docker::containers_named(&kernel.id).await, [kernel.container()]);
    kernel.destroy().await;
    bed.wait_end(&kernel.id, secs(5)).await;
    assert_eq!(bed.ends(&agent, &kernel.id).await.len(), 1);
}

#[tokio::test]
async fn a_dead_leftover_of_the_same_name_is_cleared() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let id = new_id();
    let tiny = image::tiny();
    let name = format!("kernel.{}.{id}", tiny.split(':').next().unwrap());
    let label = format!("{NAMESPACE_LABEL}={}", bed.namespace);
    let image = format!("lablup/kernel-{tiny}");
    let leftover = docker::docker(&["create", "--name", &name, "--label", &label, &image]).await;
    let mut config = kernel::config(&tiny);
    config["limits"]["mem_slot"] = json!(64);
    let created = agent.call("create_kernel", json!([id, config])).await.expect("create_kernel");
    assert_ne!(created["container_id"], leftover);
    assert_eq!(docker::containers_named(&id).await, [created["container_id"].as_str().unwrap()]);
}

#[tokio::test]
async fn kernels_can_be_made_at_the_same_time() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let (one, two) = tokio::join!(agent.create_tiny(), agent.create_tiny());
    assert_ne!(one.container(), two.container());
    assert_ne!(one.created["repl_in_port"], two.created["repl_in_port"]);
    let mut ids = [one.id, two.id];
    ids.sort();
    assert_eq!(bed.scratch_dirs(), ids);
}
