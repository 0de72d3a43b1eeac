//! What the files of a control group say; pure. `None` means that the text is not what the kernel writes.

/// A file that holds one number, such as `memory.usage_in_bytes` or `cpuacct.usage`. A limit's `max` is no number.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Nanoseconds of CPU time from v1's `cpuacct.usage`.
pub(super) fn parse_v1_cpu_ns(text: &str) -> Option<u64> {
    parse_number(text)
}

/// Nanoseconds of CPU time from v2's `cpu.stat`, which counts microseconds.
pub(super) fn parse_v2_cpu_ns(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(parse_number(value)?.saturating_mul(1_000))
}

/// Bytes read and written from v1's `blkio.throttle.io_service_bytes`, summed over devices:
/// lines of `{device} Read {bytes}`; the totals are left out.
pub(super) fn parse_v1_io(text: &str) -> Option<(u64, u64)> {
    let (mut read, mut written) = (0u64, 0u64);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(_device), Some(operation), Some(bytes)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        match operation {
            "Read" => read = read.saturating_add(parse_number(bytes)?),
            "Write" => written = written.saturating_add(parse_number(bytes)?),
            _ => {}
        }
    }
    Some((read, written))
}

/// Bytes read and written from v2's `io.stat`, summed over devices: lines of `{device} rbytes={bytes} wbytes={bytes} …`.
/// Without any I/O the file is empty.
pub(super) fn parse_v2_io(text: &str) -> Option<(u64, u64)> {
    let (mut read, mut written) = (0u64, 0u64);
    for field in text.split_ascii_whitespace() {
        match field.split_once('=') {
            Some(("rbytes", bytes)) => read = read.saturating_add(parse_number(bytes)?),
            Some(("wbytes", bytes)) => written = written.saturating_add(parse_number(bytes)?),
            _ => {}
        }
    }
    Some((read, written))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn v1_block_io() {
        let two_disks = "8:0 Read 13918208\n8:0 Write 4096\n8:0 Sync 0\n8:0 Async 13922304\n8:0 Discard 0\n\
                         8:0 Total 13922304\n259:0 Read 1\n259:0 Write 2\n259:0 Total 3\nTotal 13922307\n";
        assert_eq!(parse_v1_io(two_disks), Some((13_918_209, 4_098)));
        assert_eq!(parse_v1_io("Total 0\n"), Some((0, 0)));
        assert_eq!(parse_v1_io("8:0 Read x\n"), None);
    }

    #[test]
    fn v2_block_io() {
        let two_disks =
            "254:0 rbytes=1024 wbytes=2048 rios=1 wios=2 dbytes=0 dios=0\n7:1 \n8:16 rbytes=1 wbytes=1\n";
        assert_eq!(parse_v2_io(two_disks), Some((1025, 2049)));
        assert_eq!(parse_v2_io(""), Some((0, 0)));
        assert_eq!(parse_v2_io("8:0 rbytes=-1"), None);
    }

    #[test]
    fn cpu_time() {
        assert_eq!(parse_v1_cpu_ns("673027202\n"), Some(673_027_202));
        let text = "usage_usec 673027\nuser_usec 600000\nsystem_usec 73027\nnr_periods 0\n";
        assert_eq!(parse_v2_cpu_ns(text), Some(673_027_000));
        assert_eq!(parse_v2_cpu_ns("user_usec 1\n"), None);
        assert_eq!(parse_number("max\n"), None);
    }

    proptest! {
        #[test]
        fn v1_io_is_the_sum_over_devices(devices in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..8)) {
            let mut text = String::new();
            for (minor, (read, written)) in devices.iter().enumerate() {
                writeln!(text, "8:{minor} Read {read}\n8:{minor} Write {written}\n8:{minor} Total 99").unwrap();
            }
            text += "Total 99\n";
            let sum = |pick: fn(&(u32, u32)) -> u32| devices.iter().map(|device| u64::from(pick(device))).sum::<u64>();
            prop_assert_eq!(parse_v1_io(&text), Some((sum(|d| d.0), sum(|d| d.1))));
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,80}|([0-9:]{1,4} (Read|Write|rbytes=[0-9]{0,30}) [0-9]{0,30}\n){0,4}") {
            let _ = (parse_v1_io(&text), parse_v2_io(&text), parse_v1_cpu_ns(&text), parse_v2_cpu_ns(&text));
        }
    }
}
