//! `CREATE` of what `sqlparser` cannot read: tables with streaming clauses, sources, materialized views, sinks.
//!
//! Clauses behind a column list may come in any order, each once. A clause of Postgres or RisingWave that is recognised
//! but not built is refused here with 0A000, so that it is never dropped silently.

use sqlparser::ast::{ColumnDef, DataType, Ident, TableConstraint};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::ast::{
    CreateMaterializedView, CreateSink, CreateSource, CreateTable, FormatEncode, IncludeColumn,
    SinkInput, Statement, TableOnConflict, Watermark, WithOption,
};
use crate::cursor::{Cursor, Parsed};
use crate::dialect::is_word;
use crate::names::{fold, is_reserved};
use crate::options::{at_with_options, format_encode, with_list, with_options};
use crate::statement::{not_built, sql};

/// Kinds of objects that are known by name only, in `CREATE` and in `DROP`.
pub(crate) const NOT_BUILT_KINDS: &[&str] = &[
    "FUNCTION",
    "AGGREGATE",
    "SECRET",
    "CONNECTION",
    "SUBSCRIPTION",
    "USER",
    "ROLE",
    "DATABASE",
    "TYPE",
    "DOMAIN",
    "SEQUENCE",
    "EXTENSION",
    "TRIGGER",
    "PROCEDURE",
    "POLICY",
    "RULE",
    "COLLATION",
    "CAST",
    "OPERATOR",
    "PUBLICATION",
    "SERVER",
    "STATISTICS",
    "TABLESPACE",
];

pub(crate) fn create(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let or_replace = c.at(&["CREATE", "OR", "REPLACE"]);
    let kind_at = if or_replace { 3 } else { 1 };
    let Some(kind) = c.word(kind_at).map(str::to_ascii_uppercase) else {
        return sql(c);
    };
    match kind.as_str() {
        "TABLE" | "SOURCE" | "SINK" if or_replace => {
            c.advance(kind_at);
            Err(c.unexpected())
        }
        "TABLE" => {
            c.advance(kind_at + 1);
            table(c)
        }
        "SOURCE" => {
            c.advance(kind_at + 1);
            source(c)
        }
        "SINK" => {
            c.advance(kind_at + 1);
            sink(c)
        }
        "MATERIALIZED" => {
            c.advance(kind_at + 1);
            c.expect(&["VIEW"])?;
            materialized_view(c, or_replace)
        }
        "TEMP" | "TEMPORARY" | "LOCAL" | "GLOBAL" | "UNLOGGED" | "RECURSIVE" | "FOREIGN"
        | "EVENT" => Ok(not_built(c, format!("CREATE {kind}"))),
        _ if NOT_BUILT_KINDS.contains(&kind.as_str()) => Ok(not_built(c, format!("CREATE {kind}"))),
        "VIEW" => {
            let name_at = kind_at + if c.at_nth(kind_at + 1, "IF") { 4 } else { 1 };
            match c.word(name_at) {
                Some(name) if is_reserved(name) => Err(c.unexpected_at(name_at)),
                _ => sql(c),
            }
        }
        _ => sql(c),
    }
}

/// What stands between the parentheses of `CREATE TABLE` and `CREATE SOURCE`.
#[derive(Default)]
struct Elements {
    columns: Vec<ColumnDef>,
    constraints: Vec<TableConstraint>,
    watermark: Option<Watermark>,
}

/// The clauses behind the parentheses.
#[derive(Default)]
struct Clauses {
    append_only: bool,
    on_conflict: Option<TableOnConflict>,
    version_column: Option<Ident>,
    include: Vec<IncludeColumn>,
    options: Option<Vec<WithOption>>,
    format: Option<FormatEncode>,
}

fn table(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let if_not_exists = c.take(&["IF", "NOT", "EXISTS"]);
    let name = c.name()?;
    refuse_table_clauses(c)?;
    let has_elements = c.at_token(&Token::LParen);
    let elements = elements(c)?;
    let clauses = clauses(c, true)?;
    refuse_table_clauses(c)?;
    let query = if c.take(&["AS"]) {
        Some(c.query()?)
    } else {
        None
    };
    let mut no_data = false;
    if query.is_some() {
        no_data = c.take(&["WITH", "NO", "DATA"]);
        let _ = c.take(&["WITH", "DATA"]);
        refuse_table_clauses(c)?;
    } else if !has_elements && clauses.options.is_none() {
        return Err(c.unexpected());
    } else {
        refuse_untyped(c, &elements)?;
    }
    Ok(Statement::CreateTable(Box::new(CreateTable {
        if_not_exists,
        name,
        columns: elements.columns,
        constraints: elements.constraints,
        watermark: elements.watermark,
        append_only: clauses.append_only,
        on_conflict: clauses.on_conflict,
        version_column: clauses.version_column,
        include: clauses.include,
        options: clauses.options.unwrap_or_default(),
        format: clauses.format,
        query,
        no_data,
    })))
}

