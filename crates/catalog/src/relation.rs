//! A relation: anything that has a name, columns and a definition.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use tidegate_types::{RelationId, SqlType};

/// A table, source, view, materialized view or sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    pub id: RelationId,
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    pub columns: Vec<Column>,
    /// The statement that made it, as `SHOW CREATE` prints it.
    pub definition: String,
    /// What it reads directly, each once, in id order.
    pub depends_on: Vec<RelationId>,
    pub created_at_ms: u64,
    pub owner: String,
    /// `COMMENT ON`: of the relation under the empty name, of its columns under theirs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub comments: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub sql_type: SqlType,
    pub nullable: bool,
    /// `DEFAULT`, as SQL text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// What a generated column is computed from, as SQL text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<String>,
    /// Not part of `*`: a row id that takes the place of a missing key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationKind {
    Table(TableDef),
    Source(SourceDef),
    View(ViewDef),
    MaterializedView(MaterializedViewDef),
    Sink(SinkDef),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableDef {
    /// Indexes into the columns. Empty only where a hidden row id is the key by itself.
    pub primary_key: Vec<usize>,
    /// The name that a violation of the key is reported under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_key_name: Option<String>,
    #[serde(default)]
    pub append_only: bool,
    /// In order of their names, which is the order in which they are checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// `WITH (…)`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkDef>,
}

/// `WATERMARK FOR column AS column - delay`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkDef {
    /// Index of the column.
    pub column: usize,
    pub delay_us: i64,
    /// Late rows are shown among the errors.
    #[serde(default)]
    pub keeps_late: bool,
}

/// `CONSTRAINT name CHECK (condition)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    /// As SQL text over the table's columns.
    pub condition: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceDef {
    pub connector: String,
    /// `WITH (…)` without the connector.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// `plain`, `upsert`, … ; `None` where the connector makes rows itself.
    #[serde(default)]
    pub format: Option<String>,
    #[serde(default)]
    pub encode: Option<String>,
    #[serde(default)]
    pub format_options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<WatermarkDef>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ViewDef {
    /// The query's text.
    pub query: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MaterializedViewDef {
    /// The query's text.
    pub query: String,
    /// `WITH (…)`, for example `state_backend`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// The compiled plan, kept so that a restart runs what ran before. Opaque here.
    pub plan_json: String,
    /// Indexes of the columns by which rows are unique.
    pub key: Vec<usize>,
    /// Rows are given when they are final.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emit_on_window_close: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SinkDef {
    /// The query's text: for `FROM v` it selects all of `v`.
    pub query: String,
    pub connector: String,
    /// `WITH (…)` without the connector.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub format: Option<String>,
    #[serde(default)]
    pub encode: Option<String>,
    #[serde(default)]
    pub format_options: BTreeMap<String, String>,
    /// As in [`MaterializedViewDef::plan_json`].
    pub plan_json: String,
}

/// A relation's kind without its definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelationClass {
    Table,
    Source,
    View,
    MaterializedView,
    Sink,
}

impl RelationClass {
    /// As written in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            RelationClass::Table => "TABLE",
            RelationClass::Source => "SOURCE",
            RelationClass::View => "VIEW",
            RelationClass::MaterializedView => "MATERIALIZED VIEW",
            RelationClass::Sink => "SINK",
        }
    }
}

impl fmt::Display for RelationClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RelationClass::Table => "table",
            RelationClass::Source => "source",
            RelationClass::View => "view",
            RelationClass::MaterializedView => "materialized view",
            RelationClass::Sink => "sink",
        })
    }
}

impl Relation {
    pub fn class(&self) -> RelationClass {
        match self.kind {
            RelationKind::Table(_) => RelationClass::Table,
            RelationKind::Source(_) => RelationClass::Source,
            RelationKind::View(_) => RelationClass::View,
            RelationKind::MaterializedView(_) => RelationClass::MaterializedView,
            RelationKind::Sink(_) => RelationClass::Sink,
        }
    }

    /// What `*` means, with the index of each column.
    pub fn visible_columns(&self) -> impl Iterator<Item = (usize, &Column)> {
        self.columns.iter().enumerate().filter(|(_, c)| !c.hidden)
    }

    pub fn column(&self, name: &str) -> Option<(usize, &Column)> {
        self.columns
            .iter()
            .enumerate()
            .find(|(_, c)| c.name == name)
    }

    /// All columns, hidden ones too, as Arrow fields that carry their SQL types.
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields: Vec<_> = self
            .columns
            .iter()
            .map(|c| c.sql_type.field(&c.name, c.nullable))
            .collect();
        Arc::new(Schema::new(fields))
    }
}
