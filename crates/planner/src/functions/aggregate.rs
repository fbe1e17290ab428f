//! `sum` and `avg` with Postgres' result types.
//!
//! `sum(bigint)` is `numeric(38,0)`: it cannot overflow before 10²⁰ rows, where DataFusion's wraps. `avg` of exact numbers is a
//! `numeric` with as many decimals as its argument and at least sixteen, rounded half away from zero, where DataFusion's
//! is a float or truncated. Floats are left to DataFusion. `string_agg` is DataFusion's with `text` as its result. Views compute the same in their own operators: what counts
//! there is the type that is given here.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, i256};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::functions_aggregate::{average::Avg, string_agg::StringAgg, sum::Sum};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
    Volatility,
};
use std::collections::HashSet;
use std::mem::size_of_val;
use std::sync::Arc;

/// Decimals of an average of whole numbers.
const AVERAGE_SCALE: i8 = 16;
const MAX_PRECISION: u8 = 38;

pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::new_from_impl(Exact::new(Kind::Sum))),
        Arc::new(AggregateUDF::new_from_impl(Exact::new(Kind::Avg))),
        string_agg(),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Avg,
}

/// `sum` or `avg`: exact for whole numbers and decimals, DataFusion's for the rest.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    kind: Kind,
    signature: Signature,
    sum: Sum,
    avg: Avg,
}

impl Exact {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            signature: Signature::user_defined(Volatility::Immutable),
            sum: Sum::new(),
            avg: Avg::new(),
        }
    }

    fn inner(&self) -> &dyn AggregateUDFImpl {
        match self.kind {
            Kind::Sum => &self.sum,
            Kind::Avg => &self.avg,
        }
    }

    /// Whether this type is computed here.
    fn is_ours(&self, argument: &DataType) -> bool {
        match self.kind {
            Kind::Sum => matches!(argument, DataType::Int64 | DataType::Decimal128(..)),
            Kind::Avg => matches!(
                argument,
                DataType::Int64 | DataType::Int32 | DataType::Decimal128(..)
            ),
        }
    }
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Avg => "avg",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [argument] = arguments else {
            return Err(DataFusionError::Plan(format!(
                "function '{}' expects one argument",
                self.name()
            )));
        };
        let coerced = match (argument, self.kind) {
            // The sums of these fit a bigint; an `Int32` argument tells `return_type` so.
            (
                DataType::Int8
                | DataType::Int16
                | DataType::Int32
                | DataType::UInt8
                | DataType::UInt16,
                _,
            ) => DataType::Int32,
            (DataType::Int64 | DataType::UInt32, _) => DataType::Int64,
            (DataType::UInt64, _) => DataType::Decimal128(20, 0),
            (
                DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s),
                _,
            ) => DataType::Decimal128(*p, *s),
            (DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Null, _) => {
                DataType::Float64
            }
            (DataType::Interval(_) | DataType::Duration(_), Kind::Sum) => argument.clone(),
            (other, _) => {
                let name = tidegate_types::SqlType::from_arrow(other);
                let message = format!("function {}({name}) does not exist", self.name());
                return Err(crate::errors::external(
                    tidegate_types::SqlError::new(tidegate_types::SqlState::UNDEFINED_FUNCTION, message).with_hint(
                        "No function matches the given name and argument types. You might need to add explicit type casts.",
                    ),
                ));
            }
        };
        Ok(vec![coerced])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match (self.kind, &arguments[0]) {
            (Kind::Sum, DataType::Int32) => DataType::Int64,
            (Kind::Sum, DataType::Int64) => DataType::Decimal128(MAX_PRECISION, 0),
            (Kind::Sum, DataType::Decimal128(_, scale)) => {
                DataType::Decimal128(MAX_PRECISION, *scale)
            }
            (Kind::Avg, DataType::Int32 | DataType::Int64) => {
                DataType::Decimal128(MAX_PRECISION, AVERAGE_SCALE)
            }
            (Kind::Avg, DataType::Decimal128(_, scale)) => {
                DataType::Decimal128(MAX_PRECISION, AVERAGE_SCALE.max(*scale))
            }
            (_, _) => self.inner().return_type(arguments)?,
        })
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let argument = args.expr_fields[0].data_type().clone();
        // Sums of small integers are exact in DataFusion too, but its accumulator reads only what it returns.
        if self.is_ours(&argument) || argument == DataType::Int32 {
            let output = args.return_field.data_type().clone();
            return Ok(Box::new(ExactAccumulator::new(
                self.kind,
                &argument,
                output,
                args.is_distinct,
            )));
        }
        self.inner().accumulator(args)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let argument = args.input_fields[0].data_type();
        if !self.is_ours(argument) && *argument != DataType::Int32 {
            return self.inner().state_fields(args);
        }
        let sum = DataType::Decimal128(MAX_PRECISION, scale_of(argument));
        let name = |part: &str| format_state_name(args.name, part);
        if args.is_distinct {
            let list = Field::new_list(name("distinct"), Field::new_list_field(sum, true), false);
            return Ok(vec![Arc::new(list)]);
        }
        Ok(vec![
            Arc::new(Field::new(name("sum"), sum, true)),
            Arc::new(Field::new(name("count"), DataType::Int64, true)),
        ])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        let argument = args.expr_fields[0].data_type();
        !self.is_ours(argument)
            && *argument != DataType::Int32
            && self.inner().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner().create_groups_accumulator(args)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> datafusion::logical_expr::utils::AggregateOrderSensitivity {
        datafusion::logical_expr::utils::AggregateOrderSensitivity::Insensitive
    }
}

