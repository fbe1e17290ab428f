//! `INSERT`: rows from a query, converted, checked against the key, and what happens where the key is taken.

use super::returning::table_schema;
use super::rows::{is_true, pick, retraction, together};
use super::target::{Target, keep};
use super::{Effect, Turn};
use crate::api::{Response, RowsTag};
use crate::session::Session;
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, ScalarValue};
use hashbrown::HashMap;
use tidegate_parser::sqlparser::ast;
use tidegate_planner::Planner;
use tidegate_types::{Batch, SqlError, SqlState, SqlType};

/// What `ON CONFLICT` asks for.
enum OnConflict<'a> {
    Fail,
    Nothing,
    Update(&'a ast::DoUpdate),
}

impl Session {
    pub(crate) async fn insert(
        &mut self,
        insert: &ast::Insert,
        text: &str,
        types: &[SqlType],
        parameters: Vec<ScalarValue>,
    ) -> Result<Response, SqlError> {
        let target = self.insert_target(insert)?;
        let on_conflict = on_conflict(insert, &target)?;
        let database = self.database.clone();
        let turn = match self.transaction {
            Some(_) => None,
            None => Some(database.sequencer.turn().await),
        };
        let rows = self
            .new_rows(insert, &target, text, types, &parameters, turn.as_ref())
            .await?;
        let effect = self
            .resolve(
                &target,
                rows,
                &on_conflict,
                &parameters,
                text,
                turn.as_ref(),
            )
            .await?;
        self.apply(&target, &effect, turn).await?;
        self.respond(
            &target,
            insert.returning.as_deref(),
            &effect,
            "INSERT",
            RowsTag::Insert,
            text,
        )
    }

    /// Writes rows that a query has found to a table of its columns; answers how many there were.
    pub(crate) async fn fill(
        &mut self,
        table: std::sync::Arc<tidegate_catalog::Relation>,
        batches: &[RecordBatch],
    ) -> Result<u64, SqlError> {
        let target = self.target_of(table)?;
        let columns: Vec<usize> = (0..target.relation.columns.len()).collect();
        let mut rows = Vec::new();
        for batch in batches {
            rows.push(self.widen(&target, &columns, batch)?);
        }
        let rows = together(&target, &rows)?;
        let count = rows.num_rows() as u64;
        let database = self.database.clone();
        let turn = match self.transaction {
            Some(_) => None,
            None => Some(database.sequencer.turn().await),
        };
        let effect = Effect {
            batches: vec![Batch::insert(rows.clone())],
            rows: vec![rows],
        };
        self.apply(&target, &effect, turn).await?;
        Ok(count)
    }

    fn insert_target(&self, insert: &ast::Insert) -> Result<Target, SqlError> {
        match &insert.table {
            ast::TableObject::TableName(name) => self.target(name),
            other => Err(SqlError::not_supported(format!("INSERT INTO {other}"))),
        }
    }

