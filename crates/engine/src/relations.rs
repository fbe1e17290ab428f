//! Between the catalog and those who need relations in another form: the planner asks for names, the runtime for plans.

use crate::checkpoint_settings;
use crate::system::SystemTables;
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_catalog::{
    Catalog, MaterializedViewDef, Relation, RelationKind, SearchPath, SinkDef, SourceDef, TableDef,
    WatermarkDef,
};
use tidegate_connectors::registry::{self, SinkRequest};
use tidegate_connectors::{Format, Source};
use tidegate_parser::Statement;
use tidegate_parser::sqlparser::ast;
use tidegate_plan::{ColumnWatermarks, Dataflow, PlanError, Stored, Watermark};
use tidegate_planner::dataflow::StoredRelation;
use tidegate_planner::{Planner, Relations, Resolved, ViewQuery, stored_functions};
use tidegate_runtime::{EventTime, RelationSpec};
use tidegate_state::BackendKind;
use tidegate_types::{RelationId, SqlError};

/// The option under which a view keeps the path along which its names were found, when it is not the default.
pub(crate) const SEARCH_PATH_OPTION: &str = "search_path";

/// Names as one statement sees them: a version of the catalog, a search path, and the system tables.
pub(crate) struct Names {
    pub catalog: Catalog,
    pub path: SearchPath,
    /// `None` where a definition is planned: views do not read system tables.
    pub system: Option<SystemTables>,
}

impl Relations for Names {
    fn relation(&self, name: &TableReference) -> Result<Resolved, SqlError> {
        if let Some(found) = self.system.as_ref().and_then(|s| s.find(name, &self.path)) {
            let (name, provider) = found?;
            let schema = provider.schema();
            return Ok(Resolved {
                id: RelationId(0),
                name,
                kind: tidegate_planner::RelationKind::System,
                columns: (0..schema.fields().len()).collect(),
                schema,
                unique_key: None,
                append_only: false,
                watermarks: Vec::new(),
                view: None,
                source: Some(provider_as_source(provider)),
            });
        }
        let parts: Vec<String> = match name {
            TableReference::Bare { table } => vec![table.to_string()],
            TableReference::Partial { schema, table }
            | TableReference::Full { schema, table, .. } => {
                vec![schema.to_string(), table.to_string()]
            }
        };
        let relation = self.catalog.resolve(&parts, &self.path)?;
        resolved(relation)
    }

    fn function(&self, name: &str) -> Option<Arc<datafusion::logical_expr::ScalarUDF>> {
        self.system.as_ref()?.function(name)
    }
}

fn resolved(relation: &Relation) -> Result<Resolved, SqlError> {
    use tidegate_planner::RelationKind as Kind;
    let visible: Vec<_> = relation.visible_columns().collect();
    let fields: Vec<_> = visible
        .iter()
        .map(|(_, c)| c.sql_type.field(&c.name, c.nullable))
        .collect();
    let columns: Vec<usize> = visible.iter().map(|(i, _)| *i).collect();
    let position = |stored: &usize| columns.iter().position(|c| c == stored);
    let (kind, key, append_only, view) = match &relation.kind {
        RelationKind::Table(def) => (Kind::Table, Some(&def.primary_key), def.append_only, None),
        RelationKind::Source(_) => (Kind::Source, None, true, None),
        RelationKind::View(def) => (Kind::View, None, false, Some(view_query(&def.query)?)),
        RelationKind::MaterializedView(def) => {
            let unique = def.options.get(UNIQUE_OPTION).is_some_and(|v| v == "true");
            let append_only = def
                .options
                .get(APPEND_ONLY_OPTION)
                .is_some_and(|v| v == "true");
            (
                Kind::MaterializedView,
                unique.then_some(&def.key),
                append_only,
                None,
            )
        }
        RelationKind::Sink(_) => {
            return Err(SqlError::new(
                tidegate_types::SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is a sink and cannot be read", relation.name),
            ));
        }
    };
    let unique_key = key
        .and_then(|key| key.iter().map(position).collect::<Option<Vec<_>>>())
        .filter(|k| !k.is_empty());
    let watermarks = watermarks(relation)
        .into_iter()
        .filter_map(|(column, watermark)| Some((position(&column)?, watermark)))
        .collect();
    Ok(Resolved {
        id: relation.id,
        name: relation.name.clone(),
        kind,
        schema: Arc::new(arrow::datatypes::Schema::new(fields)),
        columns,
        unique_key,
        append_only,
        watermarks,
        view,
        source: None,
    })
}

/// The watermarks of stored columns.
fn watermarks(relation: &Relation) -> ColumnWatermarks {
    match &relation.kind {
        RelationKind::Table(TableDef { watermark, .. })
        | RelationKind::Source(SourceDef { watermark, .. }) => {
            let of = |def: &WatermarkDef| (def.column, Watermark::of_source(relation.id));
            watermark.iter().map(of).collect()
        }
        RelationKind::MaterializedView(def) => def
            .options
            .get(WATERMARKS_OPTION)
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default(),
        RelationKind::View(_) | RelationKind::Sink(_) => Vec::new(),
    }
}

