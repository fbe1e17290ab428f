//! `percentile_cont`, `percentile_disc` and `mode` as Postgres has them, and `linear_regression`: for ad-hoc reads, which
//! collect the values of a group and look at them once. Views have operators of their own for the same.
//!
//! `percentile_cont(f) WITHIN GROUP (ORDER BY x)` may also be written `percentile_cont(x, f)`, which is what `median` and the
//! approximate percentiles become ([`crate::spellings`]): they are exact here.

use super::least_squares;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, new_empty_array};
use datafusion::arrow::compute::{SortOptions, cast, concat, sort};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Literal};
use std::mem::size_of_val;
use std::sync::Arc;
use tidegate_types::{SqlError, SqlState};

pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let kinds = [
        Kind::Continuous,
        Kind::Discrete,
        Kind::Mode,
        Kind::Regression,
    ];
    kinds
        .into_iter()
        .map(|kind| Arc::new(AggregateUDF::new_from_impl(Collecting::new(kind))))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Continuous,
    Discrete,
    Mode,
    Regression,
}

/// An aggregate over the values of a group all at once.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Collecting {
    kind: Kind,
    signature: Signature,
}

impl Collecting {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            signature: Signature::user_defined(Volatility::Immutable),
        }
    }
}

fn floats() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Float64, true)))
}

