//! `SHOW` and `DESCRIBE`: which list answers, and with which columns.

use super::{Session, text_rows, text_schema};
use crate::api::{Response, RowsTag};
use crate::settings::{PRESETS, SETTINGS};
use arrow::datatypes::SchemaRef;
use tidegate_catalog::{Relation, RelationClass, RelationKind};
use tidegate_parser::sqlparser::ast::ObjectName;
use tidegate_parser::{ObjectKind, Show, ShowWhat, Statement};
use tidegate_types::{SqlError, SqlState};

const SHOWN: RowsTag = RowsTag::Plain("SHOW");

impl Session {
    pub(super) async fn show(&mut self, show: &Show) -> Result<Response, SqlError> {
        let columns = columns_of(&show.what);
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut lines = match &show.what {
            ShowWhat::Tables => self.relation_names(RelationClass::Table, show)?,
            ShowWhat::Views => self.relation_names(RelationClass::View, show)?,
            ShowWhat::MaterializedViews => {
                self.relation_names(RelationClass::MaterializedView, show)?
            }
            ShowWhat::Sources => self.relation_names(RelationClass::Source, show)?,
            ShowWhat::Sinks => self.relation_names(RelationClass::Sink, show)?,
            ShowWhat::Indexes => Vec::new(),
            ShowWhat::Schemas => self.schema_names(),
            ShowWhat::Databases => vec![vec![Some("tidegate".to_owned())]],
            ShowWhat::Columns => {
                let name = show.from.as_ref().ok_or_else(|| {
                    SqlError::new(
                        SqlState::SYNTAX_ERROR,
                        "SHOW COLUMNS needs FROM and a relation",
                    )
                })?;
                self.column_lines(name)?
            }
            ShowWhat::Jobs => self.job_lines()?,
            ShowWhat::Checkpoints => self.checkpoint_lines(),
            ShowWhat::Savepoints => self.savepoint_lines(),
            ShowWhat::Recovery => self.recovery_lines()?,
            ShowWhat::All => self.setting_lines(),
            ShowWhat::Setting { name, .. } => vec![vec![Some(self.setting_value(name)?)]],
            ShowWhat::Create { kind, name } => self.definition_line(*kind, name)?,
        };
        if let Some(like) = &show.like {
            lines.retain(|line| {
                line[0]
                    .as_deref()
                    .is_some_and(|name| matches(name, &like.pattern, like.case_insensitive))
            });
        }
        Ok(text_rows(&names, lines, SHOWN))
    }

    /// The columns of statements that are not SQL queries and return rows.
    pub(super) fn result_columns(
        &mut self,
        statement: &Statement,
    ) -> Result<Option<SchemaRef>, SqlError> {
        Ok(match statement {
            Statement::Show(show) => {
                let columns = columns_of(&show.what);
                Some(text_schema(
                    &columns.iter().map(String::as_str).collect::<Vec<_>>(),
                ))
            }
            Statement::Describe { .. } => Some(text_schema(DESCRIBED)),
            Statement::DescribeSavepoint { .. } => Some(text_schema(super::savepoint::DESCRIBED)),
            Statement::VerifyMaterializedView { name } => Some(self.verification_schema(name)?),
            Statement::Explain(_) | Statement::ExplainView(_) => Some(text_schema(&["QUERY PLAN"])),
            Statement::Subscribe(subscribe) => Some(self.subscription_schema(subscribe)?),
            Statement::FetchWithin { fetch, .. } => self.columns_of_indirect(fetch)?,
            _ => None,
        })
    }

    pub(super) fn describe(&mut self, name: &ObjectName) -> Result<Response, SqlError> {
        Ok(text_rows(
            DESCRIBED,
            self.column_lines(name)?,
            RowsTag::Plain("DESCRIBE"),
        ))
    }

