//! `CREATE …`: checked, planned, logged, told to the runtime, and for a view waited for.

use super::{Session, command};
use crate::api::{CancelReason, Notice, NoticeSeverity, Response};
use crate::checkpoint_settings::{check_options, refuse_server_options};
use crate::database::{Database, OWNER};
use crate::relations::{
    APPEND_ONLY_OPTION, Names, SEARCH_PATH_OPTION, UNIQUE_OPTION, WATERMARKS_OPTION, format_of,
};
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_catalog::{
    Catalog, CatalogChange, CatalogError, Column, MaterializedViewDef, Relation, RelationKind,
    Schema, SinkDef, SourceDef, TableDef, ViewDef, WatermarkDef,
};
use tidegate_connectors::registry;
use tidegate_parser::sqlparser::ast;
use tidegate_parser::{
    CreateMaterializedView, CreateSink, CreateSource, CreateTable, FormatEncode, SinkInput,
    WithOption,
};
use tidegate_plan::ColumnWatermarks;
use tidegate_planner::functions::types::sql_type_of;
use tidegate_planner::{Planner, stored_functions};
use tidegate_types::{RelationId, SqlError, SqlState, SqlType};

/// Options that a materialized view takes.
pub(super) const VIEW_OPTIONS: &[&str] = &[
    "state_backend",
    "checkpoint_mode",
    "checkpoint_guarantee",
    "checkpoint_on_drop",
];

/// A session while it changes the catalog.
pub(crate) struct Ddl<'a> {
    pub(super) session: &'a mut Session,
    pub(super) database: Arc<Database>,
}

impl Session {
    pub(super) async fn ddl(&mut self) -> Result<Ddl<'_>, SqlError> {
        if self.in_block() {
            self.ddl_in_block()?;
        } else if let Some(transaction) = self.transaction.take() {
            // Statements before it in the same message are done first.
            self.commit_changes(transaction).await?;
        }
        let database = self.database.clone();
        Ok(Ddl {
            session: self,
            database,
        })
    }
}

/// A name that can be used, or a notice that it is taken already.
enum NewName {
    Free { schema: String, name: String },
    Taken,
}

