//! first_value, last_value, percentile_cont, percentile_disc, mode: some of a group's values in the order of the call.
//!
//! All state is the value set, in that order; for the first and the last value also which one it was. Cost per changed group:
//! one look at an end of the set for these two, reading the set for the others.

use super::accumulator::{Accumulator, Finished, Merge, Weights, unsupported};
use super::value_set::{ValueSetChanges, scan_extreme};
use crate::OperatorError;
use crate::value_bytes::{Reader, write_bytes};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, UInt32Array, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use std::sync::Arc;
use tidegate_plan::{AggregateCall, AggregateFunction, ScalarExpr};
use tidegate_types::{ByteRows, RowCodec};

enum Kind {
    First,
    Last,
    /// None: the fraction is NULL, and so is the result.
    Continuous(Option<f64>),
    Discrete(Option<f64>),
    Mode,
}

pub struct Ordered {
    kind: Kind,
    set: usize,
    distinct: bool,
    codec: Arc<RowCodec>,
    /// Where the value is among the set's columns.
    position: usize,
    output: DataType,
    finished: [Picked; 2],
}

/// Values that were picked for several groups: one encoded value or, to be put between, two.
#[derive(Default)]
struct Picked {
    values: ByteRows,
    /// Of each group the places of its values, and how far it is from the first to the second.
    places: Vec<Option<(u32, u32, f64)>>,
}

impl Picked {
    fn push(&mut self, value: Option<&[u8]>) {
        let place = value.map(|value| {
            self.values.push(value);
            (
                self.values.len() as u32 - 1,
                self.values.len() as u32 - 1,
                0.0,
            )
        });
        self.places.push(place);
    }

    fn push_between(&mut self, low: &[u8], high: &[u8], share: f64) {
        self.values.push(low);
        self.values.push(high);
        let last = self.values.len() as u32 - 1;
        self.places.push(Some((last - 1, last, share)));
    }
}

impl Ordered {
    pub fn new(
        call: &AggregateCall,
        set: usize,
        changes: &mut ValueSetChanges,
        output: &Field,
    ) -> Result<Self, OperatorError> {
        use AggregateFunction as F;
        let kind = match call.function {
            F::FirstValue => Kind::First,
            F::LastValue => Kind::Last,
            F::PercentileCont => Kind::Continuous(fraction(call.parameter.as_ref())?),
            F::PercentileDisc => Kind::Discrete(fraction(call.parameter.as_ref())?),
            _ => Kind::Mode,
        };
        if matches!(kind, Kind::Continuous(_)) && *output.data_type() != DataType::Float64 {
            let output = output.data_type();
            return Err(unsupported(format_args!("percentile_cont as {output}")));
        }
        changes.keeps_contents |= !matches!(kind, Kind::First | Kind::Last);
        Ok(Self {
            kind,
            set,
            distinct: call.distinct,
            codec: changes.codec().clone(),
            position: changes.position_of(call.arguments[0]),
            output: output.data_type().clone(),
            finished: Default::default(),
        })
    }

    /// The first or the last value: as it was noted, and as it is.
    fn merge_end(
        &mut self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let before = match old {
            Some(reader) => match reader.take(1)? {
                [0] => None,
                _ => Some(reader.bytes()?),
            },
            None => None,
        };
        let last = matches!(self.kind, Kind::Last);
        let after = scan_extreme(at.tables[1 + self.set].as_ref(), at.key, last)?;
        match &after {
            None => new.push(0),
            Some(value) => {
                new.push(1);
                write_bytes(value, new);
            }
        }
        self.finished[0].push(before);
        self.finished[1].push(after.as_deref());
        Ok(())
    }

    fn pick(&self, values: &ByteRows, counts: &[i64], picked: &mut Picked) {
        let rows: i64 = counts.iter().sum();
        let at = |row: i64| {
            let mut before = 0;
            let entry = counts.iter().position(|count| {
                before += count;
                row < before
            });
            values.get(entry.unwrap_or(values.len() - 1))
        };
        if rows == 0 {
            return picked.push(None);
        }
        match self.kind {
            Kind::Continuous(Some(fraction)) => {
                let place = fraction * (rows - 1) as f64;
                let (low, high) = (place.floor(), place.ceil());
                picked.push_between(at(low as i64), at(high as i64), place - low);
            }
            Kind::Discrete(Some(fraction)) => {
                let row = (fraction * rows as f64).ceil() as i64;
                picked.push(Some(at(row.max(1) - 1)));
            }
            Kind::Continuous(None) | Kind::Discrete(None) => picked.push(None),
            Kind::Mode | Kind::First | Kind::Last => {
                let most = counts.iter().max().copied().unwrap_or(0);
                let entry = counts.iter().position(|count| *count == most);
                picked.push(entry.map(|entry| values.get(entry)));
            }
        }
    }

    fn column(&self, picked: &Picked) -> Result<Finished, OperatorError> {
        if picked.values.is_empty() {
            let nulls = new_null_array(&self.output, picked.places.len());
            return Ok(Finished::plain(nulls));
        }
        let values = &self.codec.decode(picked.values.iter())?[self.position];
        if matches!(self.kind, Kind::Continuous(_)) {
            let values = cast(values, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            let between = picked.places.iter().map(|place| {
                place.map(|(low, high, share)| {
                    let (low, high) = (values.value(low as usize), values.value(high as usize));
                    // Not from an infinite value to itself.
                    if share == 0.0 {
                        low
                    } else {
                        low + share * (high - low)
                    }
                })
            });
            return Ok(Finished::plain(Arc::new(Float64Array::from_iter(between))));
        }
        let places = picked.places.iter().map(|place| place.map(|(at, ..)| at));
        let values: ArrayRef = take(values, &UInt32Array::from_iter(places), None)?;
        Ok(Finished::plain(match *values.data_type() == self.output {
            true => values,
            false => cast(&values, &self.output)?,
        }))
    }
}

fn fraction(parameter: Option<&ScalarExpr>) -> Result<Option<f64>, OperatorError> {
    match parameter.map(ScalarExpr::expr) {
        Some(Expr::Literal(ScalarValue::Float64(fraction), _)) => Ok(*fraction),
        _ => Err(unsupported("a percentile whose fraction is no constant")),
    }
}

impl Accumulator for Ordered {
    fn resize(&mut self, _groups: usize) {}

    fn update(&mut self, _: &[u32], _: Weights<'_>, _: &[ArrayRef]) -> Result<(), OperatorError> {
        Ok(())
    }

    fn merge(
        &mut self,
        at: &Merge<'_>,
        old: Option<&mut Reader<'_>>,
        new: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        if matches!(self.kind, Kind::First | Kind::Last) {
            return self.merge_end(at, old, new);
        }
        let mut versions: [(ByteRows, Vec<i64>); 2] = Default::default();
        let distinct = self.distinct;
        at.sets[self.set].each(at.group, &mut |value, before, after| {
            for (version, count) in versions.iter_mut().zip([before, after]) {
                if count > 0 {
                    version.0.push(value);
                    version.1.push(if distinct { 1 } else { count });
                }
            }
        });
        let mut finished = std::mem::take(&mut self.finished);
        for (picked, (values, counts)) in finished.iter_mut().zip(&versions) {
            self.pick(values, counts, picked);
        }
        self.finished = finished;
        Ok(())
    }

    fn finish(&mut self) -> Result<[Finished; 2], OperatorError> {
        let [old, new] = std::mem::take(&mut self.finished);
        Ok([self.column(&old)?, self.column(&new)?])
    }

    fn clear(&mut self) {}
}