    /// The stored columns that values are given for, in their order.
    fn given_columns(insert: &ast::Insert, target: &Target) -> Result<Vec<usize>, SqlError> {
        if insert.columns.is_empty() {
            return Ok(target.relation.visible_columns().map(|(i, _)| i).collect());
        }
        let mut columns = Vec::new();
        for name in &insert.columns {
            let name = tidegate_parser::name_parts(name).pop().unwrap_or_default();
            let (index, _) = target.column(&name)?;
            if columns.contains(&index) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{name}\" specified more than once"),
                ));
            }
            columns.push(index);
        }
        Ok(columns)
    }

    /// The rows to insert, all columns converted and NOT NULL checked.
    async fn new_rows(
        &mut self,
        insert: &ast::Insert,
        target: &Target,
        text: &str,
        types: &[SqlType],
        parameters: &[ScalarValue],
        turn: Option<&Turn<'_>>,
    ) -> Result<RecordBatch, SqlError> {
        let mut columns = Self::given_columns(insert, target)?;
        let Some(source) = &insert.source else {
            return self.default_rows(target);
        };
        let mut source = (**source).clone();
        let counted = self.fill_defaults(&mut source, target, &columns)?;
        if let Some(found) = counted {
            check_count(found, columns.len(), !insert.columns.is_empty())?;
        }
        let names = self.names();
        let declared: Vec<_> = types.iter().cloned().map(Some).collect();
        let planned = Planner::new(&names, text).query(source, &declared)?;
        check_count(
            planned.schema.fields().len(),
            columns.len(),
            !insert.columns.is_empty(),
        )?;
        // Without a list the columns behind those that values are given for have their defaults.
        columns.truncate(planned.schema.fields().len());
        let relations = crate::session::relations_of(&planned.plan);
        let reading = self.reading_for_write_of(&relations, turn).await?;
        let batches = self
            .collect(planned, parameters.to_vec(), &reading, text)
            .await?;
        let mut converted = Vec::new();
        for batch in &batches {
            converted.push(self.widen(target, &columns, batch)?);
        }
        together(target, &converted)
    }

    /// Rows of the given columns with the others filled in.
    pub(super) fn widen(
        &self,
        target: &Target,
        columns: &[usize],
        batch: &RecordBatch,
    ) -> Result<RecordBatch, SqlError> {
        let count = batch.num_rows();
        let mut stored: Vec<ArrayRef> = Vec::with_capacity(target.relation.columns.len());
        for index in 0..target.relation.columns.len() {
            stored.push(match columns.iter().position(|c| *c == index) {
                Some(given) => target.convert(batch.column(given), index)?,
                None => self.default_values(target, index, count)?,
            });
        }
        self.checked_rows(target, stored)
    }

    fn default_values(
        &self,
        target: &Target,
        column: usize,
        count: usize,
    ) -> Result<ArrayRef, SqlError> {
        let definition = &target.relation.columns[column];
        let Some(default) = &definition.default else {
            return Ok(new_null_array(&definition.sql_type.arrow(), count));
        };
        let expr = parse_expression(default)?;
        let computed = self.computed(expr, DFSchema::empty(), default)?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
        let nothing = RecordBatch::try_new_with_options(
            std::sync::Arc::new(arrow::datatypes::Schema::empty()),
            Vec::new(),
            &options,
        )
        .map_err(SqlError::internal)?;
        target.convert(&computed.evaluate(&nothing, &[], default)?, column)
    }

    /// The value of an expression without columns, assigned to a type.
    pub(crate) fn constant(
        &self,
        expr: &ast::Expr,
        sql_type: &SqlType,
    ) -> Result<ScalarValue, SqlError> {
        let computed = self.computed(expr.clone(), DFSchema::empty(), "")?;
        let value = computed.evaluate(&one_row(), &[], "")?;
        let value = super::target::assign(&value, sql_type)?;
        ScalarValue::try_from_array(&value, 0).map_err(SqlError::internal)
    }

    /// Whether a default can be evaluated and assigned, before a table is made with it.
    pub(crate) fn check_default(
        &self,
        default: &str,
        column: &tidegate_catalog::Column,
    ) -> Result<(), SqlError> {
        let computed = self.computed(parse_expression(default)?, DFSchema::empty(), default)?;
        let value = computed.evaluate(&one_row(), &[], default)?;
        super::target::assign(&value, &column.sql_type)
            .map(|_| ())
            .map_err(|mut error| {
                if error.state == SqlState::DATATYPE_MISMATCH {
                    error.message = format!("column \"{}\" {}", column.name, error.message);
                }
                error.position = None;
                error
            })
    }

    /// `DEFAULT VALUES`.
    fn default_rows(&self, target: &Target) -> Result<RecordBatch, SqlError> {
        let columns: Vec<ArrayRef> = (0..target.relation.columns.len())
            .map(|column| self.default_values(target, column, 1))
            .collect::<Result<_, _>>()?;
        self.checked_rows(target, columns)
    }

    /// Puts default expressions where `VALUES` says `DEFAULT`; answers how many values a row has.
    fn fill_defaults(
        &self,
        source: &mut ast::Query,
        target: &Target,
        columns: &[usize],
    ) -> Result<Option<usize>, SqlError> {
        let ast::SetExpr::Values(values) = source.body.as_mut() else {
            return Ok(None);
        };
        let mut widest = None;
        for row in &mut values.rows {
            widest = widest.max(Some(row.len()));
            for (position, value) in row.iter_mut().enumerate() {
                let is_default = matches!(value, ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"));
                if is_default && let Some(column) = columns.get(position) {
                    *value = match &target.relation.columns[*column].default {
                        Some(default) => parse_expression(default)?,
                        None => ast::Expr::Value(ast::Value::Null.into()),
                    };
                }
            }
        }
        Ok(widest)
    }

    /// Decides what each new row does: it goes in, it is left out, it updates the row that has its key, or it fails.
    async fn resolve(
        &mut self,
        target: &Target,
        rows: RecordBatch,
        on_conflict: &OnConflict<'_>,
        parameters: &[ScalarValue],
        text: &str,
        turn: Option<&Turn<'_>>,
    ) -> Result<Effect, SqlError> {
        if target.def.primary_key.is_empty() {
            return Ok(Effect {
                batches: vec![Batch::insert(rows.clone())],
                rows: vec![rows],
            });
        }
        let encoded = target.keys(&rows)?;
        let keys: Vec<&[u8]> = encoded.iter().map(|k| k.data()).collect();
        let reading = self.reading_for_write(target, turn).await?;
        let present = target.present(&reading, &keys)?;
        let mut first: HashMap<&[u8], usize> = HashMap::new();
        let mut keeps = vec![true; rows.num_rows()];
        let mut updates: Vec<(usize, RecordBatch)> = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let repeated = first.contains_key(key);
            let taken = present.rows.get(*key);
            if !repeated && taken.is_none() {
                first.insert(key, index);
                continue;
            }
            keeps[index] = false;
            match on_conflict {
                OnConflict::Fail => return Err(target.duplicate(&rows, index)),
                OnConflict::Nothing => {}
                OnConflict::Update(_) => {
                    let Some(taken) = taken.filter(|_| !repeated) else {
                        return Err(SqlError::new(
                            SqlState::CARDINALITY_VIOLATION,
                            "ON CONFLICT DO UPDATE command cannot affect row a second time",
                        )
                        .with_hint(
                            "Ensure that no rows proposed for insertion within the same command have duplicate constrained values.",
                        ));
                    };
                    first.insert(key, index);
                    updates.push((index, taken.clone()));
                }
            }
        }
        let inserted = keep(&rows, keeps)?;
        let mut effect = Effect {
            batches: vec![Batch::insert(inserted.clone())],
            rows: vec![inserted],
        };
        if let (OnConflict::Update(update), false) = (on_conflict, updates.is_empty()) {
            target.expect_mutable("update")?;
            let old: Vec<RecordBatch> = updates.iter().map(|(_, row)| row.clone()).collect();
            let old = together(target, &old)?;
            let proposed = pick(&rows, updates.iter().map(|(i, _)| *i as u32).collect())?;
            let (old, new) = self.updated(target, update, old, &proposed, parameters, text)?;
            // A row that an update moves to another key must not meet one that is there.
            let moved = target.keys(&new)?;
            let unmoved = target.keys(&old)?;
            if (0..new.num_rows()).any(|i| moved.row(i).data() != unmoved.row(i).data()) {
                let keys: Vec<&[u8]> = moved.iter().map(|k| k.data()).collect();
                let present = target.present(&reading, &keys)?;
                if let Some(row) = (0..new.num_rows()).find(|i| {
                    moved.row(*i).data() != unmoved.row(*i).data()
                        && present.rows.contains_key(keys[*i])
                }) {
                    return Err(target.duplicate(&new, row));
                }
            }
            effect.batches.push(retraction(old));
            effect.batches.push(Batch::insert(new.clone()));
            effect.rows.push(new);
        }
        Ok(effect)
    }

    /// Old and new rows of `DO UPDATE SET … WHERE …`, where `excluded` is the row that was to be inserted.
    fn updated(
        &self,
        target: &Target,
        update: &ast::DoUpdate,
        old: RecordBatch,
        proposed: &RecordBatch,
        parameters: &[ScalarValue],
        text: &str,
    ) -> Result<(RecordBatch, RecordBatch), SqlError> {
        let own = table_schema(&target.relation.name, &target.schema)?;
        let excluded = table_schema("excluded", &target.schema)?;
        let both = own
            .join(&excluded)
            .map_err(|e| tidegate_planner::errors::sql_error(&e, text))?;
        let beside = |old: &RecordBatch, proposed: &RecordBatch| {
            let columns = old
                .columns()
                .iter()
                .chain(proposed.columns())
                .cloned()
                .collect();
            RecordBatch::try_new(std::sync::Arc::new(both.as_arrow().clone()), columns)
                .map_err(SqlError::internal)
        };
        let (mut old, mut proposed) = (old, proposed.clone());
        if let Some(condition) = &update.selection {
            let computed = self.computed(condition.clone(), both.clone(), text)?;
            let verdict = computed.evaluate(&beside(&old, &proposed)?, parameters, text)?;
            let mask: Vec<bool> = (0..old.num_rows())
                .map(|r| is_true(verdict.as_ref(), r))
                .collect();
            old = keep(&old, mask.clone())?;
            proposed = keep(&proposed, mask)?;
        }
        let rows = beside(&old, &proposed)?;
        let mut columns = old.columns().to_vec();
        for assignment in &update.assignments {
            let (index, value) = assigned(target, assignment)?;
            let value = match value {
                Some(value) => self
                    .computed(value, both.clone(), text)?
                    .evaluate(&rows, parameters, text)?,
                None => self.default_values(target, index, old.num_rows())?,
            };
            columns[index] = target.convert(&value, index)?;
        }
        Ok((old, self.checked_rows(target, columns)?))
    }

    pub(super) fn describe_insert(
        &self,
        insert: &ast::Insert,
        text: &str,
        declared: &[Option<SqlType>],
    ) -> Result<(Vec<Option<SqlType>>, Option<SchemaRef>), SqlError> {
        let target = self.insert_target(insert)?;
        let columns = Self::given_columns(insert, &target)?;
        let mut parameters = Vec::new();
        if let Some(source) = &insert.source {
            let mut source = (**source).clone();
            self.fill_defaults(&mut source, &target, &columns)?;
            if let ast::SetExpr::Values(values) = source.body.as_ref() {
                for row in &values.rows {
                    for (position, value) in row.iter().enumerate() {
                        if let (Some(number), Some(column)) =
                            (placeholder(value), columns.get(position))
                        {
                            parameters.resize(parameters.len().max(number), None);
                            parameters[number - 1] =
                                Some(target.relation.columns[*column].sql_type.clone());
                        }
                    }
                }
            }
            let known = merged(&parameters, declared);
            let names = self.names();
            let found = Planner::new(&names, text)
                .query(source, &known)?
                .parameters()?;
            parameters = merged(&found, &known);
        }
        let returning = insert
            .returning
            .as_ref()
            .map(|items| self.returning_schema(&target, items, text));
        Ok((parameters, returning.transpose()?))
    }
}

