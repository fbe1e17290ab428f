//! Schema `tidegate`: what the database knows about its own work.

use super::pg_catalog::{backend, connector, visible_options};
use super::relation::{Rows, SystemRelation};
use super::row::{Cell, Row};
use super::scope::Scope;
use crate::relations::{APPEND_ONLY_OPTION, UNIQUE_OPTION};
use crate::settings::{SETTINGS, Scope as SettingScope};
use std::collections::HashMap;
use tidegate_catalog::{Relation, RelationKind};
use tidegate_plan::Dataflow;
use tidegate_types::text::micros_as_interval;
use tidegate_types::{RelationId, SqlError, TableId};

const fn table(
    name: &'static str,
    columns: &'static str,
    rows: fn(&Scope) -> Rows,
) -> SystemRelation {
    SystemRelation {
        schema: "tidegate",
        name,
        columns,
        rows: Some(rows),
    }
}

pub(super) const RELATIONS: &[SystemRelation] = &[
    table(
        "views",
        "id int8, schema text, name text, owner text, query text, definition text, created_at timestamptz",
        views,
    ),
    table(
        "materialized_views",
        "id int8, schema text, name text, owner text, status text, suspended_because text, state_backend text, key text[], append_only bool, \
         rows int8, bytes int8, errors int8, query text, definition text, created_at timestamptz",
        materialized_views,
    ),
    table(
        "tables",
        "id int8, schema text, name text, owner text, primary_key text[], append_only bool, state_backend text, rows int8, \
         bytes int8, definition text, created_at timestamptz",
        tables,
    ),
    table(
        "sources",
        "id int8, schema text, name text, owner text, connector text, format text, encode text, options text[], \
         errors int8, definition text, created_at timestamptz",
        sources,
    ),
    table(
        "watermarks",
        "relation_id int8, schema text, name text, column_name text, delay text, watermark timestamptz, ended bool, \
         late_rows int8",
        watermarks,
    ),
    table(
        "sinks",
        "id int8, schema text, name text, owner text, connector text, format text, encode text, options text[], \
         query text, errors int8, definition text, created_at timestamptz",
        sinks,
    ),
    table(
        "dataflows",
        "relation_id int8, schema text, name text, kind text, state_backend text, operators int8, state_tables int8, \
         reads oid[], status text, workers int8, rows int8, bytes int8, errors int8",
        dataflows,
    ),
    table(
        "operators",
        "relation_id int8, schema text, relation text, operator text, position int8, type text, description text, \
         inputs text[], append_only bool, state_tables int8, errors int8",
        operators,
    ),
    table(
        "state_tables",
        "relation_id int8, schema text, relation text, operator text, state_table text, name text, kind text, \
         key text[], sub_key text[], value text[], checkpointed_rows int8, checkpointed_bytes int8",
        state_tables,
    ),
    table(
        "barriers",
        "epoch int8, time timestamptz, workers int8, barriers_in_flight int8, rows_in int8, restarts int8",
        barriers,
    ),
    table(
        "checkpoints",
        "id int8, epoch int8, status text, savepoint text, cause text, triggered_at timestamptz, duration_ms float8, \
         alignment_ms float8, sync_ms float8, async_ms float8, bytes_written int8, bytes_total int8, in_flight_bytes int8, \
         mode text, execution text, alignment text, guarantee text",
        super::checkpoints::checkpoints,
    ),
    table(
        "checkpoint_workers",
        "checkpoint_id int8, worker int8, sync_ms float8, encode_ms float8, write_ms float8, rows int8, bytes int8",
        super::checkpoints::workers,
    ),
    table(
        "checkpoint_operators",
        "checkpoint_id int8, relation_id int8, schema text, relation text, kind text, operator text, type text, worker int8, \
         sync_ms float8, rows int8, bytes int8, in_flight_bytes int8",
        super::checkpoints::operators,
    ),
    table(
        "savepoints",
        "name text, epoch int8, checkpoint_id int8, views text[], rows int8, bytes int8, format text, taken_at timestamptz, \
         location text, damage text",
        savepoints,
    ),
    table(
        "recovery",
        "step text, subject text, rows int8, bytes int8, estimated_ms float8, basis text",
        recovery,
    ),
    table(
        "jobs",
        "relation_id int8, schema text, name text, kind text, activity text, rows_read int8, rows_total int8, \
         progress float8",
        jobs,
    ),
    table(
        "errors",
        "relation_id int8, schema text, relation text, kind text, operator text, sqlstate text, message text, row text, \
         split text, offset text, count int8",
        errors,
    ),
    table(
        "settings",
        "name text, value text, default_value text, server_value text, scope text, description text",
        settings,
    ),
];