/// What a watermark says of the rows of a relation.
fn event_time(watermark: Option<&WatermarkDef>) -> Option<EventTime> {
    watermark.map(|def| EventTime {
        column: def.column,
        delay_us: def.delay_us,
        keeps_late: def.keeps_late,
    })
}

/// What the planner found out about a view, kept with its definition so that others can be planned over it.
pub(crate) const UNIQUE_OPTION: &str = "tidegate.unique";
pub(crate) const APPEND_ONLY_OPTION: &str = "tidegate.append_only";
pub(crate) const WATERMARKS_OPTION: &str = "tidegate.watermarks";

fn view_query(text: &str) -> Result<ViewQuery, SqlError> {
    Ok(ViewQuery {
        query: Arc::new(parse_query(text)?),
        text: text.to_owned(),
    })
}

/// The tree of a query that a definition keeps as text.
pub(crate) fn parse_query(text: &str) -> Result<ast::Query, SqlError> {
    let parsed = tidegate_parser::parse(text).map_err(parse_error)?;
    match parsed.into_iter().next().map(|p| p.statement) {
        Some(Statement::Sql(statement)) => match *statement {
            ast::Statement::Query(query) => Ok(*query),
            other => Err(SqlError::internal(format!(
                "a definition holds a statement that is no query: {other}"
            ))),
        },
        _ => Err(SqlError::internal("a definition holds no query")),
    }
}

pub(crate) fn parse_error(error: tidegate_parser::ParseError) -> SqlError {
    let mut told = SqlError::new(
        tidegate_types::SqlState::from_code(error.sqlstate),
        error.message,
    );
    told.hint = error.hint;
    told.position = Some(error.position);
    told
}

/// What to run for a relation; `None` for a plain view, which is part of whoever reads it.
pub(crate) struct Specs<'a> {
    pub catalog: &'a Catalog,
    pub default_backend: BackendKind,
    /// Of the database, among all that may write to the same places.
    pub identity: &'a str,
    /// Connectors that were made already: the readers of one source share theirs.
    pub connectors: &'a mut HashMap<RelationId, Arc<dyn Source>>,
}