impl Ddl<'_> {
    fn new_name(
        &mut self,
        name: &ast::ObjectName,
        if_not_exists: bool,
    ) -> Result<NewName, SqlError> {
        let catalog = self.database.catalog.get();
        match catalog.name_for_new(&tidegate_parser::name_parts(name), &self.session.path()) {
            Ok((schema, name)) => Ok(NewName::Free { schema, name }),
            Err(CatalogError::DuplicateRelation { name }) if if_not_exists => {
                let message = format!("relation \"{name}\" already exists, skipping");
                let content = SqlError::new(SqlState::DUPLICATE_TABLE, message);
                self.session.notices.push(Notice {
                    severity: NoticeSeverity::Notice,
                    content,
                });
                Ok(NewName::Taken)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn relation(
        &self,
        id: RelationId,
        (schema, name): (String, String),
        kind: RelationKind,
        columns: Vec<Column>,
        definition: &str,
        depends_on: Vec<RelationId>,
    ) -> Relation {
        let mut depends_on = depends_on;
        depends_on.sort_unstable();
        depends_on.dedup();
        Relation {
            id,
            schema,
            name,
            kind,
            columns,
            definition: definition.to_owned(),
            depends_on,
            created_at_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_millis() as u64),
            owner: OWNER.to_owned(),
            comments: BTreeMap::new(),
        }
    }

    /// Makes a relation durable and runs it. Where running fails it is taken back.
    pub(super) async fn install(&mut self, relation: Relation) -> Result<(), SqlError> {
        self.install_from(relation, None).await
    }

    /// As [`Self::install`], beginning with the state of a savepoint.
    async fn install_from(
        &mut self,
        relation: Relation,
        savepoint: Option<&ast::Ident>,
    ) -> Result<(), SqlError> {
        let id = relation.id;
        let database = self.database.clone();
        let mut next = database.catalog.get();
        let change = CatalogChange::CreateRelation(Box::new(relation.clone()));
        next.apply(&change)?;
        let spec = database.spec(&next, &relation)?;
        if let Some(spec) = &spec
            && let Some(notice) = database.check_choices(&relation, spec)?
        {
            self.session.notice(notice);
        }
        let beginning = match (savepoint, &spec) {
            (Some(savepoint), Some(spec)) => {
                Some(self.beginning(&next, &relation, spec, savepoint).await?)
            }
            _ => None,
        };
        self.session.last_write = database.log_catalog(next, vec![change]).await?;
        let Some(spec) = spec else { return Ok(()) };
        let (seed, _held) = beginning.map(|b| (b.seed, b.held)).unzip();
        let created = database.runtime()?.create_from(spec, seed).await;
        if let Err(error) = created {
            database.forget_connector(id);
            self.forget(id).await?;
            return Err(match savepoint {
                Some(savepoint) => Session::not_begun(savepoint, error),
                None => error,
            });
        }
        Ok(())
    }

    async fn forget(&mut self, id: RelationId) -> Result<(), SqlError> {
        let mut next = self.database.catalog.get();
        let change = CatalogChange::DropRelations(vec![id]);
        next.apply(&change)?;
        self.database.log_catalog(next, vec![change]).await?;
        Ok(())
    }

    /// Takes a relation back that was just installed.
    pub(super) async fn uninstall(&mut self, id: RelationId) -> Result<(), SqlError> {
        self.forget(id).await?;
        self.database.runtime()?.drop_relations(&[id]).await
    }

    pub async fn create_table(
        &mut self,
        create: &CreateTable,
        text: &str,
    ) -> Result<Response, SqlError> {
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        let refused = [
            (
                create.watermark.is_some() && create.query.is_some(),
                "WATERMARK with CREATE TABLE AS",
            ),
            (
                create.watermark.is_some() && !create.append_only,
                "WATERMARK on a table that is not APPEND ONLY",
            ),
            (create.on_conflict.is_some(), "ON CONFLICT of a table"),
            (create.version_column.is_some(), "WITH VERSION COLUMN"),
            (!create.include.is_empty(), "INCLUDE on a table"),
            (create.format.is_some(), "a table with a connector"),
        ];
        if let Some((_, feature)) = refused.iter().find(|(asked, _)| *asked) {
            return Err(SqlError::not_supported(feature));
        }
        let NewName::Free { schema, name } = self.new_name(&create.name, create.if_not_exists)?
        else {
            let tag = match create.query {
                Some(_) => "CREATE TABLE AS",
                None => "CREATE TABLE",
            };
            return Ok(command(tag));
        };
        let options = known_options(&create.options, &["state_backend"], "table")?;
        check_backend(&options)?;
        if let Some(query) = &create.query {
            return self
                .create_table_as(create, query, (schema, name), options)
                .await;
        }
        let mut columns = Vec::new();
        let mut key = KeyClause::default();
        for column in &create.columns {
            columns.push(table_column(column, &mut key)?);
        }
        for constraint in &create.constraints {
            key.take(constraint)?;
        }
        no_duplicate_columns(&columns)?;
        let primary_key = key.columns_of(&mut columns)?;
        self.check_defaults(&columns)?;
        let checks = super::check::named(&name, &columns, std::mem::take(&mut key.checks));
        for check in &checks {
            self.session.check_condition(&name, &columns, check)?;
        }
        let watermark = match &create.watermark {
            Some(watermark) => Some(self.session.watermark(watermark, &name, &columns, text)?),
            None => None,
        };
        let def = TableDef {
            primary_key_name: (!primary_key.is_empty())
                .then(|| key.name.unwrap_or_else(|| format!("{name}_pkey"))),
            primary_key,
            append_only: create.append_only,
            checks,
            options,
            watermark,
        };
        let id = database.catalog.get().next_id();
        let relation = self.relation(
            id,
            (schema, name),
            RelationKind::Table(def),
            columns,
            text,
            Vec::new(),
        );
        self.install(relation).await?;
        Ok(command("CREATE TABLE"))
    }

    /// Defaults are expressions without columns that can be assigned to their column.
    fn check_defaults(&self, columns: &[Column]) -> Result<(), SqlError> {
        for column in columns {
            if let Some(default) = &column.default {
                self.session.check_default(default, column)?;
            }
        }
        Ok(())
    }

    pub async fn create_source(
        &mut self,
        create: &CreateSource,
        text: &str,
    ) -> Result<Response, SqlError> {
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        if !create.include.is_empty() {
            return Err(SqlError::not_supported("INCLUDE"));
        }
        if let Some(constraint) = create.constraints.first() {
            return Err(SqlError::not_supported(format!(
                "constraint {constraint} on a source"
            )));
        }
        let NewName::Free { schema, name } = self.new_name(&create.name, create.if_not_exists)?
        else {
            return Ok(command("CREATE SOURCE"));
        };
        let mut options = option_map(&create.options)?;
        let connector = take_connector(&mut options, "CREATE SOURCE")?;
        let keeps_late =
            super::watermark::take_late_rows(&mut options, create.watermark.is_some())?;
        let mut def = source_def(connector, options, create.format.as_ref())?;
        let mut columns = Vec::new();
        for column in &create.columns {
            columns.push(source_column(column)?);
        }
        if columns.is_empty() {
            let own = registry::schema_of(&def.connector, &def.options)?;
            // An unknown connector is told before missing columns.
            let nothing = Arc::new(arrow::datatypes::Schema::empty());
            let schema = match own {
                Some(schema) => schema,
                None => {
                    let format = format_of(
                        def.format.as_deref(),
                        def.encode.as_deref(),
                        &def.format_options,
                    )?;
                    registry::source(&def.connector, &nothing, &def.options, format.as_ref())?;
                    return Err(SqlError::new(
                        SqlState::INVALID_TABLE_DEFINITION,
                        format!(
                            "a source with connector \"{}\" needs columns",
                            def.connector
                        ),
                    ));
                }
            };
            columns = columns_of(&schema);
        }
        no_duplicate_columns(&columns)?;
        if let Some(watermark) = &create.watermark {
            let found = self.session.watermark(watermark, &name, &columns, text)?;
            def.watermark = Some(WatermarkDef {
                keeps_late,
                ..found
            });
        }
        let id = database.catalog.get().next_id();
        let relation = self.relation(
            id,
            (schema, name),
            RelationKind::Source(def),
            columns,
            text,
            Vec::new(),
        );
        // A source that cannot be read is refused now, and not with the first view over it.
        let spec = database.spec(&database.catalog.get(), &relation)?;
        let checked = spec
            .and_then(|s| s.source)
            .map(|source| source.splits().map(|_| ()))
            .transpose();
        if let Err(error) = checked {
            database.forget_connector(id);
            return Err(error.into());
        }
        self.install(relation).await?;
        Ok(command("CREATE SOURCE"))
    }

    pub async fn create_view(
        &mut self,
        create: &ast::CreateView,
        text: &str,
    ) -> Result<Response, SqlError> {
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        if create.materialized || create.temporary {
            return Err(SqlError::not_supported("this form of CREATE VIEW"));
        }
        let old = match create.or_replace {
            true => self.replaced_view(&create.name)?,
            false => None,
        };
        let (schema, name) = match &old {
            Some(old) => (old.schema.clone(), old.name.clone()),
            None => match self.new_name(&create.name, create.if_not_exists)? {
                NewName::Free { schema, name } => (schema, name),
                NewName::Taken => return Ok(command("CREATE VIEW")),
            },
        };
        let query = create.query.to_string();
        let given: Vec<String> = create
            .columns
            .iter()
            .map(|c| tidegate_parser::fold(&c.name))
            .collect();
        let names = self.definition_names();
        let (found, direct) = Planner::new(&names, &query)
            .plan_view(crate::relations::parse_query(&query)?, &given)
            .map_err(unplaced)?;
        let columns = columns_of(&found);
        let id = names.catalog.next_id();
        let kind = RelationKind::View(ViewDef { query });
        let mut relation = self.relation(id, (schema, name), kind, columns, text, direct);
        match old {
            None => self.install(relation).await?,
            Some(old) => {
                super::view::expect_compatible(&old, &relation)?;
                relation.id = old.id;
                relation.created_at_ms = old.created_at_ms;
                relation.comments.clone_from(&old.comments);
                self.replace(relation).await?;
            }
        }
        Ok(command("CREATE VIEW"))
    }

    pub async fn create_materialized_view(
        &mut self,
        create: &CreateMaterializedView,
        text: &str,
    ) -> Result<Response, SqlError> {
        let database = self.database.clone();
        database.runtime()?.check_memory()?;
        if create.or_replace && self.replaces(&create.name)? {
            return self.replace_materialized_view(create, text).await;
        }
        let id = {
            let _turn = database.ddl.lock().await;
            match self.install_materialized_view(create, text).await? {
                Some(id) => id,
                None => return Ok(command("CREATE MATERIALIZED VIEW")),
            }
        };
        if !self.session.settings.boolean("background_ddl") {
            self.wait_for_backfill(id).await?;
        }
        Ok(command("CREATE MATERIALIZED VIEW"))
    }

    async fn install_materialized_view(
        &mut self,
        create: &CreateMaterializedView,
        text: &str,
    ) -> Result<Option<RelationId>, SqlError> {
        let NewName::Free { schema, name } = self.new_name(&create.name, create.if_not_exists)?
        else {
            return Ok(None);
        };
        refuse_server_options(create.options.iter().map(|o| o.name.as_str()))?;
        let mut options = known_options(&create.options, VIEW_OPTIONS, "materialized view")?;
        check_backend(&options)?;
        check_options(&options)?;
        let names = self.definition_names();
        let id = names.catalog.next_id();
        let given: Vec<String> = create.columns.iter().map(tidegate_parser::fold).collect();
        let query = crate::relations::parse_query(&create.query.text)?;
        let offset = text.find(&create.query.text).unwrap_or(0);
        let planned = Planner::new(&names, &create.query.text)
            .emitting_on_close(create.emit_on_window_close)
            .plan_materialized_view(query, &given, id, &name)
            .map_err(|e| moved(e, text, offset))?;
        for notice in &planned.notices {
            self.session.notice(notice.clone());
        }
        if planned.unique {
            options.insert(UNIQUE_OPTION.to_owned(), "true".to_owned());
        }
        if planned.append_only {
            options.insert(APPEND_ONLY_OPTION.to_owned(), "true".to_owned());
        }
        remember_watermarks(&mut options, &planned.watermarks)?;
        self.remember_path(&mut options);
        let def = MaterializedViewDef {
            query: create.query.text.clone(),
            options,
            plan_json: planned.dataflow.to_stored(stored_functions()),
            key: planned.key.clone(),
            emit_on_window_close: create.emit_on_window_close,
        };
        let columns = columns_of(&planned.schema);
        let kind = RelationKind::MaterializedView(def);
        let mut depends_on = planned.direct;
        depends_on.extend(planned.reads);
        let text = match create.from_savepoint {
            Some(_) => super::seed::lasting_definition(text, &create.query.text),
            None => text.to_owned(),
        };
        let relation = self.relation(id, (schema, name), kind, columns, &text, depends_on);
        self.install_from(relation, create.from_savepoint.as_ref())
            .await?;
        Ok(Some(id))
    }

    /// A person who loses patience leaves the view building in the background.
    pub(super) async fn wait_for_backfill(&mut self, id: RelationId) -> Result<(), SqlError> {
        let runtime = self.database.runtime()?;
        let cancel = self.session.cancel.clone();
        tokio::select! {
            result = runtime.wait_complete(id) => result,
            reason = cancel.cancelled() => match reason {
                CancelReason::UserRequest => {
                    cancel.reset();
                    self.session.notice("the materialized view is still being built in the background; SHOW JOBS tells how far it is");
                    Ok(())
                }
                reason => Err(reason.error()),
            },
        }
    }

    pub async fn create_sink(
        &mut self,
        create: &CreateSink,
        text: &str,
    ) -> Result<Response, SqlError> {
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        let NewName::Free { schema, name } = self.new_name(&create.name, create.if_not_exists)?
        else {
            return Ok(command("CREATE SINK"));
        };
        let mut options = option_map(&create.options)?;
        let connector = take_connector(&mut options, "CREATE SINK")?;
        let query = match &create.input {
            SinkInput::Relation(relation) => format!("SELECT * FROM {relation}"),
            SinkInput::Query(query) => query.text.clone(),
        };
        let names = self.definition_names();
        let id = names.catalog.next_id();
        let planned = Planner::new(&names, &query)
            .plan_sink(crate::relations::parse_query(&query)?, id, &name)
            .map_err(unplaced)?;
        self.remember_path(&mut options);
        let source = source_def(connector, options, create.format.as_ref())?;
        let def = SinkDef {
            query,
            connector: source.connector,
            options: source.options,
            format: source.format,
            encode: source.encode,
            format_options: source.format_options,
            plan_json: planned.dataflow.to_stored(stored_functions()),
        };
        let columns = columns_of(&planned.schema);
        let mut depends_on = planned.direct;
        depends_on.extend(planned.reads);
        let relation = self.relation(
            id,
            (schema, name),
            RelationKind::Sink(def),
            columns,
            text,
            depends_on,
        );
        self.install(relation).await?;
        Ok(command("CREATE SINK"))
    }

    pub async fn create_schema(
        &mut self,
        name: &ast::SchemaName,
        if_not_exists: bool,
    ) -> Result<Response, SqlError> {
        let database = self.database.clone();
        let _turn = database.ddl.lock().await;
        let ast::SchemaName::Simple(name) = name else {
            return Err(SqlError::not_supported("CREATE SCHEMA AUTHORIZATION"));
        };
        let name = tidegate_parser::name_parts(name).pop().unwrap_or_default();
        let mut next: Catalog = database.catalog.get();
        if if_not_exists && next.schema(&name).is_some() {
            self.session
                .notice(format!("schema \"{name}\" already exists, skipping"));
            return Ok(command("CREATE SCHEMA"));
        }
        let change = CatalogChange::CreateSchema(Schema {
            name,
            owner: OWNER.to_owned(),
        });
        next.apply(&change)?;
        self.session.last_write = database.log_catalog(next, vec![change]).await?;
        Ok(command("CREATE SCHEMA"))
    }

    /// Names for a definition: what it may refer to outlives the session.
    fn definition_names(&self) -> Names {
        Names {
            catalog: self.database.catalog.get(),
            path: self.session.path(),
            system: None,
        }
    }

    fn remember_path(&self, options: &mut BTreeMap<String, String>) {
        let path = self.session.path();
        if path != tidegate_catalog::SearchPath::default() {
            options.insert(SEARCH_PATH_OPTION.to_owned(), path.0.join(","));
        }
    }
}

/// The position of an error within a part of a statement, as one within the statement.
pub(super) fn moved(mut error: SqlError, text: &str, offset: usize) -> SqlError {
    error.position = error.position.map(|p| p + text[..offset].chars().count());
    error
}

fn unplaced(mut error: SqlError) -> SqlError {
    error.position = None;
    error
}

/// Views over this one derive from them which of their state is final.
pub(super) fn remember_watermarks(
    options: &mut BTreeMap<String, String>,
    watermarks: &ColumnWatermarks,
) -> Result<(), SqlError> {
    options.remove(WATERMARKS_OPTION);
    if !watermarks.is_empty() {
        let json = serde_json::to_string(watermarks).map_err(SqlError::internal)?;
        options.insert(WATERMARKS_OPTION.to_owned(), json);
    }
    Ok(())
}

pub(super) fn columns_of(schema: &SchemaRef) -> Vec<Column> {
    let column = |f: &Arc<arrow::datatypes::Field>| Column {
        name: f.name().clone(),
        sql_type: SqlType::from_field(f),
        nullable: f.is_nullable(),
        default: None,
        generated: None,
        hidden: false,
    };
    schema.fields().iter().map(column).collect()
}

pub(super) fn no_duplicate_columns(columns: &[Column]) -> Result<(), SqlError> {
    for (index, column) in columns.iter().enumerate() {
        if columns[..index].iter().any(|c| c.name == column.name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", column.name),
            ));
        }
    }
    Ok(())
}

