//! Names of result columns, by Postgres' rules (`FigureColname`): `count(*)` is called `count`, `1 + 1` is `?column?`.
//!
//! DataFusion wants the names of one select list to be distinct; Postgres does not. A name that repeats carries an invisible
//! suffix inside the planner, which [`visible`] takes off again.

use sqlparser::ast::{
    DataType, Distinct, Expr, FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident,
    OrderBy, OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TrimWhereField, VisitMut, VisitorMut,
};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Begins the suffix that tells equal names apart. No identifier a person types contains it.
const SUFFIX: char = '\u{1}';

/// The name without what the planner added to it.
pub fn visible(name: &str) -> &str {
    name.split(SUFFIX).next().unwrap_or(name)
}

/// Gives every unnamed expression of every select list its name.
pub fn name_columns(query: &mut Query) {
    let _: ControlFlow<()> = query.visit(&mut Namer);
}

struct Namer;

impl VisitorMut for Namer {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        set_apart_from_order(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        name_select(select);
        ControlFlow::Continue(())
    }

    /// In an aggregate's `ORDER BY` a number is a constant, which orders nothing; DataFusion takes it for a column's position.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let FunctionArguments::List(arguments) = &mut function.args
        {
            for clause in &mut arguments.clauses {
                if let FunctionArgumentClause::OrderBy(order) = clause {
                    order.retain(|by| !matches!(by.expr, Expr::Value(_)));
                }
            }
            arguments.clauses.retain(
                |clause| !matches!(clause, FunctionArgumentClause::OrderBy(order) if order.is_empty()),
            );
        }
        ControlFlow::Continue(())
    }
}

fn name_select(select: &mut Select) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    // Grouping by a bare name means an input column first, so aliases never need to win; but DISTINCT ON and GROUP BY ALL
    // read the list itself, and stay as they are.
    let rewritable = !matches!(select.distinct, Some(Distinct::On(_)))
        && !matches!(select.group_by, GroupByExpr::All(_));
    for item in &mut select.projection {
        let (name, unnamed) = match &*item {
            SelectItem::UnnamedExpr(expr) => (figure(expr).0, !is_column(expr)),
            SelectItem::ExprWithAlias { alias, .. } => (folded(alias), false),
            SelectItem::ExprWithAliases { .. }
            | SelectItem::Wildcard(_)
            | SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), _)
            | SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _) => {
                continue;
            }
        };
        let occurrence = seen.entry(name.clone()).or_insert(0);
        *occurrence += 1;
        if (!unnamed && *occurrence == 1) || !rewritable {
            continue;
        }
        let alias = if *occurrence == 1 {
            name
        } else {
            format!("{name}{SUFFIX}{occurrence}")
        };
        let expr = match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.clone(),
            _ => unreachable!("other items were passed over"),
        };
        *item = SelectItem::ExprWithAlias {
            expr,
            alias: Ident::with_quote('"', alias),
        };
    }
}