fn source(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let if_not_exists = c.take(&["IF", "NOT", "EXISTS"]);
    let name = c.name()?;
    let elements = elements(c)?;
    refuse_untyped(c, &elements)?;
    let clauses = clauses(c, false)?;
    let Some(options) = clauses.options else {
        return Err(c
            .unexpected()
            .with_hint("expected WITH (connector = '…', …)"));
    };
    Ok(Statement::CreateSource(Box::new(CreateSource {
        if_not_exists,
        name,
        columns: elements.columns,
        constraints: elements.constraints,
        watermark: elements.watermark,
        include: clauses.include,
        options,
        format: clauses.format,
    })))
}

fn materialized_view(c: &mut Cursor<'_>, or_replace: bool) -> Parsed<Statement> {
    let if_not_exists = !or_replace && c.take(&["IF", "NOT", "EXISTS"]);
    let name = c.name()?;
    let columns = if c.at_token(&Token::LParen) {
        c.list(Cursor::ident)?
    } else {
        Vec::new()
    };
    let options = with_options(c)?;
    let mut from_savepoint = take_from_savepoint(c)?;
    c.expect(&["AS"])?;
    let query = c.query()?;
    if c.at(&["WITH", "NO", "DATA"]) {
        return c.not_built("CREATE MATERIALIZED VIEW … WITH NO DATA");
    }
    let _ = c.take(&["WITH", "DATA"]);
    let emit_on_window_close = c.take(&["EMIT"]);
    if emit_on_window_close {
        c.expect(&["ON", "WINDOW", "CLOSE"])?;
    }
    if from_savepoint.is_none() {
        from_savepoint = take_from_savepoint(c)?;
    }
    Ok(Statement::CreateMaterializedView(Box::new(
        CreateMaterializedView {
            or_replace,
            if_not_exists,
            name,
            columns,
            options,
            query,
            emit_on_window_close,
            from_savepoint,
        },
    )))
}

/// `FROM SAVEPOINT name`. Behind a query without `FROM` it reads as a table called savepoint; in front of `AS` it never does.
fn take_from_savepoint(c: &mut Cursor<'_>) -> Parsed<Option<Ident>> {
    if c.take(&["FROM", "SAVEPOINT"]) {
        c.ident().map(Some)
    } else {
        Ok(None)
    }
}

/// `CREATE SINK [IF NOT EXISTS] name FROM relation | AS query WITH (…) [FORMAT …]`.
fn sink(c: &mut Cursor<'_>) -> Parsed<Statement> {
    let if_not_exists = c.take(&["IF", "NOT", "EXISTS"]);
    let name = c.name()?;
    if c.at(&["INTO"]) {
        return c.not_built("CREATE SINK … INTO");
    }
    let input = if c.take(&["FROM"]) {
        SinkInput::Relation(c.name()?)
    } else {
        c.expect(&["AS"])?;
        SinkInput::Query(c.query_before(options_start)?)
    };
    let clauses = clauses(c, false)?;
    let Some(options) = clauses.options else {
        return Err(c
            .unexpected()
            .with_hint("expected WITH (connector = '…', …)"));
    };
    Ok(Statement::CreateSink(Box::new(CreateSink {
        if_not_exists,
        name,
        input,
        options,
        format: clauses.format,
    })))
}

