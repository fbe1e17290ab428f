//! A state table of a manifest as typed rows: for people, for portable savepoints and for reading the past.
//!
//! Runs are merged some key groups at a time, so that what is held is bounded by a fraction of the table. A view's rows
//! come as often as they are in the view, in the order of its columns; rows of other tables have their key, their sub-key
//! and what the value holds as columns, one row per cell.

use crate::error::{CheckpointError, Damage, Result};
use crate::manifest::TableEntry;
use crate::restore::Restorer;
use crate::schemas::{COLUMN_KEY, ORDER_KEY, PACKED, TableSchemas, encoding};
use crate::values;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;
use tidegate_state::run::RunEntry;
use tidegate_state::{Merge, Run};
use tidegate_types::{KEY_GROUPS, KeyGroupRange, PackedCodec, RowCodec};

/// About so many entries are merged at a time.
const CHUNK_ENTRIES: u64 = 500_000;
const BATCH_ROWS: usize = 8192;

/// Reads one table. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TableRows {
    entry: Arc<TableEntry>,
    decoder: Arc<Decoder>,
}

impl TableRows {
    /// Fails where the manifest does not say how the table is to be read.
    pub fn new(entry: Arc<TableEntry>) -> Result<Self> {
        let descriptor = &entry.descriptor;
        let unreadable = |what: String| {
            CheckpointError::OutOfOrder(format!(
                "state table {} ({}) cannot be decoded: {what}",
                descriptor.table, descriptor.name
            ))
        };
        let schemas = match &descriptor.schemas {
            Some(json) => TableSchemas::from_json(json).map_err(unreadable)?,
            None => {
                let what = "it was written by a version that did not describe its columns";
                return Err(unreadable(what.to_owned()));
            }
        };
        let decoder = Decoder::new(schemas).map_err(|e| unreadable(e.to_string()))?;
        Ok(Self {
            entry,
            decoder: Arc::new(decoder),
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.decoder.schema
    }

    /// Whether these are the rows of a view rather than the cells of an operator.
    pub fn is_view(&self) -> bool {
        self.decoder.kind.is_view()
    }

    /// Everything that is alive, by key group.
    pub fn stream(
        &self,
        restorer: &Arc<Restorer>,
        groups: KeyGroupRange,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let this = self.clone();
        let restorer = restorer.clone();
        futures::stream::iter(self.chunks(groups))
            .then(move |groups| {
                let (this, restorer) = (this.clone(), restorer.clone());
                async move {
                    let runs = restorer.table_runs(&this.entry, groups).await?;
                    let work = move || this.merged(&runs);
                    let batches = restorer.handle().spawn_blocking(work).await.map_err(|e| {
                        CheckpointError::OutOfOrder(format!("decoding rows was cut short: {e}"))
                    })??;
                    let batches = batches.into_iter().map(Ok::<_, CheckpointError>);
                    Ok::<_, CheckpointError>(futures::stream::iter(batches))
                }
            })
            .try_flatten()
            .boxed()
    }

    fn chunks(&self, groups: KeyGroupRange) -> Vec<KeyGroupRange> {
        let wanted = (self.entry.rows() / CHUNK_ENTRIES).clamp(1, KEY_GROUPS as u64) as usize;
        let width = KEY_GROUPS.div_ceil(wanted);
        (groups.start..groups.end)
            .step_by(width)
            .map(|start| KeyGroupRange {
                start,
                end: (start + width).min(groups.end),
            })
            .collect()
    }

    fn merged(&self, runs: &[Run]) -> Result<Vec<RecordBatch>> {
        let alive = alive(runs, self.entry.descriptor.merge);
        let damaged = |what: String| {
            let object = self.entry.runs.first().map(|r| r.object.clone());
            CheckpointError::from(Damage {
                object: object.unwrap_or_else(|| "?".into()),
                offset: None,
                what: format!(
                    "a row of state table {} ({}) does not decode: {what}",
                    self.entry.descriptor.table, self.entry.descriptor.name
                ),
            })
        };
        alive
            .chunks(BATCH_ROWS)
            .map(|cells| {
                self.decoder
                    .decode(cells)
                    .map_err(|e| damaged(e.to_string()))
            })
            .collect()
    }
}

/// A cell that is alive. In a table of counts `count` is the sum, elsewhere one.
pub(crate) struct LiveCell<'a> {
    pub entry: RunEntry<'a>,
    pub count: i64,
}

/// Merges runs, oldest first: in order of (key group, key, sub-key).
fn alive(runs: &[Run], merge: Merge) -> Vec<LiveCell<'_>> {
    let mut entries: Vec<RunEntry<'_>> = runs.iter().flat_map(Run::iter).collect();
    // A stable sort keeps the order of runs within a cell.
    entries.sort_by(|a, b| (a.group, a.key, a.sub).cmp(&(b.group, b.key, b.sub)));
    let mut alive: Vec<LiveCell<'_>> = Vec::new();
    for cell in entries.chunk_by(|a, b| (a.key, a.sub) == (b.key, b.sub)) {
        let newest = cell[cell.len() - 1];
        let count = match merge {
            Merge::Replace => i64::from(newest.value.is_some()),
            Merge::Sum => cell.iter().filter_map(|e| values::count(e.value?)).sum(),
        };
        if count != 0 {
            alive.push(LiveCell {
                entry: newest,
                count,
            });
        }
    }
    alive
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    View { numbered: bool },
    Varint,
    Groups,
    Rows,
    Errors,
    Offset,
    Slice,
    Bytes,
}

