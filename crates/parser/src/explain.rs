//! `EXPLAIN`: of queries and changes, of definitions before they are made, of the plan a view runs.

use sqlparser::ast;
use sqlparser::tokenizer::Token;

use crate::ast::{Explain, ExplainFormat, ExplainView, Statement};
use crate::cursor::{Cursor, Parsed};
use crate::error::ParseError;
use crate::options::option_value;
use crate::statement::statement;

#[derive(Default)]
struct Options {
    analyze: bool,
    verbose: bool,
    format: ExplainFormat,
}

pub(crate) fn explain(c: &mut Cursor<'_>) -> Parsed<Statement> {
    c.advance(1);
    let mut options = Options::default();
    // A parenthesis may also open the query itself.
    if c.at_token(&Token::LParen)
        && !["SELECT", "WITH", "VALUES", "TABLE"]
            .iter()
            .any(|w| c.at_nth(1, w))
        && matches!(c.token(1), Token::Word(_))
    {
        parenthesised(c, &mut options)?;
    } else {
        options.analyze = c.take(&["ANALYZE"]);
        options.verbose = c.take(&["VERBOSE"]);
    }
    let Options {
        analyze,
        verbose,
        format,
    } = options;
    if c.take(&["MATERIALIZED", "VIEW"]) {
        let name = c.name()?;
        return Ok(Statement::ExplainView(ExplainView {
            analyze,
            verbose,
            format,
            name,
        }));
    }
    let start = c.location();
    let unexpected = c.unexpected();
    let inner = statement(c)?;
    if !can_be_explained(&inner) {
        return Err(unexpected.with_hint(
            "EXPLAIN takes a query, INSERT, UPDATE, DELETE, CREATE MATERIALIZED VIEW, CREATE SINK, CREATE TABLE AS, \
             ALTER MATERIALIZED VIEW … AS, EXECUTE or DECLARE",
        ));
    }
    Ok(Statement::Explain(Explain {
        analyze,
        verbose,
        format,
        statement: Box::new(inner),
        text: c.text_from(start).to_string(),
    }))
}

fn parenthesised(c: &mut Cursor<'_>, options: &mut Options) -> Parsed<()> {
    c.list(|c| {
        let position = c.position();
        let name = crate::names::fold(&c.label()?);
        match name.as_str() {
            "analyze" => options.analyze = boolean(c, &name)?,
            "verbose" => options.verbose = boolean(c, &name)?,
            "format" => options.format = format(c)?,
            _ => {
                return Err(ParseError::syntax(
                    format!("unrecognized EXPLAIN option \"{name}\""),
                    position,
                )
                .with_hint("known options: analyze, verbose, format"));
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn boolean(c: &mut Cursor<'_>, name: &str) -> Parsed<bool> {
    if matches!(c.token(0), Token::Comma | Token::RParen) {
        return Ok(true);
    }
    let position = c.position();
    match option_value(c)?.to_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(ParseError::syntax(
            format!("{name} requires a Boolean value"),
            position,
        )),
    }
}

fn format(c: &mut Cursor<'_>) -> Parsed<ExplainFormat> {
    let position = c.position();
    let value = option_value(c)?;
    match value.to_lowercase().as_str() {
        "text" => Ok(ExplainFormat::Text),
        "json" => Ok(ExplainFormat::Json),
        "dot" => Ok(ExplainFormat::Dot),
        _ => Err(ParseError {
            sqlstate: "22023",
            ..ParseError::syntax(
                format!("unrecognized value for EXPLAIN option \"format\": \"{value}\""),
                position,
            )
            .with_hint("known formats: text, json, dot")
        }),
    }
}

fn can_be_explained(statement: &Statement) -> bool {
    match statement {
        Statement::Sql(statement) => matches!(
            **statement,
            ast::Statement::Query(_)
                | ast::Statement::Insert(_)
                | ast::Statement::Update(_)
                | ast::Statement::Delete(_)
                | ast::Statement::Merge(_)
                | ast::Statement::Execute { .. }
                | ast::Statement::Declare { .. }
                | ast::Statement::CreateView(_)
                | ast::Statement::CreateIndex(_)
        ),
        Statement::CreateMaterializedView(_) | Statement::CreateSink(_) => true,
        Statement::CreateTable(table) => table.query.is_some(),
        Statement::AlterMaterializedView(alter) => {
            matches!(alter.operation, crate::ast::AlterOperation::Query(_))
        }
        Statement::Subscribe(_) => true,
        _ => false,
    }
}
