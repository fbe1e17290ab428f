//! What DataFusion's SQL planner may ask: relations by name, functions by name, how types are spelled.

use crate::errors;
use crate::functions::{Registry, registry};
use crate::query::{Planner, Purpose};
use datafusion::arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::catalog::TableFunctionArgs;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DataFusionError, Result, TableReference};
use datafusion::datasource::DefaultTableSource;
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use sqlparser::ast;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::{Arc, LazyLock};
use tidegate_types::{RelationId, SqlError, SqlState};

/// The session that table functions ask for. They look at its settings only.
static SESSION: LazyLock<SessionState> =
    LazyLock::new(|| crate::functions::session_state_defaults().build());

/// Views within views deeper than this are refused, before the stack is.
const MAX_VIEW_DEPTH: usize = 100;

/// Names to relations, as the session that plans sees them. The engine implements it over the catalog.
pub trait Relations {
    /// `42P01` when there is no such relation, `3F000` when there is no such schema.
    fn relation(&self, name: &TableReference) -> Result<Resolved, SqlError>;

    /// Functions that only this session has, or has in its own way; they go before those of the registry.
    fn function(&self, _name: &str) -> Option<Arc<ScalarUDF>> {
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    Source,
    /// A plain view: its query is planned in its place.
    View,
    MaterializedView,
    /// Computed when read (`pg_catalog`, `tidegate`, …): readable ad hoc only.
    System,
}

/// The query of a plain view.
#[derive(Debug, Clone)]
pub struct ViewQuery {
    pub query: Arc<ast::Query>,
    /// The text that the query's spans refer to.
    pub text: String,
}

/// A relation as the planner needs it.
#[derive(Clone)]
pub struct Resolved {
    pub id: RelationId,
    pub name: String,
    pub kind: RelationKind,
    /// The visible columns: fields as `SqlType::field` makes them.
    pub schema: SchemaRef,
    /// Where each of them is among the stored columns; they differ where hidden columns exist.
    pub columns: Vec<usize>,
    /// Indexes into `schema`: columns that no two rows share: a table's primary key, a materialized view's key when it is one.
    pub unique_key: Option<Vec<usize>>,
    pub append_only: bool,
    /// Of visible columns.
    pub watermarks: tidegate_plan::ColumnWatermarks,
    /// Of a plain view.
    pub view: Option<ViewQuery>,
    /// What ad-hoc plans scan at once, where the engine has it ready: system relations.
    pub source: Option<Arc<dyn TableSource>>,
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What a `TableScan` of our logical plans scans. It has a schema and no data: views lower it, [`crate::bind`] replaces it.
#[derive(Debug)]
pub struct RelationSource {
    pub relation: Resolved,
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        self.relation.schema.clone()
    }
}

/// A plain view, planned: DataFusion puts the plan where the scan would be.
struct InlinedView {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl TableSource for InlinedView {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

/// One statement's planning.
pub(crate) struct Context<'a> {
    pub relations: &'a dyn Relations,
    pub registry: &'static Registry,
    pub purpose: Purpose,
    /// How deep inside plain views the planner is.
    depth: Cell<usize>,
    /// Relations that the statement names itself, not through a plain view.
    direct: RefCell<Vec<RelationId>>,
}

impl<'a> Context<'a> {
    pub fn new(relations: &'a dyn Relations, purpose: Purpose) -> Self {
        Self {
            relations,
            registry: registry(),
            purpose,
            depth: Cell::new(0),
            direct: RefCell::new(Vec::new()),
        }
    }

    pub fn direct(&self) -> Vec<RelationId> {
        self.direct.borrow().clone()
    }

    fn inline(&self, relation: &Resolved, view: &ViewQuery) -> Result<LogicalPlan> {
        if self.depth.get() >= MAX_VIEW_DEPTH {
            let error = SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "views are nested too deeply",
            );
            return Err(errors::external(error));
        }
        self.depth.set(self.depth.get() + 1);
        let planned = Planner::plan_in(self, (*view.query).clone(), &view.text);
        self.depth.set(self.depth.get() - 1);
        let plan = planned.map_err(errors::external)?;
        let names: Vec<&str> = relation
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        crate::query::rename(plan, &names)
    }
}

impl ContextProvider for Context<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let relation = self.relations.relation(&name).map_err(errors::external)?;
        if self.depth.get() == 0 && !self.direct.borrow().contains(&relation.id) {
            self.direct.borrow_mut().push(relation.id);
        }
        if let Some(view) = &relation.view {
            let plan = self.inline(&relation, view)?;
            return Ok(Arc::new(InlinedView {
                schema: relation.schema.clone(),
                plan,
            }));
        }
        if let Some(source) = &relation.source {
            return Ok(source.clone());
        }
        Ok(Arc::new(RelationSource { relation }))
    }

    fn get_table_function_source(
        &self,
        name: &str,
        args: Vec<Expr>,
    ) -> Result<Arc<dyn TableSource>> {
        match self.registry.table_functions.get(name) {
            Some(function) => {
                let provider = function
                    .create_table_provider_with_args(TableFunctionArgs::new(&args, &*SESSION))?;
                Ok(Arc::new(DefaultTableSource::new(provider)))
            }
            None => Err(DataFusionError::Plan(format!("Invalid function '{name}'."))),
        }
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(Arc::new(DefaultTableSource::new(Arc::new(
            CteWorkTable::new(name, schema),
        ))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.registry.expr_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(crate::functions::types::PostgresTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.relations
            .function(name)
            .or_else(|| self.registry.scalar.get(name).cloned())
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.registry.higher_order.get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.registry.aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.registry.window.get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn get_variable_field(&self, _names: &[String]) -> Option<FieldRef> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.registry.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.registry.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.registry.higher_order.keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.registry.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.registry.window.keys().cloned().collect()
    }
}
