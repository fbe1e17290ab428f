//! What has to be added to the rows that a view had so that they become those it has now.
//!
//! Both sides come in slices of the same order, (key group, row), and are merged: memory holds a slice of each. The rows of
//! an append-only view are in the order of arrival instead; there the old rows are counted off, and one that is there no
//! longer is an error: whoever reads such a view relies on it that nothing is ever taken away.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::VecDeque;
use tidegate_state::{SlicePosition, StateError, ViewSnapshot, ViewSpec};
use tidegate_types::{Batch, KEY_GROUPS, KeyGroup, RowCodec, hash_key, key_group};

const SLICE_ROWS: usize = 65_536;

/// Why there is no difference to be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unlike {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("rows that an append-only input held in the savepoint are there no longer")]
    Gone,
}

impl From<arrow::error::ArrowError> for Unlike {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::State(error.into())
    }
}

type Emit<'a> = &'a mut dyn FnMut(Batch);

/// Emits `now - then`, both views of this form.
pub(super) fn difference(
    now: &ViewSnapshot,
    then: &ViewSnapshot,
    spec: &ViewSpec,
    emit: Emit<'_>,
) -> Result<(), Unlike> {
    let encoding = Encoding::new(spec)?;
    match spec.append_only {
        true => additions(now, then, &encoding, emit),
        false => merged(now, then, &encoding, emit),
    }
}

/// How rows are encoded: columns of the key first, as in slices.
struct Encoding {
    order: Vec<usize>,
    row: RowCodec,
    key: Option<RowCodec>,
    key_columns: usize,
}

impl Encoding {
    fn new(spec: &ViewSpec) -> Result<Self, Unlike> {
        let rest = (0..spec.schema.fields().len()).filter(|c| !spec.key.contains(c));
        let order: Vec<usize> = spec.key.iter().copied().chain(rest).collect();
        let types: Vec<_> = order
            .iter()
            .map(|c| spec.schema.field(*c).data_type().clone())
            .collect();
        let key_columns = spec.key.len();
        let key = (key_columns > 0)
            .then(|| RowCodec::new(&types[..key_columns]))
            .transpose()?;
        Ok(Self {
            row: RowCodec::new(&types)?,
            order,
            key,
            key_columns,
        })
    }

    /// Where each row of a slice stands in the order of slices.
    fn places(&self, batch: &Batch) -> Result<VecDeque<(KeyGroup, Vec<u8>)>, Unlike> {
        let columns: Vec<_> = self
            .order
            .iter()
            .map(|c| batch.column(*c).clone())
            .collect();
        let rows = self.row.encode(&columns)?;
        let keys = self
            .key
            .as_ref()
            .map(|codec| codec.encode(&columns[..self.key_columns]))
            .transpose()?;
        let place = |i: usize| {
            let row = rows.row(i);
            let hash = keys
                .as_ref()
                .map_or_else(|| hash_key(row.data()), |k| hash_key(k.row(i).data()));
            (key_group(hash), row.data().to_vec())
        };
        Ok((0..batch.num_rows()).map(place).collect())
    }
}

/// One of the two, read slice by slice.
struct Side<'a> {
    snapshot: &'a ViewSnapshot,
    encoding: &'a Encoding,
    slice: Option<Batch>,
    /// Of the rows that have not been looked at.
    places: VecDeque<(KeyGroup, Vec<u8>)>,
    /// Behind the slice; `None` and a slice: there is no other.
    next: Option<SlicePosition>,
    /// Rows of the slice that differ, and by how much.
    picked: Vec<(u32, i64)>,
}

impl<'a> Side<'a> {
    fn new(snapshot: &'a ViewSnapshot, encoding: &'a Encoding) -> Self {
        Self {
            snapshot,
            encoding,
            slice: None,
            places: VecDeque::new(),
            next: None,
            picked: Vec::new(),
        }
    }

    /// Makes sure that the next row is in `places`, if there is one.
    fn fill(&mut self, emit: Emit<'_>) -> Result<(), Unlike> {
        while self.places.is_empty() {
            if self.slice.is_some() && self.next.is_none() {
                return Ok(());
            }
            self.give(emit)?;
            let (slice, next) = self
                .snapshot
                .slice(self.next.as_ref(), KEY_GROUPS, SLICE_ROWS)?;
            self.places = self.encoding.places(&slice)?;
            (self.slice, self.next) = (Some(slice), next);
        }
        Ok(())
    }

    /// Emits what was picked of the slice.
    fn give(&mut self, emit: Emit<'_>) -> Result<(), Unlike> {
        let picked = std::mem::take(&mut self.picked);
        if let Some(slice) = &self.slice
            && !picked.is_empty()
        {
            let (rows, diffs): (Vec<u32>, Vec<i64>) = picked.into_iter().unzip();
            let rows = Batch::insert(slice.rows().clone()).take(&rows.into())?;
            emit(Batch::new(rows.rows().clone(), diffs.into()));
        }
        Ok(())
    }

    /// Goes on behind the next row; answers how often the row is there.
    fn step(&mut self) -> (u32, i64) {
        let slice = self.slice.as_ref().expect("a row was seen in it");
        let row = slice.num_rows() - self.places.len();
        self.places.pop_front();
        (row as u32, slice.diff(row))
    }
}

fn merged(
    now: &ViewSnapshot,
    then: &ViewSnapshot,
    encoding: &Encoding,
    emit: Emit<'_>,
) -> Result<(), Unlike> {
    let (mut now, mut then) = (Side::new(now, encoding), Side::new(then, encoding));
    loop {
        now.fill(emit)?;
        then.fill(emit)?;
        let order = match (now.places.front(), then.places.front()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(now), Some(then)) => now.cmp(then),
        };
        let added = order.is_le().then(|| now.step());
        let taken = order.is_ge().then(|| then.step());
        let by = added.map_or(0, |(_, n)| n) - taken.map_or(0, |(_, n)| n);
        match (added, taken) {
            _ if by == 0 => {}
            (Some((row, _)), _) => now.picked.push((row, by)),
            (None, Some((row, _))) => then.picked.push((row, by)),
            (None, None) => unreachable!("one of the two comes first"),
        }
    }
    now.give(emit)?;
    then.give(emit)
}

fn additions(
    now: &ViewSnapshot,
    then: &ViewSnapshot,
    encoding: &Encoding,
    emit: Emit<'_>,
) -> Result<(), Unlike> {
    let mut known: HashMap<Vec<u8>, i64> = HashMap::new();
    let mut then = Side::new(then, encoding);
    loop {
        then.fill(emit)?;
        let Some((_, row)) = then.places.front().cloned() else {
            break;
        };
        *known.entry(row).or_default() += then.step().1;
    }
    let mut now = Side::new(now, encoding);
    loop {
        now.fill(emit)?;
        let Some((_, encoded)) = now.places.front().cloned() else {
            break;
        };
        let (row, count) = now.step();
        let old = known.get_mut(&encoded).map_or(0, |left| {
            count.min(std::mem::replace(left, (*left - count).max(0)))
        });
        if count > old {
            now.picked.push((row, count - old));
        }
    }
    now.give(emit)?;
    match known.values().all(|left| *left == 0) {
        true => Ok(()),
        false => Err(Unlike::Gone),
    }
}
