//! Reading the past: `FOR SYSTEM_TIME AS OF SAVEPOINT name`, an epoch, or a time.
//!
//! A query that names a version reads the relation out of a manifest: that of the savepoint, or that of a checkpoint which
//! is still retained. An epoch is read exactly or not at all; a time reads the newest kept state that is not after it.
//! The version is carried in the name that the planner resolves, so that a relation may be read now and then in one query.

use crate::database::{Database, catalog_of};
use crate::offline::timestamp;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, TableReference};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::TryStreamExt;
use std::sync::Arc;
use tidegate_catalog::{RelationClass, SearchPath};
use tidegate_checkpoint::offline::restorer_of;
use tidegate_checkpoint::{CheckpointStore, Manifest, TableEntry, TableRows};
use tidegate_parser::sqlparser::ast::{
    self, Expr as Ast, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, TableAlias, TableFactor, TableVersion, Value,
};
use tidegate_planner::errors::sql_error;
use tidegate_state::Merge;
use tidegate_types::{KeyGroupRange, SqlError, SqlState};

/// In front of the version in a name; no name of a schema begins so.
const MARK: char = '\u{1}';
/// The function by which the parser spells `AS OF SAVEPOINT name`.
const SAVEPOINT: &str = "tidegate_savepoint";
/// Key ranges that are read side by side.
const PARTITIONS: usize = 4;

/// Which version of a relation is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AsOf {
    Savepoint(String),
    Epoch(u64),
    /// In milliseconds since 1970.
    Time(i64),
}

/// Moves the version of a table factor into its name. Answers whether there was one; what is no version is left to be
/// refused where it is planned.
pub(crate) fn name_version(factor: &mut TableFactor) -> bool {
    let TableFactor::Table {
        name,
        alias,
        version: version @ Some(_),
        ..
    } = factor
    else {
        return false;
    };
    let Some(TableVersion::ForSystemTimeAsOf(expr)) = version else {
        return false;
    };
    let Some(as_of) = as_of(expr) else {
        return false;
    };
    let parts = tidegate_parser::name_parts(name);
    let last = parts.last().cloned().unwrap_or_default();
    if alias.is_none() {
        *alias = Some(alias_of(name, last));
    }
    let kind = match as_of {
        AsOf::Savepoint(name) => format!("savepoint:{name}"),
        AsOf::Epoch(epoch) => format!("epoch:{epoch}"),
        AsOf::Time(ms) => format!("time:{ms}"),
    };
    let schema = Ident::with_quote('"', format!("{MARK}{kind}"));
    let table = Ident::with_quote('"', parts.join(&MARK.to_string()));
    *name = ObjectName(vec![
        ObjectNamePart::Identifier(schema),
        ObjectNamePart::Identifier(table),
    ]);
    *version = None;
    true
}

fn alias_of(name: &ObjectName, last: String) -> TableAlias {
    let span = name.0.last().and_then(|p| p.as_ident()).map(|i| i.span);
    let mut ident = Ident::with_quote('"', last);
    if let Some(span) = span {
        ident.span = span;
    }
    TableAlias {
        explicit: true,
        name: ident,
        columns: Vec::new(),
        at: None,
    }
}

fn as_of(expr: &Ast) -> Option<AsOf> {
    match expr {
        Ast::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse().ok().map(AsOf::Epoch),
            Value::SingleQuotedString(text) => time(text),
            _ => None,
        },
        Ast::TypedString(typed) => match &typed.value.value {
            Value::SingleQuotedString(text) => time(text),
            _ => None,
        },
        Ast::Cast { expr, .. } => as_of(expr).filter(|a| matches!(a, AsOf::Time(_))),
        Ast::Function(function) if function.name.to_string() == SAVEPOINT => {
            savepoint_argument(function).map(AsOf::Savepoint)
        }
        Ast::Nested(expr) => as_of(expr),
        Ast::BinaryOp {
            left,
            op: ast::BinaryOperator::Minus,
            right,
        } if is_now(left) => ago(right),
        now if is_now(now) => Some(AsOf::Time(chrono::Utc::now().timestamp_millis())),
        _ => None,
    }
}