impl Specs<'_> {
    pub fn of(&mut self, relation: &Relation) -> Result<Option<RelationSpec>, SqlError> {
        if crate::suspension::suspension(relation).is_some() {
            return Ok(None);
        }
        match &relation.kind {
            RelationKind::Table(def) => Ok(Some(self.table(relation, def))),
            RelationKind::Source(def) => self.source(relation, def).map(Some),
            RelationKind::View(_) => Ok(None),
            RelationKind::MaterializedView(def) => self.view(relation, def).map(Some),
            RelationKind::Sink(def) => self.sink(relation, def).map(Some),
        }
    }

    fn table(&self, relation: &Relation, def: &TableDef) -> RelationSpec {
        let dataflow = tidegate_planner::plan_table(&StoredRelation {
            id: relation.id,
            name: relation.name.clone(),
            schema: relation.arrow_schema(),
            primary_key: def.primary_key.clone(),
            append_only: def.append_only,
        });
        let backend = self.backend(&def.options);
        RelationSpec {
            dataflow,
            readers: Vec::new(),
            source: None,
            sink: None,
            backend,
            event_time: event_time(def.watermark.as_ref()),
            choices: checkpoint_settings::choices(relation),
        }
    }

    fn source(&mut self, relation: &Relation, def: &SourceDef) -> Result<RelationSpec, SqlError> {
        let schema = relation.arrow_schema();
        let connector = match self.connectors.get(&relation.id) {
            Some(connector) => connector.clone(),
            None => {
                let format = format_of(
                    def.format.as_deref(),
                    def.encode.as_deref(),
                    &def.format_options,
                )?;
                let made =
                    registry::source(&def.connector, &schema, &def.options, format.as_ref())?;
                self.connectors.insert(relation.id, made.clone());
                made
            }
        };
        let dataflow = tidegate_planner::plan_source(&StoredRelation {
            id: relation.id,
            name: relation.name.clone(),
            schema,
            primary_key: Vec::new(),
            append_only: connector.append_only(),
        });
        let backend = self.default_backend;
        Ok(RelationSpec {
            dataflow,
            readers: Vec::new(),
            source: Some(connector),
            sink: None,
            backend,
            event_time: event_time(def.watermark.as_ref()),
            choices: checkpoint_settings::choices(relation),
        })
    }

    fn view(
        &mut self,
        relation: &Relation,
        def: &MaterializedViewDef,
    ) -> Result<RelationSpec, SqlError> {
        let dataflow = compiled(relation, &def.plan_json, || {
            let names = self.names(&def.options);
            let columns: Vec<String> = relation.columns.iter().map(|c| c.name.clone()).collect();
            let planned = Planner::new(&names, &def.query)
                .emitting_on_close(def.emit_on_window_close)
                .plan_materialized_view(
                    parse_query(&def.query)?,
                    &columns,
                    relation.id,
                    &relation.name,
                )?;
            Ok(planned.dataflow)
        })?;
        let readers = self.readers(&dataflow.reads())?;
        let backend = self.backend(&def.options);
        Ok(RelationSpec {
            dataflow,
            readers,
            source: None,
            sink: None,
            backend,
            event_time: None,
            choices: checkpoint_settings::choices(relation),
        })
    }

    /// What to run for a view that only a subscription knows of.
    pub fn of_planned(
        &mut self,
        planned: tidegate_planner::PlannedView,
    ) -> Result<RelationSpec, SqlError> {
        Ok(RelationSpec {
            readers: self.readers(&planned.reads)?,
            dataflow: planned.dataflow,
            source: None,
            sink: None,
            backend: self.default_backend,
            event_time: None,
            choices: Arc::default(),
        })
    }

    fn sink(&mut self, relation: &Relation, def: &SinkDef) -> Result<RelationSpec, SqlError> {
        let dataflow = compiled(relation, &def.plan_json, || {
            let names = self.names(&def.options);
            let planned = Planner::new(&names, &def.query).plan_sink(
                parse_query(&def.query)?,
                relation.id,
                &relation.name,
            )?;
            Ok(planned.dataflow)
        })?;
        let readers = self.readers(&dataflow.reads())?;
        let mut options = def.options.clone();
        options.remove(SEARCH_PATH_OPTION);
        let format = format_of(
            def.format.as_deref(),
            def.encode.as_deref(),
            &def.format_options,
        )?;
        let sink = registry::sink(&SinkRequest {
            id: &format!("{}-{}", self.identity, relation.id),
            connector: &def.connector,
            schema: &relation.arrow_schema(),
            options: &options,
            format: format.as_ref(),
            append_only: dataflow.root().append_only,
        })?;
        let backend = self.default_backend;
        Ok(RelationSpec {
            dataflow,
            readers,
            source: None,
            sink: Some(sink),
            backend,
            event_time: None,
            choices: checkpoint_settings::choices(relation),
        })
    }

    fn readers(&mut self, reads: &[RelationId]) -> Result<Vec<RelationSpec>, SqlError> {
        let mut readers = Vec::new();
        for id in reads {
            let relation = self.catalog.relation(*id).cloned();
            if let Some(relation) = relation
                && let RelationKind::Source(def) = &relation.kind
            {
                readers.push(self.source(&relation, def)?);
            }
        }
        Ok(readers)
    }

    fn names(&self, options: &std::collections::BTreeMap<String, String>) -> Names {
        let path = match options.get(SEARCH_PATH_OPTION) {
            Some(path) => SearchPath(path.split(',').map(str::to_owned).collect()),
            None => SearchPath::default(),
        };
        Names {
            catalog: self.catalog.clone(),
            path,
            system: None,
        }
    }

    fn backend(&self, options: &std::collections::BTreeMap<String, String>) -> BackendKind {
        match options.get("state_backend").map(String::as_str) {
            Some("rocksdb") => BackendKind::RocksDb,
            Some(_) => BackendKind::Memory,
            None => self.default_backend,
        }
    }
}

/// The plan that a definition keeps. `plan` makes it anew, where only its shape is kept.
fn compiled(
    relation: &Relation,
    stored: &str,
    plan: impl FnOnce() -> Result<Dataflow, SqlError>,
) -> Result<Dataflow, SqlError> {
    let unusable = |error: PlanError| unusable(&relation.name, &error);
    let mut dataflow = match Stored::read(stored, stored_functions()).map_err(unusable)? {
        Stored::Plan(dataflow) => *dataflow,
        Stored::Shape(shape) => shape.restore_ids(plan()?).map_err(unusable)?,
    };
    dataflow.name.clone_from(&relation.name);
    Ok(dataflow)
}

/// State would be detached from operators, or misread: nothing is started.
pub(crate) fn unusable(name: &str, error: &PlanError) -> SqlError {
    SqlError::new(
        tidegate_types::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the plan of \"{name}\" cannot be used: {error}"),
    )
    .with_hint(
        "Start the version that wrote it, and create the relation anew there with its definition, or drop it.",
    )
}

pub(crate) fn format_of(
    format: Option<&str>,
    encode: Option<&str>,
    options: &std::collections::BTreeMap<String, String>,
) -> Result<Option<Format>, SqlError> {
    match (format, encode) {
        (Some(format), Some(encode)) => Ok(Some(Format::new(format, encode, options.clone())?)),
        _ => Ok(None),
    }
}
