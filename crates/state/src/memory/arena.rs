//! Records of bytes in large pages, addressed by 32 bits.
//!
//! Records are appended to the newest page and never grow. A freed record stays where it is as garbage; when a third of
//! all bytes is garbage, the page with the most of it is evacuated: its live records move to the newest page and the
//! owner is told their new addresses. So churn costs at most half again the live bytes, whatever the sizes of records,
//! and the work is done a page (at most a megabyte) at a time.
//!
//! A record larger than a quarter of a page has a page of its own, released as soon as the record is freed.
//! Addresses are stable except through [`Arena::evacuate`].

use crate::StateError;

/// Where a record lies: page in the high bits, offset in units within the page in the low ones.
pub type Ref = u32;

const UNIT: usize = 8;
const OFFSET_BITS: u32 = 17;
const OFFSET_MASK: u32 = (1 << OFFSET_BITS) - 1;
const PAGE_BYTES: usize = UNIT << OFFSET_BITS;
const FIRST_PAGE_BYTES: usize = 4096;
/// Bytes in front of each record: its size in units, and whether it is garbage.
const HEADER: usize = 4;
const DEAD: u32 = 1 << 31;

#[derive(Debug)]
struct Page {
    bytes: Box<[u8]>,
    filled: usize,
    dead: usize,
}

#[derive(Debug)]
pub struct Arena {
    pages: Vec<Option<Page>>,
    vacant: Vec<u32>,
    head: Option<u32>,
    max_pages: usize,
    /// Bytes of all pages.
    allocated: usize,
    filled: usize,
    dead: usize,
}

