//! Streams of bits: the first is the highest of a little-endian 32-bit word.
//!
//! What is read behind the end of a stream is zeros, so that no bytes can make a reader leave them.

/// Puts bits into words, one stream after another, each from a byte's first bit on.
#[derive(Default)]
pub(crate) struct Writer {
    /// Longer than what was put, by what may be put before it is asked again.
    words: Vec<u32>,
    at: At,
}

/// Where a [`Writer`] is: a value of its own, which stays in registers while a stream is put.
#[derive(Clone, Copy, Default)]
struct At {
    full: usize,
    /// What is not in a full word yet: the lowest `held` bits, fewer than 32.
    bits: u64,
    held: u32,
}

/// Puts bits of one stream.
pub(crate) struct Put<'a> {
    words: &'a mut [u32],
    at: At,
}

impl Writer {
    /// Forgets all, and makes room for so many bits.
    pub fn clear(&mut self, room: usize) {
        let words = room.div_ceil(32) + 2;
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        self.at = At::default();
    }

    /// Puts a stream; its first byte.
    #[inline(always)]
    pub fn stream(&mut self, all: impl FnOnce(&mut Put<'_>)) -> usize {
        let mut put = Put {
            words: &mut self.words,
            at: self.at,
        };
        let over = put.at.held % 8;
        if over > 0 {
            put.put(0, 8 - over);
        }
        let start = 4 * put.at.full + put.at.held as usize / 8;
        all(&mut put);
        self.at = put.at;
        start
    }

    /// Ends the last stream; all words.
    pub fn finish(&mut self) -> &[u32] {
        let mut put = Put {
            words: &mut self.words,
            at: self.at,
        };
        if put.at.held > 0 {
            put.put(0, 32 - put.at.held);
        }
        self.at = put.at;
        &self.words[..self.at.full]
    }
}

impl Put<'_> {
    /// Appends the lowest `count` bits of a value that has no others; at most 32. Without a branch, which nothing could foresee.
    #[inline(always)]
    pub fn put(&mut self, value: u32, count: u32) {
        let At { full, bits, held } = self.at;
        let bits = bits << count | u64::from(value);
        let held = held + count;
        // The next word if it is full; else it is written again.
        self.words[full] = (bits >> (held & 31)) as u32;
        self.at = At {
            full: full + (held >> 5) as usize,
            bits,
            held: held & 31,
        };
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
                let values = (0..random.usize(0..200)).map(|_| {
                    let count = random.u32(1..=20);
                    (random.u32(..) >> (32 - count), count)
                });
                let values: Vec<(u32, u32)> = values.collect();
                let start = writer.stream(|put| {
                    for (value, count) in &values {
                        put.put(*value, *count);
                    }
                });
                (start, values)
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
