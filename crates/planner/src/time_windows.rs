//! `TUMBLE`, `HOP`, `CUMULATE` and `SESSION` in FROM: a sub-query over the table that adds `window_start` and `window_end`.
//!
//! | written | adds |
//! |---|---|
//! | `TUMBLE(t, time, size [, offset])` | the window that the row is in |
//! | `HOP(t, time, slide, size [, offset])` | a row for each window that it is in |
//! | `CUMULATE(t, time, step, size [, offset])` | a row for each growing window that it is in |
//! | `SESSION(t [PARTITION BY k], time, gap)` | the session that the row is in, among the rows of `k` |
//!
//! Flink's `TABLE(TUMBLE(TABLE t, DESCRIPTOR(time), size))` is the same. The table may be a sub-query. A row whose time is NULL
//! is in no window, and not in the result. The functions of the sub-query are in [`crate::functions`].

use crate::query::template;
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, ObjectNamePart, Query, SetExpr, Spanned, TableAlias, TableFactor, VisitMut,
    VisitorMut, WindowType,
};
use std::ops::ControlFlow;
use tidegate_types::{SqlError, SqlState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl Kind {
    fn of(name: &ObjectName) -> Option<Self> {
        let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else {
            return None;
        };
        match name.value.to_ascii_lowercase().as_str() {
            "tumble" => Some(Self::Tumble),
            "hop" => Some(Self::Hop),
            "cumulate" => Some(Self::Cumulate),
            "session" => Some(Self::Session),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE",
            Self::Hop => "HOP",
            Self::Cumulate => "CUMULATE",
            Self::Session => "SESSION",
        }
    }

    /// What it is called with.
    fn usage(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE(table, time, size [, offset])",
            Self::Hop => "HOP(table, time, slide, size [, offset])",
            Self::Cumulate => "CUMULATE(table, time, step, size [, offset])",
            Self::Session => "SESSION(table [PARTITION BY key], time, gap)",
        }
    }

    /// How many intervals it has at least and at most.
    fn intervals(self) -> (usize, usize) {
        match self {
            Self::Tumble => (1, 2),
            Self::Hop | Self::Cumulate => (2, 3),
            Self::Session => (1, 1),
        }
    }

    /// The sub-query; the names in it are replaced.
    fn query(self) -> &'static str {
        match self {
            Self::Tumble => {
                r#"SELECT *, tumble_start("$time", "$0", "$1") AS window_start,
                          tumble_end("$time", "$0", "$1") AS window_end
                   FROM "$table" WHERE "$time" IS NOT NULL"#
            }
            Self::Hop => {
                r#"SELECT *, unnest(hop_starts("$time", "$0", "$1", "$2")) AS window_start,
                          unnest(hop_ends("$time", "$0", "$1", "$2")) AS window_end
                   FROM "$table""#
            }
            Self::Cumulate => {
                r#"SELECT *, tumble_start("$time", "$1", "$2") AS window_start,
                          unnest(cumulate_ends("$time", "$0", "$1", "$2")) AS window_end
                   FROM "$table""#
            }
            Self::Session => {
                r#"SELECT *,
                          session_start("$time", "$0") OVER (PARTITION BY "$keys" ORDER BY "$time") AS window_start,
                          session_end("$time", "$0") OVER (PARTITION BY "$keys" ORDER BY "$time") AS window_end
                   FROM "$table" WHERE "$time" IS NOT NULL"#
            }
        }
    }
}

pub(crate) fn rewrite(query: &mut Query, text: &str) -> Result<(), SqlError> {
    match query.visit(&mut Rewriter { text }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter<'a> {
    text: &'a str,
}

impl VisitorMut for Rewriter<'_> {
    type Break = SqlError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        let Some((kind, arguments, alias)) = call_of(factor) else {
            return ControlFlow::Continue(());
        };
        match derived(kind, arguments, alias) {
            Ok(windowed) => {
                *factor = windowed;
                ControlFlow::Continue(())
            }
            Err(error) => {
                let at = tidegate_parser::position_of(self.text, factor.span().start);
                ControlFlow::Break(match at {
                    Some(position) if error.position.is_none() => error.with_position(position),
                    _ => error,
                })
            }
        }
    }
}

type Call<'a> = (Kind, &'a [FunctionArg], Option<&'a TableAlias>);

/// The window function that a table factor is.
fn call_of(factor: &TableFactor) -> Option<Call<'_>> {
    match factor {
        TableFactor::Table {
            name,
            args: Some(arguments),
            alias,
            with_ordinality: false,
            ..
        } => Some((Kind::of(name)?, &arguments.args, alias.as_ref())),
        TableFactor::Function {
            name, args, alias, ..
        } => Some((Kind::of(name)?, args, alias.as_ref())),
        TableFactor::TableFunction {
            expr:
                Expr::Function(Function {
                    name,
                    args: FunctionArguments::List(list),
                    ..
                }),
            alias,
        } => Some((Kind::of(name)?, &list.args, alias.as_ref())),
        _ => None,
    }
}

/// The parts of a call.
struct Parts {
    table: TableFactor,
    keys: Vec<Expr>,
    time: Expr,
    /// With the offset that was left out.
    intervals: Vec<Expr>,
}

fn wrong(kind: Kind, message: &str) -> SqlError {
    let message = format!("{message} of {} is wrong", kind.name());
    SqlError::new(SqlState::SYNTAX_ERROR, message).with_hint(format!("Use {}.", kind.usage()))
}