fn named(relation: &Relation) -> Row {
    Row::new()
        .with("id", relation.id.0)
        .with("schema", relation.schema.as_str())
        .with("name", relation.name.as_str())
}

fn with_origin(row: Row, relation: &Relation) -> Row {
    row.with("owner", relation.owner.as_str())
        .with("definition", crate::secrets::definition(relation))
        .with(
            "created_at",
            Cell::from_millis(relation.created_at_ms as i64),
        )
}

/// How much the view stores of relations hold, over all workers.
struct Sizes(HashMap<RelationId, (u64, u64)>);

impl Sizes {
    fn now(scope: &Scope) -> Result<Self, SqlError> {
        let mut sizes = HashMap::new();
        for part in scope.database.runtime()?.view_sizes() {
            let size: &mut (u64, u64) = sizes.entry(part.relation).or_default();
            size.0 += part.state_cells;
            size.1 += part.state_bytes;
        }
        Ok(Self(sizes))
    }

    fn of(&self, row: Row, relation: RelationId) -> Row {
        let size = self.0.get(&relation);
        row.with("rows", size.map(|s| s.0))
            .with("bytes", size.map(|s| s.1))
    }
}

/// Names of stored columns, in this order.
fn column_names(relation: &Relation, columns: &[usize]) -> Vec<String> {
    columns
        .iter()
        .filter_map(|c| relation.columns.get(*c))
        .filter(|c| !c.hidden)
        .map(|c| c.name.clone())
        .collect()
}

fn views(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        if let RelationKind::View(def) = &relation.kind {
            rows.push(with_origin(named(relation), relation).with("query", def.query.as_str()));
        }
    }
    Ok(rows)
}

fn materialized_views(scope: &Scope) -> Rows {
    let runtime = scope.database.runtime()?;
    let building: Vec<RelationId> = runtime
        .status()
        .jobs
        .iter()
        .filter(|j| !j.is_alteration)
        .map(|j| j.relation)
        .collect();
    let suspensions = runtime.suspensions();
    let sizes = Sizes::now(scope)?;
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        let RelationKind::MaterializedView(def) = &relation.kind else {
            continue;
        };
        let is = |option: &str| def.options.get(option).is_some_and(|v| v == "true");
        let key = is(UNIQUE_OPTION).then(|| column_names(relation, &def.key));
        let how = suspensions.iter().find(|s| s.relation == relation.id);
        let row = with_origin(named(relation), relation)
            .with(
                "status",
                match how {
                    Some(how) => crate::suspension::status(how),
                    None if building.contains(&relation.id) => "building",
                    None => "running",
                },
            )
            .with("suspended_because", how.map(|s| s.cause.as_str()))
            .with("state_backend", backend(scope, relation))
            .with("key", key)
            .with("append_only", is(APPEND_ONLY_OPTION))
            .with("errors", runtime.error_count(relation.id))
            .with("query", def.query.as_str());
        rows.push(sizes.of(row, relation.id));
    }
    Ok(rows)
}

fn tables(scope: &Scope) -> Rows {
    let sizes = Sizes::now(scope)?;
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        let RelationKind::Table(def) = &relation.kind else {
            continue;
        };
        let row = with_origin(named(relation), relation)
            .with("primary_key", column_names(relation, &def.primary_key))
            .with("append_only", def.append_only)
            .with("state_backend", backend(scope, relation));
        rows.push(sizes.of(row, relation.id));
    }
    Ok(rows)
}

fn connected(scope: &Scope, relation: &Relation) -> Result<Option<Row>, SqlError> {
    let Some((connector, options)) = connector(relation) else {
        return Ok(None);
    };
    let options: Vec<String> = visible_options(options)
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let row = with_origin(named(relation), relation)
        .with("connector", connector)
        .with("options", options)
        .with("errors", scope.database.runtime()?.error_count(relation.id));
    Ok(Some(row))
}

fn sources(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        if let (RelationKind::Source(def), Some(row)) =
            (&relation.kind, connected(scope, relation)?)
        {
            rows.push(
                row.with("format", def.format.clone())
                    .with("encode", def.encode.clone()),
            );
        }
    }
    Ok(rows)
}

fn sinks(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        if let (RelationKind::Sink(def), Some(row)) = (&relation.kind, connected(scope, relation)?)
        {
            let row = row
                .with("format", def.format.clone())
                .with("encode", def.encode.clone());
            rows.push(row.with("query", def.query.as_str()));
        }
    }
    Ok(rows)
}

fn described(relation: &Relation) -> Row {
    Row::new()
        .with("relation_id", relation.id.0)
        .with("schema", relation.schema.as_str())
        .with("relation", relation.name.as_str())
        .with("name", relation.name.as_str())
        .with("kind", relation.class().to_string())
}

