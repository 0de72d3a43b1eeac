//! What managers of 1.4 and 18.12 ask for, with the agent as it runs.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value as Json, json};

use crate::support::docker::{self, TestImage, docker, image};
use crate::support::engine::Engine;
use crate::support::msgpack::{from_json, to_json};
use crate::support::{Bed, kernel, new_id, secs};

/// A create as each series writes it, of the same kernel.
fn configs(lang: &str) -> [Json; 2] {
    let of_1_4 = json!({ "lang": lang, "limits": { "mem_slot": "0.0625", "cpu_slot": "1.50", "gpu_slot": "0" },
                         "mounts": [], "environ": {} });
    let mut of_18_12 = of_1_4.clone();
    of_18_12["lang"] = json!(format!("lablup/{lang}"));
    of_18_12["limits"]["tpu_slot"] = json!("0");
    [of_1_4, of_18_12]
}

#[tokio::test]
async fn creates_of_later_managers_make_the_same_kernel() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    for config in configs(&image::tiny()) {
        let id = new_id();
        let created = agent.call("create_kernel", json!([id, config])).await.expect("create");
        assert_eq!((&created["id"], &created["service_ports"]), (&json!(id), &json!([])));
        let container = docker::inspect(created["container_id"].as_str().unwrap()).await;
        assert_eq!(container["HostConfig"]["Memory"], 64 << 20);
        assert_eq!(container["HostConfig"]["CpuQuota"], 150_000);
        assert_eq!(container["Config"]["Image"], format!("lablup/kernel-{}", image::tiny()));
        let labels = &container["Config"]["Labels"];
        assert_eq!(labels["ai.backend.limits"], format!("{},1.5,0", 64 << 20), "bytes, cores, devices");
        assert_eq!(container["Name"], format!("/kernel.tiny.{id}"));
        // Nothing uses it, and that counts.
        assert_eq!(agent.call("ping_kernel", json!([id])).await, Ok(Json::Null));
    }
    let mut with_tpu = configs(&image::tiny())[1].clone();
    with_tpu["limits"]["tpu_slot"] = json!("1");
    let refused = agent.call("create_kernel", json!([new_id(), with_tpu])).await.unwrap_err();
    assert!(refused.text().contains("no TPUs"), "{refused:?}");
    assert_eq!(agent.call("clean_all_kernels", json!(["manager-freeze-force-kill"])).await, Ok(Json::Null));
}

#[tokio::test]
async fn a_registry_in_an_image_s_name_is_kept() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let mut config = configs(&image::tiny())[1].clone();
    config["lang"] = json!("registry.invalid:5000/team/tiny:1");
    let refused = agent.call("create_kernel", json!([new_id(), config])).await.unwrap_err();
    assert!(
        refused.text().contains("registry.invalid:5000/team/kernel-tiny:1 is not on this machine"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn services_that_an_image_declares_are_published_and_survive_the_agent() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let labels =
        ["ai.backend.service-ports=jupyter:http:8080,shell:pty:7681", "ai.backend.features=\"batch query\""];
    let image = TestImage::labelled(&labels).await;
    let config = configs(image.lang())[1].clone();
    let id = new_id();
    let created = agent.call("create_kernel", json!([id, config])).await.expect("create");
    let services = created["service_ports"].as_array().unwrap();
    let inside: Vec<(&Json, &Json)> = services.iter().map(|s| (&s["name"], &s["container_port"])).collect();
    assert_eq!(inside, [(&json!("jupyter"), &json!(8080)), (&json!("shell"), &json!(7681))]);
    let container = docker::inspect(created["container_id"].as_str().unwrap()).await;
    for service in services {
        let port = &container["NetworkSettings"]["Ports"][format!("{}/tcp", service["container_port"])][0];
        assert_eq!(port["HostPort"], service["host_port"].to_string());
        assert_eq!(port["HostIp"], "127.0.0.1", "the kernel host's address");
    }
    let unknown = agent.call("start_service", json!([id, "nothing", {}])).await.unwrap();
    assert_eq!(unknown["status"], "failed");
    agent.kill9();
    let agent = bed.agent(&[]).await;
    let again = agent.call("create_kernel", json!([id, config])).await.expect("the same kernel");
    assert_eq!(again["service_ports"], created["service_ports"]);
}

#[tokio::test]
async fn a_cluster_s_prefix_stands_between_a_folder_host_and_its_folders() {
    let bed = Bed::start().await;
    bed.etcd.etcdctl(&["put", &bed.key("volumes/_fsprefix"), "/vf/root"]).await;
    let agent = bed.agent(&[]).await;
    fs::create_dir_all(bed.folders().join("local/vf/root/0a1b")).unwrap();
    fs::write(bed.folders().join("local/vf/root/0a1b/file"), "of the folder").unwrap();
    let mut config = configs(&image::tiny())[1].clone();
    config["mounts"] = json!([["data", "local", "0a1b"]]);
    let created = agent.call("create_kernel", json!([new_id(), config])).await.expect("create");
    let container = created["container_id"].as_str().unwrap();
    assert_eq!(
        docker(&["exec", container, "/bin/sh", "-c", "cat /home/work/data/file"]).await,
        "of the folder"
    );
}

#[tokio::test]
async fn files_are_listed_and_fetched_as_the_kernel_sees_them() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    fs::create_dir_all(bed.folders().join("local/data")).unwrap();
    fs::write(bed.folders().join("local/data/of-the-folder"), "12345").unwrap();
    let mut config = kernel::config(&image::tiny());
    config["limits"]["mem_slot"] = json!(64);
    config["mounts"] = json!([["data", "local", "data"]]);
    let kernel = agent.create_with(config).await;
    kernel.upload("sub/main.py", b"print(1)").await.unwrap();
    let script = "ln -s sub/main.py link; ln -s /etc out; mkfifo fifo; echo x >data/in";
    docker(&["exec", kernel.container(), "/bin/sh", "-c", script]).await;

    let listed = kernel.call("list_files", json!(["."])).await.unwrap();
    assert_eq!((&listed["errors"], &listed["abspath"]), (&json!(""), &json!("/home/work/\n")));
    let files: Vec<Json> = serde_json::from_str(listed["files"].as_str().unwrap()).unwrap();
    let mode = |name: &str| files.iter().find(|file| file["filename"] == name).unwrap()["mode"].clone();
    let kinds =
        ["data", "sub", "link", "out", "fifo"].map(|name| mode(name).as_str().unwrap()[..1].to_owned());
    assert_eq!(kinds, ["d", "d", "-", "l", "p"]);
    let in_folder = kernel.call("list_files", json!(["/home/work/data"])).await.unwrap();
    for name in ["of-the-folder", "\"in\""] {
        assert!(in_folder["files"].as_str().unwrap().contains(name), "{in_folder}");
    }
    for elsewhere in ["/etc", "out", "../..", "nothing"] {
        let answer = kernel.call("list_files", json!([elsewhere])).await.unwrap();
        assert_eq!(answer, json!({ "files": "", "errors": "No such file or directory" }), "{elsewhere}");
    }
    for (path, error) in [
        ("nothing", "builtins.FileNotFoundError"),
        ("../../etc/hostname", "builtins.FileNotFoundError"),
        ("out/hostname", "builtins.FileNotFoundError"),
        ("fifo", "builtins.AssertionError"),
    ] {
        let refused = kernel.call("download_file", json!([path])).await.unwrap_err();
        assert_eq!(refused.name, error, "{path}: {refused:?}");
    }
}

