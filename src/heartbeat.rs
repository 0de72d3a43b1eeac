//! The beat that keeps the agent alive in the manager's eyes (PROTOCOL section 4, section 12 items 5 and 24).
//!
//! A heartbeat waits for nobody: it is made of snapshots that others publish, without a call of Docker, a disk or etcd.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::conditions::Conditions;
use crate::events::Events;
use crate::images::ImageList;
use crate::resources::Totals;
use crate::wire::event::{Heartbeat, pack_images};

/// What every heartbeat says.
#[derive(Debug, Clone)]
pub struct HeartbeatConfig {
    /// The time between two beats; the manager gives up after 5 s.
    pub interval: Duration,
    /// The agent's host as it is reported to the manager.
    pub ip: String,
    /// Where the machine stands.
    pub region: String,
    /// The RPC endpoint, `tcp://host:port`.
    pub addr: String,
    /// What kernels can have of the machine, at the moment of each beat.
    pub totals: watch::Receiver<Totals>,
}

/// Beats for ever, at once and then every interval. A beat that is late is not made up for.
pub async fn beat(
    config: HeartbeatConfig,
    mut images: watch::Receiver<ImageList>,
    conditions: watch::Receiver<Conditions>,
    events: Events,
) {
    let mut ticks = interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut packed = pack(&images.borrow_and_update());
    loop {
        ticks.tick().await;
        if images.has_changed().unwrap_or(false) {
            packed = pack(&images.borrow_and_update());
        }
        events.beat(compose(&config, conditions.borrow().offers_slots(), packed.clone()));
    }
}

fn pack(list: &ImageList) -> Bytes {
    pack_images(list.entries.iter().map(|e| (e.name_tag.as_str(), e.id.as_str())))
}

/// Without slots the manager places nothing here.
fn compose(config: &HeartbeatConfig, has_slots: bool, images: Bytes) -> Heartbeat {
    let totals = *config.totals.borrow();
    let slots = |n: usize| if has_slots { n as u64 } else { 0 };
    Heartbeat {
        ip: config.ip.clone(),
        region: config.region.clone(),
        addr: config.addr.clone(),
        mem_slots: if has_slots { totals.memory.mib() } else { 0 },
        cpu_slots: slots(totals.cpus),
        gpu_slots: slots(totals.gpus),
        images,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Memory;

    #[test]
    fn without_slots_a_heartbeat_says_the_same_but_for_those() {
        let totals = Totals { memory: Memory::from_mib(1024), cpus: 4, gpus: 1 };
        let (changed, totals) = watch::channel(totals);
        let config = HeartbeatConfig {
            interval: Duration::from_secs(3),
            ip: "10.0.0.1".into(),
            region: "local/unknown".into(),
            addr: "tcp://10.0.0.1:6001".into(),
            totals,
        };
        let good = compose(&config, true, Bytes::from_static(b"x"));
        assert_eq!((good.mem_slots, good.cpu_slots, good.gpu_slots), (1024, 4, 1));
        let bad = compose(&config, false, Bytes::from_static(b"x"));
        assert_eq!((bad.mem_slots, bad.cpu_slots, bad.gpu_slots), (0, 0, 0));
        assert_eq!((bad.ip, bad.images), (good.ip, good.images));
        changed.send_modify(|totals| totals.gpus = 0);
        assert_eq!(compose(&config, true, Bytes::new()).gpu_slots, 0, "a GPU fell off the bus");
    }
}
