//! Queries: planned once, bound to one snapshot of all their views, streamed.

use super::{Session, Transaction};
use crate::api::{Prepared, Response, RowStream, RowsTag};
use crate::config::Config;
use crate::read::{Overlay, ViewTable};
use crate::system::rewrite;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tidegate_catalog::Catalog;
use tidegate_parser::sqlparser::ast;
use tidegate_parser::{ParsedStatement, Statement};
use tidegate_planner::context::RelationSource;
use tidegate_planner::errors::sql_error;
use tidegate_planner::query::PlannedQuery;
use tidegate_planner::{Planner, RelationKind, Resolved};
use tidegate_runtime::runtime::Snapshot;
use tidegate_types::{Batch, LogPosition, RelationId, SqlError, SqlState, SqlType};

/// What a query reads: one epoch, and changes on top of it.
pub(crate) struct Reading {
    pub snapshot: Arc<Snapshot>,
    /// By relation, over all stored columns.
    pub changes: HashMap<RelationId, Vec<Batch>>,
}

/// A plan kept with a prepared statement.
struct CachedPlan {
    planned: PlannedQuery,
    catalog_version: u64,
}

/// Of `memory_limit`, what queries may take together: one byte in so many.
const QUERIES_PART: usize = 4;

/// Functions, rules and limits of all ad-hoc queries of one database. Sorts, joins and groups that find no room go to
/// files where they can; where they cannot, the query fails with 53200.
pub(crate) fn query_state(config: &Config) -> Result<SessionState, SqlError> {
    let limit_bytes = config.settings.bytes("memory_limit") / QUERIES_PART;
    let directory = config.data_dir.join("queries");
    // What a server that was killed left there.
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %directory.display(), %error, "files of earlier queries cannot be removed");
        }
        _ => {}
    }
    let files = DiskManagerMode::Directories(vec![directory]);
    let environment = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(limit_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(files))
        .build_arc()
        .map_err(|e| sql_error(&e, ""))?;
    let defaults = tidegate_planner::session_state_defaults();
    Ok(defaults.with_runtime_env(environment).build())
}

impl Session {
    /// Finds the types of a statement's parameters and result.
    pub(super) fn prepare_statement(
        &mut self,
        statement: Arc<ParsedStatement>,
        declared: Vec<Option<SqlType>>,
    ) -> Result<Prepared, SqlError> {
        let mut prepared = Prepared {
            statement: statement.clone(),
            parameters: Vec::new(),
            columns: None,
            plan: None,
        };
        match &statement.statement {
            Statement::Sql(sql) => match sql.as_ref() {
                ast::Statement::Query(query) => {
                    let names = self.names();
                    let mut query = (**query).clone();
                    let effects = rewrite::rewrite(&mut query);
                    let planned = Planner::new(&names, &statement.text).query(query, &declared)?;
                    prepared.parameters = complete(planned.parameters()?, &declared)?;
                    prepared.columns = Some(planned.schema.clone());
                    let catalog_version = names.catalog.version();
                    if !effects.reads_system && effects.assignments.is_empty() {
                        prepared.plan = Some(Arc::new(CachedPlan {
                            planned,
                            catalog_version,
                        }));
                    }
                }
                ast::Statement::Insert(_)
                | ast::Statement::Update(_)
                | ast::Statement::Delete(_) => {
                    let (parameters, columns) =
                        self.describe_dml(sql, &statement.text, &declared)?;
                    prepared.parameters = complete(parameters, &declared)?;
                    prepared.columns = columns;
                }
                other => prepared.columns = self.columns_of_indirect(other)?,
            },
            other => prepared.columns = self.result_columns(other)?,
        }
        Ok(prepared)
    }

