//! A vector of byte strings in few allocations.

/// Bytes of a segment at most, unless one row is longer. Large enough that allocations do not count, small enough that
/// growing never copies much and that what is freed fits what is asked for next.
const SEGMENT_BYTES: usize = 1 << 20;
const FIRST_SEGMENT_BYTES: usize = 256;
const SEGMENT_BITS: u32 = 32;

/// Byte strings laid end to end. Rows are appended and read, never changed.
///
/// They lie in segments of bounded size; no row is in two of them.
#[derive(Debug, Clone, Default)]
pub struct ByteRows {
    /// Of each row the segment and where it ends in it.
    ends: Vec<u64>,
    segments: Vec<Vec<u8>>,
}

impl ByteRows {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        let segments = match bytes {
            0 => Vec::new(),
            bytes => vec![Vec::with_capacity(bytes.min(SEGMENT_BYTES))],
        };
        Self {
            ends: Vec::with_capacity(rows),
            segments,
        }
    }

    #[inline]
    pub fn push(&mut self, row: &[u8]) {
        let segment = self.segment_for(row.len());
        segment.extend_from_slice(row);
        self.end_row();
    }

    /// Appends the concatenation of the parts as one row.
    pub fn push_parts(&mut self, parts: &[&[u8]]) {
        let segment = self.segment_for(parts.iter().map(|p| p.len()).sum());
        for part in parts {
            segment.extend_from_slice(part);
        }
        self.end_row();
    }

    #[inline]
    fn end_row(&mut self) {
        let last = self.segments.len() - 1;
        let end = self.segments[last].len() as u64;
        self.ends.push(((last as u64) << SEGMENT_BITS) | end);
    }

    /// The last segment, with room for so many bytes.
    #[inline]
    fn segment_for(&mut self, bytes: usize) -> &mut Vec<u8> {
        let fits = self
            .segments
            .last()
            .is_some_and(|last| last.capacity() - last.len() >= bytes);
        if !fits {
            self.make_room(bytes);
        }
        self.segments.last_mut().expect("room was made in it")
    }

    #[cold]
    fn make_room(&mut self, bytes: usize) {
        match self.segments.last_mut() {
            // The first grows like any vector, so that few rows need little.
            Some(first)
                if first.len() + bytes <= SEGMENT_BYTES && first.capacity() < SEGMENT_BYTES =>
            {
                let wanted = (first.len() + bytes)
                    .next_power_of_two()
                    .max(FIRST_SEGMENT_BYTES);
                first.reserve_exact(wanted - first.len());
            }
            Some(_) => self
                .segments
                .push(Vec::with_capacity(bytes.max(SEGMENT_BYTES))),
            None => self
                .segments
                .push(Vec::with_capacity(bytes.max(FIRST_SEGMENT_BYTES))),
        }
    }

    /// Appends all rows of another, whose segments are taken over as they are.
    pub fn append(&mut self, mut other: Self) {
        let segments = self.segments.len() as u64;
        let ends = other.ends.iter();
        self.ends
            .extend(ends.map(|end| end + (segments << SEGMENT_BITS)));
        self.segments.append(&mut other.segments);
    }

    #[inline]
    pub fn get(&self, index: usize) -> &[u8] {
        let place = self.ends[index];
        let segment = place >> SEGMENT_BITS;
        let start = match index.checked_sub(1).map(|before| self.ends[before]) {
            Some(before) if before >> SEGMENT_BITS == segment => before as u32 as usize,
            _ => 0,
        };
        &self.segments[segment as usize][start..place as u32 as usize]
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        (0..self.len()).map(|i| self.get(i))
    }

    pub fn memory_bytes(&self) -> usize {
        self.ends.capacity() * size_of::<u64>()
            + self.segments.iter().map(Vec::capacity).sum::<usize>()
    }

    /// Keeps one segment's memory for what comes next.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.segments.truncate(1);
        self.segments.iter_mut().for_each(Vec::clear);
    }

    pub fn shrink_to_fit(&mut self) {
        self.ends.shrink_to_fit();
        if let Some(last) = self.segments.last_mut() {
            last.shrink_to_fit();
        }
    }
}

impl PartialEq for ByteRows {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ByteRows {}

impl<'a> FromIterator<&'a [u8]> for ByteRows {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(rows: I) -> Self {
        let mut all = Self::new();
        for row in rows {
            all.push(row);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_length_come_back() {
        let lengths = [
            0,
            3,
            0,
            300,
            SEGMENT_BYTES - 10,
            20,
            0,
            SEGMENT_BYTES * 2,
            1,
            0,
        ];
        let expected: Vec<Vec<u8>> = (0..40)
            .map(|i| vec![i as u8; lengths[i % lengths.len()]])
            .collect();
        for capacity in [0, 1, 1 << 30] {
            let mut rows = ByteRows::with_capacity(4, capacity);
            for round in 0..2 {
                rows.clear();
                for row in &expected {
                    let (head, tail) = row.split_at(row.len() / 2);
                    rows.push_parts(&[head, tail]);
                }
                assert!(
                    rows.iter().eq(expected.iter().map(Vec::as_slice)),
                    "{round}"
                );
            }
            assert_eq!(rows, expected.iter().map(Vec::as_slice).collect());
        }
    }

    #[test]
    fn rows_that_are_appended_follow() {
        let row = |i: u8| vec![i; usize::from(i % 5)];
        let mut all = ByteRows::new();
        for part in [0..0, 0..7, 7..7, 7..8, 8..200] {
            all.append(
                part.map(row)
                    .collect::<Vec<_>>()
                    .iter()
                    .map(Vec::as_slice)
                    .collect(),
            );
        }
        all.push(&row(200));
        assert!(all.iter().map(<[u8]>::to_vec).eq((0..=200).map(row)));
    }
}
