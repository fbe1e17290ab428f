//! Rewrites of the lowered tree: a file per rule, each with a test that shows a tree before and after.
//!
//! Rules change how much is computed, carried and kept, never the rows. They run in this order, once: first what
//! makes operators smaller; then pruning, because it knows what every operator needs; then neighbours that it left side by
//! side are merged.

mod bound_ranks;
mod fold_values;
mod merge_filters;
mod merge_projections;
mod prune_columns;
mod remove_projections;

use crate::rel::Rel;

/// A rule: its name and what it does to a tree.
pub(crate) type Rule = (&'static str, fn(Rel) -> Rel);

pub(crate) const RULES: [Rule; 6] = [
    ("bound_ranks", bound_ranks::apply),
    ("prune_columns", prune_columns::apply),
    ("merge_projections", merge_projections::apply),
    ("merge_filters", merge_filters::apply),
    ("remove_projections", remove_projections::apply),
    ("fold_values", fold_values::apply),
];

pub(crate) fn apply(rel: Rel) -> Rel {
    RULES.iter().fold(rel, |rel, (_, rule)| rule(rel))
}
