//! Planning errors, in Postgres' words and SQLSTATEs.
//!
//! DataFusion reports most errors as text. What is structured (unknown and ambiguous columns, diagnostics with spans) is
//! mapped from the structure, the rest by the beginnings of its messages; what is not recognised keeps its text under a
//! general state.

use datafusion::common::{Column, DataFusionError, SchemaError, Span};
use regex::Regex;
use std::sync::{LazyLock, OnceLock};
use tidegate_types::{SqlError, SqlState};

/// Carries an error of ours through DataFusion.
pub(crate) fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// An error of planning `text`, as a client sees it.
pub fn sql_error(error: &DataFusionError, text: &str) -> SqlError {
    let mut found = translate(error);
    if found.position.is_none() {
        found.position = span_of(error)
            .and_then(|span| position(text, span))
            .or_else(|| named_position(&found, text));
    }
    found
}

fn position(text: &str, span: Span) -> Option<usize> {
    let location = sqlparser::tokenizer::Location {
        line: span.start.line,
        column: span.start.column,
    };
    tidegate_parser::position_of(text, location)
}

fn span_of(error: &DataFusionError) -> Option<Span> {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            diagnostic.span.or_else(|| span_of(inner))
        }
        DataFusionError::Context(_, inner) => span_of(inner),
        DataFusionError::Shared(inner) => span_of(inner),
        DataFusionError::Collection(errors) => errors.first().and_then(span_of),
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, .. }
            | SchemaError::AmbiguousReference { field } => field.spans.first(),
            _ => None,
        },
        _ => None,
    }
}

/// The place of a name that an error is about, where the planner lost its span: the only occurrence as a word.
fn named_position(error: &SqlError, text: &str) -> Option<usize> {
    static NAME: OnceLock<Regex> = OnceLock::new();
    let name = NAME.get_or_init(|| {
        Regex::new(r#"^(?:relation|function|column) "?([\w.]+)"#).expect("a literal")
    });
    let word = name.captures(&error.message)?.get(1)?.as_str();
    let pattern = Regex::new(&format!(r"(?i)(^|[^\w.]){}($|\W)", regex::escape(word))).ok()?;
    let mut places = pattern.captures_iter(text);
    let first = places.next()?;
    let byte = first.get(1).expect("the pattern has it").end();
    places
        .next()
        .is_none()
        .then(|| text[..byte].chars().count() + 1)
}

fn translate(error: &DataFusionError) -> SqlError {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let mut found = translate(inner);
            // For grouping the message says it all, and Postgres says no more.
            if found.hint.is_none() && found.state != SqlState::GROUPING_ERROR {
                found.hint = diagnostic.helps.first().map(|help| help.message.clone());
            }
            found
        }
        DataFusionError::Context(_, inner) => translate(inner),
        DataFusionError::Shared(inner) => translate(inner),
        DataFusionError::Collection(errors) => errors
            .first()
            .map_or_else(|| SqlError::internal("an empty list of errors"), translate),
        DataFusionError::External(inner) => match inner.downcast_ref::<SqlError>() {
            Some(error) => error.clone(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(error) => translate(error),
                None => SqlError::internal(inner),
            },
        },
        DataFusionError::SchemaError(error, _) => schema(error),
        DataFusionError::NotImplemented(message) => not_implemented(message),
        DataFusionError::Plan(message) => planned(message),
        DataFusionError::SQL(error, _) => SqlError::new(SqlState::SYNTAX_ERROR, error.to_string()),
        DataFusionError::ArrowError(error, _) => evaluated(&error.to_string()),
        DataFusionError::Execution(message) => evaluated(message),
        DataFusionError::ResourcesExhausted(message) => {
            SqlError::new(SqlState::OUT_OF_MEMORY, lower_first(message))
        }
        DataFusionError::IoError(error) => SqlError::new(SqlState::IO_ERROR, error.to_string()),
        other => planned(&strip(&other.to_string())),
    }
}

