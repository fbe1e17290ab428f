//! `array_agg` that keeps what SQL adds to the type of its elements: an array of `uuid` is one, and not of bytes.
//!
//! The rest is DataFusion's.

use datafusion::arrow::array::{ArrayRef, ListArray};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::array_agg::ArrayAgg;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
    Volatility,
};
use std::sync::Arc;
use tidegate_types::SqlType;

pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    vec![array_agg(false)]
}

fn array_agg(pre_ordered: bool) -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(TypedArrayAgg::new(pre_ordered)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TypedArrayAgg {
    signature: Signature,
    pre_ordered: bool,
}

impl TypedArrayAgg {
    fn new(pre_ordered: bool) -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
            pre_ordered,
        }
    }

    fn inner(&self) -> Result<Arc<dyn AggregateUDFImpl>> {
        let plain = Arc::new(ArrayAgg::default());
        Ok(match self.pre_ordered {
            true => plain
                .clone()
                .with_beneficial_ordering(true)?
                .unwrap_or(plain),
            false => plain,
        })
    }
}

/// The element as a list has it, with its SQL type.
fn item(argument: &FieldRef) -> FieldRef {
    let tagged = SqlType::from_field(argument).field("item", true);
    // The Arrow type is the argument's, which may be another than the one in which it is stored.
    Arc::new(tagged.with_data_type(argument.data_type().clone()))
}

/// The type of the result, if it says more than DataFusion's.
fn tagged(argument: &FieldRef) -> Option<DataType> {
    let item = item(argument);
    let says_more = !item.metadata().is_empty();
    says_more.then_some(DataType::List(item))
}

impl AggregateUDFImpl for TypedArrayAgg {
    fn name(&self) -> &str {
        "array_agg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        ArrayAgg::default().return_type(arguments)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        let field = ArrayAgg::default().return_field(arguments)?;
        Ok(match tagged(&arguments[0]) {
            Some(data_type) => Arc::new(field.as_ref().clone().with_data_type(data_type)),
            None => field,
        })
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let output = tagged(&args.expr_fields[0]);
        let inner = self.inner()?.accumulator(args)?;
        Ok(match output {
            Some(output) => Box::new(Typed { inner, output }),
            None => inner,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.inner()?.state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::SoftRequirement
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        beneficial_ordering: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(Arc::new(Self::new(beneficial_ordering))))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Reversed(array_agg(false))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        tagged(&args.expr_fields[0]).is_none()
            && ArrayAgg::default().groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        ArrayAgg::default().create_groups_accumulator(args)
    }

    fn supports_null_handling_clause(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Typed {
    inner: Box<dyn Accumulator>,
    output: DataType,
}

impl Accumulator for Typed {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // A cast would make the list anew, without what its field says.
        match (self.inner.evaluate()?, &self.output) {
            (ScalarValue::List(list), DataType::List(item)) => {
                let (_, offsets, values, nulls) = list.as_ref().clone().into_parts();
                let list = ListArray::try_new(item.clone(), offsets, values, nulls)?;
                Ok(ScalarValue::List(Arc::new(list)))
            }
            (other, output) => other.cast_to(output),
        }
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}
