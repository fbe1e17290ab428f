//! `VERIFY MATERIALIZED VIEW`: the view's query over its inputs as a batch, compared with what the view holds, at one epoch.
//!
//! The batch engine shares neither operators nor state with the dataflow, so that what both agree upon is right. Rows are
//! compared as multisets. Sums of floating-point numbers depend on the order of adding, in a batch: rows that differ by no
//! more than rounding count as equal. What is no function of tables and views that are there cannot be verified, and says so.

use super::query::relations_of;
use super::{Reading, Session};
use crate::api::{Response, RowsTag};
use crate::offline::qualified;
use crate::relations::{Names, SEARCH_PATH_OPTION, parse_query};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use hashbrown::HashMap;
use std::sync::Arc;
use tidegate_catalog::{MaterializedViewDef, Relation, RelationClass, RelationKind, SearchPath};
use tidegate_parser::sqlparser::ast::ObjectName;
use tidegate_planner::Planner;
use tidegate_planner::query::PlannedQuery;
use tidegate_types::{RowCodec, SqlError, SqlState, hash_key};

/// So many differing rows are shown; all are counted.
const SHOWN: usize = 1000;
/// Floating-point numbers that differ by less, relative to their size, are equal.
const ROUNDING: f64 = 1e-9;

/// Which of the two sides a row is from.
const SIDES: [i64; 2] = [1, -1];

impl Session {
    pub(super) async fn verify_view(&mut self, name: &ObjectName) -> Result<Response, SqlError> {
        self.outside_transaction("VERIFY MATERIALIZED VIEW")?;
        let catalog = self.database.catalog.get();
        let parts = tidegate_parser::name_parts(name);
        let relation =
            catalog.resolve_class(&parts, &self.path(), RelationClass::MaterializedView)?;
        let RelationKind::MaterializedView(def) = &relation.kind else {
            return Err(SqlError::internal(
                "a materialized view has another definition",
            ));
        };
        if def.emit_on_window_close {
            let why =
                "it is EMIT ON WINDOW CLOSE, and holds what its query says of closed windows alone";
            return Err(cannot_verify(relation, why));
        }
        let names = self.definition_names(def);
        let recomputed = Planner::new(&names, &def.query).query(parse_query(&def.query)?, &[])?;
        let inputs = relations_of(&recomputed.plan);
        for input in &inputs {
            if let Some(input) = catalog
                .relation(*input)
                .filter(|r| r.class() == RelationClass::Source)
            {
                return Err(cannot_verify(
                    relation,
                    &format!(
                        "it reads source \"{}\", which keeps no rows to compute it from again",
                        input.name
                    ),
                ));
            }
        }
        let runtime = self.database.runtime()?;
        let errors = runtime.error_count(relation.id);
        if errors > 0 {
            let what = format!(
                "{errors} rows fail in it, which the batch engine would fail at as a whole"
            );
            return Err(cannot_verify(relation, &what).with_hint(
                "tidegate.errors has the rows; the view equals its query over the others.",
            ));
        }
        let select = format!(
            "SELECT * FROM \"{}\".\"{}\"",
            relation.schema, relation.name
        );
        let held = Planner::new(&names, &select).query(parse_query(&select)?, &[])?;
        runtime.wait_visible(self.floor()).await?;
        let mut all = inputs;
        all.push(relation.id);
        let reading = Reading {
            snapshot: Arc::new(runtime.snapshot(&all).await?),
            changes: Default::default(),
        };
        let comparison = Comparison {
            sides: [recomputed, held],
            text: &def.query,
            schema: view_schema(relation),
        };
        self.compare(relation, &comparison, &reading).await
    }

    /// Names as the definition of a view found them.
    fn definition_names(&self, def: &MaterializedViewDef) -> Names {
        let path = match def.options.get(SEARCH_PATH_OPTION) {
            Some(path) => SearchPath(path.split(',').map(str::to_owned).collect()),
            None => SearchPath::default(),
        };
        Names {
            catalog: self.database.catalog.get(),
            path,
            system: None,
        }
    }

    async fn compare(
        &mut self,
        relation: &Arc<Relation>,
        comparison: &Comparison<'_>,
        reading: &Reading,
    ) -> Result<Response, SqlError> {
        let (counts, compared) = self.counted(comparison, reading).await?;
        let mut different = Different::new(comparison.schema.clone())?;
        if !counts.is_empty() {
            self.collect_different(comparison, reading, &counts, &mut different)
                .await?;
            different.forgive_rounding();
        }
        let epoch = reading.snapshot.epoch;
        let name = qualified(relation);
        let differing: i64 = different.rows.iter().map(|r| r.count.abs()).sum();
        self.notice(match differing {
            0 => format!("materialized view \"{name}\" equals its query at epoch {epoch}: {compared} rows compared"),
            n => format!("materialized view \"{name}\" differs from its query at epoch {epoch} in {n} rows of {compared}"),
        });
        if differing > 0 && order_decides(&comparison.sides[0].plan) {
            self.notice("the query leaves open which rows or which order (LIMIT without a total order, lists without ORDER BY): rows may differ where both are right");
        }
        let (schema, batch) = different.shown(SHOWN)?;
        Ok(super::rows(schema, vec![batch], RowsTag::Plain("VERIFY")))
    }