    pub(super) async fn query(
        &mut self,
        prepared: &Prepared,
        query: &ast::Query,
        text: &str,
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, SqlError> {
        let version = self.database.catalog.get().version();
        let cached = prepared
            .plan
            .as_ref()
            .and_then(|p| p.downcast_ref::<CachedPlan>());
        let planned = match cached.filter(|c| c.catalog_version == version) {
            Some(cached) => cached.planned.clone(),
            None => {
                let mut query = query.clone();
                for (name, value) in rewrite::rewrite(&mut query).assignments {
                    self.assign(&name, &[value])?;
                }
                let names = self.names();
                let declared: Vec<_> = prepared.parameters.iter().cloned().map(Some).collect();
                let planned = Planner::new(&names, text).query(query, &declared)?;
                if prepared
                    .columns
                    .as_ref()
                    .is_some_and(|c| *c != planned.schema)
                {
                    return Err(
                        SqlError::not_supported("a cached plan with another result type")
                            .with_detail("cached plan must not change result type"),
                    );
                }
                planned
            }
        };
        let reading = self.reading(&relations_of(&planned.plan)).await?;
        let stream = self
            .stream(planned.clone(), parameters, &reading, text)
            .await?;
        Ok(Response::Rows {
            schema: planned.schema,
            stream,
            tag: RowsTag::Select,
        })
    }

    /// What a read that begins now must see: this session's writes, and unless it asked for less, everybody's that were
    /// acknowledged before.
    pub(super) fn floor(&self) -> LogPosition {
        match self.settings.boolean("strict_reads") {
            true => self.last_write.max(self.database.acknowledged()),
            false => self.last_write,
        }
    }

    /// Rows of these relations as this session sees them now.
    pub(crate) async fn reading(&mut self, relations: &[RelationId]) -> Result<Reading, SqlError> {
        let runtime = self.database.runtime()?;
        let floor = self.floor();
        if let Some(transaction) = &mut self.transaction {
            if transaction.base.is_none() {
                runtime.wait_visible(floor).await?;
                let all = readable(&self.database.catalog.get());
                let (snapshot, _) = runtime.snapshot_of_complete(&all).await?;
                self.database.sequencer.begin(snapshot.log_position);
                transaction.base = Some(Arc::new(snapshot));
            }
            let snapshot = transaction.base.clone().expect("it was just taken");
            // Relations that are still being built, or newer than the transaction, say so here.
            if let Some(missing) = relations.iter().find(|r| !snapshot.views.contains_key(r)) {
                runtime.snapshot(&[*missing]).await?;
                return Err(SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "a relation that was created after the transaction began cannot be read in it",
                ));
            }
            return Ok(Reading {
                snapshot,
                changes: transaction.changes(),
            });
        }
        runtime.wait_visible(floor).await?;
        Ok(Reading {
            snapshot: Arc::new(runtime.snapshot(relations).await?),
            changes: HashMap::new(),
        })
    }

    /// Functions and rules with the time that `now()` is: when the transaction began, or else the statement.
    fn state(&self) -> SessionState {
        let mut state = self.database.query_state.clone();
        state.mark_start_execution();
        if let Some(transaction) = &self.transaction {
            state.execution_props_mut().query_execution_start_time = Some(transaction.began);
        }
        state
    }

    /// A plan over the rows of a reading.
    fn bound(&self, plan: LogicalPlan, reading: &Reading) -> Result<LogicalPlan, SqlError> {
        let catalog = self.database.catalog.get();
        tidegate_planner::bind(plan, &mut |relation| {
            let provider = provider(&catalog, relation, reading)?;
            Ok(provider_as_source(Arc::new(provider)))
        })
    }

    pub(super) async fn physical_plan(
        &self,
        planned: PlannedQuery,
        reading: &Reading,
        text: &str,
    ) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
        let plan = self.bound(planned.plan, reading)?;
        self.state()
            .create_physical_plan(&plan)
            .await
            .map_err(|e| sql_error(&e, text))
    }

    /// Runs a plan for what it can tell about itself afterwards.
    pub(super) async fn run_to_end(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        text: &str,
    ) -> Result<Vec<RecordBatch>, SqlError> {
        let context = self.state().task_ctx();
        datafusion::physical_plan::collect(plan, context)
            .await
            .map_err(|e| sql_error(&e, text))
    }

    pub(crate) async fn stream(
        &self,
        planned: PlannedQuery,
        parameters: Vec<ScalarValue>,
        reading: &Reading,
        text: &str,
    ) -> Result<RowStream, SqlError> {
        let plan = self.bound(planned.plan, reading)?;
        let plan = if parameters.is_empty() {
            plan
        } else {
            plan.with_param_values(ParamValues::List(
                parameters.into_iter().map(Into::into).collect(),
            ))
            .map_err(|e| sql_error(&e, text))?
        };
        let frame = DataFrame::new(self.state(), plan);
        let stream = frame
            .execute_stream()
            .await
            .map_err(|e| sql_error(&e, text))?;
        let schema = planned.schema;
        let owned = text.to_owned();
        let cancel = self.cancel.clone();
        // A panic is a bug of ours or a library's, and costs the statement, not the connection.
        let stream = AssertUnwindSafe(stream).catch_unwind().map(move |batch| {
            cancel.check()?;
            let batch = batch
                .map_err(|_| SqlError::internal("the query panicked; see the server's log"))?;
            let batch = batch.map_err(|e| sql_error(&e, &owned))?;
            conform(&batch, &schema).map_err(|e| sql_error(&e.into(), &owned))
        });
        Ok(stream.boxed())
    }

    /// Runs a query to its end.
    pub(crate) async fn collect(
        &self,
        planned: PlannedQuery,
        parameters: Vec<ScalarValue>,
        reading: &Reading,
        text: &str,
    ) -> Result<Vec<RecordBatch>, SqlError> {
        self.stream(planned, parameters, reading, text)
            .await?
            .try_collect()
            .await
    }
}