impl Kind {
    fn is_view(self) -> bool {
        matches!(self, Kind::View { .. })
    }

    fn of(name: &str) -> Self {
        match name {
            encoding::COUNT => Kind::View { numbered: false },
            encoding::NUMBERED => Kind::View { numbered: true },
            encoding::VARINT => Kind::Varint,
            encoding::GROUPS => Kind::Groups,
            encoding::ROWS => Kind::Rows,
            encoding::ERRORS => Kind::Errors,
            encoding::OFFSET => Kind::Offset,
            encoding::SLICE => Kind::Slice,
            _ => Kind::Bytes,
        }
    }
}

struct Decoder {
    kind: Kind,
    schemas: TableSchemas,
    key: Option<Codec>,
    sub_key: Option<Codec>,
    /// Of a view: for each of its columns, where it is among those of the key.
    places: Vec<usize>,
    schema: SchemaRef,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("kind", &self.kind)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl Decoder {
    fn new(schemas: TableSchemas) -> Result<Self, ArrowError> {
        let kind = Kind::of(&schemas.encoding);
        // Of a list of rows the columns of each row are in the value's schema, behind its count.
        let rest = match kind {
            Kind::Rows => Schema::new(
                schemas
                    .value
                    .fields()
                    .iter()
                    .skip(1)
                    .cloned()
                    .collect::<Vec<_>>(),
            ),
            _ => schemas.sub_key.as_ref().clone(),
        };
        let places = places(&schemas.key);
        let schema = match kind {
            Kind::View { .. } => view_schema(&schemas.key, &places),
            Kind::Varint => joined(&[&schemas.key, &rest, &schemas.value]),
            Kind::Groups => joined(&[&schemas.key, &values::groups_schema()]),
            Kind::Rows => joined(&[
                &schemas.key,
                &rest,
                &Schema::new(vec![schemas.value.field(0).clone()]),
            ]),
            Kind::Errors => Arc::new(values::errors_schema()),
            Kind::Offset => Arc::new(values::offset_schema()),
            Kind::Slice => Arc::new(values::slice_schema()),
            Kind::Bytes => joined(&[&schemas.key, &rest, &values::bytes_schema()]),
        };
        Ok(Self {
            kind,
            key: codec(&schemas.key)?,
            sub_key: codec(&rest)?,
            places,
            schema,
            schemas,
        })
    }

    fn decode(&self, cells: &[LiveCell<'_>]) -> Result<RecordBatch, ArrowError> {
        match self.kind {
            Kind::View { numbered } => self.view(cells, numbered),
            Kind::Varint => {
                let fields = self.schemas.value.fields().len();
                self.cells(cells, values::varints(cells, fields)?)
            }
            Kind::Groups => self.cells(cells, values::groups(cells)?),
            Kind::Bytes => self.cells(cells, values::bytes(cells)),
            Kind::Rows => self.lists(cells),
            Kind::Errors => self.batch(values::errors(cells)?, cells.len()),
            Kind::Offset => self.batch(values::offsets(cells), cells.len()),
            Kind::Slice => self.batch(values::slices(cells), cells.len()),
        }
    }

    fn view(&self, cells: &[LiveCell<'_>], numbered: bool) -> Result<RecordBatch, ArrowError> {
        let mut rows: Vec<&[u8]> = Vec::with_capacity(cells.len());
        for cell in cells {
            let row = match numbered {
                true => cell
                    .entry
                    .key
                    .get(8..)
                    .ok_or_else(|| ended("a numbered row"))?,
                false => cell.entry.key,
            };
            if cell.count < 0 {
                return Err(ArrowError::ComputeError(
                    "a row has a negative count".into(),
                ));
            }
            rows.extend(std::iter::repeat_n(row, cell.count as usize));
        }
        let count = rows.len();
        let columns = decoded(self.key.as_ref(), rows.into_iter())?;
        let columns = self.places.iter().map(|p| columns[*p].clone()).collect();
        self.batch(columns, count)
    }

    fn cells(
        &self,
        cells: &[LiveCell<'_>],
        values: Vec<ArrayRef>,
    ) -> Result<RecordBatch, ArrowError> {
        let mut columns = decoded(self.key.as_ref(), cells.iter().map(|c| c.entry.key))?;
        columns.extend(decoded(
            self.sub_key.as_ref(),
            cells.iter().map(|c| c.entry.sub),
        )?);
        columns.extend(values);
        self.batch(columns, cells.len())
    }

    fn lists(&self, cells: &[LiveCell<'_>]) -> Result<RecordBatch, ArrowError> {
        let (mut keys, mut rows, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for cell in cells {
            let mut value = values::Reader::new(cell.entry.value.unwrap_or(&[]));
            while !value.is_empty() {
                counts.push(value.i64()?);
                rows.push(value.bytes()?);
                keys.push(cell.entry.key);
            }
        }
        let count = rows.len();
        let mut columns = decoded(self.key.as_ref(), keys.into_iter())?;
        columns.extend(decoded(self.sub_key.as_ref(), rows.into_iter())?);
        columns.push(Arc::new(arrow::array::Int64Array::from(counts)));
        self.batch(columns, count)
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
    }
}

pub(crate) fn ended(what: &str) -> ArrowError {
    ArrowError::ComputeError(format!("{what} ends early"))
}

/// How columns that are not a table's values are encoded.
enum Codec {
    Ordered(RowCodec),
    Packed(PackedCodec),
}

fn decoded<'a>(
    codec: Option<&Codec>,
    rows: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<ArrayRef>, ArrowError> {
    match codec {
        Some(Codec::Ordered(codec)) => codec.decode(rows),
        Some(Codec::Packed(codec)) => codec.decode(rows),
        None => Ok(Vec::new()),
    }
}

fn codec(schema: &Schema) -> Result<Option<Codec>, ArrowError> {
    if schema.fields().is_empty() {
        return Ok(None);
    }
    let is_packed = |f: &Arc<Field>| f.metadata().get(ORDER_KEY).is_some_and(|o| o == PACKED);
    if schema.fields().iter().any(is_packed) {
        let types = schema.fields().iter().map(|f| f.data_type().clone());
        let codec = PackedCodec::new(&types.collect::<Vec<_>>())?;
        return Ok(Some(Codec::Packed(codec)));
    }
    let columns = schema
        .fields()
        .iter()
        .map(|f| (f.data_type().clone(), order(f)));
    let codec = RowCodec::with_order(columns.collect())?;
    Ok(Some(Codec::Ordered(codec)))
}

fn order(field: &Field) -> SortOptions {
    let order = field.metadata().get(ORDER_KEY).map_or("", String::as_str);
    SortOptions {
        descending: order.starts_with("desc"),
        nulls_first: !order.ends_with("nulls last"),
    }
}

/// For each column of a view, its place among the encoded ones.
fn places(key: &Schema) -> Vec<usize> {
    let column = |(place, field): (usize, &Arc<Field>)| {
        let column = field.metadata().get(COLUMN_KEY)?.parse::<usize>().ok()?;
        Some((column, place))
    };
    let mut places: Vec<(usize, usize)> =
        key.fields().iter().enumerate().filter_map(column).collect();
    places.sort_unstable();
    match places.len() == key.fields().len() {
        true => places.into_iter().map(|(_, place)| place).collect(),
        false => (0..key.fields().len()).collect(),
    }
}

fn view_schema(key: &Schema, places: &[usize]) -> SchemaRef {
    let fields = places.iter().map(|place| key.field(*place).clone());
    joined(&[&Schema::new(fields.collect::<Vec<_>>())])
}

/// All columns in a row, without the metadata that only decoding needs, and each name once.
fn joined(parts: &[&Schema]) -> SchemaRef {
    let mut fields: Vec<Field> = Vec::new();
    for field in parts.iter().flat_map(|s| s.fields()) {
        let mut metadata = field.metadata().clone();
        metadata.remove(ORDER_KEY);
        metadata.remove(COLUMN_KEY);
        let mut name = field.name().clone();
        let mut copies = 1;
        while fields.iter().any(|f| *f.name() == name) {
            copies += 1;
            name = format!("{}_{copies}", field.name());
        }
        // Outer joins and the like make any column NULL.
        let nullable = field.is_nullable() || field.data_type() != &DataType::Int64;
        fields.push(Field::new(name, field.data_type().clone(), nullable).with_metadata(metadata));
    }
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
#[path = "rows/tests.rs"]
mod tests;
