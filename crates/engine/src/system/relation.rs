//! A system relation: its name, its columns, and the function that computes its rows whenever it is scanned.

use super::row::{self, Row};
use super::scope::Scope;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;
use tidegate_types::SqlError;

pub(super) type Rows = Result<Vec<Row>, SqlError>;

pub(super) struct SystemRelation {
    pub schema: &'static str,
    pub name: &'static str,
    /// As [`row::columns`] reads it.
    pub columns: &'static str,
    /// `None` for what there is none of here: no row will ever be in it.
    pub rows: Option<fn(&Scope) -> Rows>,
}

/// All of them, in order of schemas.
pub(super) fn all() -> impl Iterator<Item = &'static SystemRelation> {
    super::pg_catalog::RELATIONS
        .iter()
        .chain(super::pg_absent::RELATIONS)
        .chain(super::information_schema::RELATIONS)
        .chain(super::tidegate::RELATIONS)
}

pub(super) fn find(schema: &str, name: &str) -> Option<&'static SystemRelation> {
    all().find(|r| r.schema == schema && r.name == name)
}

/// A system relation as DataFusion scans it.
#[derive(Debug)]
pub(super) struct SystemTable {
    relation: &'static SystemRelation,
    schema: SchemaRef,
    scope: Arc<Scope>,
}

impl std::fmt::Debug for SystemRelation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl SystemTable {
    pub fn new(relation: &'static SystemRelation, scope: Arc<Scope>) -> Self {
        Self {
            relation,
            schema: row::schema(&row::columns(relation.columns)),
            scope,
        }
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let external = |e: SqlError| DataFusionError::External(Box::new(e));
        let rows = match self.relation.rows {
            Some(rows) => rows(&self.scope).map_err(external)?,
            None => Vec::new(),
        };
        let batch = row::batch(&row::columns(self.relation.columns), &rows).map_err(external)?;
        MemTable::try_new(self.schema.clone(), vec![vec![batch]])?
            .scan(state, projection, filters, limit)
            .await
    }
}
