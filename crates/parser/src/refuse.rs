//! What `sqlparser` reads and Postgres does not, where going on would answer another question than was asked.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Join, JoinConstraint, JoinOperator, Select, Spanned, TableFactor, Visit, Visitor,
};
use sqlparser::tokenizer::Location;

use crate::error::ParseError;

/// Looks through a statement or query; `position` turns locations into positions.
pub(crate) fn check(
    tree: &impl Visit,
    position: impl Fn(Location) -> usize,
) -> Result<(), ParseError> {
    match tree.visit(&mut Refuse { position }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Refuse<P> {
    position: P,
}

impl<P: Fn(Location) -> usize> Refuse<P> {
    fn joins(&self, joins: &[Join]) -> ControlFlow<ParseError> {
        use JoinOperator as J;
        for join in joins {
            let constraint = match &join.join_operator {
                J::Join(c) | J::Inner(c) => c,
                J::Left(c) | J::LeftOuter(c) | J::Right(c) | J::RightOuter(c) => c,
                J::FullOuter(c) | J::Semi(c) | J::Anti(c) => c,
                J::LeftSemi(c) | J::RightSemi(c) | J::LeftAnti(c) | J::RightAnti(c) => c,
                _ => continue,
            };
            if *constraint == JoinConstraint::None {
                let at = (self.position)(join.relation.span().start);
                return ControlFlow::Break(
                    ParseError::syntax("JOIN without ON or USING", at)
                        .with_hint("write CROSS JOIN to pair all rows"),
                );
            }
        }
        ControlFlow::Continue(())
    }
}

impl<P: Fn(Location) -> usize> Visitor for Refuse<P> {
    type Break = ParseError;

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<ParseError> {
        for from in &select.from {
            self.joins(&from.joins)?;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<ParseError> {
        match table {
            TableFactor::NestedJoin {
                table_with_joins, ..
            } => self.joins(&table_with_joins.joins),
            TableFactor::Table { with_hints, .. } if !with_hints.is_empty() => {
                let at = (self.position)(with_hints[0].span().start);
                ControlFlow::Break(ParseError::syntax("table hints are not part of SQL", at))
            }
            TableFactor::Table {
                sample: Some(_), ..
            } => {
                let at = (self.position)(table.span().start);
                ControlFlow::Break(ParseError::not_built("TABLESAMPLE", at))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
