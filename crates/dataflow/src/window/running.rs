//! What a call knows after the rows so far, where its frame begins with the partition: it can be put aside at some row and
//! gone on with from there.

use super::call::{Call, Kind};
use crate::aggregate::exact::Exact;
use crate::aggregate::sum::{Specials, read_specials, special_index, special_sum, write_specials};
use crate::value_bytes::{Reader, write_i64};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::Accumulator;
use std::mem::size_of_val;
use tidegate_types::{SqlError, SqlState};

pub enum Running {
    Accumulator(Box<dyn Accumulator>),
    /// The n-th value, once there were so many.
    Nth {
        n: i64,
        seen: i64,
        ignore_nulls: bool,
        found: Option<ScalarValue>,
    },
    Last {
        ignore_nulls: bool,
        found: Option<ScalarValue>,
    },
    /// Rows and groups in front of those at hand.
    Places {
        rows: i64,
        groups: i64,
    },
}

impl Running {
    pub fn new(call: &Call) -> Result<Self> {
        Ok(match &call.kind {
            Kind::Aggregate { function, .. } => {
                Running::Accumulator(function.create_accumulator()?)
            }
            Kind::FloatSum { average } => Running::Accumulator(Box::new(FloatTotal::new(*average))),
            Kind::First { ignore_nulls } => Running::Nth {
                n: 1,
                seen: 0,
                ignore_nulls: *ignore_nulls,
                found: None,
            },
            Kind::Nth { n, ignore_nulls } => Running::Nth {
                n: *n,
                seen: 0,
                ignore_nulls: *ignore_nulls,
                found: None,
            },
            Kind::Last { ignore_nulls } => Running::Last {
                ignore_nulls: *ignore_nulls,
                found: None,
            },
            _ => Running::Places { rows: 0, groups: 0 },
        })
    }

    /// The types of what [`Running::state`] gives.
    pub fn state_types(call: &Call, argument: Option<&DataType>) -> Result<Vec<DataType>> {
        Ok(match &call.kind {
            Kind::Aggregate { function, .. } => {
                let fields = function.state_fields()?;
                fields.iter().map(|f| f.data_type().clone()).collect()
            }
            Kind::FloatSum { .. } => vec![DataType::Binary],
            Kind::First { .. } | Kind::Nth { .. } | Kind::Last { .. } => {
                let value = argument.cloned().unwrap_or(DataType::Null);
                vec![DataType::Int64, DataType::Boolean, value]
            }
            _ => vec![DataType::Int64, DataType::Int64],
        })
    }

    /// Goes on from a state that was put aside.
    pub fn restore(&mut self, state: &[ArrayRef]) -> Result<()> {
        let integer = |place: usize| match ScalarValue::try_from_array(&state[place], 0)? {
            ScalarValue::Int64(Some(value)) => Ok(value),
            other => Err(damaged(&other)),
        };
        let value = || -> Result<Option<ScalarValue>> {
            match ScalarValue::try_from_array(&state[1], 0)? {
                ScalarValue::Boolean(Some(true)) => {
                    Ok(Some(ScalarValue::try_from_array(&state[2], 0)?))
                }
                ScalarValue::Boolean(Some(false)) => Ok(None),
                other => Err(damaged(&other)),
            }
        };
        match self {
            Running::Accumulator(accumulator) => accumulator.merge_batch(state)?,
            Running::Nth { seen, found, .. } => {
                *seen = integer(0)?;
                *found = value()?;
            }
            Running::Last { found, .. } => *found = value()?,
            Running::Places { rows, groups } => {
                *rows = integer(0)?;
                *groups = integer(1)?;
            }
        }
        Ok(())
    }

    /// What there is after so many of the rows at hand, which begin so many groups.
    pub fn state(&mut self, rows_here: i64, groups_here: i64) -> Result<Vec<ScalarValue>> {
        let value = |found: &Option<ScalarValue>, seen: i64| {
            vec![
                ScalarValue::Int64(Some(seen)),
                ScalarValue::Boolean(Some(found.is_some())),
                found.clone().unwrap_or(ScalarValue::Null),
            ]
        };
        Ok(match self {
            Running::Accumulator(accumulator) => accumulator.state()?,
            Running::Nth { seen, found, .. } => value(found, *seen),
            Running::Last { found, .. } => value(found, 0),
            Running::Places { rows, groups } => vec![
                ScalarValue::Int64(Some(*rows + rows_here)),
                ScalarValue::Int64(Some(*groups + groups_here)),
            ],
        })
    }