/// Visits what runs for each relation; plain views are part of who reads them.
pub(super) fn each_dataflow(
    scope: &Scope,
    visit: &mut dyn FnMut(&Relation, &Dataflow),
) -> Result<(), SqlError> {
    let catalog = scope.catalog();
    for relation in catalog.relations() {
        if let Some(spec) = scope.database.spec(&catalog, relation)? {
            visit(relation, &spec.dataflow);
        }
    }
    Ok(())
}

fn dataflows(scope: &Scope) -> Rows {
    let runtime = scope.database.runtime()?;
    let status = runtime.status();
    let sizes = Sizes::now(scope)?;
    let mut rows = Vec::new();
    each_dataflow(scope, &mut |relation, dataflow| {
        let building = status
            .jobs
            .iter()
            .any(|j| j.relation == relation.id && !j.is_alteration);
        let row = described(relation)
            .with("state_backend", backend(scope, relation))
            .with("operators", dataflow.nodes.len())
            .with(
                "state_tables",
                dataflow.nodes.iter().map(|n| n.state.len()).sum::<usize>(),
            )
            .with(
                "reads",
                dataflow
                    .reads()
                    .iter()
                    .map(|r| r.0 as i64)
                    .collect::<Vec<_>>(),
            )
            .with("status", if building { "building" } else { "running" })
            .with("workers", status.workers)
            .with("errors", runtime.error_count(relation.id));
        rows.push(sizes.of(row, relation.id));
    })?;
    Ok(rows)
}

fn operators(scope: &Scope) -> Rows {
    let mut failures: HashMap<(RelationId, String), i64> = HashMap::new();
    for error in scope.database.runtime()?.errors() {
        if let Some(operator) = error.operator {
            *failures.entry((error.relation, operator)).or_default() += error.count;
        }
    }
    let mut rows = Vec::new();
    each_dataflow(scope, &mut |relation, dataflow| {
        for (position, node) in dataflow.nodes.iter().enumerate() {
            let description = node.op.to_string();
            let operator = node.id.to_string();
            let inputs: Vec<String> = node
                .inputs
                .iter()
                .map(|e| dataflow.nodes[e.from].id.to_string())
                .collect();
            let failed = failures
                .get(&(relation.id, operator.clone()))
                .copied()
                .unwrap_or(0);
            rows.push(
                described(relation)
                    .with("operator", operator)
                    .with("position", position)
                    .with("type", description.split(' ').next())
                    .with("description", description.as_str())
                    .with("inputs", inputs)
                    .with("append_only", node.append_only)
                    .with("state_tables", node.state.len())
                    .with("errors", failed),
            );
        }
    })?;
    Ok(rows)
}

fn state_tables(scope: &Scope) -> Rows {
    let manifest = scope.database.store.base();
    let names = |schema: &arrow::datatypes::SchemaRef| -> Vec<String> {
        schema.fields().iter().map(|f| f.name().clone()).collect()
    };
    let mut rows = Vec::new();
    each_dataflow(scope, &mut |relation, dataflow| {
        for node in &dataflow.nodes {
            for (index, state) in node.state.iter().enumerate() {
                let id = TableId::of(relation.id, node.id, index);
                let kept = manifest.as_ref().and_then(|m| m.table(id));
                rows.push(
                    Row::new()
                        .with("name", state.name)
                        .with("kind", if state.map { "map" } else { "value" })
                        .with("relation_id", relation.id.0)
                        .with("schema", relation.schema.as_str())
                        .with("relation", relation.name.as_str())
                        .with("operator", node.id.to_string())
                        .with("state_table", id.to_string())
                        .with("key", names(&state.key))
                        .with("sub_key", names(&state.sub_key))
                        .with("value", names(&state.value))
                        .with(
                            "checkpointed_rows",
                            kept.map(tidegate_checkpoint::TableEntry::rows),
                        )
                        .with(
                            "checkpointed_bytes",
                            kept.map(tidegate_checkpoint::TableEntry::bytes),
                        ),
                );
            }
        }
    })?;
    Ok(rows)
}

fn barriers(scope: &Scope) -> Rows {
    let status = scope.database.runtime()?.status();
    Ok(vec![
        Row::new()
            .with("epoch", status.epoch.0)
            .with(
                "time",
                match status.time_ms {
                    0 => Cell::Null,
                    ms => Cell::from_millis(ms),
                },
            )
            .with("workers", status.workers)
            .with("barriers_in_flight", status.barriers_in_flight)
            .with("rows_in", status.rows_in)
            .with("restarts", status.restarts),
    ])
}

