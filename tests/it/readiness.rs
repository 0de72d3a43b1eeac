//! What the agent says of itself while something that it needs is away: slots, `/readyz`, metrics, and one log line each way.

use std::time::SystemTime;

use crate::support::docker::image;
use crate::support::dockerd::Dockerd;
use crate::support::engine::Engine;
use crate::support::page::Pages;
use crate::support::{Agent, Bed, secs};

mod disk;

/// How many lines of the log tell that this condition began, and that it was over.
fn lines(agent: &Agent, condition: &str) -> (usize, usize) {
    let output = agent.output();
    let about = output.lines().filter(|line| line.contains(&format!("condition=\"{condition}\"")));
    let (ends, begins): (Vec<_>, Vec<_>) = about.partition(|line| line.contains("away_s="));
    (begins.len(), ends.len())
}

#[tokio::test]
async fn what_is_away_is_said_with_its_reason_and_since_when() {
    let mut bed = Bed::start().await;
    let (engine, pages) = (Engine::start(bed.outside()), Pages::lease());
    let args = ["--docker-host", &engine.host(), "--metrics-addr", &pages.address()];
    let agent = bed.agent(&args).await;
    let page = pages.readyz(&["\n\r\nready\n", "+ start since=", "+ redis since="], secs(15)).await;
    assert!(page.starts_with("HTTP/1.0 200"), "{page}");
    assert!(!page.contains("\n- "), "{page}");

    // Statistics, the manager's words: sessions that are placed here run, so that slots stay.
    bed.redis.kill();
    let page = pages.readyz(&["\nnot ready\n", "- redis since="], secs(20)).await;
    assert!(page.starts_with("HTTP/1.0 503"), "{page}");
    assert!(page.contains("statistics don't reach Redis"), "{page}");
    bed.etcd.kill();
    pages.readyz(&["\nnot ready\n", "etcd can't be reached", "- redis since="], secs(20)).await;
    bed.slots(true, SystemTime::now(), secs(15)).await;
    bed.redis.restart().await;
    bed.etcd.restart().await;
    pages.readyz(&["\n\r\nready\n"], secs(20)).await;
    assert_eq!((lines(&agent, "redis"), lines(&agent, "etcd")), ((1, 1), (1, 1)), "{}", agent.output());

    // Without an engine there are none.
    engine.refuse();
    pages.readyz(&["\nnot ready, no slots\n", "(no slots) Docker does not answer"], secs(15)).await;
    bed.slots(false, SystemTime::now(), secs(15)).await;
    let metrics = pages.get("/metrics").await;
    assert!(metrics.contains("\nbackendai_agent_condition{name=\"docker\"} 0\n"), "{metrics}");
    assert!(metrics.contains("\nbackendai_agent_condition{name=\"redis\"} 1\n"), "{metrics}");
    assert!(
        metrics.contains("\nbackendai_agent_condition_since_timestamp_seconds{name=\"docker\"} "),
        "{metrics}"
    );
    engine.pass();
    pages.readyz(&["\n\r\nready\n"], secs(15)).await;
    bed.slots(true, SystemTime::now(), secs(15)).await;
    assert_eq!(lines(&agent, "docker"), (1, 1), "{}", agent.output());

    // The manager hears nothing: it has given the node up.
    bed.manager.down();
    pages.readyz(&["\nnot ready\n", "- events since=", "no heartbeat has arrived"], secs(15)).await;
    bed.manager.up();
    pages.readyz(&["\n\r\nready\n"], secs(15)).await;
    assert_eq!(lines(&agent, "events"), (1, 1), "{}", agent.output());
}

#[tokio::test]
async fn without_kernel_images_there_are_no_slots() {
    let bed = Bed::start().await;
    let dockerd = Dockerd::start(bed.outside(), false, &[]).await;
    let pages = Pages::lease();
    let args = ["--docker-host", &dockerd.host(), "--metrics-addr", &pages.address()];
    let agent = bed.agent(&args).await;
    pages.readyz(&["\nnot ready, no slots\n", "- images since=", "no kernel image"], secs(15)).await;
    bed.slots(false, SystemTime::now(), secs(15)).await;
    dockerd.load(&format!("lablup/kernel-{}", image::tiny()));
    pages.readyz(&["\n\r\nready\n"], secs(30)).await;
    bed.slots(true, SystemTime::now(), secs(15)).await;
    assert_eq!(lines(&agent, "images"), (1, 1), "{}", agent.output());
}

/// The lines of the log behind the first `seen`.
fn since(agent: &Agent, seen: usize) -> Vec<String> {
    agent.output().lines().skip(seen).map(str::to_owned).collect()
}

/// Whatever goes away, the log has one line when that begins and one when it is over, with how long it lasted.
#[tokio::test]
async fn an_outage_has_one_line_at_its_begin_and_one_at_its_end() {
    let mut bed = Bed::start().await;
    let pages = Pages::lease();
    let agent = bed.agent(&["--metrics-addr", &pages.address()]).await;
    let ready = async || pages.readyz(&["\n\r\nready\n", "+ redis since="], secs(30)).await;
    ready().await;
    for what in ["etcd", "events", "manager", "redis"] {
        let seen = agent.output().lines().count();
        match what {
            "etcd" => bed.etcd.pause().await,
            "events" => bed.manager.down(),
            "manager" => drop(bed.etcd.etcdctl(&["del", &bed.key("nodes/manager")]).await),
            _ => bed.redis.pause().await,
        }
        pages.readyz(&["\nnot ready\n", &format!("- {what} since=")], secs(30)).await;
        match what {
            "etcd" => bed.etcd.resume(),
            "events" => bed.manager.up(),
            "manager" => bed.publish(&["nodes/manager"]).await,
            _ => bed.redis.resume(),
        }
        ready().await;
        let lines = since(&agent, seen);
        let [begin, end] = &lines[..] else { panic!("{what}: {lines:#?}") };
        assert!(begin.contains("not ready until this is over") && begin.contains("reason="), "{begin}");
        assert!(end.contains(&format!("condition=\"{what}\" away_s=")), "{end}");
    }
}