    /// Takes in these rows, which are next.
    pub fn update(&mut self, values: &[ArrayRef]) -> Result<()> {
        match self {
            Running::Accumulator(accumulator) => accumulator.update_batch(values)?,
            Running::Nth {
                n,
                seen,
                ignore_nulls,
                found,
            } => {
                let values = &values[0];
                let mut row = 0;
                while found.is_none() && row < values.len() {
                    if !(*ignore_nulls && values.is_null(row)) {
                        *seen += 1;
                        if seen == n {
                            *found = Some(ScalarValue::try_from_array(values, row)?);
                        }
                    }
                    row += 1;
                }
            }
            Running::Last {
                ignore_nulls,
                found,
            } => {
                let values = &values[0];
                let last = (0..values.len())
                    .rev()
                    .find(|row| !(*ignore_nulls && values.is_null(*row)));
                if let Some(row) = last {
                    *found = Some(ScalarValue::try_from_array(values, row)?);
                }
            }
            Running::Places { .. } => {}
        }
        Ok(())
    }

    pub fn value(&mut self, output: &DataType) -> Result<ScalarValue> {
        match self {
            Running::Accumulator(accumulator) => accumulator.evaluate(),
            Running::Nth { found, .. } | Running::Last { found, .. } => match found {
                Some(value) => Ok(value.clone()),
                None => ScalarValue::try_from(output),
            },
            Running::Places { .. } => {
                Err(DataFusionError::Internal("places are counted".to_owned()))
            }
        }
    }
}

fn damaged(value: &ScalarValue) -> DataFusionError {
    DataFusionError::Internal(format!("{value} in a running state"))
}

/// The sum or average of floats without rounding on the way, so that it may shrink as well.
#[derive(Debug)]
pub struct FloatTotal {
    average: bool,
    sum: Exact,
    specials: Specials,
    count: i64,
}

impl FloatTotal {
    pub fn new(average: bool) -> Self {
        Self {
            average,
            sum: Exact::Zero,
            specials: [0; 3],
            count: 0,
        }
    }

    fn add(&mut self, values: &ArrayRef, times: i64) -> Result<()> {
        let values = cast(values, &DataType::Float64)?;
        for value in values.as_primitive::<Float64Type>().iter().flatten() {
            match special_index(value) {
                None => self.sum.add_float(value, times),
                Some(index) => self.specials[index] += times,
            }
            self.count += times;
        }
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.sum.write(&mut bytes);
        write_specials(self.specials, &mut bytes);
        write_i64(self.count, &mut bytes);
        bytes
    }
}

impl Accumulator for FloatTotal {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count <= 0 {
            return Ok(ScalarValue::Float64(None));
        }
        if let Some(special) = special_sum(self.specials) {
            return Ok(ScalarValue::Float64(Some(special)));
        }
        let sum = self.sum.to_f64();
        let value = match self.average {
            true => sum / self.count as f64,
            false => sum,
        };
        if value.is_infinite() {
            let error = SqlError::new(
                SqlState::NUMERIC_OUT_OF_RANGE,
                "value out of range: overflow",
            );
            return Err(DataFusionError::External(Box::new(error)));
        }
        Ok(ScalarValue::Float64(Some(value)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.to_bytes()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let external = |e: tidegate_state::StateError| DataFusionError::External(Box::new(e));
        for bytes in states[0].as_binary::<i32>().iter().flatten() {
            let mut reader = Reader::new(bytes);
            let sum = Exact::read(&mut reader).map_err(external)?;
            let specials = read_specials(&mut reader).map_err(external)?;
            self.sum.add_exact(&sum);
            self.specials
                .iter_mut()
                .zip(specials)
                .for_each(|(count, more)| *count += more);
            self.count += reader.i64().map_err(external)?;
        }
        Ok(())
    }
}
