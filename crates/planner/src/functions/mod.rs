//! The functions, operators and types that SQL has here: DataFusion's, the JSON ones, and ours where Postgres differs.
//!
//! There is one registry. Views are planned from it, and [`session_state_defaults`] gives ad-hoc reads a DataFusion session
//! with exactly the same contents.

mod age;
mod aggregate;
mod array_agg;
mod arrays;
mod checked;
mod datetime;
mod float;
mod format;
mod grouping_sets;
mod interval_arithmetic;
mod json;
mod jsonb;
mod least_squares;
mod literals;
mod not_in;
mod numeric;
mod ordered_set;
mod outer;
mod parse_datetime;
mod postgres;
mod ranking;
mod recursive;
mod regular_expressions;
mod rewrite;
mod rowwise;
mod same_type;
mod stored;
mod text;
pub(crate) mod time_windows;
mod timezone;
mod to_char;
mod to_char_number;
pub mod types;

pub use stored::stored_functions;

use datafusion::catalog::TableFunction;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::functions::datetime::now::NowFunc;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, WindowUDF};
use datafusion::optimizer::Analyzer;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::prelude::SessionConfig;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

/// Everything that has a name in an expression.
pub struct Registry {
    pub scalar: HashMap<String, Arc<ScalarUDF>>,
    pub higher_order: HashMap<String, Arc<HigherOrderUDF>>,
    pub aggregate: HashMap<String, Arc<AggregateUDF>>,
    pub window: HashMap<String, Arc<WindowUDF>>,
    pub table_functions: HashMap<String, Arc<TableFunction>>,
    pub expr_planners: Vec<Arc<dyn ExprPlanner>>,
    pub rewrites: Vec<Arc<dyn FunctionRewrite + Send + Sync>>,
    /// How SQL is read and coerced; the same for views and reads.
    pub options: ConfigOptions,
}

/// The one registry.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(build)
}

fn build() -> Registry {
    let json = json_functions();
    let mut scalar = HashMap::new();
    let library = SessionStateDefaults::default_scalar_functions();
    // With the zone of the settings, so that it is a `timestamptz`.
    let now = NowFunc::new_with_config(session_config().options());
    let now = vec![Arc::new(ScalarUDF::new_from_impl(now))];
    let ours = [
        now,
        postgres::functions(),
        numeric::functions(),
        text::functions(),
        to_char::functions(),
        datetime::functions(),
        float::functions(),
        format::functions(),
        age::functions(),
        arrays::functions(),
        jsonb::functions(),
        parse_datetime::functions(),
        time_windows::functions(),
        timezone::functions(),
        regular_expressions::functions(),
        interval_arithmetic::functions(),
        same_type::functions(&library),
    ]
    .concat();
    for function in library
        .into_iter()
        .chain(json.scalar_functions().values().cloned())
        .chain(ours)
    {
        insert(
            &mut scalar,
            function.name().to_owned(),
            function.aliases(),
            &function,
        );
    }
    alias(&mut scalar, postgres::SCALAR_ALIASES);
    alias(&mut scalar, jsonb::ALIASES);
    let mut higher_order = HashMap::new();
    for function in SessionStateDefaults::default_higher_order_functions() {
        insert(
            &mut higher_order,
            function.name().to_owned(),
            function.aliases(),
            &function,
        );
    }
    let mut aggregate = HashMap::new();
    for function in SessionStateDefaults::default_aggregate_functions()
        .into_iter()
        .chain(aggregate::functions())
        .chain(array_agg::functions())
        .chain(ordered_set::functions())
    {
        insert(
            &mut aggregate,
            function.name().to_owned(),
            function.aliases(),
            &function,
        );
    }
    alias(&mut aggregate, postgres::AGGREGATE_ALIASES);
    let mut window = HashMap::new();
    for function in SessionStateDefaults::default_window_functions()
        .into_iter()
        .chain(time_windows::window_functions())
    {
        let function = ranking::typed(function);
        insert(
            &mut window,
            function.name().to_owned(),
            function.aliases(),
            &function,
        );
    }
    let table_functions = SessionStateDefaults::default_table_functions()
        .into_iter()
        .map(|f| (f.name().to_owned(), f))
        .collect();
    // Includes the planners of the JSON operators, which go first.
    let mut expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![
        Arc::new(json::JsonAsText),
        Arc::new(regular_expressions::SubstringPlanner),
        Arc::new(interval_arithmetic::IntervalPlanner),
    ];
    expr_planners.extend(json.expr_planners().iter().cloned());
    let rewrites = json.analyzer().function_rewrites().to_vec();
    Registry {
        scalar,
        higher_order,
        aggregate,
        window,
        table_functions,
        expr_planners,
        rewrites,
        options: session_config().options().as_ref().clone(),
    }
}

