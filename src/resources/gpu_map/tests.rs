//! The GPU map on a described machine: eight GPUs on two NUMA nodes.

use proptest::prelude::*;

use super::*;

fn gpu(index: u32) -> Gpu {
    let memory = Memory::from_mib(81_920);
    Gpu { index, uuid: format!("GPU-{index}"), name: "described".into(), node: Some(index / 4), memory }
}

fn machine(indices: impl IntoIterator<Item = u32>) -> GpuMap {
    let mut map = GpuMap::new(None);
    map.update(indices.into_iter().map(gpu).collect());
    map
}

fn slot(gpus: f64) -> Gpus {
    Gpus::from_slot(gpus).unwrap()
}

fn given(map: &mut GpuMap, gpus: f64, near: u32) -> (Vec<u32>, GpuShare) {
    let share = map.allocate(slot(gpus), Some(near)).unwrap();
    (share.devices().to_vec(), share)
}

#[test]
fn devices_with_the_least_load_first_and_near_the_cores_among_equals() {
    let mut map = machine(0..8);
    assert_eq!(given(&mut map, 1.0, 0).0, [0]);
    assert_eq!(given(&mut map, 2.0, 1).0, [4, 5]);
    assert_eq!(given(&mut map, 3.0, 0).0, [1, 2, 3]);
    // Node 1 has two free ones left; load comes before nearness.
    assert_eq!(given(&mut map, 1.0, 0).0, [6]);
    let (all, share) = given(&mut map, 8.0, 1);
    assert_eq!(all, (0..8).collect::<Vec<_>>());
    assert_eq!(map.uuids(&share)[7], "GPU-7");
    assert_eq!(map.shares()[&0], 2);
    assert_eq!(map.shares()[&7], 1);
    assert_eq!(map.allocate(slot(0.0), Some(0)).unwrap().devices(), [0u32; 0]);
}

#[test]
fn fractions_share_a_device_and_leave_whole_ones_free() {
    let mut map = machine(0..8);
    assert_eq!(given(&mut map, 0.5, 1).0, [4]);
    assert_eq!(given(&mut map, 0.25, 1).0, [4]);
    // No room for another half; the next device of the cores' node.
    assert_eq!(given(&mut map, 0.5, 1).0, [5]);
    // What fits goes into the fullest, far from its cores or not.
    assert_eq!(given(&mut map, 0.25, 0).0, [4]);
    assert_eq!(given(&mut map, 6.0, 1).0, [0, 1, 2, 3, 6, 7]);
    // All are taken: where the load is least.
    assert_eq!(given(&mut map, 0.9, 0).0, [5]);
}

#[test]
fn the_fraction_of_several_comes_last_and_is_known_again_after_a_restart() {
    let mut map = machine(0..8);
    let (_, half) = given(&mut map, 0.5, 0);
    let (devices, share) = given(&mut map, 2.5, 0);
    assert_eq!(devices, [1, 2, 0]);
    let uuids = map.uuids(&share);
    let mut next = machine(0..8);
    let claimed = next.claim(slot(2.5), &devices, &uuids);
    assert_eq!(claimed, share);
    let claimed_half = next.claim(slot(0.5), half.devices(), &[]);
    assert_eq!(claimed_half, half);
    assert_eq!(next.loads, map.loads);
}

#[test]
fn names_count_more_than_numbers() {
    // Device 0 is gone, and the driver counts from 0 again.
    let mut map = GpuMap::new(None);
    map.update((1..8).map(|n| Gpu { index: n - 1, ..gpu(n) }).collect());
    let claimed = map.claim(slot(2.0), &[3, 0], &["GPU-3".into(), "GPU-0".into()]);
    assert_eq!(claimed.devices(), [2, 0], "device 3 is number 2 now; nobody knows device 0");
    map.free(claimed);
    assert!(map.shares().is_empty());
}

