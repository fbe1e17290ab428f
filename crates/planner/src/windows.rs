//! Windows as Postgres reads them, where DataFusion reads something else or nothing.
//!
//! - Named windows: DataFusion knows them in the select list alone, and forgets what a window that builds on another
//!   (`OVER (w ROWS …)`) takes from it. All are spelled out before it sees them ([`spell_out`]).
//! - `EXCLUDE`: the parser leaves a mark in PARTITION BY; after planning the function is wrapped in one of ours
//!   ([`resolve`]). So are aggregates that DataFusion cannot move along with a frame.
//! - `FILTER` for functions that are not aggregates, which DataFusion drops, is refused as in Postgres.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Window, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition as Definition, WindowUDF,
};
use sqlparser::ast::{
    self, Ident, NamedWindowDefinition, NamedWindowExpr, Query, Select, SelectItem, SetExpr,
    VisitMut, VisitorMut, WindowSpec, WindowType,
};
use std::ops::ControlFlow;
use std::sync::Arc;
use tidegate_parser::EXCLUSION_MARK;
use tidegate_plan::{Excluding, Exclusion};
use tidegate_types::{SqlError, SqlState, SqlType};

/// Puts the definitions of named windows in the places of their names.
pub(crate) fn spell_out(query: &mut Query) -> std::result::Result<(), SqlError> {
    match query.visit(&mut Speller) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Speller;

impl VisitorMut for Speller {
    type Break = SqlError;

    // Inside out: what a sub-query names is spelled out before the query around it looks.
    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        let windows = match definitions(&select.named_window) {
            Ok(windows) => windows,
            Err(error) => return ControlFlow::Break(error),
        };
        let mut user = User { windows: &windows };
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                expr.visit(&mut user)?;
            }
        }
        select.qualify.visit(&mut user)
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        let windows = match query.body.as_ref() {
            SetExpr::Select(select) => definitions(&select.named_window),
            _ => return ControlFlow::Continue(()),
        };
        match windows {
            Ok(windows) => query.order_by.visit(&mut User { windows: &windows }),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// The windows of a select, each with all that it takes from others.
fn definitions(
    named: &[NamedWindowDefinition],
) -> std::result::Result<Vec<(Ident, WindowSpec)>, SqlError> {
    let mut windows: Vec<(Ident, WindowSpec)> = Vec::new();
    for NamedWindowDefinition(name, definition) in named {
        if find(&windows, name).is_some() {
            let message = format!("window \"{}\" is already defined", shown(name));
            return Err(SqlError::new(SqlState::WINDOWING_ERROR, message));
        }
        let spec = match definition {
            NamedWindowExpr::NamedWindow(other) => known(&windows, other)?.clone(),
            NamedWindowExpr::WindowSpec(spec) => complete(spec, &windows)?,
        };
        windows.push((name.clone(), spec));
    }
    Ok(windows)
}

fn shown(name: &Ident) -> String {
    tidegate_parser::fold(name)
}

fn find<'a>(windows: &'a [(Ident, WindowSpec)], name: &Ident) -> Option<&'a WindowSpec> {
    let wanted = shown(name);
    let found = windows.iter().find(|(known, _)| shown(known) == wanted);
    found.map(|(_, spec)| spec)
}

fn known<'a>(
    windows: &'a [(Ident, WindowSpec)],
    name: &Ident,
) -> std::result::Result<&'a WindowSpec, SqlError> {
    find(windows, name).ok_or_else(|| {
        let message = format!("window \"{}\" does not exist", shown(name));
        SqlError::new(SqlState::UNDEFINED_OBJECT, message)
    })
}

/// A window with what it takes from the one it builds on.
fn complete(
    spec: &WindowSpec,
    windows: &[(Ident, WindowSpec)],
) -> std::result::Result<WindowSpec, SqlError> {
    let Some(name) = &spec.window_name else {
        return Ok(spec.clone());
    };
    let base = known(windows, name)?;
    let refused = |what: String| SqlError::new(SqlState::WINDOWING_ERROR, what);
    let name = shown(name);
    if spec.partition_by.iter().any(|e| !is_mark(e)) {
        let message = format!("cannot override PARTITION BY clause of window \"{name}\"");
        return Err(refused(message));
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        let message = format!("cannot override ORDER BY clause of window \"{name}\"");
        return Err(refused(message));
    }
    if base.window_frame.is_some() {
        let message = format!("cannot copy window \"{name}\" because it has a frame clause");
        return Err(refused(message));
    }
    let mut whole = base.clone();
    whole.window_name = None;
    whole.partition_by.extend(spec.partition_by.iter().cloned());
    if whole.order_by.is_empty() {
        whole.order_by = spec.order_by.clone();
    }
    whole.window_frame = spec.window_frame.clone();
    Ok(whole)
}

fn is_mark(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Cast { expr, .. } => is_mark(expr),
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => text.starts_with(EXCLUSION_MARK),
            _ => false,
        },
        _ => false,
    }
}

/// Replaces names in one expression; sub-queries have windows of their own.
struct User<'a> {
    windows: &'a [(Ident, WindowSpec)],
}

