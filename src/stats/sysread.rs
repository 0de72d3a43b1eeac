//! Reads one container's figures from the host's `/proc` and cgroup files.

use super::cgroup::{parse_number, parse_v1_cpu_ns, parse_v1_io, parse_v2_cpu_ns, parse_v2_io};
use super::netdev::parse_netdev;
use super::places::{Kept, Place, Places, Roots};
use super::reading::Reading;

/// A reading, and what went wrong in it besides files that just are not there.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What could be read.
    pub(super) reading: Reading,
    /// The first file that exists and could not be read or understood, with the reason.
    pub(super) trouble: Option<String>,
}

/// Reads a container. Never fails as a whole: what is missing is missing in the outcome. `buffer` is for the texts of files.
pub(super) fn read_container(
    roots: &Roots,
    container_id: &str,
    pid: u32,
    kept: &Kept,
    buffer: &mut Vec<u8>,
) -> Outcome {
    let places = kept.places(roots, container_id, pid);
    let outcome = Outcome::of(&places, buffer);
    // A group that is gone is looked for again.
    if !outcome.reading.is_gone() {
        kept.leave(pid, places);
    }
    outcome
}

impl Outcome {
    fn of(places: &Places, buffer: &mut Vec<u8>) -> Self {
        let mut out = Self::default();
        let Places { cpu_v1, memory_v1, io_v1, v2, process } = places;
        let v2 = |v1: &Option<Place>| v2.as_ref().filter(|_| v1.is_none());
        let (cpu_v2, memory_v2, io_v2) = (v2(cpu_v1), v2(memory_v1), v2(io_v1));
        let (cpu_v1, memory_v1, io_v1) = (cpu_v1.as_ref(), memory_v1.as_ref(), io_v1.as_ref());
        let mut figures = Figures { buffer, trouble: &mut out.trouble };

        out.reading.cpu_ns = figures
            .figure(cpu_v1, "cpuacct.usage", parse_v1_cpu_ns)
            .or_else(|| figures.figure(cpu_v2, "cpu.stat", parse_v2_cpu_ns));
        out.reading.mem_cur = figures
            .figure(memory_v1, "memory.usage_in_bytes", parse_number)
            .or_else(|| figures.figure(memory_v2, "memory.current", parse_number));
        out.reading.mem_peak = figures
            .figure(memory_v1, "memory.max_usage_in_bytes", parse_number)
            .or_else(|| figures.figure(memory_v2, "memory.peak", parse_number));
        // The recursive file includes groups that the container made below its own; old kernels lack it.
        out.reading.io = figures
            .figure(io_v1, "blkio.throttle.io_service_bytes_recursive", parse_v1_io)
            .or_else(|| figures.figure(io_v1, "blkio.throttle.io_service_bytes", parse_v1_io))
            .or_else(|| figures.figure(io_v2, "io.stat", parse_v2_io));
        out.reading.net = figures.figure(process.as_ref(), "net/dev", parse_netdev);
        out
    }
}

/// Reads figures one after the other.
struct Figures<'o> {
    buffer: &'o mut Vec<u8>,
    /// See [`Outcome::trouble`].
    trouble: &'o mut Option<String>,
}