#[test]
fn a_device_that_falls_off_the_bus_leaves_and_comes_back_under_its_number() {
    let mut map = machine(0..8);
    let (_, share) = given(&mut map, 8.0, 0);
    // The driver numbers the others anew.
    let left = (0..8).filter(|n| *n != 2).map(gpu).zip(0..).map(|(gpu, index)| Gpu { index, ..gpu });
    let changes = map.update(left.collect());
    assert_eq!(changes, GpuChanges { lost: vec![(gpu(2), 1)], found: vec![] });
    assert_eq!((map.device_count(), map.uuids(&share).len()), (7, 7));
    assert_eq!(map.allocate(slot(8.0), None), Err(ResourceError::TooFewGpus { asked: 8, present: 7 }));
    map.free(share);
    assert_eq!(given(&mut map, 7.0, 0).0, [0, 1, 3, 4, 5, 6, 7]);
    assert_eq!(map.update((0..8).map(gpu).collect()), GpuChanges { lost: vec![], found: vec![gpu(2)] });
    assert_eq!(map.update((0..8).map(gpu).collect()), GpuChanges::default());
    assert_eq!(given(&mut map, 1.0, 0).0, [2]);
    assert_eq!(map.update(Vec::new()).lost.len(), 8);
    assert_eq!(map.allocate(slot(0.1), None), Err(ResourceError::NoGpus));
}

#[test]
fn the_operator_names_the_devices_that_kernels_get() {
    let only = |text: &str| {
        let mut map = GpuMap::new(Some(text.parse().unwrap()));
        map.update((0..8).map(gpu).collect());
        map.devices.keys().copied().collect::<Vec<_>>()
    };
    assert_eq!(only("0,2-3"), [0, 2, 3]);
    assert_eq!(only("0xf0"), [4, 5, 6, 7]);
    assert_eq!(only("GPU-5, 1"), [1, 5]);
    assert_eq!(only("9"), [0u32; 0]);
    for bad in ["", "x", "1-", "gpu-1"] {
        assert!(bad.parse::<GpuList>().is_err(), "{bad:?} was taken");
    }
}

#[test]
fn preferred_devices_must_exist_and_be_as_many_as_asked() {
    let mut map = machine(0..2);
    assert_eq!(map.allocate_exactly(slot(1.0), &[1]).unwrap().devices(), [1]);
    for (n, odd) in [(2.0, &[1][..]), (1.0, &[0, 1]), (1.0, &[7]), (2.0, &[1, 1])] {
        assert_eq!(map.allocate_exactly(slot(n), odd), None);
    }
    let gone = map.claim(slot(1.0), &[7], &[]);
    assert!(map.uuids(&gone).is_empty());
    map.free(gone);
    assert_eq!(map.shares(), BTreeMap::from([(1, 1)]));
}

proptest! {
    /// As long as the manager asks for no more than there is, nobody gets a device that lacks room, whole devices are
    /// nobody else's, and all comes back.
    #[test]
    fn what_the_manager_adds_up_fits(
        present in 1u32..9,
        steps in proptest::collection::vec((0u32..20, 0u32..2, any::<prop::sample::Index>(), any::<bool>()), 0..60),
    ) {
        let mut map = machine(0..present);
        // Quarters, which fit each other in any order: with thirds and halves whole devices can be short.
        let mut out: Vec<(u32, GpuShare)> = Vec::new();
        for (quarters, near, which, is_free) in steps {
            if is_free && !out.is_empty() {
                let (_, share) = out.swap_remove(which.index(out.len()));
                map.free(share);
                continue;
            }
            let wanted = slot(f64::from(quarters) / 4.0);
            let Ok(share) = map.allocate(wanted, Some(near)) else {
                prop_assert!(wanted.count() > present);
                continue;
            };
            prop_assert_eq!(share.devices().len(), wanted.count() as usize);
            prop_assert_eq!(each_once(share.devices()).len(), share.devices().len());
            prop_assert_eq!(share.parts.iter().sum::<u32>(), quarters * 250);
            out.push((quarters, share));
            let mut model: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
            for (_, share) in &out {
                for (device, part) in share.devices.iter().zip(&share.parts) {
                    let load = model.entry(*device).or_default();
                    *load = (load.0 + u64::from(*part), load.1 + 1);
                }
            }
            let loads: BTreeMap<u32, (u64, u32)> =
                map.loads.iter().map(|(device, load)| (*device, (load.thousandths, load.kernels))).collect();
            prop_assert_eq!(loads, model);
        }
        for (_, share) in out {
            map.free(share);
        }
        prop_assert!(map.loads.is_empty());
    }
}