fn is_now(expr: &Ast) -> bool {
    let Ast::Function(function) = expr else {
        return false;
    };
    let name = function.name.to_string().to_ascii_lowercase();
    matches!(name.as_str(), "now" | "current_timestamp")
}

/// So long before now. Statements that name a version are planned each time they are executed.
fn ago(interval: &Ast) -> Option<AsOf> {
    use tidegate_types::text::{Value as Parsed, parse_text};
    let Ast::Interval(interval) = interval else {
        return None;
    };
    let text = match (&*interval.value, &interval.leading_field) {
        (Ast::Value(value), unit) => match &value.value {
            Value::SingleQuotedString(text) => match unit {
                Some(unit) => format!("{text} {unit}"),
                None => text.clone(),
            },
            _ => return None,
        },
        _ => return None,
    };
    let Ok(Parsed::Interval(span)) = parse_text(&text, &tidegate_types::SqlType::Interval) else {
        return None;
    };
    let months = chrono::Months::new(span.months.unsigned_abs());
    let then = match span.months < 0 {
        true => chrono::Utc::now().checked_add_months(months)?,
        false => chrono::Utc::now().checked_sub_months(months)?,
    };
    let then = then
        .checked_sub_signed(chrono::TimeDelta::days(span.days.into()))?
        .checked_sub_signed(chrono::TimeDelta::nanoseconds(span.nanos))?;
    Some(AsOf::Time(then.timestamp_millis()))
}

fn savepoint_argument(function: &ast::Function) -> Option<String> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    match list.args.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Ast::Value(value))) => match &value.value {
            Value::SingleQuotedString(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn time(text: &str) -> Option<AsOf> {
    use tidegate_types::text::{Value, parse_text};
    match parse_text(text, &tidegate_types::SqlType::TimestampTz).ok()? {
        Value::Timestamp(micros) => Some(AsOf::Time(micros.div_euclid(1000))),
        _ => None,
    }
}

/// A relation as it was, and its name.
type Past = (String, Arc<dyn TableProvider>);

/// The relation of a name that carries a version.
pub(crate) fn find(
    database: &Database,
    name: &TableReference,
    path: &SearchPath,
) -> Option<Result<Past, SqlError>> {
    let version = name.schema()?.strip_prefix(MARK)?;
    Some(resolve(database, version, name.table(), path))
}

fn resolve(
    database: &Database,
    version: &str,
    table: &str,
    path: &SearchPath,
) -> Result<Past, SqlError> {
    let store = &database.store;
    let manifest = match version.split_once(':') {
        Some(("savepoint", name)) => store.describe_savepoint(name)?,
        Some(("epoch", epoch)) => at_epoch(store, epoch.parse().unwrap_or(0))?,
        Some(("time", ms)) => at_time(store, ms.parse().unwrap_or(0))?,
        _ => return Err(SqlError::internal("a version of a relation without a kind")),
    };
    let (catalog, _) = catalog_of(Some(&manifest))?;
    let parts: Vec<String> = table.split(MARK).map(str::to_owned).collect();
    let relation = catalog.resolve(&parts, path)?.clone();
    if !matches!(
        relation.class(),
        RelationClass::Table | RelationClass::MaterializedView
    ) {
        return Err(SqlError::not_supported(format!(
            "FOR SYSTEM_TIME AS OF on {} \"{}\"",
            relation.class(),
            relation.name
        ))
        .with_hint("Tables and materialized views have a past that is kept."));
    }
    let is_contents = |t: &&Arc<TableEntry>| {
        t.descriptor.relation == relation.id && t.descriptor.merge == Merge::Sum
    };
    let entry = manifest.tables.values().find(is_contents).ok_or_else(|| {
        SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "\"{}\" is not part of what was saved at epoch {}",
                relation.name, manifest.epoch
            ),
        )
    })?;
    let fields = relation
        .visible_columns()
        .map(|(_, c)| c.sql_type.field(&c.name, c.nullable));
    let table = PastTable {
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        columns: relation.visible_columns().map(|(i, _)| i).collect(),
        rows: TableRows::new(entry.clone())?,
        manifest: manifest.clone(),
        store: database.store.clone(),
    };
    Ok((relation.name.clone(), Arc::new(table)))
}

