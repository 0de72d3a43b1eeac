//! Free TCP ports that stay ours between choosing and binding.
//!
//! Asking the kernel for a port and giving it back leaves a gap in which another test takes it. Here a port is
//! held by a lock on a file until its owner is dropped; the range lies below the one that the kernel (and Docker)
//! hand out by themselves.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// One port, ours until dropped.
pub(crate) struct Port {
    number: u16,
    /// Locked for as long as this lives; the system lets go of it when the process dies.
    _lock: File,
}

impl Port {
    /// Takes a port that nobody listens on and no other test holds.
    pub(crate) fn lease() -> Self {
        let locks = std::env::temp_dir().join("backendai-test-ports");
        std::fs::create_dir_all(&locks).unwrap();
        let start = u16::try_from(uuid::Uuid::new_v4().as_u128() % u128::from(COUNT)).unwrap();
        for step in 0..COUNT {
            let number = FIRST + (start + step) % COUNT;
            let lock = File::create(locks.join(number.to_string())).unwrap();
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// The port's number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
