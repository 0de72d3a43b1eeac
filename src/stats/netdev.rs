//! What `/proc/{pid}/net/dev` says of a container's network; pure.

/// Bytes received and sent, summed over the interfaces `eth*` (PROTOCOL section 6). A container without network has
/// none of them, which is 0. `None` if a line is not what the kernel writes.
pub(super) fn parse_netdev(text: &str) -> Option<(u64, u64)> {
    let (mut received, mut sent) = (0u64, 0u64);
    // The two lines of headings hold no colon after a name.
    for line in text.lines() {
        let Some((name, counters)) = line.split_once(':') else { continue };
        if !name.trim().starts_with("eth") {
            continue;
        }
        // Large counters stick to the colon, so words are counted after it: received bytes first, sent bytes ninth.
        let mut words = counters.split_ascii_whitespace();
        received = received.saturating_add(words.next()?.parse().ok()?);
        sent = sent.saturating_add(words.nth(7)?.parse().ok()?);
    }
    Some((received, sent))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADINGS: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
";

    #[test]
    fn only_eth_counts() {
        let text = format!(
            "{HEADINGS}    lo:    9000      16    0    0    0     0          0         0     9000      16    0    0    0     0       0          0
  eth0:1296     16    0    0    0     0          0         0      816      10    0    0    0     0       0          0
 eth1: 4 0 0 0 0 0 0 0 5 0 0 0 0 0 0 0
docker0: 7 0 0 0 0 0 0 0 7 0 0 0 0 0 0 0
"
        );
        assert_eq!(parse_netdev(&text), Some((1300, 821)));
        assert_eq!(parse_netdev(HEADINGS), Some((0, 0)));
    }

    #[test]
    fn a_damaged_line_is_no_reading() {
        for text in ["eth0: 1 2 3\n", "eth0: a b c d e f g h i\n", "eth0:\n"] {
            assert_eq!(parse_netdev(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,60}|(eth[0-9]:( [0-9]{0,25}){0,17}\n){0,3}") {
            let _ = parse_netdev(&text);
        }
    }
}
