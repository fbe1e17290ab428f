//! What `sqlparser` reads and we do not: where going on would answer another question than was asked, and chains of
//! operators so long that walking the tree they make would overflow a stack.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Select, Spanned, TableFactor,
    Visit, Visitor,
};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use crate::dialect::is_word;
use crate::error::ParseError;
use crate::names::{is_bare_function, is_reserved};

/// How many tokens may follow each other at one depth of parentheses without a comma. The library limits how deep
/// parentheses nest, but `a AND a AND …` also makes a tree as deep as it is long.
const CHAIN_LIMIT: usize = 20_000;

/// How often the innermost sub-query may be read. In `FROM ((SELECT …` the library tries each parenthesis as a sub-query
/// and, if that fails, as a join, so the work for a wrong statement is the product over all levels.
const ATTEMPT_LIMIT: usize = 1 << 12;

/// The token at which a statement becomes too costly to read.
pub(crate) fn too_complex(tokens: &[TokenWithSpan]) -> Option<&TokenWithSpan> {
    /// What was going on outside a parenthesis.
    struct Outer {
        length: usize,
        attempts: usize,
    }
    let mut outer: Vec<Outer> = Vec::new();
    let (mut length, mut attempts, mut opened) = (0, 1_usize, 0);
    for token in tokens {
        let just_opened = opened;
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket => {
                outer.push(Outer { length, attempts });
                length = 0;
                opened += 1;
                continue;
            }
            Token::RParen | Token::RBracket => {
                let closed = outer.pop();
                attempts = closed.as_ref().map_or(1, |o| o.attempts);
                length = closed.map_or(0, |o| o.length) + 1;
            }
            Token::Comma => length = 0,
            _ => length += 1,
        }
        opened = 0;
        if just_opened > 1
            && ["SELECT", "WITH", "VALUES"]
                .iter()
                .any(|w| is_word(&token.token, w))
        {
            attempts = attempts.saturating_mul(just_opened);
        }
        if length > CHAIN_LIMIT || attempts > ATTEMPT_LIMIT {
            return Some(token);
        }
    }
    None
}

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

    /// `SELECT * FROM WHERE a` must not be about a table called "where". Functions without parentheses may be tables.
    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<ParseError> {
        match name.0.first() {
            Some(ObjectNamePart::Identifier(ident))
                if ident.quote_style.is_none()
                    && is_reserved(&ident.value)
                    && !is_bare_function(&ident.value) =>
            {
                ControlFlow::Break(ParseError::syntax(
                    format!("syntax error at or near \"{}\"", ident.value),
                    (self.position)(ident.span.start),
                ))
            }
            _ => ControlFlow::Continue(()),
        }
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