fn derived(
    kind: Kind,
    arguments: &[FunctionArg],
    alias: Option<&TableAlias>,
) -> Result<TableFactor, SqlError> {
    let parts = parts(kind, arguments)?;
    let alias = alias.cloned().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: name_of(&parts.table).unwrap_or_else(|| Ident::new(kind.name().to_lowercase())),
        columns: Vec::new(),
        at: None,
    });
    let mut query = template(kind.query());
    let _: ControlFlow<()> = query.visit(&mut Fill { parts: &parts });
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.from[0].relation = parts.table;
    }
    Ok(TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(alias),
        sample: None,
    })
}

fn parts(kind: Kind, arguments: &[FunctionArg]) -> Result<Parts, SqlError> {
    let mut expressions = Vec::new();
    for argument in arguments {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => expressions.push(expr.clone()),
            FunctionArg::Unnamed(_) => return Err(wrong(kind, "an argument")),
            FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => {
                let feature = format!("{} with named arguments", kind.name());
                return Err(SqlError::not_supported(feature));
            }
        }
    }
    let (least, most) = kind.intervals();
    let mut expressions = expressions.into_iter();
    let table = expressions
        .next()
        .ok_or_else(|| wrong(kind, "the number of arguments"))?;
    let (table, mut keys) = partitioned(kind, table)?;
    let mut rest: Vec<Expr> = expressions.collect();
    if !keys.is_empty() {
        // `PARTITION BY a, b, time, gap`: what is in front of the last two is keys too.
        let more = rest.len().saturating_sub(1 + most);
        keys.extend(rest.drain(..more));
    }
    if !(1 + least..=1 + most).contains(&rest.len()) {
        return Err(wrong(kind, "the number of arguments"));
    }
    let mut rest = rest.into_iter();
    let time = time_of(kind, rest.next().expect("counted above"))?;
    let mut intervals: Vec<Expr> = rest.collect();
    if intervals.len() < most {
        intervals.push(zero());
    }
    Ok(Parts {
        table: table_of(kind, table)?,
        keys,
        time,
        intervals,
    })
}

/// The table and the keys behind `PARTITION BY`.
fn partitioned(kind: Kind, table: Expr) -> Result<(Expr, Vec<Expr>), SqlError> {
    match table {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::Custom(op),
            right,
        } if op == tidegate_parser::PARTITION_BY => {
            if kind != Kind::Session {
                let feature = format!("PARTITION BY in {}", kind.name());
                return Err(SqlError::not_supported(feature)
                    .with_hint("Only the windows of SESSION depend on other rows."));
            }
            let keys = match *right {
                Expr::Tuple(keys) => keys,
                Expr::Nested(key) => vec![*key],
                key => vec![key],
            };
            Ok((*left, keys))
        }
        table => Ok((table, Vec::new())),
    }
}

/// The column that `DESCRIPTOR(c)` or `c` names.
fn time_of(kind: Kind, expr: Expr) -> Result<Expr, SqlError> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(expr),
        Expr::Function(Function {
            name,
            args: FunctionArguments::List(list),
            ..
        }) if name.to_string().eq_ignore_ascii_case("descriptor") => match list.args.as_slice() {
            [FunctionArg::Unnamed(FunctionArgExpr::Expr(column))] => time_of(kind, column.clone()),
            _ => Err(wrong(kind, "the time column")),
        },
        _ => Err(wrong(kind, "the time column")),
    }
}

fn table_of(kind: Kind, expr: Expr) -> Result<TableFactor, SqlError> {
    let parts = match expr {
        Expr::Identifier(name) => vec![name],
        Expr::CompoundIdentifier(parts) => parts,
        Expr::Prefixed { prefix, value } if prefix.value.eq_ignore_ascii_case("table") => {
            return table_of(kind, *value);
        }
        Expr::Subquery(query) => {
            return Ok(TableFactor::Derived {
                lateral: false,
                subquery: query,
                alias: Some(TableAlias {
                    explicit: true,
                    name: Ident::new(kind.name().to_lowercase()),
                    columns: Vec::new(),
                    at: None,
                }),
                sample: None,
            });
        }
        // A window function over a window function.
        Expr::Function(function) if Kind::of(&function.name).is_some() => {
            return Ok(TableFactor::TableFunction {
                expr: Expr::Function(function),
                alias: None,
            });
        }
        _ => return Err(wrong(kind, "the table")),
    };
    Ok(TableFactor::Table {
        name: ObjectName::from(parts),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    })
}

/// What the result is called where it has no alias.
fn name_of(table: &TableFactor) -> Option<Ident> {
    match table {
        TableFactor::Table { name, .. } => name.0.last()?.as_ident().cloned(),
        _ => None,
    }
}

fn zero() -> Expr {
    let query = template("SELECT INTERVAL '0 seconds'");
    match *query.body {
        SetExpr::Select(select) => match select.projection.into_iter().next() {
            Some(sqlparser::ast::SelectItem::UnnamedExpr(expr)) => expr,
            _ => unreachable!("our own text selects an expression"),
        },
        _ => unreachable!("our own text is a select"),
    }
}

/// Puts the parts of a call where the names of a template are.
struct Fill<'a> {
    parts: &'a Parts,
}

impl VisitorMut for Fill<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut function.over
        {
            spec.partition_by = self.parts.keys.clone();
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Identifier(name) = &*expr else {
            return ControlFlow::Continue(());
        };
        let Some(name) = name.value.strip_prefix('$') else {
            return ControlFlow::Continue(());
        };
        let replaced = match name.parse::<usize>() {
            Ok(index) => self.parts.intervals.get(index),
            Err(_) => (name == "time").then_some(&self.parts.time),
        };
        if let Some(replaced) = replaced {
            *expr = replaced.clone();
        }
        ControlFlow::Continue(())
    }
}
