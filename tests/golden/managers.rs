//! Recorded calls of managers 1.4.7 and 18.12.0: each becomes the same request as one of 1.3 that asks for the same.

use std::time::Duration;

use backendai_agent::wire::config::{KernelConfig, Mount};
use backendai_agent::wire::limits;
use backendai_agent::wire::request::Execute;
use serde_json::json;

use super::*;

const SERIES: [&str; 2] = ["1.4", "18.12"];

/// The call as its manager sent it, and its bytes written again.
fn recorded(series: &str, title: &str) -> Request {
    let title = format!("{series} {title}");
    let all = entries(include_str!("managers.txt"));
    let found =
        all.into_iter().find(|e| e.title == title).unwrap_or_else(|| panic!("no recording of {title}"));
    let call = Call::decode(&found.request).unwrap();
    assert_eq!(call.encode(), found.request, "{title}");
    Request::of(call).unwrap_or_else(|bad| panic!("{title}: {bad}"))
}

fn execution(series: &str, title: &str) -> Execute {
    match recorded(series, title) {
        Request::Execute(_, execute) => execute,
        other => panic!("{series} {title}: {other:?}"),
    }
}

/// What a manager of 1.3 asks for.
fn of_1_3(mounts: &Json) -> KernelConfig {
    let config = value::from_json(&json!({
        "lang": "python:3.6-debian",
        "limits": { "mem_slot": 512, "cpu_slot": 1.0, "gpu_slot": 0.0 },
        "mounts": mounts,
        "environ": { "MYVAR": "x y" },
    }));
    KernelConfig::from_value(&config).unwrap()
}

#[test]
fn a_create_of_each_series_asks_for_the_same_kernel() {
    for (series, wait) in [("1.4", limits::SHORT_WAIT), ("18.12", limits::LONG_WAIT)] {
        let Request::CreateKernel(_, create) = recorded(series, "create_kernel") else { panic!("{series}") };
        let [Mount { name, host, id }] = <[Mount; 1]>::try_from(create.config.mounts.clone()).unwrap();
        assert!(name.starts_with("fold") && host == "azure-shard01" && id.len() == 32, "{series}");
        assert_eq!(create.config, of_1_3(&json!([[name, host, id]])), "{series}");
        assert_eq!(create.config.limits.mem_slot.bytes(), 512 << 20, "{series}");
        assert_eq!(create.wait, wait, "{series}");
    }
}

#[test]
fn a_restart_of_each_series_changes_no_limit() {
    let had = KernelConfig { cpu_set: Some(vec![1]), ..of_1_3(&json!([["data", "local", "0a1b"]])) };
    // 1.4.0 rounds the memory that it sends.
    for series in ["1.4.0"].into_iter().chain(SERIES) {
        let Request::RestartKernel(_, patch) = recorded(series, "restart_kernel") else { panic!("{series}") };
        assert_eq!(patch.apply(&had), had, "{series}");
    }
}

#[test]
fn executions_of_each_series_wait_as_long_as_they_say() {
    for series in SERIES {
        let query = execution(series, "execute");
        assert_eq!((query.version, query.flush), (ApiVersion::V3, Duration::from_secs(2)), "{series}");
        assert_eq!(query.mode, Mode::Query("print(\"hello\")\n1+1".to_owned()), "{series}");
        let batch = execution(series, "execute, batch");
        let (build, exec) = ("ls -l main.py".to_owned(), "python main.py".to_owned());
        assert_eq!(batch.mode, Mode::Batch { clean: None, build, exec }, "{series}");
    }
    let streamed = execution("18.12", "execute, streamed");
    assert_eq!((streamed.mode, streamed.flush), (Mode::Continue, Duration::from_millis(200)));
    let cleaning = execution("18.12", "execute, batch with a clean step");
    let (clean, exec) = (Some("echo cleaning".to_owned()), "echo executing".to_owned());
    assert_eq!(cleaning.mode, Mode::Batch { clean, build: String::new(), exec });
}

#[test]
fn files_are_listed_and_fetched() {
    for series in SERIES {
        assert!(matches!(recorded(series, "list_files"), Request::ListFiles(_, path) if path == "."));
        let Request::DownloadFile(_, path) = recorded(series, "download_file") else { panic!("{series}") };
        assert!(["main.py", "sub/data.txt"].contains(&path.as_str()), "{series}: {path}");
    }
}

#[test]
fn an_image_of_the_cluster_s_own_registry_keeps_it() {
    let title = "create_kernel, of a registry of the cluster's own";
    let Request::CreateKernel(_, create) = recorded("18.12", title) else { panic!() };
    assert_eq!(create.config.lang, "127.0.0.1:34555/lablup/python:3.6-man");
    assert_eq!(create.wait, limits::LONG_WAIT);
}

#[test]
fn a_service_is_asked_for_by_its_name() {
    let Request::StartService(_, service) = recorded("18.12", "start_service") else { panic!() };
    assert_eq!((service.name.as_str(), service.options.len()), ("jupyter", 0));
}