impl Arena {
    /// `address_bits`: how many bits of a [`Ref`] may be used; 32 bits address 32 GiB.
    pub fn new(address_bits: u32) -> Self {
        Self {
            pages: Vec::new(),
            vacant: Vec::new(),
            head: None,
            max_pages: 1 << (address_bits - OFFSET_BITS),
            allocated: 0,
            filled: 0,
            dead: 0,
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.allocated + self.pages.capacity() * size_of::<Option<Page>>()
    }

    pub fn live_bytes(&self) -> usize {
        self.filled - self.dead
    }

    /// A new record that holds at least this many bytes. Its content is arbitrary.
    pub fn alloc(&mut self, bytes: usize) -> Result<Ref, StateError> {
        let size = (bytes + HEADER).next_multiple_of(UNIT);
        let page = match self.head {
            Some(head) if self.page(head).filled + size <= self.page(head).bytes.len() => head,
            _ => self.add_page(size)?,
        };
        let target = self.pages[page as usize].as_mut().expect("just chosen");
        let offset = target.filled;
        target.bytes[offset..offset + HEADER]
            .copy_from_slice(&((size / UNIT) as u32).to_le_bytes());
        target.filled += size;
        self.filled += size;
        Ok((page << OFFSET_BITS) | (offset / UNIT) as u32)
    }

    pub fn get(&self, record: Ref) -> &[u8] {
        let page = self.page(record >> OFFSET_BITS);
        let offset = (record & OFFSET_MASK) as usize * UNIT;
        let size = word(&page.bytes, offset) as usize * UNIT;
        &page.bytes[offset + HEADER..offset + size]
    }

    pub fn get_mut(&mut self, record: Ref) -> &mut [u8] {
        let page = self.pages[(record >> OFFSET_BITS) as usize]
            .as_mut()
            .expect("a live record's page exists");
        let offset = (record & OFFSET_MASK) as usize * UNIT;
        let size = word(&page.bytes, offset) as usize * UNIT;
        &mut page.bytes[offset + HEADER..offset + size]
    }

    pub fn free(&mut self, record: Ref) {
        let index = record >> OFFSET_BITS;
        let page = self.pages[index as usize]
            .as_mut()
            .expect("a live record's page exists");
        let offset = (record & OFFSET_MASK) as usize * UNIT;
        let units = word(&page.bytes, offset);
        debug_assert!(units & DEAD == 0, "freed once");
        page.bytes[offset..offset + HEADER].copy_from_slice(&(units | DEAD).to_le_bytes());
        page.dead += units as usize * UNIT;
        self.dead += units as usize * UNIT;
        if page.dead == page.filled && self.head != Some(index) {
            self.remove_page(index);
        }
    }

    /// The page that should be evacuated now, if garbage is more than is worth keeping.
    pub fn page_to_evacuate(&self) -> Option<u32> {
        if self.dead * 3 <= self.filled || self.filled < 16 * FIRST_PAGE_BYTES {
            return None;
        }
        let (index, page) = (self.pages.iter().enumerate())
            .filter_map(|(i, p)| p.as_ref().map(|p| (i as u32, p)))
            .filter(|(i, _)| self.head != Some(*i))
            .max_by_key(|(_, p)| p.dead * 1024 / p.filled.max(1))?;
        (page.dead * 4 > page.filled).then_some(index)
    }

    /// The first page that is not being filled, for evictions in order of age of pages.
    pub fn next_full_page(&self, after: Option<u32>) -> Option<u32> {
        let start = after.map_or(0, |a| a as usize + 1);
        let full = |i: &u32| self.pages[*i as usize].is_some() && self.head != Some(*i);
        (start as u32..self.pages.len() as u32).find(full)
    }

    /// The live records of a page, in any order.
    pub fn records(&self, index: u32) -> Vec<Ref> {
        let page = self.page(index);
        let mut found = Vec::new();
        let mut offset = 0;
        while offset < page.filled {
            let units = word(&page.bytes, offset);
            if units & DEAD == 0 {
                found.push((index << OFFSET_BITS) | (offset / UNIT) as u32);
            }
            offset += (units & !DEAD) as usize * UNIT;
        }
        found
    }

    /// Moves a record to the newest page and answers its new address. The old one becomes garbage.
    pub fn evacuate(&mut self, record: Ref) -> Result<Ref, StateError> {
        let length = self.get(record).len();
        let new = self.alloc(length)?;
        let (from, to) = (record >> OFFSET_BITS, new >> OFFSET_BITS);
        let offset = (record & OFFSET_MASK) as usize * UNIT + HEADER;
        let target = (new & OFFSET_MASK) as usize * UNIT + HEADER;
        let source = self.pages[from as usize]
            .take()
            .expect("a live record's page exists");
        if from == to {
            // Only the newest page holds both, and it is never evacuated.
            unreachable!("the newest page is not evacuated");
        }
        let page = self.pages[to as usize].as_mut().expect("just allocated");
        page.bytes[target..target + length].copy_from_slice(&source.bytes[offset..offset + length]);
        self.pages[from as usize] = Some(source);
        self.free(record);
        Ok(new)
    }

    fn page(&self, index: u32) -> &Page {
        self.pages[index as usize]
            .as_ref()
            .expect("a live record's page exists")
    }

    /// A page for a record of this size; it becomes the newest one unless the record fills it alone.
    fn add_page(&mut self, size: usize) -> Result<u32, StateError> {
        let alone = size > PAGE_BYTES / 4;
        let bytes = if alone {
            size
        } else {
            (self.allocated / 2)
                .next_power_of_two()
                .clamp(FIRST_PAGE_BYTES, PAGE_BYTES)
                .max(size)
        };
        if size / UNIT >= DEAD as usize {
            return Err(StateError::OutOfMemory(format!(
                "a value of {size} bytes is too large"
            )));
        }
        let page = Page {
            bytes: vec![0; bytes].into_boxed_slice(),
            filled: 0,
            dead: 0,
        };
        self.allocated += bytes;
        let index = match self.vacant.pop() {
            Some(index) => {
                self.pages[index as usize] = Some(page);
                index
            }
            None if self.pages.len() < self.max_pages => {
                self.pages.push(Some(page));
                self.pages.len() as u32 - 1
            }
            None => {
                let limit = self.max_pages;
                return Err(StateError::OutOfMemory(format!(
                    "a state table has more than {limit} pages"
                )));
            }
        };
        if !alone {
            let old = self.head.replace(index);
            if let Some(old) = old.filter(|o| self.page(*o).dead == self.page(*o).filled) {
                self.remove_page(old);
            }
        }
        Ok(index)
    }

    fn remove_page(&mut self, index: u32) {
        let page = self.pages[index as usize].take().expect("removed once");
        self.allocated -= page.bytes.len();
        self.filled -= page.filled;
        self.dead -= page.dead;
        self.vacant.push(index);
    }
}

fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn churn_of_many_sizes_stays_bounded() {
        let mut arena = Arena::new(32);
        let mut live: Vec<(Ref, u8, usize)> = Vec::new();
        for step in 0..200_000usize {
            let length = 16 + (step * 7919) % 300;
            let record = arena.alloc(length).expect("room");
            arena.get_mut(record)[..length].fill(step as u8);
            live.push((record, step as u8, length));
            if live.len() > 2000 {
                let (victim, _, _) = live.swap_remove((step * 31) % 2000);
                arena.free(victim);
            }
            while let Some(page) = arena.page_to_evacuate() {
                for old in arena.records(page) {
                    let new = arena.evacuate(old).expect("room");
                    live.iter_mut().find(|l| l.0 == old).expect("live").0 = new;
                }
            }
        }
        assert!(
            arena.memory_bytes() < 2000 * 316 * 3,
            "{}",
            arena.memory_bytes()
        );
        for (record, fill, length) in live {
            assert!(arena.get(record)[..length].iter().all(|b| *b == fill));
        }
    }

    #[test]
    fn a_large_record_has_its_own_page_and_leaves_nothing() {
        let mut arena = Arena::new(32);
        let small = arena.alloc(10).expect("room");
        let before = arena.memory_bytes();
        let large = arena.alloc(3 << 20).expect("room");
        arena.get_mut(large)[(3 << 20) - 1] = 9;
        assert_eq!(arena.get(large)[(3 << 20) - 1], 9);
        arena.free(large);
        arena.get_mut(small)[0] = 1;
        assert!(arena.memory_bytes() <= before + 256);
    }
}
