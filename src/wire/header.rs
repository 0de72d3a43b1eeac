//! The fixed headers of `aiozmq.rpc` (PROTOCOL section 2; law: the manager's client packs and unpacks them).
//!
//! Native byte order without padding, as Python's `struct` has it with `=`: both ends share a machine type.

/// The first frame of a request: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RequestHeader {
    /// The client's process id, cut to 16 bits.
    pub pid: u16,
    /// A number the client made up, so that two clients with one pid differ.
    pub random: u16,
    /// Counts the client's requests; the answer repeats it and is matched by it.
    pub request_id: u32,
    /// When the client sent it, in seconds since 1970.
    pub sent_at: f64,
}

/// The first frame of an answer: 17 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerHeader {
    /// The server's process id, cut to 16 bits.
    pub pid: u16,
    /// The server's own number, fixed for its life.
    pub random: u16,
    /// The request's number, repeated.
    pub request_id: u32,
    /// When the server answered, in seconds since 1970.
    pub sent_at: f64,
    /// Whether the body is an error instead of a value.
    pub is_error: bool,
}

impl RequestHeader {
    /// Length on the wire, in bytes.
    pub const LEN: usize = 16;

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        put_common(&mut out, self.pid, self.random, self.request_id, self.sent_at);
        out
    }

    /// From exactly 16 bytes; `None` for any other length.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (pid, random, request_id, sent_at) = take_common(bytes);
        Some(Self { pid, random, request_id, sent_at })
    }
}

impl AnswerHeader {
    /// Length on the wire, in bytes.
    pub const LEN: usize = 17;

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        put_common(&mut out, self.pid, self.random, self.request_id, self.sent_at);
        out[16] = u8::from(self.is_error);
        out
    }

    /// From exactly 17 bytes; `None` for any other length.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (common, flag) = bytes.split_first_chunk::<16>()?;
        let (pid, random, request_id, sent_at) = take_common(common);
        Some(Self { pid, random, request_id, sent_at, is_error: flag != [0] })
    }
}

fn put_common(out: &mut [u8], pid: u16, random: u16, request_id: u32, sent_at: f64) {
    out[0..2].copy_from_slice(&pid.to_ne_bytes());
    out[2..4].copy_from_slice(&random.to_ne_bytes());
    out[4..8].copy_from_slice(&request_id.to_ne_bytes());
    out[8..16].copy_from_slice(&sent_at.to_ne_bytes());
}

fn take_common(bytes: &[u8; 16]) -> (u16, u16, u32, f64) {
    let [p0, p1, r0, r1, i0, i1, i2, i3, time @ ..] = *bytes;
    (
        u16::from_ne_bytes([p0, p1]),
        u16::from_ne_bytes([r0, r1]),
        u32::from_ne_bytes([i0, i1, i2, i3]),
        f64::from_ne_bytes(time),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_round_trip(pid: u16, random: u16, request_id: u32, sent_at in 0f64..4e9, is_error: bool) {
            let request = RequestHeader { pid, random, request_id, sent_at };
            prop_assert_eq!(RequestHeader::decode(&request.encode()), Some(request));
            let answer = AnswerHeader { pid, random, request_id, sent_at, is_error };
            prop_assert_eq!(AnswerHeader::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn other_lengths_are_no_header() {
        assert_eq!(RequestHeader::decode(&[0; 15]), None);
        assert_eq!(RequestHeader::decode(&[0; 17]), None);
        assert_eq!(AnswerHeader::decode(&[0; 16]), None);
    }
}