fn schema(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => undefined_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => SqlError::new(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        ),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => SqlError::new(
            SqlState::from_code("42712"),
            format!(
                "table name \"{}\" specified more than once",
                qualifier.table()
            ),
        ),
        SchemaError::DuplicateUnqualifiedField { name } => duplicate_column(name),
    }
}

pub(crate) fn duplicate_column(name: &str) -> SqlError {
    SqlError::new(
        SqlState::DUPLICATE_COLUMN,
        format!("column \"{name}\" specified more than once"),
    )
}

fn undefined_column(field: &Column, valid: &[Column]) -> SqlError {
    if let Some(relation) = &field.relation {
        let known = valid.iter().any(|c| {
            c.relation
                .as_ref()
                .is_some_and(|r| r.table() == relation.table())
        });
        if !known && !valid.is_empty() {
            let message = format!(
                "missing FROM-clause entry for table \"{}\"",
                relation.table()
            );
            return SqlError::new(SqlState::UNDEFINED_TABLE, message);
        }
    }
    let message = match &field.relation {
        Some(relation) => format!("column {}.{} does not exist", relation.table(), field.name),
        None => format!("column \"{}\" does not exist", field.name),
    };
    let error = SqlError::new(SqlState::UNDEFINED_COLUMN, message);
    match closest(&field.name, valid) {
        Some(name) => error.with_hint(format!(
            "Perhaps you meant to reference the column \"{name}\"."
        )),
        None => error,
    }
}

fn closest(name: &str, valid: &[Column]) -> Option<String> {
    let limit = (name.len() / 3).clamp(1, 3);
    let near = valid
        .iter()
        .map(|c| (distance(&name.to_lowercase(), &c.name.to_lowercase()), c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)?
        .1;
    Some(match &near.relation {
        Some(relation) => format!("{}.{}", relation.table(), near.name),
        None => near.name.clone(),
    })
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn not_implemented(message: &str) -> SqlError {
    let message = strip(message);
    if message.contains("not supported")
        || message.contains("not implemented")
        || message.contains("Unsupported")
    {
        return SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, lower_first(&message));
    }
    SqlError::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("not supported: {}", lower_first(&message)),
    )
}

struct Pattern {
    regex: Regex,
    state: SqlState,
    /// `$1` and so on are the groups of the regular expression; empty keeps the library's text.
    message: &'static str,
}

