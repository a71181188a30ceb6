//! Streams of bits: the first is the highest of a little-endian 32-bit word.
//!
//! What is read behind the end of a stream is zeros, so that no bytes can make a reader leave them.

/// Puts bits into words, one stream after another, each from a byte's first bit on.
#[derive(Default)]
pub(crate) struct Writer {
    /// Longer than what was put, by what may be put before it is asked again.
    words: Vec<u32>,
    full: usize,
    /// What is not in a full word yet: the lowest `held` bits, fewer than 32.
    bits: u64,
    held: u32,
}

impl Writer {
    /// Forgets all, and makes room for so many bits.
    pub fn clear(&mut self, room: usize) {
        let words = room.div_ceil(32) + 2;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        (self.full, self.bits, self.held) = (0, 0, 0);
    }

    /// Starts a stream; its first byte.
    pub fn start(&mut self) -> usize {
        let over = self.held % 8;
        if over > 0 {
            self.put(0, 8 - over);
        }
        4 * self.full + self.held as usize / 8
    }

    /// Appends the lowest `count` bits of a value that has no others; at most 32. Without a branch, which nothing could foresee.
    #[inline(always)]
    pub fn put(&mut self, value: u32, count: u32) {
        self.bits = self.bits << count | u64::from(value);
        let held = self.held + count;
        // The next word if it is full; else it is written again.
        self.words[self.full] = (self.bits >> (held & 31)) as u32;
        self.full += (held >> 5) as usize;
        self.held = held & 31;
    }

    /// Ends the last stream; all words.
    pub fn finish(&mut self) -> &[u32] {
        if self.held > 0 {
            self.put(0, 32 - self.held);
        }
        &self.words[..self.full]
    }
}

/// Reads bits of a stream.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reader {
    /// Bits before the next.
    at: usize,
}

/// The next bits of a stream, the first one highest; at least 32 are there.
pub(crate) struct Ahead(u64);

impl Reader {
    /// From a byte on.
    pub fn new(start: usize) -> Reader {
        Reader { at: 8 * start }
    }

    /// What is next in a stream of these words.
    #[inline(always)]
    pub fn ahead(&self, words: &[u8]) -> Ahead {
        let start = self.at / 32 * 4;
        let two = match words.get(start..start + 8) {
            Some(two) => two.try_into().map_or(0, u64::from_le_bytes),
            None => last(words, start),
        };
        Ahead(two.rotate_left(32) << (self.at % 32))
    }

    /// Leaves bits behind.
    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    /// The next 8 bits of a stream of these words.
    pub fn byte(&mut self, words: &[u8]) -> u8 {
        let byte = self.ahead(words).peek(8) as u8;
        self.skip(8);
        byte
    }
}

/// Two words of which not all bytes are there.
#[cold]
fn last(words: &[u8], start: usize) -> u64 {
    let mut two = [0; 8];
    let there = words.get(start..).unwrap_or_default();
    let there = &there[..there.len().min(8)];
    two[..there.len()].copy_from_slice(there);
    u64::from_le_bytes(two)
}

impl Ahead {
    /// The next `count` bits, which stay.
    #[inline(always)]
    pub fn peek(&self, count: u32) -> u32 {
        (self.0 >> (64 - count)) as u32
    }

    /// Leaves bits behind; of those that are there.
    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.0 <<= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_read_from_each_start() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut writer = Writer::default();
        writer.clear(40 * 200 * 20 + 40 * 8);
        let streams: Vec<(usize, Vec<(u32, u32)>)> = (0..40)
            .map(|_| {
                let start = writer.start();
                let put = (0..random.usize(0..200)).map(|_| {
                    let count = random.u32(1..=20);
                    let value = random.u32(..) >> (32 - count);
                    writer.put(value, count);
                    (value, count)
                });
                let put = put.collect();
                (start, put)
            })
            .collect();
        let bytes: Vec<u8> = writer
            .finish()
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect();
        for (start, put) in streams {
            let mut reader = Reader::new(start);
            for (value, count) in put {
                assert_eq!(reader.ahead(&bytes).peek(count), value);
                reader.skip(count);
            }
        }
    }

    #[test]
    fn behind_the_end_are_zeros() {
        let mut reader = Reader::new(4);
        assert_eq!(reader.ahead(&[0xff; 5]).peek(32), 0xff);
        for _ in 0..10 {
            reader.skip(32);
            assert_eq!(reader.ahead(&[0xff; 5]).peek(32), 0);
        }
    }
}
