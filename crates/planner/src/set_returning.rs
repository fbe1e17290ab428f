//! Functions that return rows, in the places where DataFusion knows `unnest` alone.
//!
//! `generate_series(…)` in a select list, in the FROM of a view, or over columns of what is before it in a FROM, is `unnest` of the list that the function of the same name
//! returns. And as in Postgres, the one column of such a function is called like its table: `FROM unnest(a) AS x` has a column x.

use crate::query::Purpose;
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, ObjectNamePart, Query, Select, SelectItem, TableAlias, TableAliasColumnDef,
    TableFactor, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

const SERIES: &str = "generate_series";

pub(crate) fn rewrite(query: &mut Query, purpose: Purpose) {
    let _: ControlFlow<()> = query.visit(&mut Rewriter { purpose });
}

struct Rewriter {
    purpose: Purpose,
}

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) if is_series(expr) => {
                    *item = SelectItem::ExprWithAlias {
                        expr: unnest(expr.clone()),
                        alias: Ident::new(SERIES),
                    };
                }
                SelectItem::ExprWithAlias { expr, .. } if is_series(expr) => {
                    *expr = unnest(expr.clone());
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            // What is computed lazily where it is read has no place in a view, and takes constants only.
            TableFactor::Table {
                name,
                args: Some(arguments),
                alias: Some(alias),
                ..
            } if self.purpose == Purpose::Read
                && is_named_series(name)
                && arguments.args.iter().all(is_constant) =>
            {
                name_column(alias);
            }
            _ => series(factor),
        }
        if let TableFactor::UNNEST {
            alias, array_exprs, ..
        } = factor
            && array_exprs.len() == 1
        {
            name_column(alias.get_or_insert_with(|| named("unnest")));
        }
        ControlFlow::Continue(())
    }
}

/// The one column is called like the table, unless it has a name.
fn name_column(alias: &mut TableAlias) {
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef {
            name: alias.name.clone(),
            data_type: None,
        });
    }
}

fn is_constant(argument: &FunctionArg) -> bool {
    let mut names_something = false;
    let _: ControlFlow<()> = sqlparser::ast::visit_expressions(argument, |expr| {
        names_something |= matches!(
            expr,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Function(_)
        );
        ControlFlow::Continue(())
    });
    !names_something
}

/// `generate_series(…) AS x` as `unnest(generate_series(…)) AS x`.
fn series(factor: &mut TableFactor) {
    let (name, arguments, alias) = match factor {
        TableFactor::Table {
            name,
            args: Some(arguments),
            alias,
            with_ordinality: false,
            ..
        } => (name, &arguments.args, alias),
        TableFactor::Function {
            name, args, alias, ..
        } => (name, &*args, alias),
        _ => return,
    };
    if !is_named_series(name) {
        return;
    }
    let call = function(SERIES, arguments.clone());
    let alias = alias.take().unwrap_or_else(|| named(SERIES));
    *factor = TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: vec![call],
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
}

fn is_named_series(name: &ObjectName) -> bool {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(name)] => name.value.eq_ignore_ascii_case(SERIES),
        _ => false,
    }
}

fn is_series(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function) if is_named_series(&function.name))
}

fn unnest(list: Expr) -> Expr {
    let argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(list));
    function("unnest", vec![argument])
}

fn named(name: &str) -> TableAlias {
    TableAlias {
        explicit: true,
        name: Ident::new(name),
        columns: Vec::new(),
        at: None,
    }
}

fn function(name: &str, args: Vec<FunctionArg>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
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
    })
}
