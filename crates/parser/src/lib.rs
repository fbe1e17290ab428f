//! SQL text to syntax tree: Tidegate's own statements on top of `sqlparser`.
//!
//! `sqlparser` already reads everything Postgres has in common with us, so what it reads stays its own tree
//! ([`Statement::Sql`]). This crate adds only what streaming needs: sources, sinks, materialized views with options,
//! `SUBSCRIBE`, the `SAVEPOINT` family, `SHOW`, and errors in the form Postgres clients expect.
//!
//! The way of a text:
//!
//! 1. [`script`]: one tokenizer pass over the whole text, then cut at `;` tokens. Cutting tokens rather than text is what
//!    makes quotes, dollar quotes and comments right.
//! 2. [`statement`]: the first words decide whether a statement is ours or goes to `sqlparser` unchanged.
//! 3. One module per family of statements ([`create`], [`alter`], [`drop`], [`show`], [`explain`], [`savepoint`],
//!    [`subscribe`]) reads through a [`cursor`], which owns positions and errors.
//!
//! [`rewrite`] turns a few spellings of Postgres into ones that the library reads, and [`refuse`] stops what it reads but
//! Postgres does not, where the answer would be another one than was asked for.
//!
//! Promises: every error carries a SQLSTATE and the 1-based character position of the offending token in the text that was
//! passed to [`parse`]; spans inside `sqlparser` trees refer to the same text ([`position_of`] converts them). The parser
//! knows no catalog: whether a name exists, whether `SAVEPOINT` stands inside a transaction block, and which options a
//! connector knows are decided by the engine.

mod alter;
mod ast;
mod create;
mod cursor;
mod cursors;
mod dialect;
mod drop;
mod error;
mod explain;
mod names;
mod options;
mod refuse;
mod rewrite;
mod savepoint;
mod script;
mod show;
mod source;
mod statement;
mod subscribe;

#[cfg(test)]
mod tests;

pub use ast::{
    AlterMaterializedView, AlterOperation, AlterSystem, CreateMaterializedView, CreateSink,
    CreateSource, CreateTable, Drop, Explain, ExplainFormat, ExplainView, FormatEncode,
    IncludeColumn, LikePattern, ObjectKind, ParsedStatement, QueryText, Savepoint, Show, ShowWhat,
    SinkInput, Statement, Subscribe, SubscribeTarget, TableOnConflict, Watermark, WithOption,
};
pub use dialect::{PARTITION_BY, TidegateDialect};
pub use error::ParseError;
pub use names::{fold, name_parts, quote_ident};
pub use rewrite::EXCLUSION_MARK;
pub use script::parse;
pub use source::position_of;

/// The library whose trees [`Statement::Sql`] holds, so that users of this crate cannot get another version of it.
pub use sqlparser;