impl Figures<'_> {
    /// Reads and parses a file. `None` for one that does not exist.
    fn figure<T>(&mut self, place: Option<&Place>, name: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        let place = place?;
        let trouble = match place.read(name, self.buffer) {
            Ok(text) => match parse(text?) {
                Some(figure) => return Some(figure),
                None => "its text is not what the kernel writes".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        self.trouble.get_or_insert_with(|| format!("{}: {trouble}", place.path().join(name).display()));
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "6ace199109c07e6525422498d6bda5b995e00b85ca062d187077d19da8e9a8a5";
    const NETDEV: &str = "eth0: 200 2 0 0 0 0 0 0 300 0 0 0 0 0 0 0\n";

    /// A recorded host: files below a directory of their own; `ID` in a name or text stands for the container's id.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name.replace("ID", ID));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace("ID", ID)).unwrap();
        }
        let roots = Roots { proc: dir.path().join("proc"), cgroup: dir.path().join("cg") };
        (dir, roots)
    }

    fn read(roots: &Roots) -> Outcome {
        read_container(roots, ID, 7, &Kept::default(), &mut Vec::new())
    }

    fn check(files: &[(&str, &str)], expected: Reading) {
        let (_dir, roots) = host(files);
        let outcome = read(&roots);
        assert_eq!((outcome.reading, outcome.trouble), (expected, None));
    }

    const FULL: Reading = Reading {
        cpu_ns: Some(1_500_000),
        mem_cur: Some(4096),
        mem_peak: Some(8192),
        io: Some((10, 20)),
        net: Some((200, 300)),
    };

    #[test]
    fn v1_cgroupfs() {
        let io = "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n";
        check(
            &[
                (
                    "proc/7/cgroup",
                    "7:blkio:/docker/ID\n4:memory:/docker/ID\n2:cpuacct:/docker/ID\n0::/docker/ID\n",
                ),
                ("proc/7/net/dev", NETDEV),
                ("cg/cpuacct/docker/ID/cpuacct.usage", "1500000\n"),
                ("cg/memory/docker/ID/memory.usage_in_bytes", "4096\n"),
                ("cg/memory/docker/ID/memory.max_usage_in_bytes", "8192\n"),
                ("cg/blkio/docker/ID/blkio.throttle.io_service_bytes_recursive", io),
                ("cg/blkio/docker/ID/blkio.throttle.io_service_bytes", "Total 0\n"),
                ("cg/unified/docker/ID/cpu.stat", "usage_usec 99\n"),
            ],
            FULL,
        );
    }

    #[test]
    fn v1_systemd_with_joined_controllers() {
        check(
            &[
                (
                    "proc/7/cgroup",
                    "11:cpu,cpuacct:/system.slice/docker-ID.scope\n10:blkio:/system.slice/docker-ID.scope\n\
                     4:memory:/system.slice/docker-ID.scope\n",
                ),
                ("proc/7/net/dev", NETDEV),
                ("cg/cpu,cpuacct/system.slice/docker-ID.scope/cpuacct.usage", "1500000\n"),
                ("cg/memory/system.slice/docker-ID.scope/memory.usage_in_bytes", "4096\n"),
                ("cg/memory/system.slice/docker-ID.scope/memory.max_usage_in_bytes", "8192\n"),
                (
                    "cg/blkio/system.slice/docker-ID.scope/blkio.throttle.io_service_bytes",
                    "8:0 Read 10\n8:0 Write 20\n",
                ),
            ],
            FULL,
        );
    }

    #[test]
    fn v2_cgroupfs() {
        check(
            &[
                ("proc/7/cgroup", "0::/docker/ID\n"),
                ("proc/7/net/dev", NETDEV),
                ("cg/cgroup.controllers", "cpuset cpu io memory pids\n"),
                ("cg/docker/ID/cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
                ("cg/docker/ID/memory.current", "4096\n"),
                ("cg/docker/ID/memory.peak", "8192\n"),
                ("cg/docker/ID/io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n"),
            ],
            FULL,
        );
    }

    #[test]
    fn v2_systemd_on_a_kernel_without_memory_peak_and_a_container_with_groups_of_its_own() {
        check(
            &[
                ("proc/7/cgroup", "0::/system.slice/docker-ID.scope/init.scope\n"),
                ("proc/7/net/dev", NETDEV),
                ("cg/system.slice/docker-ID.scope/cpu.stat", "usage_usec 1500\n"),
                ("cg/system.slice/docker-ID.scope/memory.current", "4096\n"),
                ("cg/system.slice/docker-ID.scope/io.stat", "8:0 rbytes=10 wbytes=20\n"),
                ("cg/system.slice/docker-ID.scope/init.scope/memory.current", "1\n"),
            ],
            Reading { mem_peak: None, ..FULL },
        );
    }

    #[test]
    fn hybrid_takes_each_controller_where_it_is() {
        check(
            &[
                ("proc/7/cgroup", "4:memory:/docker/ID\n0::/docker/ID\n"),
                ("cg/memory/docker/ID/memory.usage_in_bytes", "4096\n"),
                ("cg/unified/docker/ID/cpu.stat", "usage_usec 1500\n"),
                ("cg/unified/docker/ID/memory.current", "1\n"),
                ("cg/unified/docker/ID/memory.peak", "1\n"),
            ],
            Reading { cpu_ns: FULL.cpu_ns, mem_cur: FULL.mem_cur, ..Reading::default() },
        );
    }

    #[test]
    fn a_pid_of_somebody_else_is_not_believed() {
        // The usual place still gives the container's own figures; the stranger's network is not counted.
        check(
            &[
                ("proc/7/cgroup", "0::/user.slice\n"),
                ("proc/7/net/dev", NETDEV),
                ("cg/user.slice/memory.current", "5\n"),
                ("cg/system.slice/docker-ID.scope/memory.current", "4096\n"),
            ],
            Reading { mem_cur: FULL.mem_cur, ..Reading::default() },
        );
        check(
            &[("cg/docker/ID/cpu.stat", "usage_usec 1500\n")],
            Reading { cpu_ns: FULL.cpu_ns, ..Reading::default() },
        );
    }

    #[test]
    fn a_container_that_is_gone() {
        check(&[("cg/memory/docker/other/memory.usage_in_bytes", "1\n")], Reading::default());
        check(&[("proc/7/cgroup", "4:memory:/docker/ID\n")], Reading::default());
    }

    #[test]
    fn damaged_files_are_named_and_spoil_nothing_else() {
        let (dir, roots) = host(&[
            ("proc/7/cgroup", "0::/docker/ID\n"),
            ("cg/docker/ID/cpu.stat", "\u{1}\n"),
            ("cg/docker/ID/memory.current", "4096\n"),
            ("cg/docker/ID/io.stat", "8:0 rbytes=x\n"),
        ]);
        let outcome = read(&roots);
        assert_eq!(outcome.reading, Reading { mem_cur: Some(4096), ..Reading::default() });
        let path = dir.path().join("cg/docker").join(ID).join("cpu.stat");
        let expected = format!("{}: its text is not what the kernel writes", path.display());
        assert_eq!(outcome.trouble, Some(expected));
    }

    #[test]
    fn what_is_kept_open_is_one_container_s_and_one_process_s() {
        let (dir, roots) = host(&[
            ("proc/7/cgroup", "0::/docker/ID\n"),
            ("proc/7/net/dev", NETDEV),
            ("cg/docker/ID/cpu.stat", "usage_usec 1500\n"),
        ]);
        let kept = Kept::default();
        let read = |pid| read_container(&roots, ID, pid, &kept, &mut Vec::new()).reading;
        let expected = Reading { cpu_ns: FULL.cpu_ns, net: FULL.net, ..Reading::default() };
        assert_eq!(read(7), expected);
        // Another process gets the number: what is open is not that one's.
        let moved = |from: &str, to: &str| fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
        moved("proc/7", "proc/gone");
        fs::create_dir_all(dir.path().join("proc/7/net")).unwrap();
        fs::write(dir.path().join("proc/7/cgroup"), "0::/user.slice\n").unwrap();
        fs::write(dir.path().join("proc/7/net/dev"), "eth0: 9 2 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n").unwrap();
        assert_eq!(read(7), expected);
        // A container that was started again, with the same group.
        moved("proc/gone", "proc/8");
        moved("proc/7", "proc/9");
        assert_eq!(read(8), expected);
        assert_eq!(read(9), Reading { net: None, ..expected });
        // Its group goes, and is made anew.
        assert_eq!(read(8), expected);
        fs::remove_file(dir.path().join("cg/docker").join(ID).join("cpu.stat")).unwrap();
        moved(&format!("cg/docker/{ID}"), "cg/gone");
        fs::remove_file(dir.path().join("proc/8/net/dev")).unwrap();
        assert_eq!(read(8), Reading::default());
        fs::create_dir_all(dir.path().join("cg/docker").join(ID)).unwrap();
        fs::write(dir.path().join("cg/docker").join(ID).join("cpu.stat"), "usage_usec 9\n").unwrap();
        assert_eq!(read(8), Reading { cpu_ns: Some(9_000), ..Reading::default() });
    }
}