    /// For each distinct row by its hash, how much oftener it was recomputed than held; zeros left out.
    async fn counted(
        &self,
        comparison: &Comparison<'_>,
        reading: &Reading,
    ) -> Result<(HashMap<u64, i64>, u64), SqlError> {
        let codec = comparison.codec()?;
        let mut counts: HashMap<u64, i64> = HashMap::new();
        let mut compared = 0;
        for (side, weight) in comparison.sides.iter().zip(SIDES) {
            let mut stream = self
                .stream(side.clone(), Vec::new(), reading, comparison.text)
                .await?;
            while let Some(batch) = stream.try_next().await? {
                let batch = comparison.conformed(&batch)?;
                if weight > 0 {
                    compared += batch.num_rows() as u64;
                }
                let rows = codec.encode(batch.columns()).map_err(SqlError::internal)?;
                for row in rows.iter() {
                    *counts.entry(hash_key(row.data())).or_default() += weight;
                }
            }
        }
        counts.retain(|_, count| *count != 0);
        Ok((counts, compared))
    }

    async fn collect_different(
        &self,
        comparison: &Comparison<'_>,
        reading: &Reading,
        counts: &HashMap<u64, i64>,
        different: &mut Different,
    ) -> Result<(), SqlError> {
        let codec = comparison.codec()?;
        let mut seen: HashMap<u64, usize> = HashMap::new();
        for (side, weight) in comparison.sides.iter().zip(SIDES) {
            let mut stream = self
                .stream(side.clone(), Vec::new(), reading, comparison.text)
                .await?;
            while let Some(batch) = stream.try_next().await? {
                let batch = comparison.conformed(&batch)?;
                let rows = codec.encode(batch.columns()).map_err(SqlError::internal)?;
                for (index, row) in rows.iter().enumerate() {
                    let hash = hash_key(row.data());
                    let Some(count) = counts.get(&hash).filter(|c| c.signum() == weight) else {
                        continue;
                    };
                    if seen.insert(hash, index).is_none() {
                        different.push(batch.slice(index, 1), *count);
                    }
                }
            }
        }
        Ok(())
    }
}

struct Comparison<'a> {
    /// Recomputed, then held.
    sides: [PlannedQuery; 2],
    text: &'a str,
    schema: SchemaRef,
}

impl Comparison<'_> {
    fn codec(&self) -> Result<RowCodec, SqlError> {
        let types: Vec<DataType> = self
            .schema
            .fields()
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        RowCodec::new(&types).map_err(SqlError::internal)
    }

    fn conformed(&self, batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns: Result<Vec<ArrayRef>, _> =
            columns.map(|(c, f)| cast(c, f.data_type())).collect();
        RecordBatch::try_new(self.schema.clone(), columns.map_err(SqlError::internal)?)
            .map_err(SqlError::internal)
    }
}