/// What column and table constraints say of the primary key.
#[derive(Default)]
struct KeyClause {
    columns: Option<Vec<String>>,
    name: Option<String>,
    /// `CHECK` constraints, with the column that they stand behind.
    checks: Vec<super::check::Given>,
}

impl KeyClause {
    fn set(&mut self, columns: Vec<String>) -> Result<(), SqlError> {
        if self.columns.is_some() {
            return Err(SqlError::new(
                SqlState::INVALID_TABLE_DEFINITION,
                "multiple primary keys for a table are not allowed",
            ));
        }
        self.columns = Some(columns);
        Ok(())
    }

    fn take(&mut self, constraint: &ast::TableConstraint) -> Result<(), SqlError> {
        match constraint {
            ast::TableConstraint::PrimaryKey(key) => {
                self.name = key.name.as_ref().map(tidegate_parser::fold);
                let columns = key
                    .columns
                    .iter()
                    .map(|c| match &c.column.expr {
                        ast::Expr::Identifier(ident) => Ok(tidegate_parser::fold(ident)),
                        other => Err(SqlError::not_supported(format!(
                            "primary key over expression {other}"
                        ))),
                    })
                    .collect::<Result<_, _>>()?;
                self.set(columns)
            }
            ast::TableConstraint::Unique(_) => Err(no_unique()),
            ast::TableConstraint::Check(check) => {
                self.checks.push(super::check::Given {
                    name: check.name.as_ref().map(tidegate_parser::fold),
                    condition: (*check.expr).clone(),
                });
                Ok(())
            }
            ast::TableConstraint::ForeignKey(_) => {
                Err(SqlError::not_supported("FOREIGN KEY constraint"))
            }
            other => Err(SqlError::not_supported(format!("constraint {other}"))),
        }
    }

