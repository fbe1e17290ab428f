//! A vector of byte strings in two allocations.

/// Byte strings laid end to end, with their offsets. Rows are appended and read, never changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByteRows {
    ends: Vec<u64>,
    data: Vec<u8>,
}

impl ByteRows {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self {
            ends: Vec::with_capacity(rows),
            data: Vec::with_capacity(bytes),
        }
    }

    pub fn push(&mut self, row: &[u8]) {
        self.data.extend_from_slice(row);
        self.ends.push(self.data.len() as u64);
    }

    /// Appends the concatenation of the parts as one row.
    pub fn push_parts(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.data.extend_from_slice(part);
        }
        self.ends.push(self.data.len() as u64);
    }

    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] as usize
        };
        &self.data[start..self.ends[index] as usize]
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
        self.ends.capacity() * size_of::<u64>() + self.data.capacity()
    }

    pub fn clear(&mut self) {
        self.ends.clear();
        self.data.clear();
    }

    pub fn shrink_to_fit(&mut self) {
        self.ends.shrink_to_fit();
        self.data.shrink_to_fit();
    }
}

impl<'a> FromIterator<&'a [u8]> for ByteRows {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(rows: I) -> Self {
        let mut all = Self::new();
        for row in rows {
            all.push(row);
        }
        all
    }
}
