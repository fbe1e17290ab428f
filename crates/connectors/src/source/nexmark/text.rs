//! Texts that events take their strings from, made once, and the string columns that they are copied into.
//!
//! A string is copied as a fixed number of bytes that the compiler turns into a few wide moves, and then cut to its
//! length; that is several times faster than a copy of a length known only at run time.

use super::event::{Draw, mix};
use arrow::array::{ArrayRef, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use std::sync::Arc;

/// Bytes that the widest fixed-size copy reads; every text is followed by as many.
pub const WIDE: usize = 96;
const POOL_BYTES: u64 = 1 << 16;
/// The longest string that may be asked from the pool.
pub const LONGEST: u64 = 1 << 15;

pub const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
pub const CHANNELS: u64 = 10_000;

/// Random text, and the channels of bids with their URLs.
pub struct Texts {
    /// Lower-case letters.
    letters: Vec<u8>,
    /// Lower-case letters with a single space now and then.
    words: Vec<u8>,
    pub channels: Slots<16>,
    pub urls: Slots<80>,
}

impl Texts {
    pub fn new(seed: u64) -> Self {
        let mut random = Sequence(mix(seed ^ 0x6e65_786d_6172_6b00));
        let bytes = POOL_BYTES as usize + LONGEST as usize + WIDE;
        let letters = (0..bytes).map(|_| random.letter()).collect::<Vec<_>>();
        let mut words = Vec::with_capacity(bytes);
        while words.len() < bytes {
            let space = words.last().is_some_and(|b| *b != b' ') && random.below(13) == 0;
            words.push(if space { b' ' } else { random.letter() });
        }
        let (mut channels, mut urls) = (Slots::new(), Slots::new());
        for channel in HOT_CHANNELS {
            channels.push(channel);
            urls.push(&random.base_url());
        }
        for number in 0..CHANNELS as u32 {
            channels.push(&format!("channel-{number}"));
            let mut url = random.base_url();
            if random.below(10) > 0 {
                let id = (number.reverse_bits() as i32).unsigned_abs();
                url.push_str(&format!("&channel_id={id}"));
            }
            urls.push(&url);
        }
        Self {
            letters,
            words,
            channels,
            urls,
        }
    }

    /// Letters of this length, and whatever follows them up to [`WIDE`] bytes at least.
    #[inline(always)]
    fn letters_from(&self, draw: &mut Draw) -> &[u8] {
        &self.letters[draw.below(POOL_BYTES) as usize..]
    }

    pub fn letters(&self, length: u64, draw: &mut Draw) -> &[u8] {
        &self.letters_from(draw)[..length as usize]
    }

    /// Three to `most` - 1 characters, words with single spaces between them.
    pub fn words(&self, most: u64, draw: &mut Draw) -> &[u8] {
        let length = 3 + draw.below(most - 3) as usize;
        let start = draw.below(POOL_BYTES) as usize;
        self.words[start..start + length].trim_ascii()
    }
}

/// The length that brings an event from its present size near the average: within a fifth of what is missing.
#[derive(Debug, Clone, Copy)]
pub struct ExtraLength {
    least: u64,
    spread: u64,
}

impl ExtraLength {
    #[inline(always)]
    pub fn new(size: u64, average: u64) -> Self {
        let missing = average.saturating_sub(size);
        let delta = (missing + 2) / 5;
        Self {
            least: missing - delta,
            spread: (2 * delta).max(1),
        }
    }

    #[inline(always)]
    fn draw(self, draw: &mut Draw) -> u64 {
        (self.least + draw.below(self.spread)).min(LONGEST)
    }

    fn most(self) -> u64 {
        self.least + self.spread
    }
}

/// The column `extra` of events whose other columns all have the same size.
pub fn fixed_extra(texts: &Texts, hashes: &[u64], salt: u64, length: ExtraLength) -> ArrayRef {
    let average = (length.least + length.spread / 2) as usize;
    let mut column = TextColumn::with_capacity(hashes.len(), average + 1);
    if length.most() as usize <= WIDE {
        for hash in hashes {
            let mut draw = Draw::new(*hash, salt);
            let length = length.draw(&mut draw) as usize;
            column.push_wide::<WIDE>(texts.letters_from(&mut draw), length);
        }
    } else {
        for hash in hashes {
            push_extra(&mut column, texts, *hash, salt, length);
        }
    }
    column.finish()
}

pub fn push_extra(
    column: &mut TextColumn,
    texts: &Texts,
    hash: u64,
    salt: u64,
    length: ExtraLength,
) {
    let mut draw = Draw::new(hash, salt);
    let length = length.draw(&mut draw);
    column.push(texts.letters(length, &mut draw));
}

/// Short texts of at most `N` bytes, each in a slot of its own.
pub struct Slots<const N: usize> {
    slots: Vec<[u8; N]>,
    lengths: Vec<u8>,
}

impl<const N: usize> Slots<N> {
    fn new() -> Self {
        Self {
            slots: Vec::new(),
            lengths: Vec::new(),
        }
    }

    fn push(&mut self, text: &str) {
        assert!(text.is_ascii() && text.len() <= N, "fits its slot");
        let mut slot = [0; N];
        slot[..text.len()].copy_from_slice(text.as_bytes());
        self.slots.push(slot);
        self.lengths.push(text.len() as u8);
    }

    /// A column of the slots with these indexes.
    pub fn column(
        &self,
        rows: usize,
        average: usize,
        index: impl Iterator<Item = usize>,
    ) -> ArrayRef {
        let mut column = TextColumn::with_capacity(rows, average);
        for index in index {
            column.push_wide::<N>(&self.slots[index], usize::from(self.lengths[index]));
        }
        column.finish()
    }
}

/// A string column under construction, ASCII only.
pub struct TextColumn {
    offsets: Vec<i32>,
    values: Vec<u8>,
}

impl TextColumn {
    pub fn with_capacity(rows: usize, average: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self {
            offsets,
            values: Vec::with_capacity(rows * average + WIDE),
        }
    }

    pub fn push(&mut self, text: &[u8]) {
        self.values.extend_from_slice(text);
        self.offsets.push(self.values.len() as i32);
    }

    /// Appends the first `length` of the first `N` bytes.
    #[inline(always)]
    fn push_wide<const N: usize>(&mut self, text: &[u8], length: usize) {
        debug_assert!(length <= N);
        let wide: &[u8; N] = text
            .first_chunk()
            .expect("every text is followed by enough bytes");
        let end = self.values.len() + length;
        self.values.extend_from_slice(wide);
        self.values.truncate(end);
        self.offsets.push(end as i32);
    }

    pub fn finish(self) -> ArrayRef {
        assert!(
            self.values.len() <= i32::MAX as usize,
            "a batch of strings fits 2 GiB"
        );
        debug_assert!(self.values.is_ascii());
        // SAFETY: offsets start at zero and only grow, the last one is the length of the values, and every text pushed is
        // ASCII, so that every offset is a character boundary.
        let array = unsafe {
            StringArray::new_unchecked(
                OffsetBuffer::new_unchecked(ScalarBuffer::from(self.offsets)),
                Buffer::from_vec(self.values),
                None,
            )
        };
        Arc::new(array)
    }
}

/// Random numbers in sequence, for what is made once.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Draw::new(mix(self.0), 0).below(n)
    }

    fn letter(&mut self) -> u8 {
        b'a' + self.below(26) as u8
    }

    /// Three or four letters, seldom an underscore.
    fn path(&mut self) -> String {
        let length = 3 + self.below(2);
        (0..length)
            .map(|_| match self.below(13) {
                0 => '_',
                _ => char::from(self.letter()),
            })
            .collect()
    }

    fn base_url(&mut self) -> String {
        let (a, b, c) = (self.path(), self.path(), self.path());
        format!("https://www.nexmark.com/{a}/{b}/{c}/item.htm?query=1")
    }
}