/// `SELECT id::text FROM t ORDER BY t.id` orders by the input column, which DataFusion cannot tell from a result column of
/// the same name: the result column gets another name, under which `ORDER BY id` still finds it.
fn set_apart_from_order(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else {
        return;
    };
    let Some(OrderBy {
        kind: OrderByKind::Expressions(order),
        ..
    }) = &mut query.order_by
    else {
        return;
    };
    let mut qualified: Vec<String> = Vec::new();
    for by in order.iter() {
        let _: ControlFlow<()> = sqlparser::ast::visit_expressions(&by.expr, |expr| {
            if let Expr::CompoundIdentifier(parts) = expr {
                qualified.extend(parts.last().map(folded));
            }
            ControlFlow::Continue(())
        });
    }
    if qualified.is_empty() || matches!(select.distinct, Some(Distinct::Distinct)) {
        return;
    }
    name_select(select);
    for item in &mut select.projection {
        let SelectItem::ExprWithAlias { expr, alias } = item else {
            continue;
        };
        let name = folded(alias);
        if !qualified.contains(&name) || name.contains(SUFFIX) {
            continue;
        }
        if matches!(expr, Expr::CompoundIdentifier(parts) if parts.last().is_some_and(|p| folded(p) == name))
        {
            continue;
        }
        *alias = Ident::with_quote('"', format!("{name}{SUFFIX}"));
        for by in order.iter_mut() {
            if matches!(&by.expr, Expr::Identifier(ident) if folded(ident) == name) {
                by.expr = Expr::Identifier(alias.clone());
            }
        }
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

const UNKNOWN: &str = "?column?";

/// The name and how much it says: 0 nothing, 1 it comes from a type or CASE, 2 it is a name.
fn figure(expr: &Expr) -> (String, u8) {
    let fixed = |name: &str| (name.to_owned(), 2);
    match expr {
        Expr::Identifier(ident) => (folded(ident), 2),
        Expr::CompoundIdentifier(parts) => (parts.last().map_or_else(String::new, folded), 2),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure(inner),
        Expr::CompoundFieldAccess { root, .. } => figure(root),
        Expr::Function(function) => {
            let name = function
                .name
                .0
                .last()
                .and_then(|p| p.as_ident())
                .map_or_else(|| UNKNOWN.to_owned(), folded);
            match &function.args {
                FunctionArguments::Subquery(_) if name == "array" => fixed("array"),
                _ => (name, 2),
            }
        }
        Expr::Cast {
            expr, data_type, ..
        } => weaker(figure(expr), type_name(data_type)),
        Expr::TypedString(typed) => (type_name(&typed.data_type), 1),
        Expr::Interval(_) => ("interval".to_owned(), 1),
        Expr::Value(value) => match &value.value {
            sqlparser::ast::Value::Boolean(_) => ("bool".to_owned(), 1),
            _ => (UNKNOWN.to_owned(), 0),
        },
        Expr::Case { else_result, .. } => weaker(
            else_result
                .as_ref()
                .map_or((String::new(), 0), |e| figure(e)),
            "case".to_owned(),
        ),
        Expr::Exists { negated: false, .. } => fixed("exists"),
        Expr::Subquery(query) => subquery(query),
        Expr::Array(_) => fixed("array"),
        Expr::Tuple(_) => fixed("row"),
        Expr::Extract { .. } => fixed("extract"),
        Expr::Ceil { .. } => fixed("ceil"),
        Expr::Floor { .. } => fixed("floor"),
        Expr::Position { .. } => fixed("position"),
        Expr::Substring { .. } => fixed("substring"),
        Expr::Overlay { .. } => fixed("overlay"),
        Expr::Trim { trim_where, .. } => fixed(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::AtTimeZone { .. } => fixed("timezone"),
        _ => (UNKNOWN.to_owned(), 0),
    }
}

fn weaker(found: (String, u8), otherwise: String) -> (String, u8) {
    if found.1 > 1 { found } else { (otherwise, 1) }
}

fn subquery(query: &Query) -> (String, u8) {
    let SetExpr::Select(select) = query.body.as_ref() else {
        return (UNKNOWN.to_owned(), 0);
    };
    match select.projection.first() {
        Some(SelectItem::UnnamedExpr(expr)) => (figure(expr).0, 2),
        Some(SelectItem::ExprWithAlias { alias, .. }) => (folded(alias), 2),
        _ => (UNKNOWN.to_owned(), 0),
    }
}

/// The name of a type in `pg_type`.
fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::SmallInt(_) | DataType::Int2(_) => "int2",
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4",
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::Real | DataType::Float4 => "float4",
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 | DataType::Float(_) => {
            "float8"
        }
        DataType::Boolean | DataType::Bool => "bool",
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric",
        DataType::Varchar(_) | DataType::CharacterVarying(_) => "varchar",
        DataType::Char(_) | DataType::Character(_) => "bpchar",
        DataType::Timestamp(_, zone) => match zone {
            sqlparser::ast::TimezoneInfo::WithTimeZone | sqlparser::ast::TimezoneInfo::Tz => {
                "timestamptz"
            }
            _ => "timestamp",
        },
        DataType::Time(..) => "time",
        DataType::Interval { .. } => "interval",
        DataType::Array(sqlparser::ast::ArrayElemTypeDef::SquareBracket(element, _)) => {
            return type_name(element);
        }
        other => return other.to_string().to_lowercase(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(sql: &str) -> Vec<String> {
        let dialect = sqlparser::dialect::PostgreSqlDialect {};
        let mut statements = sqlparser::parser::Parser::parse_sql(&dialect, sql).unwrap();
        let sqlparser::ast::Statement::Query(mut query) = statements.remove(0) else {
            panic!("not a query")
        };
        name_columns(&mut query);
        let SetExpr::Select(select) = query.body.as_ref() else {
            panic!("not a select")
        };
        let named = select.projection.iter().map(|item| match item {
            SelectItem::UnnamedExpr(expr) => figure(expr).0,
            SelectItem::ExprWithAlias { alias, .. } => visible(&alias.value).to_owned(),
            other => other.to_string(),
        });
        named.collect()
    }

    // Expected names are what Postgres 15 answers.
    #[test]
    fn names_are_postgres_names() {
        assert_eq!(
            names(
                "select 1, 1+1, count(*), sum(a)+1, a::text, 'x'::text, b.a, case when a then 1 end, \
                 case when a then 1 else c end, exists(select 1), (select max(q) from t), date '2020-01-01', true, \
                 interval '1 day', coalesce(a, 1), extract(year from d), trim(x), null, array[1]"
            ),
            [
                "?column?", "?column?", "count", "?column?", "a", "text", "a", "case", "c",
                "exists", "max", "date", "bool", "interval", "coalesce", "extract", "btrim",
                "?column?", "array"
            ]
        );
    }
}
