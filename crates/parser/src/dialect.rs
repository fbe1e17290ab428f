//! The dialect under which `sqlparser` reads: Postgres, plus what streaming SQL needs inside queries.
//!
//! It reports Postgres' identity, so that everything the library does "for Postgres" applies. Beyond that:
//!
//! - `FROM t FOR SYSTEM_TIME AS OF …`, also with `SAVEPOINT name`, which becomes [`Expr::Prefixed`];
//! - `MATCH_RECOGNIZE`;
//! - generated columns spelled `c type AS expr`;
//! - `f(TABLE t, …)`, which becomes [`Expr::Prefixed`], and `f(t PARTITION BY k, …)`, an operator between the two;
//! - `EMIT ON WINDOW CLOSE` is never taken for an alias.
//!
//! It also notes how far the library came. `sqlparser` backtracks (a parenthesis may open a sub-query or a join) and then
//! reports the place of the first attempt instead of the token that no attempt could take. Everything in front of the
//! furthest token seen was accepted by some attempt, so no earlier token can be the culprit.

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::{BinaryOperator, ColumnOption, Expr, GeneratedAs, ObjectNamePart};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

/// How far the parser came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reached {
    Token(u64, u64),
    End,
}

impl From<Location> for Reached {
    fn from(at: Location) -> Self {
        if at.line == 0 {
            Reached::End
        } else {
            Reached::Token(at.line, at.column)
        }
    }
}

/// The dialect of Tidegate. Create one for each statement: it remembers how far that statement was read.
#[derive(Debug, Default)]
pub struct TidegateDialect {
    postgres: PostgreSqlDialect,
    furthest: Cell<Option<Reached>>,
    /// Whether `FOR SYSTEM_TIME` occurs. Only then are table versions read, since the library's other spellings of them
    /// would take away `at`, `before`, `version` and more as aliases.
    versions: bool,
    /// How many expressions have been started, and how many may be.
    started: Cell<usize>,
    limit: Option<usize>,
}

impl TidegateDialect {
    /// The dialect under which to read these tokens.
    pub fn reading(tokens: &[TokenWithSpan]) -> Self {
        Self {
            limit: Some(1_000 + 64 * tokens.len()),
            versions: tokens.iter().any(|t| is_word(&t.token, "SYSTEM_TIME")),
            ..Self::default()
        }
    }

    pub(crate) fn furthest(&self) -> Option<Reached> {
        self.furthest.get()
    }

    /// Whether more expressions were started than the tokens justify. The library reads some forms twice when the first
    /// attempt fails (`position(…)`, and `CAST(…)` in statements that are wrong), and nested twice as often with each level.
    pub(crate) fn exhausted(&self) -> bool {
        self.limit.is_some_and(|limit| self.started.get() > limit)
    }

    fn reached(&self, at: Location) {
        let at = Reached::from(at);
        if self.furthest.get().is_none_or(|seen| seen < at) {
            self.furthest.set(Some(at));
        }
    }

    /// Notes the verdict on an alias candidate, which the parser has already consumed.
    fn alias(&self, accepted: bool, parser: &Parser) -> bool {
        let at = if accepted {
            parser.peek_token_ref().span.start
        } else {
            parser.get_current_token().span.start
        };
        self.reached(at);
        accepted
    }
}

/// Reserved words that start a clause or join expressions. The library would take them for column names, and report the
/// place where that stops making sense.
const NEVER_AN_EXPRESSION: &[Keyword] = &[
    Keyword::AND,
    Keyword::AS,
    Keyword::ASC,
    Keyword::CREATE,
    Keyword::DESC,
    Keyword::ELSE,
    Keyword::END,
    Keyword::EXCEPT,
    Keyword::FETCH,
    Keyword::FOR,
    Keyword::FROM,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::IN,
    Keyword::INTERSECT,
    Keyword::INTO,
    Keyword::LIMIT,
    Keyword::OFFSET,
    Keyword::OR,
    Keyword::ORDER,
    Keyword::RETURNING,
    Keyword::THEN,
    Keyword::UNION,
    Keyword::USING,
    Keyword::WHEN,
    Keyword::WHERE,
    Keyword::WINDOW,
];

/// Whether a token is this word, unquoted, in any case.
pub(crate) fn is_word(token: &Token, text: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(text))
}

/// Whether the word just consumed starts `EMIT ON WINDOW CLOSE`. `… JOIN t emit ON …` is left an alias.
fn starts_emit_clause(parser: &Parser) -> bool {
    is_word(&parser.get_current_token().token, "EMIT")
        && is_word(&parser.peek_nth_token_ref(0).token, "ON")
        && is_word(&parser.peek_nth_token_ref(1).token, "WINDOW")
}

