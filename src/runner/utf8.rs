//! Incremental UTF-8: bytes that arrive cut anywhere become text, bad ones U+FFFD (PROTOCOL section 8).

/// Decodes one stream; holds back at most three bytes of a character that is not whole yet.
#[derive(Debug, Default, Clone)]
pub struct Utf8 {
    /// The beginning of a character whose rest has not come.
    pending: Vec<u8>,
}

impl Utf8 {
    /// The text that is whole by now.
    pub fn feed(&mut self, bytes: &[u8]) -> String {
        let joined;
        let mut rest = if self.pending.is_empty() {
            bytes
        } else {
            self.pending.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.pending);
            &joined
        };
        let mut text = String::with_capacity(rest.len());
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    return text;
                }
                Err(error) => error,
            };
            let (whole, bad) = rest.split_at(error.valid_up_to());
            // Never lossy: `valid_up_to` is where the valid part ends.
            text.push_str(&String::from_utf8_lossy(whole));
            let Some(length) = error.error_len() else {
                self.pending = bad.to_vec();
                return text;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &bad[length..];
        }
    }

    /// The same of bytes that are not needed any more; whole text is not copied.
    pub fn take(&mut self, bytes: Vec<u8>) -> String {
        if !self.pending.is_empty() {
            return self.feed(&bytes);
        }
        let error = match String::from_utf8(bytes) {
            Ok(whole) => return whole,
            Err(error) => error,
        };
        let (at, is_cut) = (error.utf8_error().valid_up_to(), error.utf8_error().error_len().is_none());
        let mut bytes = error.into_bytes();
        if !is_cut {
            return self.feed(&bytes);
        }
        self.pending = bytes.split_off(at);
        // Never lossy: the part before the cut is valid.
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// The beginning of a character whose rest has not come; empty as a rule.
    #[must_use]
    pub fn begun(self) -> Vec<u8> {
        self.pending
    }

    /// Ends the stream: what was held back will never be whole.
    pub fn finish(&mut self) -> Option<char> {
        let was_cut = !std::mem::take(&mut self.pending).is_empty();
        was_cut.then_some(char::REPLACEMENT_CHARACTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cuts_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0usize..64) {
            let cut = cut.min(bytes.len());
            let mut decoder = Utf8::default();
            let mut text = decoder.feed(&bytes[..cut]);
            text += &decoder.feed(&bytes[cut..]);
            text.extend(decoder.finish());
            prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
            let mut taken = decoder.take(bytes[..cut].to_vec());
            taken += &decoder.take(bytes[cut..].to_vec());
            taken.extend(decoder.finish());
            prop_assert_eq!(taken, text);
        }
    }

    #[test]
    fn a_character_waits_for_its_rest() {
        let mut decoder = Utf8::default();
        let snowman = "☃".as_bytes();
        assert_eq!(decoder.feed(&snowman[..2]), "");
        assert_eq!(decoder.feed(&snowman[2..]), "☃");
        decoder.feed(&snowman[..1]);
        assert_eq!(decoder.finish(), Some('\u{fffd}'));
        assert_eq!(decoder.finish(), None);
    }
}