/// What is kept and ends an epoch, newest first.
fn kept(store: &CheckpointStore) -> Vec<Arc<Manifest>> {
    let saved = store
        .savepoints()
        .into_iter()
        .filter(|s| s.damage.is_none());
    let saved = saved.filter_map(|s| s.manifest);
    let mut kept: Vec<_> = store.retained().into_iter().chain(saved).collect();
    kept.retain(|m| m.details.views.is_empty() && ends_epoch(m));
    kept.sort_by_key(|m| std::cmp::Reverse(m.epoch));
    kept
}

/// Rows that a checkpoint's barrier had overtaken are in a table of their own, and belong to the epoch after.
fn ends_epoch(manifest: &Manifest) -> bool {
    let overtaken = |t: &Arc<TableEntry>| t.descriptor.name == "in flight" && !t.runs.is_empty();
    !manifest.tables.values().any(overtaken)
}

fn not_kept(what: String, kept: &[Arc<Manifest>]) -> SqlError {
    let error = SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, what);
    let named: Vec<String> = kept
        .iter()
        .map(|m| format!("{} ({})", m.epoch, timestamp(m.time_ms)))
        .collect();
    match named.is_empty() {
        true => error.with_hint("No checkpoint has been taken yet: CHECKPOINT takes one."),
        false => error.with_hint(format!(
            "Kept are epochs {}. checkpoint_retained and history_retention say how many checkpoints are and for how long; SAVEPOINT keeps one for good.",
            named.join(", ")
        )),
    }
}

fn at_epoch(store: &CheckpointStore, epoch: u64) -> Result<Arc<Manifest>, SqlError> {
    let kept = kept(store);
    let found = kept.iter().find(|m| m.epoch.0 == epoch).cloned();
    found.ok_or_else(|| not_kept(format!("the state as of epoch {epoch} is not kept"), &kept))
}

fn at_time(store: &CheckpointStore, ms: i64) -> Result<Arc<Manifest>, SqlError> {
    let kept = kept(store);
    let found = kept.iter().find(|m| m.time_ms <= ms).cloned();
    found.ok_or_else(|| {
        not_kept(
            format!("no state as of {} or before is kept", timestamp(ms)),
            &kept,
        )
    })
}

/// A relation's rows in a manifest.
#[derive(Clone)]
struct PastTable {
    schema: SchemaRef,
    /// Where each visible column is stored.
    columns: Vec<usize>,
    rows: TableRows,
    manifest: Arc<Manifest>,
    store: Arc<CheckpointStore>,
}

impl std::fmt::Debug for PastTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PastTable")
            .field("epoch", &self.manifest.epoch)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for PastTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let visible = projection.unwrap_or(&all);
        let schema = Arc::new(self.schema.project(visible)?);
        let partition = |worker: usize| -> Arc<dyn PartitionStream> {
            Arc::new(PastPartition {
                schema: schema.clone(),
                columns: visible.iter().map(|v| self.columns[*v]).collect(),
                groups: KeyGroupRange::of_worker(worker, PARTITIONS),
                table: self.clone(),
            })
        };
        let partitions = (0..PARTITIONS).map(partition).collect();
        let scan = StreamingTableExec::try_new(schema.clone(), partitions, None, [], false, limit)?;
        Ok(Arc::new(scan))
    }
}

#[derive(Debug)]
struct PastPartition {
    schema: SchemaRef,
    columns: Vec<usize>,
    groups: KeyGroupRange,
    table: PastTable,
}

impl PartitionStream for PastPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let external = |e: SqlError| DataFusionError::External(Box::new(e));
        let (columns, schema) = (self.columns.clone(), self.schema.clone());
        let stream = match restorer_of(self.table.store.storage(), &self.table.manifest) {
            Ok(restorer) => self.table.rows.stream(&restorer, self.groups),
            Err(error) => Box::pin(futures::stream::iter([Err(error)])),
        };
        let stream = stream
            .map_err(move |e| external(e.into()))
            .and_then(move |batch| {
                let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let columns = columns.iter().map(|c| batch.column(*c).clone()).collect();
                let named = RecordBatch::try_new_with_options(schema.clone(), columns, &options);
                futures::future::ready(named.map_err(|e| external(sql_error(&e.into(), ""))))
            });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}