/// Everything that has rows to read.
fn readable(catalog: &Catalog) -> Vec<RelationId> {
    use tidegate_catalog::RelationClass as Class;
    let stored = catalog
        .relations()
        .filter(|r| matches!(r.class(), Class::Table | Class::MaterializedView));
    stored.map(|r| r.id).collect()
}

/// The stored relations that a plan scans, sub-queries included.
pub(crate) fn relations_of(plan: &LogicalPlan) -> Vec<RelationId> {
    let mut found = Vec::new();
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = scan.source.downcast_ref::<RelationSource>()
            && !found.contains(&source.relation.id)
        {
            found.push(source.relation.id);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.expect("looking at a plan does not fail");
    found
}

/// The rows of one relation for a scan.
fn provider(
    catalog: &Catalog,
    relation: &Resolved,
    reading: &Reading,
) -> Result<ViewTable, SqlError> {
    if relation.kind == RelationKind::Source {
        return Err(
            SqlError::not_supported(format!("SELECT from source \"{}\"", relation.name)).with_hint(
                "A source keeps no rows. Create a materialized view over it and read that.",
            ),
        );
    }
    let stored = catalog.relation(relation.id).ok_or_else(|| {
        SqlError::new(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{}\" was dropped", relation.name),
        )
    })?;
    let view = reading.snapshot.views.get(&relation.id).ok_or_else(|| {
        SqlError::internal(format!(
            "relation \"{}\" is not part of the snapshot",
            relation.name
        ))
    })?;
    let changes = reading
        .changes
        .get(&relation.id)
        .map_or(&[][..], Vec::as_slice);
    let overlay = Overlay::new(&stored.arrow_schema(), changes).map_err(|e| sql_error(&e, ""))?;
    // Columns of a table may have got other names since its rows were first kept; those of a view keep theirs, unless it is
    // another view by now.
    let is_view = relation.kind == RelationKind::MaterializedView;
    let has_changed = |part: &tidegate_state::ViewSnapshot| {
        let mut columns = relation.columns.iter().zip(relation.schema.fields());
        let schema = part.schema();
        columns.any(|(stored, field)| {
            let kept = schema.fields().get(*stored);
            kept.is_none_or(|k| k.name() != field.name() || k.data_type() != field.data_type())
        })
    };
    if is_view && view.parts.iter().any(has_changed) {
        return Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "materialized view \"{}\" got other columns after the query or its transaction began",
                relation.name
            ),
        )
        .with_hint("Try again."));
    }
    let key = view
        .parts
        .first()
        .map(|p| p.lookup_key().to_vec())
        .unwrap_or_default();
    Ok(ViewTable::new(
        relation.schema.clone(),
        relation.columns.clone(),
        view.parts.clone(),
        key,
        overlay,
    ))
}

/// DataFusion may answer with another Arrow form of a type than was announced.
fn conform(
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(column.clone())
            } else {
                cast(column, field.data_type())
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let relaxed = schema
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect::<Vec<_>>();
    RecordBatch::try_new_with_options(
        Arc::new(arrow::datatypes::Schema::new(relaxed)),
        columns,
        &options,
    )
}

/// What the client declared wins; what nobody knows is text, as in Postgres.
fn complete(
    found: Vec<Option<SqlType>>,
    declared: &[Option<SqlType>],
) -> Result<Vec<SqlType>, SqlError> {
    let count = found.len().max(declared.len());
    let known = |list: &[Option<SqlType>], index: usize| list.get(index).cloned().flatten();
    Ok((0..count)
        .map(|i| {
            known(declared, i)
                .or_else(|| known(&found, i))
                .unwrap_or(SqlType::Text)
        })
        .collect())
}

impl Transaction {
    /// What the transaction has changed so far.
    pub(crate) fn changes(&self) -> HashMap<RelationId, Vec<Batch>> {
        self.writes
            .iter()
            .map(|(relation, writes)| (*relation, writes.clone()))
            .collect()
    }
}