/// A row without columns.
fn one_row() -> RecordBatch {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::empty());
    RecordBatch::try_new_with_options(schema, Vec::new(), &options)
        .expect("no columns have any number of rows")
}

/// The number of a parameter that stands alone or under a cast.
pub(super) fn placeholder(expr: &ast::Expr) -> Option<usize> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Placeholder(name) => name.trim_start_matches('$').parse().ok(),
            _ => None,
        },
        ast::Expr::Nested(inner) => placeholder(inner),
        _ => None,
    }
}

/// What the second list knows, and otherwise the first.
pub(super) fn merged(found: &[Option<SqlType>], known: &[Option<SqlType>]) -> Vec<Option<SqlType>> {
    let count = found.len().max(known.len());
    let at = |list: &[Option<SqlType>], i: usize| list.get(i).cloned().flatten();
    (0..count)
        .map(|i| at(known, i).or_else(|| at(found, i)))
        .collect()
}

/// The column that an assignment sets, and to what; `None` is its default.
pub(super) fn assigned(
    target: &Target,
    assignment: &ast::Assignment,
) -> Result<(usize, Option<ast::Expr>), SqlError> {
    let ast::AssignmentTarget::ColumnName(name) = &assignment.target else {
        return Err(SqlError::not_supported(
            "assignment to several columns at once",
        ));
    };
    let name = tidegate_parser::name_parts(name).pop().unwrap_or_default();
    let (index, _) = target.column(&name)?;
    let is_default = matches!(&assignment.value, ast::Expr::Identifier(i) if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"));
    Ok((index, (!is_default).then(|| assignment.value.clone())))
}

fn check_count(found: usize, wanted: usize, listed: bool) -> Result<(), SqlError> {
    if found > wanted {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "INSERT has more expressions than target columns",
        ));
    }
    if found < wanted && listed {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "INSERT has more target columns than expressions",
        ));
    }
    Ok(())
}