fn patterns() -> &'static [Pattern] {
    static PATTERNS: OnceLock<Vec<Pattern>> = OnceLock::new();
    PATTERNS.get_or_init(|| {
        let table: &[(&str, SqlState, &'static str)] = &[
            (r"(?s)^Invalid function '([^']*)'", SqlState::UNDEFINED_FUNCTION, "function $1 does not exist"),
            (r"(?s)^Failed to coerce arguments.*function '?(\w+)'?", SqlState::UNDEFINED_FUNCTION, ""),
            (r"(?s)No function matches the given name and argument types '([^']*)'", SqlState::UNDEFINED_FUNCTION,
                "function $1 does not exist"),
            (r"(?s)function '?(\w+)'? (?:expects|requires|needs|failed to match|does not support)",
                SqlState::UNDEFINED_FUNCTION, ""),
            (r"(?s)Function '(\w+)' (?:expects|failed|user-defined)", SqlState::UNDEFINED_FUNCTION, ""),
            (r"(?s)Cannot coerce arithmetic expression (.+?) (\S+) (.+?) to valid types", SqlState::UNDEFINED_FUNCTION,
                "operator does not exist: $1 $2 $3"),
            (r"(?s)Cannot infer common argument type for (?:comparison|regex|LIKE|bitwise|string|logical|array|arrow)? ?(?:operation|boolean)? ?(.+)$",
                SqlState::UNDEFINED_FUNCTION, "operator does not exist: $1"),
            (r"(?s)There isn't a common type to coerce (.+?) and (.+?) in (\w+) expression", SqlState::UNDEFINED_FUNCTION,
                "operator does not exist: $1 $3 $2"),
            (r#"(?s)^Column in (\w+)(?: BY)? must be in GROUP BY or an aggregate function: While expanding wildcard, column "([^"]+)""#,
                SqlState::GROUPING_ERROR,
                "column \"$2\" must appear in the GROUP BY clause or be used in an aggregate function"),
            (r"(?s)must be in GROUP BY|must appear in the GROUP BY", SqlState::GROUPING_ERROR, ""),
            (r"(?si)aggregate functions are not allowed in the (\w+)", SqlState::GROUPING_ERROR,
                "aggregate functions are not allowed in $1"),
            (r"(?si)aggregate function calls cannot be nested", SqlState::GROUPING_ERROR,
                "aggregate function calls cannot be nested"),
            (r"(?s)Cannot create filter with non-boolean predicate '.*' returning (.+)$", SqlState::DATATYPE_MISMATCH,
                "argument of WHERE must be type boolean, not type $1"),
            (r"(?s)Order by column out of bounds, specified: (\d+)", SqlState::INVALID_COLUMN_REFERENCE,
                "ORDER BY position $1 is not in select list"),
            (r"(?s)Cannot find column with position (\d+) in SELECT clause", SqlState::INVALID_COLUMN_REFERENCE,
                "GROUP BY position $1 is not in select list"),
            (r"(?s)HAVING clause references|HAVING.*non-aggregate", SqlState::GROUPING_ERROR, ""),
            (r"(?s)(?:Union|UNION|EXCEPT|INTERSECT).*(?:same number of columns|number of columns)", SqlState::SYNTAX_ERROR,
                "each UNION query must have the same number of columns"),
            (r"(?s)(?:UNION|Union).*(?:types|coerce)", SqlState::DATATYPE_MISMATCH, ""),
            (r"(?s)Projections require unique expression names", SqlState::DUPLICATE_COLUMN, ""),
            (r"(?s)ambiguous", SqlState::AMBIGUOUS_COLUMN, ""),
            (r"(?s)Unsupported CAST from (.+) to (.+)$", SqlState::CANNOT_COERCE, "cannot cast type $1 to $2"),
            (r"(?s)[Ff]ilter predicate.*(?:boolean|Boolean)|non-boolean", SqlState::DATATYPE_MISMATCH,
                "argument of WHERE must be type boolean"),
            (r"(?s)should only return one column|should return only one column|select one column|single expression required",
                SqlState::SYNTAX_ERROR, "subquery must return only one column"),
            (r"(?s)Placeholder|placeholder|parameter", SqlState::UNDEFINED_PARAMETER, ""),
            (r"(?s)WITH query name .* specified more than once", SqlState::from_code("42712"), ""),
            (r"(?s)Source table contains (\d+) columns but only (\d+) names given", SqlState::from_code("42P10"), ""),
            (r"(?s)ORDER BY position|Order by column out of bounds|out of bounds|GROUP BY position|Cannot find column with position",
                SqlState::INVALID_COLUMN_REFERENCE, ""),
            (r"(?s)type mismatch|Type mismatch|cannot be cast|must be of type|incompatible", SqlState::DATATYPE_MISMATCH, ""),
            (r"(?s)not supported|not implemented|Unsupported|unsupported", SqlState::FEATURE_NOT_SUPPORTED, ""),
        ];
        table
            .iter()
            .map(|(regex, state, message)| Pattern {
                regex: Regex::new(regex).expect("patterns are literals"),
                state: state.clone(),
                message,
            })
            .collect()
    })
}

fn planned(message: &str) -> SqlError {
    let message = strip(message);
    for pattern in patterns() {
        let Some(groups) = pattern.regex.captures(&message) else {
            continue;
        };
        let mut text = String::new();
        groups.expand(pattern.message, &mut text);
        if text.is_empty() {
            text = lower_first(&message);
        }
        return SqlError::new(pattern.state.clone(), type_names(&text.replace('\n', " ")));
    }
    SqlError::new(SqlState::SYNTAX_ERROR, lower_first(&message))
}

