//! What DataFusion has under another spelling, taken out of a query before it is planned.
//!
//! - `jsonb_agg(x)` is `jsonb_join(array_agg(to_jsonb(x)))`, so that it has `ORDER BY`, `FILTER` and `DISTINCT`, and views
//!   maintain it as they do `array_agg`; `jsonb_object_agg` likewise;
//! - functions that return rows of an array's elements are `unnest` of the function that returns the array;
//! - `t AT TIME ZONE z` is `timezone(z, t)`;
//! - `age(t)` counts to today;
//! - `regr_count(y, x)` counts y where there is x, as a `bigint`;
//! - `median(x)` and the approximate percentiles are `percentile_cont`;
//! - `TABLE t` is `SELECT * FROM t`, `FETCH FIRST n ROWS ONLY` is `LIMIT n`.

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, SetExpr, Statement, TableAlias,
    TableAliasColumnDef, TableFactor, Value, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// Functions of rows, the function of an array that each is, and the name of its column.
const ROWS: &[(&str, &str, &str)] = &[
    ("jsonb_array_elements", "jsonb_elements", "value"),
    ("json_array_elements", "jsonb_elements", "value"),
    ("jsonb_array_elements_text", "jsonb_elements_text", "value"),
    ("json_array_elements_text", "jsonb_elements_text", "value"),
    ("jsonb_object_keys", "jsonb_keys", "jsonb_object_keys"),
    ("json_object_keys", "jsonb_keys", "json_object_keys"),
    ("string_to_table", "string_to_array", "string_to_table"),
    (
        "regexp_split_to_table",
        "regexp_split_to_array",
        "regexp_split_to_table",
    ),
];

/// Rewrites a query whose columns have their names.
pub(crate) fn rewrite(query: &mut Query) {
    let _: ControlFlow<()> = query.visit(&mut Rewriter);
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        crate::query::fetch_to_limit(query);
        if let SetExpr::Table(table) = query.body.as_ref()
            && let Some(select) = selected(&table.to_string())
        {
            *query.body = select;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(rewritten) = call_of(function)
        {
            *expr = rewritten;
        }
        if let Expr::AtTimeZone {
            timestamp,
            time_zone,
        } = expr
        {
            let (time, zone) = ((**timestamp).clone(), (**time_zone).clone());
            *expr = call("timezone", vec![argument(zone), argument(time)]);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let (name, args, alias) = match &*factor {
            TableFactor::Table {
                name,
                args: Some(args),
                alias,
                ..
            } => (name, &args.args, alias),
            TableFactor::Function {
                name, args, alias, ..
            } => (name, args, alias),
            _ => return ControlFlow::Continue(()),
        };
        let Some((_, array, column)) = rows_of(name) else {
            return ControlFlow::Continue(());
        };
        let called = call(array, args.clone());
        *factor = TableFactor::UNNEST {
            alias: Some(aliased(name, alias.as_ref(), column)),
            array_exprs: vec![called],
            with_offset: false,
            with_offset_alias: None,
            with_ordinality: false,
        };
        ControlFlow::Continue(())
    }
}

/// `TABLE t`.
fn selected(table: &str) -> Option<SetExpr> {
    let name = table.strip_prefix("TABLE ")?;
    let dialect = sqlparser::dialect::PostgreSqlDialect {};
    let parsed = sqlparser::parser::Parser::parse_sql(&dialect, &format!("SELECT * FROM {name}"));
    match parsed.ok()?.pop()? {
        Statement::Query(query) => Some(*query.body),
        _ => None,
    }
}

fn bare(name: &ObjectName) -> Option<String> {
    let ident = name.0.last()?.as_ident()?;
    Some(match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    })
}

/// Whether a function in FROM gives the elements of an array.
pub(crate) fn returns_rows(name: &str) -> bool {
    ROWS.iter().any(|(rows, ..)| *rows == name)
}

fn rows_of(name: &ObjectName) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let name = bare(name)?;
    ROWS.iter().find(|(rows, ..)| *rows == name)
}