fn on_conflict<'a>(insert: &'a ast::Insert, target: &Target) -> Result<OnConflict<'a>, SqlError> {
    let clause = match &insert.on {
        None => return Ok(OnConflict::Fail),
        Some(ast::OnInsert::OnConflict(clause)) => clause,
        Some(_) => return Err(SqlError::not_supported("ON DUPLICATE KEY UPDATE")),
    };
    let no_constraint = || {
        SqlError::new(
            SqlState::INVALID_COLUMN_REFERENCE,
            "there is no unique or exclusion constraint matching the ON CONFLICT specification",
        )
    };
    match &clause.conflict_target {
        Some(ast::ConflictTarget::Columns(columns)) => {
            let mut named = Vec::new();
            for column in columns {
                named.push(target.column(&tidegate_parser::fold(column))?.0);
            }
            let mut key = target.def.primary_key.clone();
            named.sort_unstable();
            key.sort_unstable();
            if named != key {
                return Err(no_constraint());
            }
        }
        Some(ast::ConflictTarget::OnConstraint(name)) => {
            let name = tidegate_parser::name_parts(name).pop().unwrap_or_default();
            let own = target
                .def
                .primary_key_name
                .clone()
                .unwrap_or_else(|| format!("{}_pkey", target.relation.name));
            if name != own || target.def.primary_key.is_empty() {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!(
                        "constraint \"{name}\" for table \"{}\" does not exist",
                        target.relation.name
                    ),
                ));
            }
        }
        None => {}
    }
    match &clause.action {
        ast::OnConflictAction::DoNothing => Ok(OnConflict::Nothing),
        ast::OnConflictAction::DoUpdate(update) if clause.conflict_target.is_some() => {
            Ok(OnConflict::Update(update))
        }
        ast::OnConflictAction::DoUpdate(_) => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "ON CONFLICT DO UPDATE requires inference specification or constraint name",
        )),
    }
}

/// An expression that the catalog keeps as text.
pub(super) fn parse_expression(text: &str) -> Result<ast::Expr, SqlError> {
    let query = crate::relations::parse_query(&format!("SELECT {text}"))?;
    let ast::SetExpr::Select(select) = *query.body else {
        return Err(SqlError::internal(
            "an expression in the catalog cannot be read",
        ));
    };
    match select.projection.into_iter().next() {
        Some(ast::SelectItem::UnnamedExpr(expr))
        | Some(ast::SelectItem::ExprWithAlias { expr, .. }) => Ok(expr),
        _ => Err(SqlError::internal(
            "an expression in the catalog cannot be read",
        )),
    }
}