/// A session into which the JSON functions have registered themselves: they take no simpler registry.
fn json_functions() -> SessionState {
    let planners = SessionStateDefaults::default_expr_planners();
    let mut state = SessionStateBuilder::new()
        .with_expr_planners(planners)
        .build();
    datafusion_functions_json::register_all(&mut state)
        .expect("a session takes every kind of function");
    state
}

fn insert<T>(
    map: &mut HashMap<String, Arc<T>>,
    name: String,
    aliases: &[String],
    function: &Arc<T>,
) {
    for alias in aliases {
        map.insert(alias.clone(), function.clone());
    }
    map.insert(name, function.clone());
}

fn alias<T>(map: &mut HashMap<String, Arc<T>>, names: &[(&str, &str)]) {
    for (name, known) in names {
        let function = map
            .get(*known)
            .expect("aliases are of functions that exist")
            .clone();
        map.insert((*name).to_owned(), function);
    }
}

/// Settings under which SQL means the same in views and reads.
pub fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new();
    let options = config.options_mut();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    options.execution.time_zone = Some("UTC".to_owned());
    // Simplified expressions may be nullable where the originals were not, which is no error.
    options.execution.skip_physical_aggregate_schema_check = true;
    config
}

/// DataFusion's analyzer with our rewrites in front.
pub fn analyzer() -> Analyzer {
    let mut analyzer = Analyzer::new();
    analyzer.rules.insert(0, Arc::new(not_in::EmbeddedNotIn));
    analyzer
        .rules
        .insert(1, Arc::new(grouping_sets::ComputedGroupingSets));
    analyzer
        .rules
        .insert(2, Arc::new(recursive::RecursiveTypes));
    analyzer
        .rules
        .insert(3, Arc::new(rewrite::PostgresSemantics));
    // Once more, for the casts that type coercion put in. A plan that is analyzed twice must not change again.
    analyzer.rules.push(Arc::new(rewrite::PostgresSemantics));
    for rewrite in &registry().rewrites {
        analyzer.add_function_rewrite(rewrite.clone());
    }
    analyzer
}

/// Applies the rewrites to one expression.
pub(crate) fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let registry = registry();
    let rewritten = expr.transform_up(|mut expr| {
        let mut changed = false;
        for rewrite in &registry.rewrites {
            let result = rewrite.rewrite(expr, schema, &registry.options)?;
            changed |= result.transformed;
            expr = result.data;
        }
        Ok(if changed {
            Transformed::yes(expr)
        } else {
            Transformed::no(expr)
        })
    })?;
    rewrite::rewrite(rewritten.data, schema)
}

/// A DataFusion session for ad-hoc reads with the functions, rewrites and settings that views are planned with. The caller
/// adds its runtime environment and limits, and builds.
pub fn session_state_defaults() -> SessionStateBuilder {
    let registry = registry();
    let mut builder = SessionStateBuilder::new()
        .with_config(session_config())
        .with_default_features()
        .with_expr_planners(registry.expr_planners.clone())
        .with_scalar_functions(distinct(&registry.scalar))
        .with_aggregate_functions(distinct(&registry.aggregate))
        .with_window_functions(distinct(&registry.window))
        .with_optimizer_rules(optimizer_rules_of_reads())
        .with_type_planner(Arc::new(types::PostgresTypes))
        .with_physical_optimizer_rule(Arc::new(checked::CheckedArithmetic));
    *builder.analyzer() = Some(analyzer());
    builder
}

/// DataFusion's, without the one that sums partial sums: `sum(integer)` is a bigint here and `sum(bigint)` a numeric, so it
/// would change the type of the column.
fn optimizer_rules_of_reads() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    rules.retain(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
    rules
}

fn distinct<T>(map: &HashMap<String, Arc<T>>) -> Vec<Arc<T>> {
    let mut seen = HashSet::new();
    map.values()
        .filter(|f| seen.insert(Arc::as_ptr(f)))
        .cloned()
        .collect()
}