    /// Positions of the key's columns, which become NOT NULL.
    fn columns_of(&self, columns: &mut [Column]) -> Result<Vec<usize>, SqlError> {
        let mut key = Vec::new();
        for name in self.columns.iter().flatten() {
            let index = columns
                .iter()
                .position(|c| c.name == *name)
                .ok_or_else(|| {
                    SqlError::new(
                        SqlState::UNDEFINED_COLUMN,
                        format!("column \"{name}\" named in key does not exist"),
                    )
                })?;
            if key.contains(&index) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{name}\" appears twice in primary key constraint"),
                ));
            }
            columns[index].nullable = false;
            key.push(index);
        }
        Ok(key)
    }
}

fn table_column(column: &ast::ColumnDef, key: &mut KeyClause) -> Result<Column, SqlError> {
    let name = tidegate_parser::fold(&column.name);
    let mut result = Column {
        sql_type: column_type(&column.data_type)?,
        nullable: true,
        default: None,
        generated: None,
        hidden: false,
        name,
    };
    for option in &column.options {
        match &option.option {
            ast::ColumnOption::Null => {}
            ast::ColumnOption::NotNull => result.nullable = false,
            ast::ColumnOption::Default(expr) => result.default = Some(expr.to_string()),
            ast::ColumnOption::PrimaryKey(_) => {
                key.set(vec![result.name.clone()])?;
                key.name = option.name.as_ref().map(tidegate_parser::fold);
            }
            ast::ColumnOption::Unique(_) => {
                return Err(no_unique());
            }
            ast::ColumnOption::Check(check) => key.checks.push(super::check::Given {
                name: option
                    .name
                    .as_ref()
                    .or(check.name.as_ref())
                    .map(tidegate_parser::fold),
                condition: (*check.expr).clone(),
            }),
            ast::ColumnOption::ForeignKey(_) => {
                return Err(SqlError::not_supported("FOREIGN KEY constraint"));
            }
            other => return Err(SqlError::not_supported(format!("column option {other}"))),
        }
    }
    Ok(result)
}