/// The table's name is the function's unless it has an alias; so is that of a column without a name of its own.
fn aliased(name: &ObjectName, alias: Option<&TableAlias>, column: &str) -> TableAlias {
    let named = |name: Ident| TableAliasColumnDef {
        name,
        data_type: None,
    };
    match alias {
        Some(alias) if !alias.columns.is_empty() => alias.clone(),
        Some(alias) => {
            let column = match column {
                "value" => Ident::new("value"),
                _ => alias.name.clone(),
            };
            TableAlias {
                columns: vec![named(column)],
                ..alias.clone()
            }
        }
        None => TableAlias {
            explicit: true,
            name: Ident::new(bare(name).unwrap_or_default()),
            columns: vec![named(Ident::new(column))],
            at: None,
        },
    }
}

fn call(name: &str, args: Vec<FunctionArg>) -> Expr {
    Expr::Function(function(name, args))
}

fn function(name: &str, args: Vec<FunctionArg>) -> Function {
    Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}

fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

/// `regr_count(y, x)` as `count(CASE WHEN x IS NOT NULL THEN y END)`.
fn pairs_counted(given: &Function) -> Option<Expr> {
    let mut spelled = given.clone();
    let FunctionArguments::List(list) = &mut spelled.args else {
        return None;
    };
    let [
        FunctionArg::Unnamed(FunctionArgExpr::Expr(y)),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(x)),
    ] = list.args.as_slice()
    else {
        return None;
    };
    let counted = Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen {
            condition: Expr::IsNotNull(Box::new(Expr::Nested(Box::new(x.clone())))),
            result: y.clone(),
        }],
        else_result: None,
    };
    list.args = vec![argument(counted)];
    spelled.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("count"))]);
    Some(Expr::Function(spelled))
}

/// `median(x)`, `approx_median(x)` and `approx_percentile_cont(f [, n]) WITHIN GROUP (ORDER BY x)`, or with x in front.
fn percentile(name: &str, given: &Function) -> Option<Expr> {
    let mut spelled = given.clone();
    let FunctionArguments::List(list) = &mut spelled.args else {
        return None;
    };
    match (name, list.args.len()) {
        ("median" | "approx_median", 1) => {
            let half = Expr::Value(Value::Number("0.5".to_owned(), false).into());
            list.args.push(argument(half));
        }
        ("approx_percentile_cont", _) => {
            // How many centroids to keep does not matter for what is exact.
            list.args
                .truncate(if given.within_group.is_empty() { 2 } else { 1 });
        }
        _ => return None,
    }
    spelled.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(
        "percentile_cont",
    ))]);
    Some(Expr::Function(spelled))
}

fn call_of(given: &Function) -> Option<Expr> {
    let name = bare(&given.name)?;
    if let Some((_, array, _)) = ROWS.iter().find(|(rows, ..)| *rows == name) {
        let FunctionArguments::List(list) = &given.args else {
            return None;
        };
        return Some(call(
            "unnest",
            vec![argument(call(array, list.args.clone()))],
        ));
    }
    if name == "age"
        && let FunctionArguments::List(list) = &given.args
        && let [since] = list.args.as_slice()
    {
        let today = call("current_date", Vec::new());
        return Some(call("age", vec![argument(today), since.clone()]));
    }
    if name == "regr_count" {
        return pairs_counted(given);
    }
    if let Some(percentile) = percentile(&name, given) {
        return Some(percentile);
    }
    let (each, join) = match name.as_str() {
        "jsonb_agg" | "json_agg" => ("to_jsonb", "jsonb_join"),
        "jsonb_object_agg" | "json_object_agg" => ("jsonb_build_array", "jsonb_object_join"),
        _ => return None,
    };
    let mut collected = given.clone();
    collected.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new("array_agg"))]);
    let FunctionArguments::List(list) = &mut collected.args else {
        return None;
    };
    let args = std::mem::take(&mut list.args);
    list.args = vec![argument(call(each, args))];
    Some(call(join, vec![argument(Expr::Function(collected))]))
}
