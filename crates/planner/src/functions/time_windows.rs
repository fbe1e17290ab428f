//! What [`crate::time_windows`] puts in the place of `TUMBLE`, `HOP`, `CUMULATE` and `SESSION`.
//!
//! | function | result |
//! |---|---|
//! | `tumble_start(time, size, offset)`, `tumble_end(…)` | of the window that holds the time |
//! | `hop_starts(time, slide, size, offset)`, `hop_ends(…)` | of all windows that do, as lists side by side |
//! | `cumulate_ends(time, step, size, offset)` | of the growing windows that do, as a list |
//! | `session_start(time, gap) OVER (PARTITION BY … ORDER BY time)`, `session_end(…)` | of the session that the row is in |
//!
//! A NULL time is in no window. Sizes are intervals of days and shorter (a day is 24 hours) above zero.

use datafusion::arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, ListArray, PrimitiveArray, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::datatypes::{
    DataType, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, PartitionEvaluator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, WindowUDF, WindowUDFImpl,
};
use std::sync::Arc;
use tidegate_plan::time_bins::{MAX_BINS, TimeBins, cumulated_ends};
use tidegate_types::{SqlError, SqlState};

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    use Shape::*;
    let shapes = [TumbleStart, TumbleEnd, HopStarts, HopEnds, CumulateEnds];
    let function = |shape| {
        Arc::new(ScalarUDF::new_from_impl(Windows {
            shape,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    shapes.map(function).to_vec()
}

pub(super) fn window_functions() -> Vec<Arc<WindowUDF>> {
    let function = |is_end| {
        Arc::new(WindowUDF::new_from_impl(Session {
            is_end,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    [false, true].map(function).to_vec()
}

/// An interval as microseconds, if it has no months.
pub(crate) fn interval_us(interval: IntervalMonthDayNano) -> Option<i64> {
    const DAY: i64 = 86_400_000_000;
    let days = i64::from(interval.days).checked_mul(DAY)?;
    (interval.months == 0).then(|| days.checked_add(interval.nanoseconds / 1000))?
}

/// Microseconds of a size, a slide or a gap.
pub(crate) fn size_us(interval: IntervalMonthDayNano, what: &str) -> Result<i64, SqlError> {
    match any_us(interval, what)? {
        size if size > 0 => Ok(size),
        _ => Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("the {what} must be greater than zero"),
        )),
    }
}

fn any_us(interval: IntervalMonthDayNano, what: &str) -> Result<i64, SqlError> {
    if interval.months != 0 {
        let feature = format!("a {what} of months or years");
        return Err(SqlError::not_supported(feature)
            .with_hint("Months differ in length: give it in days, hours, minutes or seconds."));
    }
    interval_us(interval).ok_or_else(|| {
        SqlError::new(
            SqlState::DATETIME_OVERFLOW,
            format!("the {what} is out of range"),
        )
    })
}

/// The literal interval that an expression is.
pub(crate) fn literal_interval(expr: &Expr) -> Option<IntervalMonthDayNano> {
    match crate::query::literal(expr)? {
        ScalarValue::IntervalMonthDayNano(Some(value)) => Some(*value),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shape {
    TumbleStart,
    TumbleEnd,
    HopStarts,
    HopEnds,
    CumulateEnds,
}

impl Shape {
    /// What the intervals behind the time are, the offset last.
    fn intervals(self) -> &'static [&'static str] {
        match self {
            Shape::TumbleStart | Shape::TumbleEnd => &["window size", "window offset"],
            Shape::HopStarts | Shape::HopEnds => &["slide", "window size", "window offset"],
            Shape::CumulateEnds => &["step", "window size", "window offset"],
        }
    }

    fn is_list(self) -> bool {
        !matches!(self, Shape::TumbleStart | Shape::TumbleEnd)
    }

    /// The windows that these intervals (as many as [`Self::intervals`]) make.
    fn bins(self, intervals: &[IntervalMonthDayNano]) -> Result<TimeBins, SqlError> {
        let names = self.intervals();
        let (offset, sizes) = intervals.split_last().expect("the offset is the last");
        let mut sizes_us = Vec::new();
        for (size, name) in sizes.iter().zip(names) {
            sizes_us.push(size_us(*size, name)?);
        }
        let size = *sizes_us.last().expect("there is a size");
        let bins = TimeBins {
            slide_us: sizes_us[0],
            size_us: size,
            offset_us: any_us(*offset, "window offset")?,
        };
        if bins.size_us / bins.slide_us >= MAX_BINS {
            let message = format!("a time would be in more than {MAX_BINS} windows");
            return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message));
        }
        if self == Shape::CumulateEnds && bins.size_us % bins.slide_us != 0 {
            let message = "the window size of CUMULATE must be a multiple of its step";
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
        }
        Ok(bins)
    }

    /// Calls `push` with each result for a time; `None` where one cannot be told.
    fn results(self, bins: TimeBins, time: i64, push: &mut dyn FnMut(i64)) -> Option<()> {
        match self {
            Shape::TumbleStart | Shape::HopStarts => bins.starts(time)?.for_each(push),
            Shape::TumbleEnd | Shape::HopEnds => {
                for start in bins.starts(time)? {
                    push(start.checked_add(bins.size_us)?);
                }
            }
            Shape::CumulateEnds => {
                cumulated_ends(time, bins.slide_us, bins.size_us, bins.offset_us)?.for_each(push);
            }
        }
        Some(())
    }
}

/// Where the windows of a time begin or end.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Windows {
    shape: Shape,
    signature: Signature,
}

impl ScalarUDFImpl for Windows {
    fn name(&self) -> &str {
        match self.shape {
            Shape::TumbleStart => "tumble_start",
            Shape::TumbleEnd => "tumble_end",
            Shape::HopStarts => "hop_starts",
            Shape::HopEnds => "hop_ends",
            Shape::CumulateEnds => "cumulate_ends",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        coerced(self.name(), arguments, self.shape.intervals().len())
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.shape.is_list() {
            true => DataType::List(element(&arguments[0])),
            false => arguments[0].clone(),
        })
    }

    /// Sizes that no window can have are refused before there is a row.
    fn simplify(&self, args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let intervals: Option<Vec<_>> = args[1..].iter().map(literal_interval).collect();
        if let Some(intervals) = intervals {
            self.shape
                .bins(&intervals)
                .map_err(crate::errors::external)?;
        }
        Ok(ExprSimplifyResult::Original(args))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = |a: &ColumnarValue| matches!(a, ColumnarValue::Scalar(_));
        let scalars = args.args.iter().all(is_scalar);
        let constant = args.args[1..].iter().all(is_scalar);
        let rows = if scalars { 1 } else { args.number_rows };
        let mut arrays = Vec::new();
        for (index, argument) in args.args.into_iter().enumerate() {
            // What is the same for all rows is looked at once.
            let rows = if index > 0 && constant { 1 } else { rows };
            arrays.push(argument.into_array(rows)?);
        }
        let times = arrays[0].as_primitive::<TimestampMicrosecondType>();
        let intervals: Vec<_> = arrays[1..]
            .iter()
            .map(|a| a.as_primitive::<IntervalMonthDayNanoType>())
            .collect();
        let result = self.windows(times, &intervals, constant)?;
        match scalars {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &result, 0,
            )?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

impl Windows {
    fn windows(
        &self,
        times: &TimestampMicrosecondArray,
        intervals: &[&PrimitiveArray<IntervalMonthDayNanoType>],
        constant: bool,
    ) -> Result<ArrayRef> {
        let bins_at = |row: usize| -> Result<Option<TimeBins>> {
            if intervals.iter().any(|i| i.is_null(row)) {
                return Ok(None);
            }
            let values: Vec<_> = intervals.iter().map(|i| i.value(row)).collect();
            let bins = self.shape.bins(&values).map_err(crate::errors::external)?;
            Ok(Some(bins))
        };
        let shared = if constant { bins_at(0)? } else { None };
        let mut values = TimestampMicrosecondBuilder::with_capacity(times.len());
        let mut ends = Vec::with_capacity(times.len());
        let mut valid = Vec::with_capacity(times.len());
        for row in 0..times.len() {
            let bins = match constant {
                true => shared,
                false => bins_at(row)?,
            };
            let bins = bins.filter(|_| times.is_valid(row));
            match bins {
                Some(bins) => self
                    .shape
                    .results(bins, times.value(row), &mut |v| values.append_value(v))
                    .ok_or_else(out_of_range)?,
                None if self.shape.is_list() => {}
                None => values.append_null(),
            }
            ends.push(ArrayBuilder::len(&values));
            valid.push(bins.is_some());
        }
        let values = values.finish().with_data_type(times.data_type().clone());
        if !self.shape.is_list() {
            return Ok(Arc::new(values));
        }
        let lengths = ends
            .iter()
            .scan(0, |last, end| Some(end - std::mem::replace(last, *end)));
        Ok(Arc::new(ListArray::try_new(
            element(times.data_type()),
            OffsetBuffer::from_lengths(lengths),
            Arc::new(values),
            Some(NullBuffer::from(valid)),
        )?))
    }
}

fn out_of_range() -> DataFusionError {
    let error = SqlError::new(SqlState::DATETIME_OVERFLOW, "timestamp out of range");
    crate::errors::external(error)
}

fn element(time: &DataType) -> FieldRef {
    Arc::new(Field::new("item", time.clone(), true))
}

/// A time and so many intervals.
fn coerced(name: &str, arguments: &[DataType], intervals: usize) -> Result<Vec<DataType>> {
    let micros = |zone| DataType::Timestamp(TimeUnit::Microsecond, zone);
    let time = match arguments.first() {
        Some(DataType::Timestamp(_, zone)) => Some(micros(zone.clone())),
        Some(DataType::Date32 | DataType::Null) => Some(micros(None)),
        _ => None,
    };
    let are_intervals = |t: &DataType| {
        matches!(t, DataType::Interval(_) | DataType::Null) || super::rowwise::is_text(t)
    };
    match time {
        Some(time)
            if arguments.len() == intervals + 1 && arguments[1..].iter().all(are_intervals) =>
        {
            let mut types = vec![time];
            types.resize(
                intervals + 1,
                DataType::Interval(IntervalUnit::MonthDayNano),
            );
            Ok(types)
        }
        _ => {
            let types: Vec<String> = arguments
                .iter()
                .map(|t| tidegate_types::SqlType::from_arrow(t).to_string())
                .collect();
            Err(DataFusionError::Plan(format!(
                "No function matches the given name and argument types '{name}({})'",
                types.join(", ")
            )))
        }
    }
}

/// Rows of a partition in the order of time are in one session while none is more than the gap behind the one before. A
/// session ends when the gap has gone by after its last row.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Session {
    is_end: bool,
    signature: Signature,
}

pub(crate) const SESSION_START: &str = "session_start";
pub(crate) const SESSION_END: &str = "session_end";

impl WindowUDFImpl for Session {
    fn name(&self) -> &str {
        match self.is_end {
            false => SESSION_START,
            true => SESSION_END,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        coerced(self.name(), arguments, 1)
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        let time = arguments.input_fields()[0].data_type().clone();
        Ok(Arc::new(Field::new(arguments.name(), time, true)))
    }

    fn partition_evaluator(
        &self,
        _arguments: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(SessionEvaluator {
            is_end: self.is_end,
        }))
    }
}

#[derive(Debug)]
struct SessionEvaluator {
    is_end: bool,
}

impl PartitionEvaluator for SessionEvaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let times = values[0].as_primitive::<TimestampMicrosecondType>();
        let gaps = values[1].as_primitive::<IntervalMonthDayNanoType>();
        if rows == 0 {
            return Ok(values[0].clone());
        }
        let gap = size_us(gaps.value(0), "session gap").map_err(crate::errors::external)?;
        let mut results: Vec<Option<i64>> = vec![None; rows];
        // NULLs come first or last, so that the others are next to each other.
        let timed: Vec<usize> = (0..rows).filter(|row| times.is_valid(*row)).collect();
        let mut start = 0;
        while start < timed.len() {
            let mut end = start;
            while end + 1 < timed.len()
                && times.value(timed[end + 1]) - times.value(timed[end]) <= gap
            {
                end += 1;
            }
            let result = match self.is_end {
                false => times.value(timed[start]),
                true => times
                    .value(timed[end])
                    .checked_add(gap)
                    .ok_or_else(out_of_range)?,
            };
            timed[start..=end]
                .iter()
                .for_each(|row| results[*row] = Some(result));
            start = end + 1;
        }
        let result: TimestampMicrosecondArray = results.into_iter().collect();
        Ok(Arc::new(result.with_data_type(times.data_type().clone())))
    }
}