    fn relation_names(
        &self,
        class: RelationClass,
        show: &Show,
    ) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let catalog = self.database.catalog.get();
        let schema = match &show.from {
            None => None,
            Some(name) => {
                let schema = tidegate_parser::name_parts(name).pop().unwrap_or_default();
                catalog.expect_schema(&schema)?;
                Some(schema)
            }
        };
        let path = self.path();
        let wanted = |r: &Relation| match &schema {
            Some(schema) => r.schema == *schema,
            None => path.0.contains(&r.schema),
        };
        let mut lines = Vec::new();
        for relation in catalog.relations_of(class).filter(|r| wanted(r)) {
            lines.push(self.relation_line(relation)?);
        }
        Ok(lines)
    }

    fn relation_line(&self, relation: &Relation) -> Result<Vec<Option<String>>, SqlError> {
        let mut line = vec![Some(relation.name.clone())];
        match &relation.kind {
            RelationKind::Source(def) => {
                line.push(Some(def.connector.clone()));
                line.push(Some(
                    self.database
                        .runtime()?
                        .error_count(relation.id)
                        .to_string(),
                ));
            }
            RelationKind::Sink(def) => {
                let (status, cause) = self.suspended(relation)?.unzip();
                line.push(Some(def.connector.clone()));
                line.push(Some(status.unwrap_or("running").to_owned()));
                line.push(cause);
            }
            RelationKind::MaterializedView(_) => {
                let runtime = self.database.runtime()?;
                let building = runtime
                    .status()
                    .jobs
                    .iter()
                    .any(|j| j.relation == relation.id && !j.is_alteration);
                let (status, cause) = self.suspended(relation)?.unzip();
                let otherwise = if building { "building" } else { "running" };
                line.push(Some(status.unwrap_or(otherwise).to_owned()));
                line.push(Some(runtime.error_count(relation.id).to_string()));
                line.push(cause);
            }
            _ => {}
        }
        Ok(line)
    }

    /// In which way a relation does not run, and why.
    fn suspended(&self, relation: &Relation) -> Result<Option<(&'static str, String)>, SqlError> {
        let suspensions = self.database.runtime()?.suspensions();
        let how = suspensions.into_iter().find(|s| s.relation == relation.id);
        Ok(how.map(|s| (crate::suspension::status(&s), s.cause)))
    }

    fn schema_names(&self) -> Vec<Vec<Option<String>>> {
        let catalog = self.database.catalog.get();
        let reserved = tidegate_catalog::Catalog::RESERVED_SCHEMAS
            .iter()
            .map(|s| (*s).to_owned());
        let mut names: Vec<String> = catalog
            .schemas()
            .map(|s| s.name.clone())
            .chain(reserved)
            .collect();
        names.sort();
        names.into_iter().map(|n| vec![Some(n)]).collect()
    }

    fn column_lines(&self, name: &ObjectName) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let catalog = self.database.catalog.get();
        let relation = catalog.resolve(&tidegate_parser::name_parts(name), &self.path())?;
        let key: &[usize] = match &relation.kind {
            RelationKind::Table(def) => &def.primary_key,
            _ => &[],
        };
        let line = |(index, column): (usize, &tidegate_catalog::Column)| {
            vec![
                Some(column.name.clone()),
                Some(column.sql_type.to_string()),
                Some(if column.nullable { "YES" } else { "NO" }.to_owned()),
                column.default.clone(),
                Some(if key.contains(&index) { "PRI" } else { "" }.to_owned()),
            ]
        };
        Ok(relation.visible_columns().map(line).collect())
    }

    fn setting_lines(&self) -> Vec<Vec<Option<String>>> {
        let mut lines: Vec<Vec<Option<String>>> = SETTINGS
            .iter()
            .map(|s| {
                let value = self.setting_value(s.name).unwrap_or(s.default.to_owned());
                vec![
                    Some(s.name.to_owned()),
                    Some(value),
                    Some(s.description.to_owned()),
                ]
            })
            .collect();
        for (name, value, description) in &self.database.config.process {
            lines.push(vec![
                Some((*name).to_owned()),
                Some(value.clone()),
                Some((*description).to_owned()),
            ]);
        }
        for (name, value) in PRESETS {
            lines.push(vec![
                Some((*name).to_owned()),
                Some((*value).to_owned()),
                Some("Cannot be changed.".to_owned()),
            ]);
        }
        lines.sort();
        lines
    }

    fn definition_line(
        &self,
        kind: ObjectKind,
        name: &ObjectName,
    ) -> Result<Vec<Vec<Option<String>>>, SqlError> {
        let class = match kind {
            ObjectKind::Table => RelationClass::Table,
            ObjectKind::Source => RelationClass::Source,
            ObjectKind::View => RelationClass::View,
            ObjectKind::MaterializedView => RelationClass::MaterializedView,
            ObjectKind::Sink => RelationClass::Sink,
            ObjectKind::Index | ObjectKind::Schema => {
                return Err(SqlError::not_supported(format!(
                    "SHOW CREATE {}",
                    kind.sql()
                )));
            }
        };
        let catalog = self.database.catalog.get();
        let relation =
            catalog.resolve_class(&tidegate_parser::name_parts(name), &self.path(), class)?;
        Ok(vec![vec![
            Some(format!("{}.{}", relation.schema, relation.name)),
            Some(crate::secrets::definition(relation)),
        ]])
    }
}