/// A setting's value: the server's where it can change while the server runs.
fn in_force(scope: &Scope, name: &str, settings: &crate::settings::Settings) -> String {
    let live = scope.database.live_setting(name);
    live.or_else(|| settings.get(name).map(str::to_owned))
        .unwrap_or_default()
}

fn recovery(scope: &Scope) -> Rows {
    let row = |step: crate::recovery::Step| {
        Row::new()
            .with("step", step.name)
            .with("subject", step.subject)
            .with("rows", step.rows)
            .with("bytes", step.bytes)
            .with("estimated_ms", step.estimated_ms)
            .with("basis", step.basis)
    };
    let steps = scope.database.recovery_steps()?;
    Ok(steps.into_iter().map(row).collect())
}

fn savepoints(scope: &Scope) -> Rows {
    let row = |info: tidegate_checkpoint::SavepointInfo| {
        let manifest = info.manifest.as_ref();
        Row::new()
            .with("name", info.name)
            .with("epoch", manifest.map(|m| m.epoch.0))
            .with("checkpoint_id", manifest.map(|m| m.checkpoint.0))
            .with("views", manifest.map(|m| crate::offline::views_of(m)))
            .with("format", manifest.map(|m| crate::offline::format_of(m)))
            .with("rows", manifest.map(|m| m.rows()))
            .with("bytes", manifest.map(|m| m.bytes()))
            .with(
                "taken_at",
                manifest.map_or(Cell::Null, |m| Cell::from_millis(m.created_ms)),
            )
            .with("location", info.location)
            .with("damage", info.damage.map(|d| d.to_string()))
    };
    Ok(scope
        .database
        .store
        .savepoints()
        .into_iter()
        .map(row)
        .collect())
}

/// A relation's names for a list by its id; what was just dropped has none.
pub(super) fn of_relation(scope: &Scope, id: RelationId) -> Row {
    match scope.catalog().relation(id) {
        Some(relation) => described(relation),
        None => Row::new().with("relation_id", id.0),
    }
}

fn jobs(scope: &Scope) -> Rows {
    let status = scope.database.runtime()?.status();
    let row = |job: &tidegate_runtime::JobStatus| {
        of_relation(scope, job.relation)
            .with(
                "activity",
                if job.is_alteration { "alter" } else { "build" },
            )
            .with("rows_read", job.rows_read)
            .with("rows_total", job.rows_total)
            .with("progress", job.fraction)
    };
    Ok(status.jobs.iter().map(row).collect())
}

fn errors(scope: &Scope) -> Rows {
    let row = |error: tidegate_runtime::ErrorRow| {
        of_relation(scope, error.relation)
            .with("operator", error.operator)
            .with("sqlstate", error.state)
            .with("message", error.message)
            .with("row", error.row)
            .with("split", error.split)
            .with("offset", error.offset)
            .with("count", error.count)
    };
    Ok(scope
        .database
        .runtime()?
        .errors()
        .into_iter()
        .map(row)
        .collect())
}

/// How far event time has come, of each source and table that has a watermark.
fn watermarks(scope: &Scope) -> Rows {
    let row = |(id, reached, late): (RelationId, Option<i64>, u64)| {
        let row = of_relation(scope, id).with("late_rows", late);
        let ended = reached == Some(tidegate_types::watermark::END_OF_TIME);
        let row = row
            .with("watermark", reached.filter(|_| !ended).map(Cell::Time))
            .with("ended", ended);
        let catalog = scope.catalog();
        let relation = catalog.relation(id);
        let watermark = relation.and_then(|r| match &r.kind {
            RelationKind::Source(def) => def.watermark.as_ref(),
            RelationKind::Table(def) => def.watermark.as_ref(),
            _ => None,
        });
        match relation.zip(watermark) {
            Some((relation, def)) => row
                .with("column_name", relation.columns[def.column].name.as_str())
                .with("delay", micros_as_interval(def.delay_us)),
            None => row,
        }
    };
    let known = scope.database.runtime()?.watermarks();
    Ok(known.into_iter().map(row).collect())
}

fn settings(scope: &Scope) -> Rows {
    let row = |setting: &crate::settings::Setting| {
        Row::new()
            .with("name", setting.name)
            .with("value", in_force(scope, setting.name, &scope.settings))
            .with("default_value", setting.default)
            .with(
                "server_value",
                in_force(scope, setting.name, &scope.database.config.settings),
            )
            .with(
                "scope",
                if setting.scope == SettingScope::Session {
                    "session"
                } else {
                    "server"
                },
            )
            .with("description", setting.description)
    };
    Ok(SETTINGS.iter().map(row).collect())
}