/// The message with SQL's names of types for Arrow's.
fn type_names(message: &str) -> String {
    static TYPES: OnceLock<Regex> = OnceLock::new();
    let types = TYPES.get_or_init(|| {
        Regex::new(
            r"\b(Int16|Int32|Int64|UInt\d+|Float32|Float64|LargeUtf8|Utf8View|Utf8|Boolean|Date32|FixedSizeBinary\(16\)|Binary|Null|Decimal128\(\d+, -?\d+\)|Timestamp\([^()]*\)|Time64\([^()]*\)|Interval\(\w+\))",
        )
        .expect("a literal")
    });
    let named = types.replace_all(message, |found: &regex::Captures<'_>| {
        let name = &found[0];
        match name.split('(').next().unwrap_or(name) {
            "Int16" => "smallint",
            "Int32" => "integer",
            "Int64" => "bigint",
            "Float32" => "real",
            "Float64" => "double precision",
            "Boolean" => "boolean",
            "Date32" => "date",
            "FixedSizeBinary" => "uuid",
            "Binary" => "bytea",
            "Null" => "unknown",
            "Time64" => "time without time zone",
            "Interval" => "interval",
            "Timestamp" if name.contains("UTC") => "timestamp with time zone",
            "Timestamp" => "timestamp without time zone",
            "Decimal128" => "numeric",
            name if name.starts_with("UInt") => "numeric",
            _ => "text",
        }
    });
    named.into_owned()
}

static OVERFLOW: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"happened on: (-?\d+) (\S+) (-?\d+)").expect("a literal"));

/// Errors of evaluating constants while planning, and of running ad-hoc plans.
fn evaluated(message: &str) -> SqlError {
    let message = strip(message);
    let lower = message.to_lowercase();
    let state = if lower.contains("divide by zero") || lower.contains("division by zero") {
        return SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero");
    } else if lower.contains("overflow happened on") {
        // The kernels say what the operands were, not which type they had; small integers are computed in 32 bits.
        let wide = OVERFLOW.captures(&message).is_some_and(|found| {
            [1, 3]
                .iter()
                .any(|group| found[*group].parse::<i32>().is_err())
        });
        let name = if wide { "bigint" } else { "integer" };
        return SqlError::new(
            SqlState::NUMERIC_OUT_OF_RANGE,
            format!("{name} out of range"),
        );
    } else if lower.contains("overflow")
        || lower.contains("out of range")
        || lower.contains("too large to store")
    {
        SqlState::NUMERIC_OUT_OF_RANGE
    } else if lower.contains("more than one row") {
        return SqlError::new(
            SqlState::CARDINALITY_VIOLATION,
            "more than one row returned by a subquery used as an expression",
        );
    } else if lower.contains("cannot cast string")
        || lower.contains("parser error")
        || lower.contains("error parsing")
    {
        SqlState::INVALID_TEXT_REPRESENTATION
    } else if lower.contains("cast error") {
        SqlState::CANNOT_COERCE
    } else {
        SqlState::DATA_EXCEPTION
    };
    SqlError::new(state, lower_first(&message))
}

/// Without what DataFusion puts in front ("Error during planning: ") and behind (backtraces, advice on its settings).
fn strip(message: &str) -> String {
    let mut rest = message;
    for prefix in [
        "Error during planning: ",
        "Schema error: ",
        "Execution error: ",
        "This feature is not implemented: ",
        "Optimizer rule ",
        "Arrow error: ",
    ] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    rest.split("\n\nbacktrace:")
        .next()
        .unwrap_or(rest)
        .trim_end()
        .to_owned()
}

fn lower_first(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.clone().next()) {
        // An acronym keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => message.to_owned(),
    }
}