impl VisitorMut for User<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<SqlError> {
        let ast::Expr::Function(function) = expr else {
            return ControlFlow::Continue(());
        };
        let spelled = match &function.over {
            None => return ControlFlow::Continue(()),
            Some(WindowType::NamedWindow(name)) => known(self.windows, name).cloned(),
            Some(WindowType::WindowSpec(spec)) => complete(spec, self.windows),
        };
        match spelled {
            Ok(spec) => function.over = Some(WindowType::WindowSpec(spec)),
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

/// Wraps the functions whose frames exclude rows.
pub(crate) fn resolve(plan: LogicalPlan) -> Result<LogicalPlan> {
    let resolved = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Window(window) => {
            let plan = LogicalPlan::Window(window.clone());
            let names = NamePreserver::new(&plan);
            let mut changed = false;
            let mut calls = Vec::with_capacity(window.window_expr.len());
            for call in &window.window_expr {
                let name = names.save(call);
                let wrapped = call.clone().transform_up(|expr| match expr {
                    Expr::WindowFunction(function) => {
                        check_range(&function, window.input.schema())?;
                        wrapped(*function, window.input.schema())
                    }
                    other => Ok(Transformed::no(other)),
                })?;
                changed |= wrapped.transformed;
                calls.push(match wrapped.transformed {
                    true => name.restore(wrapped.data),
                    false => call.clone(),
                });
            }
            if !changed {
                return Ok(Transformed::no(plan));
            }
            let window = Window::try_new(calls, window.input)?;
            Ok(Transformed::yes(LogicalPlan::Window(window)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(resolved.data)
}

/// `RANGE` with an offset needs values that can be added to.
fn check_range(function: &WindowFunction, schema: &DFSchema) -> Result<()> {
    let frame = &function.params.window_frame;
    let offset = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) => !value.is_null(),
        WindowFrameBound::CurrentRow => false,
    };
    let by_value = offset(&frame.start_bound) || offset(&frame.end_bound);
    let (WindowFrameUnits::Range, true, Some(order)) =
        (frame.units, by_value, function.params.order_by.first())
    else {
        return Ok(());
    };
    let ordered = order.expr.get_type(schema)?;
    if ordered.is_numeric() || ordered.is_temporal() || ordered.is_null() {
        return Ok(());
    }
    let ordered = SqlType::from_arrow(&ordered);
    let message = format!("RANGE with an offset for values of type {ordered}");
    Err(crate::errors::external(SqlError::not_supported(message)))
}

/// Whether an aggregate cannot take back what its frame leaves behind, or not exactly.
fn stays_behind(function: &WindowFunction, schema: &DFSchema) -> Result<bool> {
    if function.params.window_frame.start_bound.is_unbounded() {
        return Ok(false);
    }
    Ok(match function.fun.name() {
        "count" | "min" | "max" => false,
        "sum" | "avg" => match function.params.args.first() {
            Some(argument) => argument.get_type(schema)?.is_floating(),
            None => false,
        },
        _ => true,
    })
}

fn wrapped(mut function: WindowFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let call = |function| Expr::WindowFunction(Box::new(function));
    let of_rows = matches!(function.fun, Definition::WindowUDF(_));
    if of_rows && function.params.filter.is_some() {
        let error = SqlError::not_supported("FILTER for a window function that is no aggregate");
        return Err(crate::errors::external(error));
    }
    let by = &mut function.params.partition_by;
    let exclusion = by.iter().find_map(exclusion_of);
    let partitions = by.len();
    by.retain(|expr| exclusion_of(expr).is_none());
    let framed = match &function.fun {
        Definition::AggregateUDF(_) if exclusion.is_some() => true,
        Definition::AggregateUDF(_) => {
            !function.params.distinct && stays_behind(&function, schema)?
        }
        Definition::WindowUDF(f) => {
            let looks = matches!(f.name(), "first_value" | "last_value" | "nth_value");
            exclusion.is_some() && looks
        }
    };
    if !framed && partitions == function.params.partition_by.len() {
        return Ok(Transformed::no(call(function)));
    }
    if framed {
        if function.params.distinct {
            let message = "DISTINCT in a window function with EXCLUDE";
            let error = SqlError::not_supported(message);
            return Err(crate::errors::external(error));
        }
        let filter = function.params.filter.take();
        let wrapper = Excluding::new(function.fun, exclusion, filter.is_some());
        function.fun = Definition::WindowUDF(Arc::new(WindowUDF::new_from_impl(wrapper)));
        function.params.args.extend(filter.map(|f| *f));
    }
    Ok(Transformed::yes(call(function)))
}

fn exclusion_of(expr: &Expr) -> Option<Exclusion> {
    let value = match expr {
        Expr::Literal(value, _) => value,
        Expr::Cast(Cast { expr, .. }) => return exclusion_of(expr),
        _ => return None,
    };
    let (ScalarValue::Utf8(Some(text))
    | ScalarValue::Utf8View(Some(text))
    | ScalarValue::LargeUtf8(Some(text))) = value
    else {
        return None;
    };
    let exclusions = [Exclusion::CurrentRow, Exclusion::Group, Exclusion::Ties];
    let what = text.strip_prefix(EXCLUSION_MARK)?;
    exclusions.into_iter().find(|e| e.name() == what)
}
