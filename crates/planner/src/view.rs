//! Materialized views and sinks: everything from a query to a dataflow.

use crate::context::Context;
use crate::dataflow::{self, flatten, materialize};
use crate::query::{Planner, Purpose, analyze, canonical, plan, visible_schema};
use crate::rel::Rel;
use crate::{lower, optimize, refuse, rules};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::sql::planner::PlannerContext;
use sqlparser::ast;
use std::sync::Arc;
use tidegate_plan::{ColumnWatermarks, Dataflow, Op};
use tidegate_types::{RelationId, SqlError, SqlState};

/// A materialized view, ready to be installed.
#[derive(Debug, Clone)]
pub struct PlannedView {
    pub dataflow: Dataflow,
    /// Columns with the names and types that the catalog records.
    pub schema: SchemaRef,
    /// The columns that the view store is keyed by: unique where `unique` says so. Empty: rows only arrive, and nothing
    /// identifies them.
    pub key: Vec<usize>,
    /// No two rows share the key.
    pub unique: bool,
    pub append_only: bool,
    /// Of columns of the schema.
    pub watermarks: ColumnWatermarks,
    /// Tables, sources and materialized views whose changes the dataflow reads.
    pub reads: Vec<RelationId>,
    /// Relations that the query names itself, plain views included: what a DROP has to ask about.
    pub direct: Vec<RelationId>,
    /// For the person who created it, for example that an ORDER BY has no effect.
    pub notices: Vec<String>,
}

/// A sink, ready to be installed.
#[derive(Debug, Clone)]
pub struct PlannedSink {
    pub dataflow: Dataflow,
    pub schema: SchemaRef,
    /// Columns that no two rows share, if some are known.
    pub key: Option<Vec<usize>>,
    pub append_only: bool,
    pub reads: Vec<RelationId>,
    pub direct: Vec<RelationId>,
}

/// A query as a tree.
pub(crate) struct PlannedRel {
    pub(crate) rel: Rel,
    schema: SchemaRef,
    direct: Vec<RelationId>,
}

impl Planner<'_> {
    /// Plans `CREATE MATERIALIZED VIEW name [(columns)] AS query`.
    pub fn plan_materialized_view(
        &self,
        query: ast::Query,
        columns: &[String],
        relation: RelationId,
        name: &str,
    ) -> Result<PlannedView, SqlError> {
        let notices = notices(&query);
        let PlannedRel {
            rel,
            schema,
            direct,
        } = self.tree(query, columns)?;
        let rel = match self.emit_on_close {
            true => on_close(rel)?,
            false => rel,
        };
        let found = dataflow::properties_of(&rel);
        let dataflow = materialize(rel, &schema, relation, name)?;
        let Op::Materialize { key, .. } = &dataflow.root().op else {
            unreachable!("a view's root materializes it")
        };
        Ok(PlannedView {
            key: key.clone(),
            unique: found.unique_key.is_some(),
            append_only: found.append_only,
            watermarks: found.watermarks,
            reads: dataflow.reads(),
            schema,
            direct,
            notices,
            dataflow,
        })
    }

    /// Plans `CREATE SINK name AS query`; `FROM v` is `AS SELECT * FROM v`.
    pub fn plan_sink(
        &self,
        query: ast::Query,
        relation: RelationId,
        name: &str,
    ) -> Result<PlannedSink, SqlError> {
        let PlannedRel {
            rel,
            schema,
            direct,
        } = self.tree(query, &[])?;
        let found = dataflow::properties_of(&rel);
        let output = dataflow::with_names(&rel.schema, &schema)?;
        let dataflow = flatten(
            Rel::new(Op::Sink { relation }, vec![rel], output),
            relation,
            name,
        );
        Ok(PlannedSink {
            key: found.unique_key,
            append_only: found.append_only,
            reads: dataflow.reads(),
            schema,
            direct,
            dataflow,
        })
    }

    /// The result columns of a plain view's query, and the relations it names.
    pub fn plan_view(
        &self,
        query: ast::Query,
        columns: &[String],
    ) -> Result<(SchemaRef, Vec<RelationId>), SqlError> {
        let planned = self.query(query, &[])?;
        Ok((named(planned.schema, columns)?, planned.direct))
    }

    fn tree(&self, query: ast::Query, columns: &[String]) -> Result<PlannedRel, SqlError> {
        let PlannedRel {
            rel,
            schema,
            direct,
        } = self.lowered(query, columns)?;
        Ok(PlannedRel {
            rel: rules::apply(rel),
            schema,
            direct,
        })
    }

    /// The tree before the rules.
    pub(crate) fn lowered(
        &self,
        query: ast::Query,
        columns: &[String],
    ) -> Result<PlannedRel, SqlError> {
        let context = Context::new(self.relations, Purpose::View);
        let plan = plan(&context, query, self.text, PlannerContext::new())?;
        let failed = |e| optimize::failure(&e, self.text);
        let plan = analyze(plan).and_then(canonical).map_err(failed)?;
        let schema = named(visible_schema(&plan), columns)?;
        if schema.fields().is_empty() {
            return Err(refuse::in_view("a query without columns"));
        }
        let plan = optimize::optimize(plan).map_err(failed)?;
        let rel = lower::lower(&plan)?.exact();
        Ok(PlannedRel {
            rel,
            schema,
            direct: context.direct(),
        })
    }
}

/// `EMIT ON WINDOW CLOSE`: rows are given when a watermark says that they are final.
fn on_close(rel: Rel) -> Result<Rel, SqlError> {
    let found = dataflow::properties_of(&rel);
    let Some((time, _)) = found.watermarks.first() else {
        let message = "EMIT ON WINDOW CLOSE needs a column of the result that a watermark bounds";
        return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message).with_hint(
            "Declare WATERMARK FOR its time on the source, and select window_start or window_end.",
        ));
    };
    let time = *time;
    let mut key = match found.unique_key {
        Some(key) => key,
        None => (0..rel.width()).collect(),
    };
    if !key.contains(&time) {
        key.push(time);
    }
    let schema = rel.schema.clone();
    Ok(Rel::new(Op::OnClose { key, time }, vec![rel], schema))
}

/// The schema under the names of a column list, which may be shorter. Names must be distinct.
fn named(schema: SchemaRef, columns: &[String]) -> Result<SchemaRef, SqlError> {
    if columns.len() > schema.fields().len() {
        let message = "too many column names were specified";
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
    }
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, f)| match columns.get(i) {
            Some(name) => f.as_ref().clone().with_name(name),
            None => f.as_ref().clone(),
        })
        .collect();
    let names: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
    refuse::duplicate_names(&names)?;
    Ok(Arc::new(Schema::new(fields)))
}

fn notices(query: &ast::Query) -> Vec<String> {
    match (&query.order_by, &query.limit_clause, &query.fetch) {
        (Some(_), None, None) => {
            vec!["ORDER BY without LIMIT has no effect in a materialized view: its rows have no order".to_owned()]
        }
        _ => Vec::new(),
    }
}