/// The user's code swaps a directory for a link to the host's files while they are fetched.
#[tokio::test]
async fn what_a_user_plants_meanwhile_leads_nowhere() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let home = bed.home(&kernel.id);
    fs::create_dir(bed.outside().join("outside")).unwrap();
    fs::write(bed.outside().join("outside/secret"), "of the host").unwrap();
    for dir in ["real", "seen"] {
        fs::create_dir(home.join(dir)).unwrap();
        fs::write(home.join(dir).join("secret"), "mine").unwrap();
    }
    symlink(bed.outside().join("outside"), home.join("fake")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let swapping = async {
        let (stop, home) = (&stop, home.clone());
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            for _ in 0..50 {
                fs::rename(home.join("seen"), home.join("aside")).unwrap();
                fs::rename(home.join("fake"), home.join("seen")).unwrap();
                fs::rename(home.join("seen"), home.join("fake")).unwrap();
                fs::rename(home.join("aside"), home.join("seen")).unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let fetching = async {
        let mut fetched = 0;
        for _ in 0..60 {
            let args = rmpv::Value::Array(vec![kernel.id.as_str().into(), "seen".into()]);
            let none = rmpv::Value::Map(Vec::new());
            let limit = secs(10);
            if let Ok(rmpv::Value::Binary(tar)) =
                agent.rpc().call_with("download_file", args, none, limit).await
            {
                assert!(!String::from_utf8_lossy(&tar).contains("of the host"));
                fetched += 1;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        fetched
    };
    let ((), fetched) = tokio::join!(swapping, fetching);
    assert!(fetched > 0);
}

/// A manager of 18.12 has one connection for all its calls: a create that Docker holds up and a run that lasts hold up nothing.
#[tokio::test]
async fn calls_overlap_on_one_connection_and_each_answer_goes_with_its_call() {
    let bed = Bed::start().await;
    let engine = Engine::start(bed.outside());
    let agent = bed.agent(&["--docker-host", &engine.host()]).await;
    let kernel = agent.create_python().await.warm().await;
    let mut line = agent.rpc().connect().await;
    let none = rmpv::Value::Map(Vec::new());
    engine.hang();
    let (made, run) = (new_id(), new_id());
    let create = from_json(&json!([made, configs(&image::tiny())[1]]));
    let creating = line.request("create_kernel", &create, &none).await;
    let code = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)\nprint('went')";
    let execute = from_json(&json!([2, kernel.id, run, "query", code, {}, 20.0]));
    let executing = line.request("execute", &execute, &none).await;
    let mut pings = Vec::new();
    for number in 0..20 {
        let text = json!(format!("ping {number}"));
        pings.push((line.request("ping", &from_json(&json!([text])), &none).await, text));
    }
    while !pings.is_empty() {
        let answer = line.answer(secs(5)).await.expect("a ping waits for nothing");
        let asked = pings.iter().position(|(id, _)| *id == answer.header.id).expect("only pings are over");
        assert_eq!(to_json(&answer.result.unwrap()), pings.remove(asked).1);
    }

    // The run ends by a file that comes over the same connection.
    let file =
        rmpv::Value::Array(vec![kernel.id.as_str().into(), "go".into(), rmpv::Value::Binary(Vec::new())]);
    let uploading = line.request("upload_file", &file, &none).await;
    for _ in 0..2 {
        let answer = line.answer(secs(10)).await.expect("the upload and the run are over");
        let result = to_json(&answer.result.unwrap());
        match answer.header.id {
            id if id == uploading => assert_eq!(result, Json::Null),
            id if id == executing => assert_eq!(result["console"], json!([["stdout", "went\n"]]), "{result}"),
            id => panic!("nobody asked {id}, or the create is over: {result}"),
        }
    }
    engine.pass();
    let answer = line.answer(secs(10)).await.expect("the create is over");
    assert_eq!(answer.header.id, creating);
    assert_eq!(to_json(&answer.result.unwrap())["id"], made);
}