impl AggregateUDFImpl for Collecting {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Continuous => "percentile_cont",
            Kind::Discrete => "percentile_disc",
            Kind::Mode => "mode",
            Kind::Regression => "linear_regression",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn supports_within_group_clause(&self) -> bool {
        self.kind != Kind::Regression
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let number = |t: &DataType| t.is_numeric() || t.is_null();
        match (self.kind, arguments) {
            (Kind::Continuous, [value, fraction]) if number(value) && number(fraction) => {
                Ok(vec![DataType::Float64, DataType::Float64])
            }
            (Kind::Discrete, [value, fraction]) if number(fraction) => {
                Ok(vec![value.clone(), DataType::Float64])
            }
            (Kind::Mode, [value]) => Ok(vec![value.clone()]),
            (Kind::Regression, [y, DataType::List(x)]) if number(y) && number(x.data_type()) => {
                Ok(vec![DataType::Float64, floats()])
            }
            _ => {
                let names: Vec<String> = arguments
                    .iter()
                    .map(|t| tidegate_types::SqlType::from_arrow(t).to_string())
                    .collect();
                let message = format!(
                    "function {}({}) does not exist",
                    self.name(),
                    names.join(", ")
                );
                let error = SqlError::new(SqlState::UNDEFINED_FUNCTION, message);
                Err(crate::errors::external(match self.kind {
                    Kind::Regression => error.with_hint("Pass y and an array of x."),
                    _ => error.with_hint(
                        "Say what to order by: WITHIN GROUP (ORDER BY …). Arrays of fractions are not supported.",
                    ),
                }))
            }
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Continuous => DataType::Float64,
            Kind::Discrete | Kind::Mode => arguments[0].clone(),
            Kind::Regression => floats(),
        })
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        let types: Vec<DataType> = arguments.iter().map(|f| f.data_type().clone()).collect();
        let data_type = self.return_type(&types)?;
        let field = Field::new(self.name(), data_type, true);
        Ok(Arc::new(match self.kind {
            // What SQL adds to the type of the values is that of the result.
            Kind::Discrete | Kind::Mode => field.with_metadata(arguments[0].metadata().clone()),
            _ => field,
        }))
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let options = args.order_bys.first().map(|o| o.options);
        let fraction = match self.kind {
            Kind::Continuous | Kind::Discrete => fraction(&args.exprs[1])?,
            Kind::Mode | Kind::Regression => None,
        };
        let arguments = if self.kind == Kind::Regression { 2 } else { 1 };
        Ok(Box::new(Collected {
            kind: self.kind,
            fraction,
            options: options.unwrap_or_default(),
            distinct: args.is_distinct,
            types: args.expr_fields[..arguments]
                .iter()
                .map(|f| f.data_type().clone())
                .collect(),
            values: vec![Vec::new(); arguments],
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let arguments = if self.kind == Kind::Regression { 2 } else { 1 };
        Ok(args.input_fields[..arguments]
            .iter()
            .enumerate()
            .map(|(place, field)| {
                let name = format_state_name(args.name, &format!("values{place}"));
                let item = Field::new_list_field(field.data_type().clone(), true);
                Arc::new(Field::new_list(name, item, true))
            })
            .collect())
    }
}

/// A constant between 0 and 1; None is NULL.
fn fraction(expr: &Arc<dyn PhysicalExpr>) -> Result<Option<f64>> {
    let value = match expr.downcast_ref::<Literal>() {
        Some(literal) => literal.value().clone(),
        None => match expr.downcast_ref::<CastExpr>() {
            Some(cast) => return fraction(cast.expr()),
            None => {
                let error =
                    SqlError::not_supported("a percentile whose fraction is not a constant");
                return Err(crate::errors::external(error));
            }
        },
    };
    match value.cast_to(&DataType::Float64)? {
        ScalarValue::Float64(None) => Ok(None),
        ScalarValue::Float64(Some(fraction)) if (0.0..=1.0).contains(&fraction) => {
            Ok(Some(fraction))
        }
        ScalarValue::Float64(Some(fraction)) => {
            let message = format!("percentile value {fraction} is not between 0 and 1");
            let error = SqlError::new(SqlState::NUMERIC_OUT_OF_RANGE, message);
            Err(crate::errors::external(error))
        }
        other => Err(DataFusionError::Internal(format!("a fraction {other}"))),
    }
}

#[derive(Debug)]
struct Collected {
    kind: Kind,
    fraction: Option<f64>,
    options: SortOptions,
    distinct: bool,
    types: Vec<DataType>,
    /// Of each argument.
    values: Vec<Vec<ArrayRef>>,
}

impl Collected {
    fn all(&self, argument: usize) -> Result<ArrayRef> {
        let arrays: Vec<&dyn Array> = self.values[argument].iter().map(|a| a.as_ref()).collect();
        Ok(match arrays.is_empty() {
            true => new_empty_array(&self.types[argument]),
            false => concat(&arrays)?,
        })
    }

    /// The values without NULLs, in the order of the call.
    fn ordered(&self) -> Result<ArrayRef> {
        let options = SortOptions {
            nulls_first: false,
            ..self.options
        };
        let values = sort(&self.all(0)?, Some(options))?;
        let values = values.slice(0, values.len() - values.null_count());
        if !self.distinct || values.is_empty() {
            return Ok(values);
        }
        let starts = datafusion::arrow::compute::partition(std::slice::from_ref(&values))?;
        let starts: datafusion::arrow::array::UInt32Array = starts
            .ranges()
            .iter()
            .map(|r| Some(r.start as u32))
            .collect();
        Ok(datafusion::arrow::compute::take(&values, &starts, None)?)
    }

    fn continuous(&self) -> Result<ScalarValue> {
        let values = cast(&self.ordered()?, &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        let (Some(fraction), false) = (self.fraction, values.is_empty()) else {
            return Ok(ScalarValue::Float64(None));
        };
        let place = fraction * (values.len() - 1) as f64;
        let low = values.value(place.floor() as usize);
        let high = values.value(place.ceil() as usize);
        let share = place - place.floor();
        let value = match share == 0.0 {
            true => low,
            false => low + share * (high - low),
        };
        Ok(ScalarValue::Float64(Some(value)))
    }

    fn discrete(&self) -> Result<ScalarValue> {
        let values = self.ordered()?;
        let (Some(fraction), false) = (self.fraction, values.is_empty()) else {
            return ScalarValue::try_from(&self.types[0]);
        };
        let row = (fraction * values.len() as f64).ceil() as usize;
        ScalarValue::try_from_array(&values, row.max(1) - 1)
    }

    fn mode(&self) -> Result<ScalarValue> {
        let values = self.ordered()?;
        if values.is_empty() {
            return ScalarValue::try_from(&self.types[0]);
        }
        let groups = datafusion::arrow::compute::partition(std::slice::from_ref(&values))?;
        let ranges = groups.ranges();
        let most = ranges.iter().map(|r| r.len()).max().unwrap_or(0);
        let first = ranges.iter().find(|r| r.len() == most);
        ScalarValue::try_from_array(&values, first.map_or(0, |r| r.start))
    }

    fn regression(&self) -> Result<ScalarValue> {
        let (y, x) = (
            cast(&self.all(0)?, &DataType::Float64)?,
            cast(&self.all(1)?, &floats())?,
        );
        let (y, x) = (y.as_primitive::<Float64Type>(), x.as_list::<i32>());
        let mut rows = Vec::new();
        for row in 0..y.len() {
            if y.is_null(row) || x.is_null(row) {
                continue;
            }
            let values = x.value(row);
            if values.null_count() == 0 {
                let values = values.as_primitive::<Float64Type>().values();
                rows.push((y.value(row), values.to_vec()));
            }
        }
        let coefficients = least_squares::fit(&rows).map_err(crate::errors::external)?;
        let Some(coefficients) = coefficients else {
            return ScalarValue::try_from(&floats());
        };
        let values: Vec<ScalarValue> = coefficients.into_iter().map(ScalarValue::from).collect();
        let list = ScalarValue::new_list_nullable(&values, &DataType::Float64);
        ScalarValue::List(list).cast_to(&floats())
    }
}

impl Accumulator for Collected {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for (all, more) in self.values.iter_mut().zip(values) {
            all.push(more.clone());
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.kind {
            Kind::Continuous => self.continuous(),
            Kind::Discrete => self.discrete(),
            Kind::Mode => self.mode(),
            Kind::Regression => self.regression(),
        }
    }

    fn size(&self) -> usize {
        let arrays = self.values.iter().flatten();
        size_of_val(self) + arrays.map(|a| a.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        (0..self.values.len())
            .map(|argument| {
                let values = self.all(argument)?;
                let list = datafusion::common::utils::SingleRowListArrayBuilder::new(values);
                Ok(list.build_list_scalar())
            })
            .collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for (all, lists) in self.values.iter_mut().zip(states) {
            all.extend(lists.as_list::<i32>().iter().flatten());
        }
        Ok(())
    }
}
