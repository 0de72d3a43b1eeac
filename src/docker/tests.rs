//! Engines that hang, are absent, or change their version; `tests/rooms/docker.rs` has a real one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, TryFutureExt, join_all};

use crate::docker::testing::{FakeEngine, Reply, open_at, version};
use crate::docker::{ContainerSpec, Docker, DockerError, ListFilter};
use crate::ids::ContainerId;

/// Every call must end soon after its deadline of 300 ms; generous, since test machines are busy.
const SOON: Duration = Duration::from_secs(5);

async fn every_call_ends(docker: Docker) {
    let id = ContainerId::new("abc");
    let limit = Duration::from_millis(300);
    let spec = ContainerSpec { image: "a/b:1".into(), ..ContainerSpec::default() };
    let started = Instant::now();
    let mut events = docker.events(None);
    let calls: Vec<BoxFuture<'_, Result<(), DockerError>>> = vec![
        Box::pin(docker.ping()),
        Box::pin(docker.info().map_ok(drop)),
        Box::pin(docker.create("baitest", &spec).map_ok(drop)),
        Box::pin(docker.start(&id)),
        Box::pin(docker.remove(&id)),
        Box::pin(docker.inspect("abc").map_ok(drop)),
        Box::pin(docker.list(ListFilter::default()).map_ok(drop)),
        Box::pin(docker.logs_tail(&id, 10, limit).map_ok(drop)),
        Box::pin(docker.images().map_ok(drop)),
        Box::pin(docker.image("a/b").map_ok(drop)),
        Box::pin(docker.volume_exists("a").map_ok(drop)),
        Box::pin(docker.pull("a/b", None, limit, &|_| ())),
        Box::pin(docker.tag("a/b", "c/d:1")),
        Box::pin(docker.remove_image("a/b")),
        Box::pin(docker.stats(&id).map_ok(drop)),
        Box::pin(async { events.next().await.unwrap().map(drop) }),
    ];
    for outcome in join_all(calls).await {
        let error = outcome.unwrap_err();
        assert!(matches!(error, DockerError::Deadline { .. }), "{error:?}");
        assert!(error.is_engine_down());
    }
    assert!(started.elapsed() < SOON, "took {:?}", started.elapsed());
}

#[tokio::test]
async fn an_engine_that_never_answers_is_cut_off_by_every_call() {
    every_call_ends(FakeEngine::hanging().docker()).await;
}

#[tokio::test]
async fn an_engine_that_hangs_after_its_version_is_cut_off_by_every_call() {
    let engine = FakeEngine::start(|request| match request {
        "GET /version" => version("1.41"),
        _ => Reply::Hang,
    });
    // The question for the version is among the calls, and is asked with a version once one is agreed on.
    engine.docker().ping().await.unwrap_err();
    every_call_ends(engine.docker()).await;
}

