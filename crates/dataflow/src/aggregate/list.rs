//! string_agg and array_agg: the group's values in order.
//!
//! All state is the value set, ordered by the ORDER BY columns and then by value. A change to a group reads the whole group:
//! the output is as long as that.

use super::accumulator::{Accumulator, Finished, Merge, Weights, unsupported};
use super::value_set::{Contents, ValueSetChanges};
use crate::OperatorError;
use crate::value_bytes::Reader;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, ListArray, StringArray, UInt32Array, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field};
use std::sync::Arc;
use tidegate_plan::{AggregateCall, AggregateFunction};
use tidegate_types::{ByteRows, RowCodec};

pub struct List {
    set: usize,
    distinct: bool,
    strings: bool,
    codec: Arc<RowCodec>,
    /// Where the value, and for strings the delimiter, are among the set's columns.
    positions: Vec<usize>,
    output: DataType,
    finished: [Lists; 2],
}

/// The lists of several groups, end to end.
#[derive(Default)]
struct Lists {
    values: ByteRows,
    /// How often each value stands in its list.
    repeats: Vec<i64>,
    /// Number of entries of `values` up to the end of each group.
    ends: Vec<usize>,
}

impl Lists {
    fn push(&mut self, value: &[u8], count: i64, distinct: bool) {
        if count > 0 {
            self.values.push(value);
            self.repeats.push(if distinct { 1 } else { count });
        }
    }

    fn end_group(&mut self) {
        self.ends.push(self.values.len());
    }
}

impl List {
    pub fn new(
        call: &AggregateCall,
        set: usize,
        changes: &mut ValueSetChanges,
        output: &Field,
    ) -> Result<Self, OperatorError> {
        changes.keeps_contents = true;
        let strings = call.function == AggregateFunction::StringAgg;
        let held = match output.data_type() {
            DataType::List(_) => !strings,
            DataType::Utf8 | DataType::Binary => strings,
            _ => false,
        };
        if !held {
            return Err(unsupported(format_args!(
                "{:?} as {}",
                call.function,
                output.data_type()
            )));
        }
        let positions = call
            .arguments
            .iter()
            .map(|a| changes.position_of(*a))
            .collect();
        let output = output.data_type().clone();
        let codec = changes.codec().clone();
        Ok(Self {
            set,
            distinct: call.distinct,
            strings,
            codec,
            positions,
            output,
            finished: Default::default(),
        })
    }

    fn column(&self, lists: &Lists) -> Result<Finished, OperatorError> {
        if lists.values.is_empty() {
            return Ok(Finished::plain(new_null_array(
                &self.output,
                lists.ends.len(),
            )));
        }
        let columns = self.codec.decode(lists.values.iter())?;
        let values = &columns[self.positions[0]];
        if self.strings {
            self.strings(lists, values, &columns)
        } else {
            self.arrays(lists, values)
        }
    }

    fn arrays(&self, lists: &Lists, values: &ArrayRef) -> Result<Finished, OperatorError> {
        let DataType::List(field) = &self.output else {
            unreachable!("checked when built")
        };
        let (mut indices, mut lengths, mut valid) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for end in &lists.ends {
            let before = indices.len();
            for entry in start..*end {
                indices.extend(std::iter::repeat_n(
                    entry as u32,
                    lists.repeats[entry] as usize,
                ));
            }
            lengths.push(indices.len() - before);
            valid.push(indices.len() > before);
            start = *end;
        }
        let items = cast(
            &take(values, &UInt32Array::from(indices), None)?,
            field.data_type(),
        )?;
        let nulls = NullBuffer::from(valid);
        let list = ListArray::try_new(
            field.clone(),
            OffsetBuffer::from_lengths(lengths),
            items,
            Some(nulls),
        )?;
        Ok(Finished::plain(Arc::new(list)))
    }

    fn strings(
        &self,
        lists: &Lists,
        values: &ArrayRef,
        columns: &[ArrayRef],
    ) -> Result<Finished, OperatorError> {
        let bytes = |array: &ArrayRef| cast(array, &DataType::Binary);
        let values = bytes(values)?;
        let values = values.as_binary::<i32>();
        let delimiters = match self.positions.get(1) {
            Some(position) => Some(bytes(&columns[*position])?),
            None => None,
        };
        let delimiters = delimiters.as_ref().map(|d| d.as_binary::<i32>());
        let mut texts: Vec<Option<Vec<u8>>> = Vec::with_capacity(lists.ends.len());
        let mut start = 0;
        for end in &lists.ends {
            let mut text: Option<Vec<u8>> = None;
            for entry in start..*end {
                for _ in 0..lists.repeats[entry] {
                    match &mut text {
                        None => text = Some(values.value(entry).to_vec()),
                        Some(text) => {
                            if let Some(delimiters) = delimiters.filter(|d| d.is_valid(entry)) {
                                text.extend_from_slice(delimiters.value(entry));
                            }
                            text.extend_from_slice(values.value(entry));
                        }
                    }
                }
            }
            texts.push(text);
            start = *end;
        }
        Ok(Finished::plain(match &self.output {
            DataType::Binary => {
                Arc::new(texts.iter().map(|t| t.as_deref()).collect::<BinaryArray>())
            }
            _ => {
                let texts = texts
                    .iter()
                    .map(|t| t.as_deref().map(std::str::from_utf8).transpose());
                let texts = texts.collect::<Result<Vec<_>, _>>();
                Arc::new(StringArray::from(
                    texts.expect("text joined with text is text"),
                ))
            }
        }))
    }

    /// What the group has now: its old contents with the changes put in their places.
    fn push_changed(&mut self, contents: &Contents, set: &ValueSetChanges, group: usize) {
        let (new, distinct) = (&mut self.finished[1], self.distinct);
        let mut changes = set.changes(group).peekable();
        for (index, count) in contents.counts.iter().enumerate() {
            let value = contents.values.get(index);
            while let Some((changed, _, count)) = changes.next_if(|(changed, ..)| *changed < value)
            {
                new.push(changed, count, distinct);
            }
            match changes.next_if(|(changed, ..)| *changed == value) {
                Some((_, _, count)) => new.push(value, count, distinct),
                None => new.push(value, *count, distinct),
            }
        }
        changes.for_each(|(changed, _, count)| new.push(changed, count, distinct));
        new.end_group();
    }
}

impl Accumulator for List {
    fn resize(&mut self, _groups: usize) {}

    fn update(&mut self, _: &[u32], _: Weights<'_>, _: &[ArrayRef]) -> Result<(), OperatorError> {
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        _old: Option<&mut Reader<'_>>,
        _new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let set = &at.sets[self.set];
        let contents = set.contents(at.group);
        for (index, count) in contents.counts.iter().enumerate() {
            self.finished[0].push(contents.values.get(index), *count, self.distinct);
        }
        self.finished[0].end_group();
        self.push_changed(contents, set, at.group);
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let [old, new] = std::mem::take(&mut self.finished);
        Ok([self.column(&old)?, self.column(&new)?])
    }

    fn clear(&mut self) {}
}