fn no_unique() -> SqlError {
    SqlError::not_supported("UNIQUE constraint")
        .with_hint("A PRIMARY KEY is enforced; a table has one.")
}

fn source_column(column: &ast::ColumnDef) -> Result<Column, SqlError> {
    if let Some(option) = column.options.first() {
        return Err(SqlError::not_supported(format!(
            "column option {} on a source",
            option.option
        )));
    }
    Ok(Column {
        name: tidegate_parser::fold(&column.name),
        sql_type: column_type(&column.data_type)?,
        nullable: true,
        default: None,
        generated: None,
        hidden: false,
    })
}

/// Types that a stored column may have.
fn column_type(data_type: &ast::DataType) -> Result<SqlType, SqlError> {
    let sql_type = sql_type_of(data_type)?;
    match &sql_type {
        SqlType::Array(element) if matches!(**element, SqlType::Array(_)) => Err(
            SqlError::not_supported("a column of arrays with more than one dimension"),
        ),
        SqlType::Record(_) | SqlType::Other(_) => Err(SqlError::not_supported(format!(
            "a column of type {sql_type}"
        ))),
        _ => Ok(sql_type),
    }
}

/// `WITH (…)` as a map; naming an option twice is an error.
pub(super) fn option_map(options: &[WithOption]) -> Result<BTreeMap<String, String>, SqlError> {
    let mut map = BTreeMap::new();
    for option in options {
        if map
            .insert(option.name.clone(), option.value.clone())
            .is_some()
        {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("option \"{}\" is given more than once", option.name),
            )
            .with_position(option.position));
        }
    }
    Ok(map)
}

