//! Scalar expressions of a plan: DataFusion expressions over positions.

use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion_proto::bytes::Serializeable;
use serde::{Serialize, Serializer};
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

    /// Bytes that are equal for equal expressions: what operator ids are hashed from.
    pub fn fingerprint(&self) -> Vec<u8> {
        self.0
            .to_bytes()
            .map_or_else(|_| self.0.to_string().into_bytes(), |b| b.to_vec())
    }
}

impl Serialize for ScalarExpr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl fmt::Display for ScalarExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