/// The operator that `t PARTITION BY k` is read as, as an argument of a table function.
pub const PARTITION_BY: &str = "PARTITION BY";

/// Looser than any operator, and tighter than a comma.
const PARTITION_BY_PRECEDENCE: u8 = 1;

/// Whether `(TABLE name` comes next, as an argument and not as a query.
fn starts_table_argument(parser: &Parser) -> bool {
    let after = &parser.peek_nth_token_ref(2).token;
    matches!(parser.get_current_token().token, Token::LParen)
        && is_word(&parser.peek_nth_token_ref(0).token, "TABLE")
        && matches!(parser.peek_nth_token_ref(1).token, Token::Word(_))
        && (matches!(after, Token::Comma | Token::Period) || is_word(after, "PARTITION"))
}

fn table_argument(parser: &mut Parser) -> Result<Expr, ParserError> {
    let prefix = parser.parse_identifier()?;
    let name = parser.parse_object_name(false)?;
    let parts = name.0.into_iter().filter_map(|part| match part {
        ObjectNamePart::Identifier(ident) => Some(ident),
        ObjectNamePart::Function(_) => None,
    });
    let value = Box::new(Expr::CompoundIdentifier(parts.collect()));
    Ok(Expr::Prefixed { prefix, value })
}

impl Dialect for TidegateDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        self.started.set(self.started.get() + 1);
        if self.exhausted() {
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        let next = parser.peek_token_ref();
        self.reached(next.span.start);
        if let Token::Word(word) = &next.token
            && word.quote_style.is_none()
            && NEVER_AN_EXPRESSION.contains(&word.keyword)
        {
            return Some(parser.expected_ref("an expression", next));
        }
        if starts_table_argument(parser) {
            return Some(table_argument(parser));
        }
        let names_savepoint = is_word(&parser.get_current_token().token, "OF")
            && is_word(&parser.peek_nth_token_ref(0).token, "SAVEPOINT")
            && matches!(parser.peek_nth_token_ref(1).token, Token::Word(_));
        if !names_savepoint {
            return None;
        }
        Some(parser.parse_identifier().and_then(|prefix| {
            let value = Box::new(Expr::Identifier(parser.parse_identifier()?));
            Ok(Expr::Prefixed { prefix, value })
        }))
    }

    /// `a IS [NOT] DISTINCT FROM b AND c`: the library reads everything that follows as the right side.
    fn parse_infix(
        &self,
        parser: &mut Parser,
        expr: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        use Keyword::{BY, DISTINCT, FROM, IS, NOT, PARTITION};
        if parser.parse_keywords(&[PARTITION, BY]) {
            let left = Box::new(expr.clone());
            let op = BinaryOperator::Custom(PARTITION_BY.to_owned());
            let keys = parser.parse_subexpr(PARTITION_BY_PRECEDENCE);
            return Some(
                keys.map(Box::new)
                    .map(|right| Expr::BinaryOp { left, op, right }),
            );
        }
        let negated = parser.parse_keywords(&[IS, NOT, DISTINCT, FROM]);
        if !negated && !parser.parse_keywords(&[IS, DISTINCT, FROM]) {
            return None;
        }
        let left = Box::new(expr.clone());
        Some(
            parser
                .parse_subexpr(precedence)
                .map(Box::new)
                .map(|right| match negated {
                    true => Expr::IsNotDistinctFrom(left, right),
                    false => Expr::IsDistinctFrom(left, right),
                }),
        )
    }

    fn parse_column_option(
        &self,
        parser: &mut Parser,
    ) -> Result<Option<Result<Option<ColumnOption>, ParserError>>, ParserError> {
        if !parser.parse_keyword(Keyword::AS) {
            return Ok(None);
        }
        let expr = parser.parse_expr()?;
        let _ = parser.parse_keyword(Keyword::STORED);
        Ok(Some(Ok(Some(ColumnOption::Generated {
            generated_as: GeneratedAs::Always,
            sequence_options: None,
            generation_expr: Some(expr),
            generation_expr_mode: None,
            generated_keyword: false,
        }))))
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        self.reached(parser.peek_token_ref().span.start);
        if is_word(&parser.peek_nth_token_ref(0).token, "PARTITION")
            && is_word(&parser.peek_nth_token_ref(1).token, "BY")
        {
            return Some(Ok(PARTITION_BY_PRECEDENCE));
        }
        self.postgres.get_next_precedence(parser)
    }

    fn is_select_item_alias(&self, explicit: bool, kw: &Keyword, parser: &mut Parser) -> bool {
        let accepted =
            explicit || (!starts_emit_clause(parser) && self.is_column_alias(kw, parser));
        self.alias(accepted, parser)
    }

    fn is_table_factor_alias(&self, explicit: bool, kw: &Keyword, parser: &mut Parser) -> bool {
        let accepted = explicit || (!starts_emit_clause(parser) && self.is_table_alias(kw, parser));
        self.alias(accepted, parser)
    }

    fn supports_table_versioning(&self) -> bool {
        self.versions
    }

    fn supports_match_recognize(&self) -> bool {
        true
    }

    fn supports_string_literal_concatenation_with_newline(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_assignment_operator(&self) -> bool {
        true
    }

    // From here on: what the Postgres dialect says, for the methods where it differs from the library's default.

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.postgres.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.postgres.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.postgres.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.postgres.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        self.postgres.is_reserved_for_identifier(kw)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        self.postgres.is_custom_operator_part(ch)
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        self.postgres.prec_value(prec)
    }

    fn supports_unicode_string_literal(&self) -> bool {
        self.postgres.supports_unicode_string_literal()
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        self.postgres.supports_filter_during_aggregation()
    }

    fn supports_group_by_expr(&self) -> bool {
        self.postgres.supports_group_by_expr()
    }

    fn allow_extract_custom(&self) -> bool {
        self.postgres.allow_extract_custom()
    }

    fn allow_extract_single_quotes(&self) -> bool {
        self.postgres.allow_extract_single_quotes()
    }

    fn supports_create_index_with_clause(&self) -> bool {
        self.postgres.supports_create_index_with_clause()
    }

    fn supports_explain_with_utility_options(&self) -> bool {
        self.postgres.supports_explain_with_utility_options()
    }

    fn supports_listen_notify(&self) -> bool {
        self.postgres.supports_listen_notify()
    }

    fn supports_factorial_operator(&self) -> bool {
        self.postgres.supports_factorial_operator()
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        self.postgres.supports_bitwise_shift_operators()
    }

    fn supports_comment_on(&self) -> bool {
        self.postgres.supports_comment_on()
    }

    fn supports_load_extension(&self) -> bool {
        self.postgres.supports_load_extension()
    }

    fn supports_named_fn_args_with_colon_operator(&self) -> bool {
        self.postgres.supports_named_fn_args_with_colon_operator()
    }

    /// Only JSON constructors of later Postgres versions need it (`json_object('a': 1)`), and it makes the library read
    /// each argument twice, which doubles the work with each level of nested calls.
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    fn supports_empty_projections(&self) -> bool {
        self.postgres.supports_empty_projections()
    }

    fn supports_nested_comments(&self) -> bool {
        self.postgres.supports_nested_comments()
    }

    fn supports_string_escape_constant(&self) -> bool {
        self.postgres.supports_string_escape_constant()
    }

    fn supports_numeric_literal_underscores(&self) -> bool {
        self.postgres.supports_numeric_literal_underscores()
    }

    fn supports_array_typedef_with_brackets(&self) -> bool {
        self.postgres.supports_array_typedef_with_brackets()
    }

    fn supports_geometric_types(&self) -> bool {
        self.postgres.supports_geometric_types()
    }

    fn supports_set_names(&self) -> bool {
        self.postgres.supports_set_names()
    }

    fn supports_alter_column_type_using(&self) -> bool {
        self.postgres.supports_alter_column_type_using()
    }

    fn supports_notnull_operator(&self) -> bool {
        self.postgres.supports_notnull_operator()
    }

    fn supports_interval_options(&self) -> bool {
        self.postgres.supports_interval_options()
    }

    fn supports_insert_table_alias(&self) -> bool {
        self.postgres.supports_insert_table_alias()
    }

    fn supports_create_table_like_parenthesized(&self) -> bool {
        self.postgres.supports_create_table_like_parenthesized()
    }

    /// The library's Postgres reads `SELECT * alias`; Postgres does not.
    fn supports_select_wildcard_with_alias(&self) -> bool {
        false
    }

    fn supports_comma_separated_trim(&self) -> bool {
        self.postgres.supports_comma_separated_trim()
    }

    fn supports_xml_expressions(&self) -> bool {
        self.postgres.supports_xml_expressions()
    }

    fn supports_comment_optimizer_hint(&self) -> bool {
        self.postgres.supports_comment_optimizer_hint()
    }
}