#[tokio::test]
async fn an_absent_engine_is_found_when_it_comes() {
    let directory = tempfile::tempdir().unwrap();
    let absent = open_at(&directory.path().join("docker.sock"));
    let error = absent.ping().await.unwrap_err();
    assert!(matches!(error, DockerError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("docker.sock"), "{error}");

    let engine = FakeEngine::start(|request| match request {
        "GET /version" => version("1.41"),
        _ => Reply::Answer(200, "[]".into()),
    });
    let there = engine.docker();
    assert_eq!(there.images().await.unwrap(), []);
    // The same handle, after its socket came into being.
    let socket = directory.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let error = absent.ping().await.unwrap_err();
    assert!(matches!(error, DockerError::Deadline { .. }), "it connected: {error:?}");
    drop(listener);
}

#[tokio::test]
async fn the_version_is_agreed_on_and_again_when_the_engine_changes() {
    let api = Arc::new(Mutex::new("1.41"));
    let current = Arc::clone(&api);
    let engine = FakeEngine::start(move |request| {
        let api = *current.lock().unwrap();
        match request {
            "GET /version" => version(api),
            path if path.contains(&format!("/v{api}/")) => Reply::Answer(200, "[]".into()),
            _ => Reply::Answer(400, r#"{"message": "client version 1.41 is too old. Minimum"}"#.into()),
        }
    });
    let docker = engine.docker();
    docker.images().await.unwrap();
    docker.images().await.unwrap();
    *api.lock().unwrap() = "1.44";
    docker.images().await.unwrap();
    let paths: Vec<String> =
        engine.requests().iter().map(|line| line.split('?').next().unwrap().to_owned()).collect();
    assert_eq!(
        paths,
        [
            "GET /version",
            "GET /v1.41/images/json",
            "GET /v1.41/images/json",
            "GET /v1.41/images/json",
            "GET /version",
            "GET /v1.44/images/json",
        ]
    );
}

#[tokio::test]
async fn a_log_that_stalls_gives_what_came() {
    let engine = FakeEngine::start(|request| match request {
        "GET /version" => version("1.41"),
        path if path.ends_with("/json") => {
            Reply::Answer(200, r#"{"Id": "abc", "Config": {"Tty": true}}"#.into())
        }
        _ => Reply::Stall(b"line\nhalf".to_vec()),
    });
    let id = ContainerId::new("abc");
    let log = engine.docker().logs_tail(&id, 100, Duration::from_millis(500)).await.unwrap();
    assert_eq!(log, b"line\nhalf");
}

#[tokio::test]
async fn a_second_stalled_log_does_not_spoil_the_first() {
    let is_second = AtomicBool::new(false);
    let engine = FakeEngine::start(move |request| match request {
        "GET /version" => version("1.41"),
        path if path.ends_with("/json") => {
            Reply::Answer(200, r#"{"Id": "abc", "Config": {"Tty": true}}"#.into())
        }
        _ if is_second.swap(true, Ordering::SeqCst) => Reply::Stall(b"old\n".to_vec()),
        _ => Reply::Answer(200, "new\n".repeat(1000)),
    });
    let id = ContainerId::new("abc");
    let log = engine.docker().logs_tail(&id, 1_000_000, Duration::from_millis(500)).await.unwrap();
    assert!(log.ends_with(b"new\n"));
    assert_eq!(log.len(), 4000);
}

#[tokio::test]
async fn a_pull_that_fails_on_the_way_is_an_error() {
    let engine = FakeEngine::start(|request| {
        match request {
        "GET /version" => version("1.41"),
        _ => Reply::Answer(
            200,
            "{\"status\": \"Pulling\"}\n{\"errorDetail\": {\"message\": \"manifest unknown\"}, \"error\": \"x\"}\n"
                .into(),
        ),
    }
    });
    let error = engine.docker().pull("a/b", None, SOON, &|_| ()).await.unwrap_err();
    assert!(matches!(error, DockerError::NoSuchImage { .. }), "{error:?}");
    assert!(engine.requests().last().unwrap().contains("fromImage=a%2Fb%3Alatest"), "one tag, not all");
}

#[tokio::test]
async fn names_that_would_change_the_path_never_reach_the_engine() {
    let engine = FakeEngine::hanging();
    let docker = engine.docker();
    let id = ContainerId::new("../images/json?x=");
    for outcome in [
        docker.inspect("../../info").await.map(drop),
        docker.image("../containers/x").await.map(drop),
        docker.volume_exists("a/../b").await.map(drop),
        docker.remove(&id).await,
        docker.logs_tail(&id, 1, SOON).await.map(drop),
    ] {
        assert!(matches!(outcome, Err(DockerError::BadReference { .. })), "{outcome:?}");
    }
    assert!(engine.requests().is_empty());
}

/// A real engine hardly ever meets a port that another process took in the same moment.
#[tokio::test]
async fn a_start_whose_port_was_taken_is_tried_again_and_not_for_ever() {
    let starts = Arc::new(Mutex::new(0));
    let good_at = Arc::new(Mutex::new(3));
    let (count, good) = (Arc::clone(&starts), Arc::clone(&good_at));
    let engine = FakeEngine::start(move |request| {
        if request == "GET /version" {
            version("1.41")
        } else {
            let mut count = count.lock().unwrap();
            *count += 1;
            if *count >= *good.lock().unwrap() {
                return Reply::Answer(204, String::new());
            }
            let words = "driver failed programming external connectivity: listen tcp4 0.0.0.0:49153: bind: address already in use";
            Reply::Answer(500, format!("{{\"message\": \"{words}\"}}"))
        }
    });
    let id = ContainerId::new("abc");
    engine.docker().start(&id).await.unwrap();
    assert_eq!(*starts.lock().unwrap(), 3);
    *good_at.lock().unwrap() = 1000;
    let error = engine.docker().start(&id).await.unwrap_err();
    assert!(matches!(error, DockerError::PortTaken { .. }), "{error:?}");
    assert_eq!(*starts.lock().unwrap(), 3 + 4);
}
