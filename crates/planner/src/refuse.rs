//! What is refused by looking at the syntax tree, before anything else.
//!
//! Two lists. The first holds what DataFusion reads and then ignores or computes wrongly, refused everywhere. The second
//! holds what an ad-hoc query can do and a materialized view cannot yet: `X in a materialized view is not supported`.

use crate::query::Purpose;
use crate::spellings;
use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, GroupByExpr, JoinOperator, Query,
    Select, SetExpr, SetOperator, SetQuantifier, Spanned, TableFactor, Visit, Visitor,
};
use std::ops::ControlFlow;
use tidegate_types::{SqlError, SqlState};

pub(crate) fn check(query: &Query, purpose: Purpose, text: &str) -> Result<(), SqlError> {
    match query.visit(&mut Refuser { purpose, text }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The error for a feature that views lack and reads have.
pub(crate) fn in_view(feature: impl std::fmt::Display) -> SqlError {
    SqlError::not_supported(format!("{feature} in a materialized view"))
}

struct Refuser<'a> {
    purpose: Purpose,
    text: &'a str,
}

type Flow = ControlFlow<SqlError>;

impl Refuser<'_> {
    fn everywhere(&self, feature: &str, at: &impl Spanned) -> Flow {
        ControlFlow::Break(self.located(SqlError::not_supported(feature), at))
    }

    fn view(&self, feature: &str, at: &impl Spanned) -> Flow {
        match self.purpose {
            Purpose::Read => ControlFlow::Continue(()),
            Purpose::View => ControlFlow::Break(self.located(in_view(feature), at)),
        }
    }

    fn located(&self, error: SqlError, at: &impl Spanned) -> SqlError {
        match tidegate_parser::position_of(self.text, at.span().start) {
            Some(position) => error.with_position(position),
            None => error,
        }
    }

    fn body(&self, body: &SetExpr) -> Flow {
        match body {
            SetExpr::SetOperation {
                op,
                set_quantifier,
                left,
                right,
            } => {
                let union = matches!(op, SetOperator::Union);
                if !union && matches!(set_quantifier, SetQuantifier::AllByName) {
                    self.everywhere("BY NAME", body)?;
                }
                if matches!(
                    set_quantifier,
                    SetQuantifier::ByName
                        | SetQuantifier::AllByName
                        | SetQuantifier::DistinctByName
                ) {
                    self.view("BY NAME", body)?;
                }
                self.body(left)?;
                self.body(right)
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                self.everywhere("a data-modifying statement in WITH", body)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn joins(&self, select: &Select) -> Flow {
        for table in &select.from {
            for join in &table.joins {
                match &join.join_operator {
                    JoinOperator::AsOf { .. } => self.everywhere("ASOF JOIN", join)?,
                    JoinOperator::CrossApply | JoinOperator::OuterApply => {
                        self.everywhere("APPLY", join)?
                    }
                    JoinOperator::ArrayJoin
                    | JoinOperator::LeftArrayJoin
                    | JoinOperator::InnerArrayJoin => {
                        self.everywhere("ARRAY JOIN", join)?;
                    }
                    _ => {}
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Refuser<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        if query.with.as_ref().is_some_and(|with| with.recursive) {
            self.view("WITH RECURSIVE", query)?;
        }
        if query.fetch.as_ref().is_some_and(|fetch| fetch.with_ties) {
            self.everywhere("FETCH … WITH TIES", query)?;
        }
        if query.fetch.as_ref().is_some_and(|fetch| fetch.percent) {
            self.everywhere("FETCH … PERCENT", query)?;
        }
        if !query.locks.is_empty() {
            self.everywhere("FOR UPDATE and FOR SHARE", query)?;
        }
        if !query.pipe_operators.is_empty() {
            self.everywhere("pipe operators", query)?;
        }
        self.body(&query.body)
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        if select.into.is_some() {
            self.everywhere("SELECT INTO", select)?;
        }
        let modifiers = match &select.group_by {
            GroupByExpr::All(modifiers) => modifiers,
            GroupByExpr::Expressions(_, modifiers) => modifiers,
        };
        if !modifiers.is_empty() {
            self.view("GROUP BY … WITH", select)?;
        }
        self.joins(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        match factor {
            TableFactor::Table {
                sample: Some(_), ..
            }
            | TableFactor::Derived {
                sample: Some(_), ..
            } => self.everywhere("TABLESAMPLE", factor),
            TableFactor::Table {
                version: Some(_), ..
            } => self.everywhere("FOR SYSTEM_TIME AS OF", factor),
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            }
            | TableFactor::Function { name, .. } => {
                let last = name
                    .0
                    .last()
                    .and_then(|part| part.as_ident())
                    .map(|ident| ident.value.to_lowercase());
                match last {
                    // It will be an unnest.
                    Some(last) if spellings::returns_rows(&last) => ControlFlow::Continue(()),
                    Some(last) => self.view(&format!("the table function {last}"), factor),
                    None => ControlFlow::Continue(()),
                }
            }
            TableFactor::TableFunction { .. } => self.view("TABLE(function)", factor),
            TableFactor::MatchRecognize { .. } => self.everywhere("MATCH_RECOGNIZE", factor),
            TableFactor::Pivot { .. } => self.everywhere("PIVOT", factor),
            TableFactor::Unpivot { .. } => self.everywhere("UNPIVOT", factor),
            TableFactor::JsonTable { .. } => self.everywhere("JSON_TABLE", factor),
            TableFactor::XmlTable { .. } => self.everywhere("XMLTABLE", factor),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        match expr {
            // DataFusion makes a list of it.
            Expr::Function(function)
                if self.purpose == Purpose::Read && xors_distinct(function) =>
            {
                self.everywhere("bit_xor with DISTINCT outside of a materialized view", expr)
            }
            Expr::InSubquery { expr: row, .. } if matches!(row.as_ref(), Expr::Tuple(_)) => {
                self.everywhere("a row compared with a sub-query", expr)
            }
            Expr::AnyOp { left, right, .. } | Expr::AllOp { left, right, .. }
                if matches!(left.as_ref(), Expr::Tuple(_))
                    && matches!(right.as_ref(), Expr::Subquery(_)) =>
            {
                self.everywhere("a row compared with a sub-query", expr)
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn xors_distinct(function: &Function) -> bool {
    let named = function.name.to_string().eq_ignore_ascii_case("bit_xor");
    let distinct = Some(DuplicateTreatment::Distinct);
    named
        && matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment == distinct)
}

/// A name that appears twice among a relation's columns.
pub(crate) fn duplicate_names(names: &[String]) -> Result<(), SqlError> {
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
    }
    Ok(())
}