fn view_schema(relation: &Relation) -> SchemaRef {
    let fields = relation
        .visible_columns()
        .map(|(_, c)| c.sql_type.field(&c.name, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn cannot_verify(relation: &Relation, why: &str) -> SqlError {
    SqlError::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "materialized view \"{}\" cannot be verified: {why}",
            relation.name
        ),
    )
}

/// Whether the query's answer depends on an order that it does not say.
fn order_decides(plan: &LogicalPlan) -> bool {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    let mut found = false;
    let looked = plan.apply(|node| {
        found |= matches!(node, LogicalPlan::Limit(_));
        if let LogicalPlan::Aggregate(aggregate) = node {
            let lists = |e: &datafusion::logical_expr::Expr| {
                let text = e.to_string();
                text.contains("string_agg") || text.contains("array_agg")
            };
            found |= aggregate.aggr_expr.iter().any(lists);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    looked.expect("looking at a plan does not fail");
    found
}

struct DifferentRow {
    row: RecordBatch,
    /// Above zero: missing from the view so often; below: too much in it.
    count: i64,
}

/// Rows that are on one side only.
struct Different {
    schema: SchemaRef,
    floats: Vec<usize>,
    rows: Vec<DifferentRow>,
}

impl Different {
    fn new(schema: SchemaRef) -> Result<Self, SqlError> {
        let is_float =
            |f: &Arc<Field>| matches!(f.data_type(), DataType::Float32 | DataType::Float64);
        let fields = schema.fields().iter().enumerate();
        let floats = fields
            .filter(|(_, f)| is_float(f))
            .map(|(i, _)| i)
            .collect();
        Ok(Self {
            schema,
            floats,
            rows: Vec::new(),
        })
    }

    fn push(&mut self, row: RecordBatch, count: i64) {
        self.rows.push(DifferentRow { row, count });
    }

    /// Takes out pairs of rows that differ by the rounding of floating-point numbers alone.
    fn forgive_rounding(&mut self) {
        if self.floats.is_empty() {
            return;
        }
        let mut by_rest: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
        for (index, row) in self.rows.iter().enumerate() {
            by_rest.entry(self.rest(&row.row)).or_default().push(index);
        }
        for group in by_rest.values() {
            for missing in group {
                for extra in group {
                    let (m, e) = (self.rows[*missing].count, self.rows[*extra].count);
                    if m > 0 && e < 0 && self.close(*missing, *extra) {
                        let both = m.min(-e);
                        self.rows[*missing].count -= both;
                        self.rows[*extra].count += both;
                    }
                }
            }
        }
        self.rows.retain(|r| r.count != 0);
    }

    /// Every other value of a row, as text.
    fn rest(&self, row: &RecordBatch) -> Vec<String> {
        let fields = self.schema.fields().iter().enumerate();
        fields
            .filter(|(i, _)| !self.floats.contains(i))
            .map(|(i, field)| {
                let sql_type = tidegate_types::SqlType::from_field(field);
                let text = tidegate_types::text::to_text(row.column(i), &sql_type);
                match text.is_valid(0) {
                    true => format!("={}", text.value(0)),
                    false => String::new(),
                }
            })
            .collect()
    }

    fn close(&self, a: usize, b: usize) -> bool {
        let value = |row: usize, column: usize| -> Option<f64> {
            let column = cast(self.rows[row].row.column(column), &DataType::Float64).ok()?;
            let column = column.as_primitive::<Float64Type>();
            column.is_valid(0).then(|| column.value(0))
        };
        self.floats
            .iter()
            .all(|c| match (value(a, *c), value(b, *c)) {
                (Some(x), Some(y)) => {
                    x == y || (x - y).abs() <= ROUNDING * x.abs().max(y.abs()).max(1e-3)
                }
                (x, y) => x.is_none() && y.is_none(),
            })
    }

    fn shown(&self, most: usize) -> Result<(SchemaRef, RecordBatch), SqlError> {
        let rows = &self.rows[..self.rows.len().min(most)];
        let schema = differences_schema(&self.schema);
        let kinds: StringArray = rows
            .iter()
            .map(|r| Some(if r.count > 0 { "missing" } else { "unexpected" }))
            .collect();
        let counts: Int64Array = rows.iter().map(|r| Some(r.count.abs())).collect();
        let values = concat_batches(&self.schema, rows.iter().map(|r| &r.row));
        let values = values.map_err(SqlError::internal)?;
        let mut columns: Vec<ArrayRef> = vec![Arc::new(kinds), Arc::new(counts)];
        columns.extend(values.columns().iter().cloned());
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(SqlError::internal)?;
        // What is missing first.
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.sort_by_key(|i| rows[*i as usize].count < 0);
        let batch =
            take_record_batch(&batch, &UInt32Array::from(order)).map_err(SqlError::internal)?;
        Ok((schema, batch))
    }
}

/// The columns of the answer: what is different, how often, and the row.
fn differences_schema(view: &SchemaRef) -> SchemaRef {
    let mut fields = vec![
        Field::new("difference", DataType::Utf8, true),
        Field::new("copies", DataType::Int64, true),
    ];
    fields.extend(view.fields().iter().map(|f| f.as_ref().clone()));
    Arc::new(Schema::new(fields))
}

impl Session {
    pub(super) fn verification_schema(&self, name: &ObjectName) -> Result<SchemaRef, SqlError> {
        let catalog = self.database.catalog.get();
        let parts = tidegate_parser::name_parts(name);
        let relation =
            catalog.resolve_class(&parts, &self.path(), RelationClass::MaterializedView)?;
        Ok(differences_schema(&view_schema(relation)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::Float64Array;

    fn row(name: &str, x: f64) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("name", DataType::Utf8, true),
            Field::new("x", DataType::Float64, true),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![name])),
            Arc::new(Float64Array::from(vec![x])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn rounding_is_forgiven_and_nothing_else() {
        let mut different = Different::new(row("a", 0.0).schema()).unwrap();
        different.push(row("a", 0.1 + 0.2), 1);
        different.push(row("a", 0.3), -1);
        different.push(row("b", 1.0), 2);
        different.push(row("b", 1.001), -1);
        different.push(row("c", 5.0), 1);
        different.push(row("d", 5.0), -1);
        different.forgive_rounding();
        let left: Vec<i64> = different.rows.iter().map(|r| r.count).collect();
        assert_eq!(left, [2, -1, 1, -1]);
        let (_, batch) = different.shown(3).unwrap();
        assert_eq!(batch.num_rows(), 3);
        assert_eq!(batch.column(0).as_string::<i32>().value(0), "missing");
    }
}
