//! `x op ANY (sub-query)` and `x op ALL (sub-query)`, whose rewriting in DataFusion loses rows, or lets rows through, where
//! NULLs or several values are compared.
//!
//! `= ANY` is `IN` and `<> ALL` is `NOT IN`. In a condition, where unknown counts as false, `x > ANY (S)` is
//! `EXISTS (… WHERE x > v)` and `x > ALL (S)` is `NOT EXISTS (… WHERE (x > v) IS NOT TRUE)`; below a NOT, where unknown counts
//! as true, what is compared with is `IS NOT FALSE` and `IS FALSE`. Anywhere else an `ANY` is not the `ALL` of the opposite
//! comparison, and `x > ALL (S)` is decided by the largest value of S, how many there are and how many of them are NULL:
//!
//! ```sql
//! CASE WHEN (SELECT count(*) FROM S) = 0 THEN true
//!      WHEN NOT x > (SELECT max(v) FROM S) THEN false
//!      WHEN (SELECT count(*) - count(v) FROM S) > 0 THEN NULL
//!      ELSE x > (SELECT max(v) FROM S) END
//! ```

use crate::query::{derived_table, template};
use sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, Query,
    Select, SelectItem, SetExpr, UnaryOperator, Value, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

pub(crate) fn rewrite(query: &mut Query) {
    let _: ControlFlow<()> = query.visit(&mut Rewriter);
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let conditions = select.selection.iter_mut().chain(&mut select.having);
        conditions.for_each(|c| condition(c, true));
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            if let JoinOperator::Join(JoinConstraint::On(on))
            | JoinOperator::Inner(JoinConstraint::On(on)) = &mut join.join_operator
            {
                condition(on, true);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let rewritten = match expr {
            Expr::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => match right.as_ref() {
                Expr::Subquery(values) => any(left, compare_op, values),
                _ => None,
            },
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => match right.as_ref() {
                Expr::Subquery(values) => all(left, compare_op, values),
                _ => None,
            },
            _ => None,
        };
        if let Some(rewritten) = rewritten {
            *expr = Expr::Nested(Box::new(rewritten));
        }
        ControlFlow::Continue(())
    }
}

/// Rewrites what decides a condition of which only the truth counts (or, below a NOT, only the falsehood).
fn condition(expr: &mut Expr, truth: bool) {
    match expr {
        Expr::Nested(inner) => condition(inner, truth),
        Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr,
        } => condition(expr, !truth),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And | BinaryOperator::Or,
            right,
        } => {
            condition(left, truth);
            condition(right, truth);
        }
        Expr::AnyOp {
            left,
            compare_op,
            right,
            ..
        } => {
            if let Expr::Subquery(values) = right.as_ref()
                && *compare_op != BinaryOperator::Eq
            {
                let test: fn(Box<Expr>) -> Expr = match truth {
                    true => Expr::Nested,
                    false => Expr::IsNotFalse,
                };
                *expr = exists(left, compare_op, values, (test, false));
            }
        }
        Expr::AllOp {
            left,
            compare_op,
            right,
        } => {
            if let Expr::Subquery(values) = right.as_ref()
                && *compare_op != BinaryOperator::NotEq
            {
                let test: fn(Box<Expr>) -> Expr = match truth {
                    true => Expr::IsNotTrue,
                    false => Expr::IsFalse,
                };
                *expr = exists(left, compare_op, values, (test, true));
            }
        }
        _ => {}
    }
}

/// The column of the compared values, under a name that hides no column of the compared expression.
const VALUE: &str = "value\u{1}";

/// `(left op v) test`, where the test is how the comparison counts.
fn exists(
    left: &Expr,
    op: &BinaryOperator,
    values: &Query,
    (test, negated): (fn(Box<Expr>) -> Expr, bool),
) -> Expr {
    let compared = |value: Expr| {
        let left = Expr::Nested(Box::new(left.clone()));
        test(Box::new(Expr::Nested(Box::new(binary(
            left,
            op.clone(),
            value,
        )))))
    };
    let query = match plain(values).filter(|_| is_qualified(left)) {
        // What the sub-query takes from around it is found here, but not below a derived table.
        Some((select, value)) => {
            let mut query = values.clone();
            let mut select = select.clone();
            let condition = Expr::Nested(Box::new(compared(Expr::Nested(Box::new(value.clone())))));
            select.selection = Some(match select.selection.take() {
                Some(own) => binary(Expr::Nested(Box::new(own)), BinaryOperator::And, condition),
                None => condition,
            });
            query.body = Box::new(SetExpr::Select(Box::new(select)));
            query
        }
        None => {
            let sql = format!("SELECT 1 FROM (SELECT 1) AS \"values\u{1}\" (\"{VALUE}\")");
            let mut query = template(&sql);
            *derived_table(&mut query) = values.clone();
            if let SetExpr::Select(select) = query.body.as_mut() {
                let value = Expr::Identifier(Ident::with_quote('"', VALUE));
                select.selection = Some(compared(value));
            }
            query
        }
    };
    Expr::Exists {
        subquery: Box::new(query),
        negated,
    }
}