/// Where the options behind a query start, as an index into its tokens.
///
/// `sqlparser` takes `FROM t WITH (` for table hints, so the query must not see them. `WITH` directly followed by a
/// parenthesis, outside any parentheses, cannot be part of a query of ours.
fn options_start(tokens: &[TokenWithSpan]) -> Option<usize> {
    let solid = tokens
        .iter()
        .enumerate()
        .filter(|(_, t)| !matches!(t.token, Token::Whitespace(_)));
    let (mut depth, mut with) = (0_usize, None);
    for (index, token) in solid {
        match &token.token {
            Token::LParen if with.is_some() => return with,
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        with = (depth == 0 && is_word(&token.token, "WITH")).then_some(index);
    }
    None
}

/// `(column …, constraint …, WATERMARK FOR …)`, or nothing.
fn elements(c: &mut Cursor<'_>) -> Parsed<Elements> {
    let mut elements = Elements::default();
    if !c.take_token(&Token::LParen) || c.take_token(&Token::RParen) {
        return Ok(elements);
    }
    loop {
        element(c, &mut elements)?;
        if !c.take_token(&Token::Comma) {
            break;
        }
    }
    c.expect_token(&Token::RParen)?;
    Ok(elements)
}

fn element(c: &mut Cursor<'_>, elements: &mut Elements) -> Parsed<()> {
    if c.at(&["WATERMARK", "FOR"]) {
        if elements.watermark.is_some() {
            return c.not_built("more than one WATERMARK");
        }
        let position = c.position();
        c.advance(2);
        let column = c.ident()?;
        c.expect(&["AS"])?;
        let expr = c.sql(Parser::parse_expr)?;
        elements.watermark = Some(Watermark {
            column,
            expr,
            position,
        });
        return Ok(());
    }
    if c.at(&["LIKE"]) {
        return c.not_built("CREATE TABLE (LIKE …)");
    }
    if c.at_token(&Token::Mul) {
        return c.not_built("a column list from a schema registry");
    }
    if c.at(&["EXCLUDE", "USING"]) {
        return c.not_built("EXCLUDE constraint");
    }
    let starts_constraint = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"]
        .iter()
        .any(|word| c.at(&[word]));
    if starts_constraint {
        match c.sql(Parser::parse_optional_table_constraint)? {
            Some(constraint) => elements.constraints.push(constraint),
            None => return Err(c.unexpected()),
        }
        return Ok(());
    }
    c.refuse_reserved()?;
    if !matches!(c.token(0), Token::Word(_)) {
        return Err(c.unexpected());
    }
    let column = if matches!(c.token(1), Token::Comma | Token::RParen) {
        ColumnDef {
            name: c.ident()?,
            data_type: DataType::Unspecified,
            options: Vec::new(),
        }
    } else {
        c.sql(Parser::parse_column_def)?
    };
    elements.columns.push(column);
    Ok(())
}

/// A column without a type is the syntax of `CREATE TABLE t (a, b) AS …` only.
fn refuse_untyped(c: &Cursor<'_>, elements: &Elements) -> Parsed<()> {
    let untyped = elements
        .columns
        .iter()
        .find(|column| column.data_type == DataType::Unspecified);
    match untyped {
        None => Ok(()),
        Some(column) => Err(crate::error::ParseError::syntax(
            format!("column \"{}\" has no type", fold(&column.name)),
            c.position_at(column.name.span.start),
        )),
    }
}

fn clauses(c: &mut Cursor<'_>, of_table: bool) -> Parsed<Clauses> {
    let mut clauses = Clauses::default();
    loop {
        if of_table && !clauses.append_only && c.take(&["APPEND", "ONLY"]) {
            clauses.append_only = true;
        } else if of_table && clauses.on_conflict.is_none() && c.take(&["ON", "CONFLICT"]) {
            clauses.on_conflict = Some(on_conflict(c)?);
            if c.take(&["WITH", "VERSION", "COLUMN"]) {
                let parenthesised = c.take_token(&Token::LParen);
                clauses.version_column = Some(c.ident()?);
                if parenthesised {
                    c.expect_token(&Token::RParen)?;
                }
            }
        } else if c.at(&["INCLUDE"]) {
            clauses.include.push(include(c)?);
        } else if clauses.options.is_none() && at_with_options(c) {
            c.advance(1);
            clauses.options = Some(with_list(c)?);
        } else if clauses.format.is_none() && c.at(&["FORMAT"]) {
            clauses.format = Some(format_encode(c)?);
        } else {
            return Ok(clauses);
        }
    }
}

fn on_conflict(c: &mut Cursor<'_>) -> Parsed<TableOnConflict> {
    let forms: &[(&[&str], TableOnConflict)] = &[
        (&["OVERWRITE"], TableOnConflict::Overwrite),
        (&["IGNORE"], TableOnConflict::Ignore),
        (&["DO", "NOTHING"], TableOnConflict::Ignore),
        (&["DO", "UPDATE", "FULL"], TableOnConflict::Overwrite),
        (
            &["DO", "UPDATE", "IF", "NOT", "NULL"],
            TableOnConflict::UpdateIfNotNull,
        ),
    ];
    for (words, action) in forms {
        if c.take(words) {
            return Ok(*action);
        }
    }
    Err(c.unexpected().with_hint(
        "expected OVERWRITE, IGNORE, DO NOTHING, DO UPDATE FULL or DO UPDATE IF NOT NULL",
    ))
}

fn include(c: &mut Cursor<'_>) -> Parsed<IncludeColumn> {
    c.advance(1);
    let position = c.position();
    let kind = fold(&c.label()?);
    let field = c.take_string();
    let at_clause = ["AS", "INCLUDE", "WITH", "FORMAT", "APPEND", "ON"]
        .iter()
        .any(|word| c.at(&[word]));
    let data_type = if !at_clause && matches!(c.token(0), Token::Word(_)) {
        Some(c.sql(Parser::parse_data_type)?)
    } else {
        None
    };
    let alias = if c.take(&["AS"]) {
        Some(c.ident()?)
    } else {
        None
    };
    Ok(IncludeColumn {
        kind,
        field,
        data_type,
        alias,
        position,
    })
}

/// Clauses of Postgres' `CREATE TABLE` that are not built.
fn refuse_table_clauses(c: &Cursor<'_>) -> Parsed<()> {
    let refused: &[&[&str]] = &[
        &["PARTITION"],
        &["INHERITS"],
        &["USING"],
        &["TABLESPACE"],
        &["ON", "COMMIT"],
        &["WITHOUT", "OIDS"],
        &["WITH", "NO", "DATA"],
        &["LIKE"],
    ];
    for words in refused {
        if c.at(words) {
            return c.not_built(&format!("CREATE TABLE … {}", words.join(" ")));
        }
    }
    Ok(())
}