fn scale_of(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

/// Sum and count of whole multiples of `10^-scale`.
#[derive(Debug)]
struct ExactAccumulator {
    kind: Kind,
    /// Values are read as this.
    read: DataType,
    scale: i8,
    output: DataType,
    sum: i256,
    count: i64,
    /// The values so far, for DISTINCT.
    seen: Option<HashSet<i128>>,
}

impl ExactAccumulator {
    fn new(kind: Kind, argument: &DataType, output: DataType, distinct: bool) -> Self {
        let scale = scale_of(argument);
        Self {
            kind,
            read: DataType::Decimal128(MAX_PRECISION, scale),
            scale,
            output,
            sum: i256::ZERO,
            count: 0,
            seen: distinct.then(HashSet::new),
        }
    }

    fn add(&mut self, value: i128, sign: i64) {
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(value)) {
            return;
        }
        // 2^127 values of 38 digits fit: no data has them.
        self.sum = self
            .sum
            .wrapping_add(i256::from_i128(value * i128::from(sign)));
        self.count += sign;
    }

    fn each(&mut self, values: &ArrayRef, sign: i64) -> Result<()> {
        let values = cast(values, &self.read)?;
        for value in values.as_primitive::<Decimal128Type>().iter().flatten() {
            self.add(value, sign);
        }
        Ok(())
    }
}

impl Accumulator for ExactAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(&values[0], 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        self.seen.is_none()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&self.output);
        }
        let output_scale = scale_of(&self.output);
        let divisor = if self.kind == Kind::Avg {
            self.count
        } else {
            1
        };
        let value = super::numeric::rescale(
            self.sum,
            self.scale,
            i256::from_i128(divisor.into()),
            output_scale,
        );
        let value = value.and_then(i256::to_i128);
        match &self.output {
            DataType::Int64 => match value.and_then(|v| i64::try_from(v).ok()) {
                Some(value) => Ok(ScalarValue::Int64(Some(value))),
                None => Err(super::numeric::out_of_range("bigint")),
            },
            DataType::Decimal128(precision, scale) => {
                match value.filter(|v| super::numeric::fits(*v, *precision)) {
                    Some(value) => Ok(ScalarValue::Decimal128(Some(value), *precision, *scale)),
                    None => Err(super::numeric::out_of_range("numeric")),
                }
            }
            other => Err(DataFusionError::Internal(format!("a sum of type {other}"))),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self
                .seen
                .as_ref()
                .map_or(0, |s| s.capacity() * size_of::<i128>())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        if let Some(seen) = &self.seen {
            let mut values: Vec<i128> = seen.iter().copied().collect();
            values.sort_unstable();
            let array = Decimal128Array::from(values).with_data_type(self.read.clone());
            let list = datafusion::common::utils::SingleRowListArrayBuilder::new(Arc::new(array))
                .build_list_scalar();
            return Ok(vec![list]);
        }
        let Some(sum) = self.sum.to_i128() else {
            return Err(super::numeric::out_of_range("numeric"));
        };
        Ok(vec![
            ScalarValue::Decimal128(Some(sum), MAX_PRECISION, self.scale),
            ScalarValue::Int64(Some(self.count)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        if self.seen.is_some() {
            for list in states[0].as_list::<i32>().iter().flatten() {
                self.each(&list, 1)?;
            }
            return Ok(());
        }
        let sums = states[0].as_primitive::<Decimal128Type>();
        let counts: &Int64Array = states[1].as_primitive();
        for row in 0..sums.len() {
            if sums.is_valid(row) && counts.is_valid(row) {
                self.sum = self.sum.wrapping_add(i256::from_i128(sums.value(row)));
                self.count += counts.value(row);
            }
        }
        Ok(())
    }
}

fn string_agg() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(TextAgg {
        inner: StringAgg::new(),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextAgg {
    inner: StringAgg,
}

/// The arguments as DataFusion's function wants them, whose result is of another type.
fn large(args: AccumulatorArgs<'_>) -> AccumulatorArgs<'_> {
    AccumulatorArgs {
        return_field: Arc::new(Field::new("f", DataType::LargeUtf8, true)),
        ..args
    }
}

impl AggregateUDFImpl for TextAgg {
    fn name(&self) -> &str {
        "string_agg"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(TextAccumulator(
            self.inner.accumulator(large(args))?,
        )))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let return_field = Arc::new(Field::new("f", DataType::LargeUtf8, true));
        self.inner.state_fields(StateFieldsArgs {
            return_field,
            ..args
        })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Reversed(string_agg())
    }
}

#[derive(Debug)]
struct TextAccumulator(Box<dyn Accumulator>);

impl Accumulator for TextAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.evaluate()?.cast_to(&DataType::Utf8)
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }
}