/// The select and its one expression, if the query is nothing but a filter.
fn plain(values: &Query) -> Option<(&Select, &Expr)> {
    let SetExpr::Select(select) = values.body.as_ref() else {
        return None;
    };
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(expressions, modifiers) => {
            !expressions.is_empty() || !modifiers.is_empty()
        }
    };
    let simple = values.with.is_none()
        && values.limit_clause.is_none()
        && values.fetch.is_none()
        && select.distinct.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && !grouped;
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_slice()
    else {
        return None;
    };
    // A function may be an aggregate.
    let mut calls = false;
    let _: ControlFlow<()> = sqlparser::ast::visit_expressions(value, |expr| {
        calls |= matches!(expr, Expr::Function(_));
        ControlFlow::Continue(())
    });
    (simple && !calls).then_some((select, value))
}

/// Whether no column inside the sub-query can be taken for one of this expression.
fn is_qualified(expr: &Expr) -> bool {
    let mut bare = false;
    let _: ControlFlow<()> = sqlparser::ast::visit_expressions(expr, |expr| {
        bare |= matches!(expr, Expr::Identifier(_));
        ControlFlow::Continue(())
    });
    !bare
}

fn any(left: &Expr, op: &BinaryOperator, values: &Query) -> Option<Expr> {
    if *op == BinaryOperator::Eq {
        return Some(in_values(left, values, false));
    }
    Some(not(all(left, &opposite(op)?, values)?))
}

fn all(left: &Expr, op: &BinaryOperator, values: &Query) -> Option<Expr> {
    use BinaryOperator as O;
    let compared = |op: &O, extreme: &str| {
        let extreme = of_values(&format!("{extreme}(v)"), values);
        binary(left.clone(), op.clone(), extreme)
    };
    let holds = match op {
        O::NotEq => return Some(in_values(left, values, true)),
        O::Gt | O::GtEq => compared(op, "max"),
        O::Lt | O::LtEq => compared(op, "min"),
        O::Eq => binary(compared(op, "min"), O::And, compared(op, "max")),
        _ => return None,
    };
    let holds = Expr::Nested(Box::new(holds));
    let none = binary(of_values("count(*)", values), O::Eq, number(0));
    let nulls = binary(of_values("count(*) - count(v)", values), O::Gt, number(0));
    let when = |condition: Expr, result: Value| CaseWhen {
        condition,
        result: Expr::Value(result.into()),
    };
    Some(Expr::Case {
        case_token: sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        end_token: sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![
            when(none, Value::Boolean(true)),
            when(not(holds.clone()), Value::Boolean(false)),
            when(nulls, Value::Null),
        ],
        else_result: Some(Box::new(holds)),
    })
}

fn opposite(op: &BinaryOperator) -> Option<BinaryOperator> {
    use BinaryOperator as O;
    Some(match op {
        O::Eq => O::NotEq,
        O::NotEq => O::Eq,
        O::Lt => O::GtEq,
        O::LtEq => O::Gt,
        O::Gt => O::LtEq,
        O::GtEq => O::Lt,
        _ => return None,
    })
}

fn in_values(left: &Expr, values: &Query, negated: bool) -> Expr {
    Expr::InSubquery {
        expr: Box::new(left.clone()),
        subquery: Box::new(values.clone()),
        negated,
    }
}

/// An aggregate over the sub-query, whose one column is `v`.
fn of_values(aggregate: &str, values: &Query) -> Expr {
    let mut query = template(&format!(
        "SELECT {aggregate} FROM (SELECT 1) AS \"values\u{1}\" (v)"
    ));
    *derived_table(&mut query) = values.clone();
    Expr::Subquery(Box::new(query))
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp {
        op: UnaryOperator::Not,
        expr: Box::new(Expr::Nested(Box::new(expr))),
    }
}

fn number(value: u32) -> Expr {
    Expr::Value(Value::Number(value.to_string(), false).into())
}
