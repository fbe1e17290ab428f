//! Joins of two inputs on equal keys, with a residual condition: inner, outer, semi, anti and mark.
//!
//! With `L` and `R` the two inputs as Z-sets, `⋈` the pairs with equal keys for which the residual is true, and
//! `m(l) = Σ R(r)` over the matches `r` of `l`:
//!
//! ```text
//! inner    L⋈R
//! left     L⋈R + { (l, NULL) : m(l) = 0 }          right, full: the same for the other side, for both
//! semi     { l : m(l) > 0 }      anti  { l : m(l) = 0 }      mark  { (l, m(l) > 0) }
//! ```
//!
//! **Pairs** are bilinear: `Δ(L⋈R) = ΔL⋈R + (L+ΔL)⋈ΔR`. A batch is brought together with all that the other side's table
//! holds at that moment and is then added to its own side's table, so that every pair is counted once, by whichever of
//! the two came later ([`probe`]). The tables are written with each batch rather than with each barrier: nothing but the
//! tables has to be probed, and no row is kept twice.
//!
//! **Rows by themselves** (unmatched rows of outer joins; all output of semi, anti and mark joins) depend on `m(l)` in a way that
//! is not linear, and are decided at the barrier ([`settle`]): with `v(l)` the verdict that follows from `m(l)`,
//! `Δout = L₁(l)·v₁(l) − L₀(l)·v₀(l)` over the rows that were touched. Without a residual `m` depends on the key alone: it is
//! kept per key, and the rows of a key are visited only when its count becomes or stops being zero. With one, `m` is kept
//! with the row and follows the pairs as they are found.
//!
//! **`NOT IN`** (`null_aware`, of anti and mark joins): the first key pair is compared with three-valued logic instead of
//! partitioning, and the verdict also depends on the number of right rows for which the answer is unknown. The other keys
//! and the residual say which right rows are in the sub-query's result. Without a residual counts per value are enough
//! ([`not_in`]); with one, every row of a partition is compared. Without keys the residual contains the comparison, and NULL
//! means unknown.
//!
//! State tables: see [`tidegate_plan::join_state`]. Cost: one read and one write per changed row, one scan per distinct
//! key of a batch, and the pairs; a page of the other side's rows is decoded once however many pairs it is part of.
//! Rows with a NULL in a key match nothing (unless `null_equals_null`) and pass through without state.
//!
//! Output is bounded: at most 8192 rows a batch, and after the output budget is used up the operator goes on
//! where it was when it is resumed. No input arrives in between, so that the tables are as they were.

mod apply;
mod epoch;
mod matching;
mod not_in;
mod operator;
mod output;
mod predicate;
mod probe;
mod replay;
mod settle;
mod side;
mod store;
#[cfg(test)]
mod tests;
mod verdict;

pub use operator::Join;

/// How much is done at once. Tests make these small.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// The most rows in a batch of output.
    chunk_rows: usize,
    /// The most state rows that are held while a batch is brought together with them.
    page_rows: usize,
    /// The most pairs that are looked at before others get their turn, whether they match or not.
    pairs_per_turn: usize,
    /// The most keys that are looked up at once at a barrier.
    keys_per_step: usize,
}

const LIMITS: Limits = Limits {
    chunk_rows: 8192,
    page_rows: 1 << 16,
    pairs_per_turn: 1 << 18,
    keys_per_step: 1024,
};

impl Limits {
    /// Output of a barrier is sent when it has this many rows: a step adds at most two for each of its rows.
    fn full_rows(&self) -> usize {
        self.chunk_rows
            .saturating_sub(2 * self.keys_per_step)
            .max(1)
    }
}
