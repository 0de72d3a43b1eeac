//! A seeded random life: kernels come and go while the agent and dockerd are killed and what they need is taken away;
//! then a model says what must be true (PROTOCOL section 12, items 1 to 6, 13, 18 to 21, 23, 24 and 32), of runs, too.
//!
//! `BACKENDAI_CHAOS_SEED` repeats a sequence (which acts on what; the machine's own timing stays its own),
//! `BACKENDAI_CHAOS_STEPS` makes it longer.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::world::World;

mod runs;
mod world;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What can happen, as often as it stands here.
#[derive(Clone, Copy, Debug)]
enum Act {
    Create,
    /// A run in the one kernel that lives through everything.
    Execute,
    /// A run there that goes on while other things happen.
    Begin,
    /// A look at what came of it.
    Follow,
    /// SIGKILL a moment after a run was asked for, and a new agent.
    KillAgentAmidRun,
    /// A destroy while the kernel is being made.
    CreateAndDestroy,
    Destroy,
    Restart,
    /// A restart and a destroy of the same kernel at once.
    RestartAndDestroy,
    /// `docker kill`.
    KillContainer,
    /// `docker rm -f`.
    RemoveContainer,
    /// SIGTERM, and a new agent.
    StopAgent,
    /// SIGKILL, and a new agent.
    KillAgent,
    /// SIGKILL a moment after a request that was not answered yet.
    KillAgentAmid(Request),
    /// SIGSTOP and SIGCONT.
    PauseAgent,
    /// SIGKILL to dockerd, which has live-restore, and a new one.
    KillDocker,
    /// SIGKILL to dockerd a moment after a request, and a new one.
    KillDockerAmid(Request),
    /// SIGSTOP to dockerd, a request, and SIGCONT.
    FreezeDockerAmid(Request),
    /// The manager listens elsewhere.
    MoveManager,
    /// Takes it away, or gives it back.
    Toggle(Part),
}

/// A request that something cuts off.
#[derive(Clone, Copy, Debug)]
enum Request {
    Create,
    Destroy,
    Restart,
}

/// What an agent depends on.
#[derive(Clone, Copy, Debug)]
enum Part {
    Etcd,
    Redis,
    Manager,
}

const ACTS: [(Act, u32); 28] = [
    (Act::Create, 30),
    (Act::Execute, 14),
    (Act::Begin, 12),
    (Act::Follow, 8),
    (Act::KillAgentAmidRun, 5),
    (Act::CreateAndDestroy, 4),
    (Act::Destroy, 14),
    (Act::Restart, 6),
    (Act::RestartAndDestroy, 4),
    (Act::KillContainer, 5),
    (Act::RemoveContainer, 4),
    (Act::StopAgent, 3),
    (Act::KillAgent, 4),
    (Act::KillAgentAmid(Request::Create), 3),
    (Act::KillAgentAmid(Request::Destroy), 3),
    (Act::KillAgentAmid(Request::Restart), 3),
    (Act::PauseAgent, 2),
    (Act::KillDocker, 2),
    (Act::KillDockerAmid(Request::Create), 2),
    (Act::KillDockerAmid(Request::Destroy), 2),
    (Act::KillDockerAmid(Request::Restart), 2),
    (Act::FreezeDockerAmid(Request::Create), 3),
    (Act::FreezeDockerAmid(Request::Destroy), 3),
    (Act::FreezeDockerAmid(Request::Restart), 3),
    (Act::MoveManager, 4),
    (Act::Toggle(Part::Etcd), 7),
    (Act::Toggle(Part::Redis), 7),
    (Act::Toggle(Part::Manager), 8),
];

fn choose(random: &mut StdRng) -> Act {
    let mut ticket = random.random_range(0..ACTS.iter().map(|(_, weight)| weight).sum());
    for (act, weight) in ACTS {
        if ticket < weight {
            return act;
        }
        ticket -= weight;
    }
    unreachable!("the ticket is below the sum of all weights")
}

#[tokio::test]
async fn after_any_sequence_every_end_was_told_once_and_nothing_is_left() {
    let seed = setting("BACKENDAI_CHAOS_SEED").unwrap_or_else(rand::random);
    let steps = setting("BACKENDAI_CHAOS_STEPS").unwrap_or(80);
    println!("BACKENDAI_CHAOS_SEED={seed} BACKENDAI_CHAOS_STEPS={steps}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new().await;
    for step in 0..steps {
        let act = choose(&mut random);
        let target = random.random_range(0..usize::MAX);
        let millis = random.random_range(0..150);
        println!("{step}: {act:?}, {}", world.summary());
        match act {
            Act::Create => world.create().await,
            Act::Execute => world.execute().await,
            Act::Begin => world.begin(target % 300).await,
            Act::Follow => world.follow().await,
            Act::KillAgentAmidRun => world.kill_agent_amid_run(target % 100, millis).await,
            Act::CreateAndDestroy => world.create_and_destroy(millis * 2).await,
            Act::Destroy => world.destroy(target).await,
            Act::Restart => world.restart(target).await,
            Act::RestartAndDestroy => world.restart_and_destroy(target).await,
            Act::KillContainer => world.end_container(target, &["kill"]).await,
            Act::RemoveContainer => world.end_container(target, &["rm", "-f"]).await,
            Act::StopAgent => world.stop_agent().await,
            Act::KillAgent => world.kill_agent().await,
            Act::KillAgentAmid(request) => world.kill_agent_amid(request, target, millis).await,
            Act::PauseAgent => world.pause_agent(millis * 4).await,
            Act::KillDocker => world.kill_docker().await,
            Act::KillDockerAmid(request) => world.kill_docker_amid(request, target, millis).await,
            Act::FreezeDockerAmid(request) => world.freeze_docker_amid(request, target, millis * 30).await,
            Act::MoveManager => world.move_manager().await,
            Act::Toggle(part) => world.toggle(part).await,
        }
    }
    world.settle().await;
}