pub(super) fn known_options(
    options: &[WithOption],
    known: &[&str],
    what: &str,
) -> Result<BTreeMap<String, String>, SqlError> {
    for option in options {
        if !known.contains(&option.name.as_str()) {
            let hint = match known {
                [] => format!("A {what} takes no options."),
                _ => format!("Known options: {}.", known.join(", ")),
            };
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unknown option \"{}\" of a {what}", option.name),
            )
            .with_hint(hint)
            .with_position(option.position));
        }
    }
    option_map(options)
}

fn check_backend(options: &BTreeMap<String, String>) -> Result<(), SqlError> {
    match options.get("state_backend").map(String::as_str) {
        None | Some("memory" | "rocksdb") => Ok(()),
        Some(other) => Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for option \"state_backend\": \"{other}\""),
        )
        .with_hint("Available values: memory, rocksdb.")),
    }
}

fn take_connector(
    options: &mut BTreeMap<String, String>,
    statement: &str,
) -> Result<String, SqlError> {
    options.remove("connector").ok_or_else(|| {
        SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("{statement} needs WITH (connector = …)"),
        )
        .with_hint("Sources: nexmark, datagen, file. Sinks: blackhole, file.")
    })
}

fn source_def(
    connector: String,
    options: BTreeMap<String, String>,
    format: Option<&FormatEncode>,
) -> Result<SourceDef, SqlError> {
    if format.is_some_and(|f| f.key_encode.is_some()) {
        return Err(SqlError::not_supported("KEY ENCODE"));
    }
    Ok(SourceDef {
        connector,
        options,
        format: format.map(|f| f.format.clone()),
        encode: format.map(|f| f.encode.clone()),
        format_options: format
            .map(|f| option_map(&f.options))
            .transpose()?
            .unwrap_or_default(),
        watermark: None,
    })
}