const DESCRIBED: &[&str] = &["Name", "Type", "Nullable", "Default", "Key"];

fn columns_of(what: &ShowWhat) -> Vec<String> {
    let columns: &[&str] = match what {
        ShowWhat::Sources => &["Name", "Connector", "Errors"],
        ShowWhat::Sinks => &["Name", "Connector", "Status", "Cause"],
        ShowWhat::MaterializedViews => &["Name", "Status", "Errors", "Cause"],
        ShowWhat::Tables
        | ShowWhat::Views
        | ShowWhat::Indexes
        | ShowWhat::Schemas
        | ShowWhat::Databases => &["Name"],
        ShowWhat::Columns => DESCRIBED,
        ShowWhat::Jobs => &[
            "Id",
            "Name",
            "Rows read",
            "Rows total",
            "Progress",
            "Activity",
        ],
        ShowWhat::Checkpoints => super::lists::CHECKPOINT_COLUMNS,
        ShowWhat::Savepoints => super::lists::SAVEPOINT_COLUMNS,
        ShowWhat::Recovery => super::lists::RECOVERY_COLUMNS,
        ShowWhat::All => &["name", "setting", "description"],
        ShowWhat::Setting { name, .. } => return vec![name.to_ascii_lowercase()],
        ShowWhat::Create { .. } => &["Name", "Create"],
    };
    columns.iter().map(|c| (*c).to_owned()).collect()
}

/// `LIKE`, with `%` and `_`.
fn matches(name: &str, pattern: &str, case_insensitive: bool) -> bool {
    fn step(name: &[char], pattern: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['%', rest @ ..] => (0..=name.len()).any(|skip| step(&name[skip..], rest)),
            ['_', rest @ ..] => !name.is_empty() && step(&name[1..], rest),
            ['\\', literal, rest @ ..] => name.first() == Some(literal) && step(&name[1..], rest),
            [literal, rest @ ..] => name.first() == Some(literal) && step(&name[1..], rest),
        }
    }
    let fold = |text: &str| {
        if case_insensitive {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    let (name, pattern): (Vec<char>, Vec<char>) = (
        fold(name).chars().collect(),
        fold(pattern).chars().collect(),
    );
    step(&name, &pattern)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn like_patterns() {
        assert!(matches("orders", "ord%", false));
        assert!(matches("orders", "_rders", false));
        assert!(!matches("orders", "ORD%", false));
        assert!(matches("orders", "ORD%", true));
        assert!(matches("a%b", "a\\%b", false));
        assert!(!matches("axb", "a\\%b", false));
    }
}
