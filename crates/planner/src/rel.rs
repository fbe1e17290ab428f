//! The tree between DataFusion's plan and ours: plan operators, positional expressions, no properties yet.
//!
//! Rules work on this form because a tree is easy to take apart; [`crate::dataflow`] turns it into the list of nodes.

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::Expr;
use std::sync::Arc;
use tidegate_plan::{ColumnWatermarks, Op, ScalarExpr};

/// What is known about a relation that is read, besides its schema.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    pub append_only: bool,
    /// Positions in the node's output.
    pub unique_key: Option<Vec<usize>>,
    /// Of columns of the node's output.
    pub watermarks: ColumnWatermarks,
}

/// One operator over its inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Rel {
    pub op: Op,
    pub inputs: Vec<Rel>,
    pub schema: SchemaRef,
    /// Of an `Import`, `Source` or `TableInput`.
    pub origin: Origin,
}

impl Rel {
    pub fn new(op: Op, inputs: Vec<Rel>, schema: SchemaRef) -> Self {
        Self {
            op,
            inputs,
            schema,
            origin: Origin::default(),
        }
    }

    pub fn width(&self) -> usize {
        self.schema.fields().len()
    }

    /// A projection of `self`. Fields are those of the expressions' results.
    pub fn project(self, expressions: Vec<ScalarExpr>, fields: Vec<Field>) -> Self {
        assert_eq!(expressions.len(), fields.len(), "one field per expression");
        Self::new(
            Op::Project { expressions },
            vec![self],
            Arc::new(Schema::new(fields)),
        )
    }

    /// Some of the columns, in this order; `self` when that changes nothing.
    pub fn select(self, columns: &[usize]) -> Self {
        if columns.iter().copied().eq(0..self.width()) {
            return self;
        }
        let fields = columns
            .iter()
            .map(|c| self.schema.field(*c).clone())
            .collect();
        self.project(
            columns.iter().map(|c| ScalarExpr::column(*c)).collect(),
            fields,
        )
    }

    /// `f` over every node, inputs first.
    pub fn map_up(mut self, f: &mut dyn FnMut(Rel) -> Rel) -> Rel {
        self.inputs = self
            .inputs
            .into_iter()
            .map(|input| input.map_up(f))
            .collect();
        f(self)
    }
}

/// The positions that an expression reads, ascending, each once.
pub fn positions(expression: &ScalarExpr) -> Vec<usize> {
    let mut found = Vec::new();
    let visited = expression.expr().apply(|e| {
        if let Expr::Column(column) = e {
            found.push(position(column));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.expect("the visitor never fails");
    found.sort_unstable();
    found.dedup();
    found
}

/// The position that a positional column names.
fn position(column: &Column) -> usize {
    column
        .name
        .parse()
        .expect("expressions of a plan are positional")
}

/// The expression with position `p` replaced by `new(p)`.
pub fn rewrite_positions(expression: &ScalarExpr, new: &dyn Fn(usize) -> Expr) -> ScalarExpr {
    let rewritten = expression.expr().clone().transform_up(|e| match e {
        Expr::Column(column) => Ok(Transformed::yes(new(position(&column)))),
        other => Ok(Transformed::no(other)),
    });
    ScalarExpr::new(rewritten.expect("the rewrite never fails").data)
}

/// The expression over columns that moved to `new(p)`.
pub fn move_positions(expression: &ScalarExpr, new: &dyn Fn(usize) -> usize) -> ScalarExpr {
    rewrite_positions(expression, &|p| ScalarExpr::column(new(p)).expr().clone())
}

/// The schema over which positional expressions are typed.
pub fn positional(schema: &Schema) -> DFSchema {
    ScalarExpr::positional_schema(schema)
}
