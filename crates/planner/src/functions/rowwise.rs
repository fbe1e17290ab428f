//! Functions that are computed a row at a time: what a function has to say is its name, its arguments, its result and the
//! value of one row.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, make_array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tidegate_types::text::{Value, ValueAppender, write_text};
use tidegate_types::{SqlError, SqlType};

/// The arguments of one row.
pub(super) struct Row<'a> {
    arrays: &'a [ArrayRef],
    types: &'a [SqlType],
    row: usize,
}

impl Row<'_> {
    pub fn len(&self) -> usize {
        self.arrays.len()
    }

    pub fn is_null(&self, index: usize) -> bool {
        let array = &self.arrays[index];
        array.data_type() == &DataType::Null || array.is_null(self.row)
    }

    pub fn sql_type(&self, index: usize) -> &SqlType {
        &self.types[index]
    }

    /// An argument in its text form.
    pub fn text(&self, index: usize) -> String {
        let mut out = String::new();
        write_text(
            self.arrays[index].as_ref(),
            &self.types[index],
            self.row,
            &mut out,
        );
        out
    }

    /// An argument that was coerced to text.
    pub fn str(&self, index: usize) -> &str {
        self.arrays[index].as_string::<i32>().value(self.row)
    }

    pub fn primitive<T: datafusion::arrow::datatypes::ArrowPrimitiveType>(
        &self,
        index: usize,
    ) -> T::Native {
        self.arrays[index].as_primitive::<T>().value(self.row)
    }

    pub fn boolean(&self, index: usize) -> bool {
        self.arrays[index].as_boolean().value(self.row)
    }

    /// An array's elements in their text form.
    pub fn elements(&self, index: usize) -> Vec<Option<String>> {
        let list = self.arrays[index].as_list::<i32>().value(self.row);
        let element = match &self.types[index] {
            SqlType::Array(element) => element.as_ref().clone(),
            other => other.clone(),
        };
        (0..list.len())
            .map(|i| {
                (!list.is_null(i)).then(|| {
                    let mut out = String::new();
                    write_text(list.as_ref(), &element, i, &mut out);
                    out
                })
            })
            .collect()
    }

    pub fn array(&self, index: usize) -> &ArrayRef {
        &self.arrays[index]
    }

    pub fn number(&self) -> usize {
        self.row
    }
}

/// What a function is. `coerce` answers the types that its arguments are cast to, or `None` when it does not take them.
pub(super) struct Rowwise {
    pub name: &'static str,
    /// NULL in any argument makes the result NULL.
    pub strict: bool,
    pub coerce: fn(&[DataType]) -> Option<Vec<DataType>>,
    pub returns: fn(&[SqlType]) -> SqlType,
    pub body: fn(&Row<'_>) -> std::result::Result<Value, SqlError>,
}

impl Rowwise {
    pub fn udf(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Function {
            signature: Signature::user_defined(Volatility::Immutable),
            definition: self,
        }))
    }
}

struct Function {
    signature: Signature,
    definition: Rowwise,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Function")
            .field(&self.definition.name)
            .finish()
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.definition.name == other.definition.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

/// The type of an argument with what its metadata says of it.
fn type_of(field: &Field) -> SqlType {
    SqlType::from_field(field)
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        (self.definition.coerce)(arguments).ok_or_else(|| {
            let types: Vec<String> = arguments
                .iter()
                .map(|t| match t {
                    DataType::Null => "unknown".to_owned(),
                    t => SqlType::from_arrow(t).to_string(),
                })
                .collect();
            DataFusionError::Plan(format!(
                "No function matches the given name and argument types '{}({})'",
                self.definition.name,
                types.join(", ")
            ))
        })
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let types: Vec<SqlType> = arguments.iter().map(SqlType::from_arrow).collect();
        Ok((self.definition.returns)(&types).arrow())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<SqlType> = args.arg_fields.iter().map(|f| type_of(f)).collect();
        Ok(Arc::new(
            (self.definition.returns)(&types).field(self.definition.name, true),
        ))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalars = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalars { 1 } else { args.number_rows };
        let types: Vec<SqlType> = args.arg_fields.iter().map(|f| type_of(f)).collect();
        let mut arrays = Vec::new();
        for (argument, sql_type) in args.args.iter().zip(&types) {
            let array = argument.clone().into_array(rows)?;
            let kept = sql_type.arrow();
            let same = *array.data_type() == kept || array.data_type() == &DataType::Null;
            arrays.push(if same { array } else { cast(&array, &kept)? });
        }
        let result_type = type_of(&args.return_field);
        let mut appender = ValueAppender::new(&result_type, rows);
        for row in 0..rows {
            let row = Row {
                arrays: &arrays,
                types: &types,
                row,
            };
            let is_null = self.definition.strict && (0..row.len()).any(|i| row.is_null(i));
            let value = match is_null {
                true => Value::Null,
                false => (self.definition.body)(&row).map_err(crate::errors::external)?,
            };
            appender.append(&value);
        }
        let result = appender.finish();
        // What a list's field says of its elements is part of its type.
        let result = match result.data_type() == args.return_field.data_type() {
            true => result,
            false => make_array(
                result
                    .to_data()
                    .into_builder()
                    .data_type(args.return_field.data_type().clone())
                    .build()?,
            ),
        };
        Ok(match scalars {
            // Taking an element out of an array makes a list anew, without what its field says.
            true if matches!(result.data_type(), DataType::List(_)) && result.is_valid(0) => {
                ColumnarValue::Scalar(ScalarValue::List(Arc::new(result.as_list::<i32>().clone())))
            }
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

pub(super) fn is_text(data_type: &DataType) -> bool {
    data_type.is_string() || data_type.is_null()
}

/// So many text arguments.
pub(super) fn texts(arguments: &[DataType], count: usize) -> Option<Vec<DataType>> {
    (arguments.len() == count && arguments.iter().all(is_text)).then(|| vec![DataType::Utf8; count])
}
