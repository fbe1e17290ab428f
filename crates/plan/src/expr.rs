//! Scalar expressions of a plan: DataFusion expressions over positions.

use crate::durable;
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion_proto::bytes::Serializeable;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A DataFusion expression whose columns are positions of the input: the column named `3` is the fourth.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScalarExpr(Expr);

impl ScalarExpr {
    /// Wraps an expression whose columns are already positional.
    pub fn new(expr: Expr) -> Self {
        Self(expr)
    }

    /// The input column at this position.
    pub fn column(index: usize) -> Self {
        Self(Expr::Column(datafusion::common::Column::new_unqualified(
            index.to_string(),
        )))
    }

    pub fn expr(&self) -> &Expr {
        &self.0
    }

    /// The position, when this is nothing but an input column.
    pub fn as_column(&self) -> Option<usize> {
        match &self.0 {
            Expr::Column(column) if column.relation.is_none() => column.name.parse().ok(),
            _ => None,
        }
    }

    /// The schema over which expressions are planned: the input's fields renamed to their positions.
    pub fn positional_schema(fields: &arrow::datatypes::Schema) -> DFSchema {
        let fields = fields
            .fields()
            .iter()
            .enumerate()
            .map(|(i, f)| {
                (
                    None,
                    std::sync::Arc::new(f.as_ref().clone().with_name(i.to_string())),
                )
            })
            .collect();
        DFSchema::new_with_metadata(fields, Default::default())
            .expect("positions are distinct names")
    }
}

/// As text for people, or, while a plan is made durable, as bytes in hexadecimal digits.
impl Serialize for ScalarExpr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !durable::is_writing() {
            return serializer.collect_str(&self.0);
        }
        let bytes = self.0.to_bytes().map_err(S::Error::custom)?;
        serializer.serialize_str(&durable::to_hex(&bytes))
    }
}

impl<'de> Deserialize<'de> for ScalarExpr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        durable::read_expr(&text)
            .map(Self)
            .map_err(D::Error::custom)
    }
}

impl fmt::Display for ScalarExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
