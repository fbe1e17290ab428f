//! `CHECK` constraints of a table that is made: their names, and whether they can be checked.

use std::ops::ControlFlow;
use tidegate_catalog::{Check, Column};
use tidegate_parser::sqlparser::ast::{self, Expr};

/// A constraint as it was written.
pub(super) struct Given {
    pub name: Option<String>,
    pub condition: Expr,
}

/// Constraints under their names, in order of these. One without a name is called after the column that it is about, as in
/// Postgres: `t_a_check`, `t_check1`.
pub(super) fn named(table: &str, columns: &[Column], given: Vec<Given>) -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    for constraint in given {
        let name = constraint.name.unwrap_or_else(|| {
            let stem = match only_column(&constraint.condition, columns) {
                Some(column) => format!("{table}_{column}_check"),
                None => format!("{table}_check"),
            };
            let free = |name: &String| checks.iter().all(|c| c.name != *name);
            let numbered = (1..).map(|n| format!("{stem}{n}"));
            std::iter::once(stem.clone())
                .chain(numbered)
                .find(free)
                .expect("numbers do not end")
        });
        checks.push(Check {
            name,
            condition: constraint.condition.to_string(),
        });
    }
    checks.sort_by(|a, b| a.name.cmp(&b.name));
    checks
}

/// The one column that a condition is about.
fn only_column(condition: &Expr, columns: &[Column]) -> Option<String> {
    let mut found: Vec<String> = Vec::new();
    let _: ControlFlow<()> = ast::visit_expressions(condition, |expr| {
        let name = match expr {
            Expr::Identifier(ident) => Some(tidegate_parser::fold(ident)),
            Expr::CompoundIdentifier(parts) => parts.last().map(tidegate_parser::fold),
            _ => None,
        };
        if let Some(name) = name.filter(|n| columns.iter().any(|c| c.name == *n))
            && !found.contains(&name)
        {
            found.push(name);
        }
        ControlFlow::Continue(())
    });
    match found.as_slice() {
        [_] => found.pop(),
        _ => None,
    }
}
