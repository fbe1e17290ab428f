//! Postgres spellings that DataFusion does not know, taken out of a query before it is planned.
//!
//! - `COLLATE pg_catalog.default`, `OPERATOR(pg_catalog.~)`, `pg_catalog.` in front of functions and types;
//! - `::regclass` and its kin: of text an OID, of an OID its name. In a select list a literal keeps its name;
//! - `ARRAY(SELECT …)` becomes `array_agg`;
//! - a correlated scalar sub-query, which DataFusion only runs over an aggregate, gets one, and a condition of its that is
//!   about the outer row alone moves in front of it;
//! - sub-queries over catalogs that are always empty, or inside a select over one, are what they come to: nothing;
//! - `set_config('name', 'value', …)` becomes its value, and the assignment is handed to the session.
//!
//! Nothing here depends on the session or the catalog: what does is left to functions.

use super::{functions, relation};
use std::ops::ControlFlow;
use tidegate_parser::sqlparser::ast::{
    self, BinaryOperator, CaseWhen, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident,
    JoinOperator, ObjectName, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins, Value, Visit, VisitMut, Visitor, VisitorMut,
};

/// What a query does besides returning rows.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Settings to change, in order.
    pub assignments: Vec<(String, String)>,
    /// It reads what a session sees in its own way, so that a plan of it must not be kept.
    pub reads_system: bool,
}

/// Makes a query one that DataFusion can plan. Names of result columns stay what they were.
pub(crate) fn rewrite(query: &mut Query) -> Effects {
    tidegate_planner::names::name_columns(query);
    let mut rewriter = Rewriter::default();
    let _: ControlFlow<()> = query.visit(&mut rewriter);
    rewriter.effects
}

#[derive(Default)]
struct Rewriter {
    effects: Effects,
}

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // No rows have no order, and DataFusion cannot sort by a column whose name the select list gives to something else.
        if matches!(query.body.as_ref(), SetExpr::Select(select) if reads_nothing(select)) {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if reads_nothing(select) {
            for expr in items(select) {
                let _: ControlFlow<()> = expr.visit(&mut Emptier);
            }
        }
        for expr in items(select) {
            let _: ControlFlow<()> = expr.visit(&mut Existence);
            if let Expr::Cast {
                expr: inner,
                data_type,
                ..
            } = &*expr
                && let kind @ ("regclass" | "regtype") = plain_name(data_type).as_str()
                && string_literal(inner).is_some()
            {
                *expr = call(&format!("{kind}_name"), vec![(**inner).clone()]);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        self.effects.reads_system |= crate::past::name_version(factor);
        if let TableFactor::Table { name, args, .. } = factor {
            if args.is_some() {
                strip_catalog(name);
            } else if is_system(name) {
                self.effects.reads_system = true;
            }
        }
        if let TableFactor::Function { name, .. } = factor {
            strip_catalog(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Collate {
                expr: inner,
                collation,
            } if is_plain_collation(collation) => {
                *expr = std::mem::replace(inner.as_mut(), null());
                return self.pre_visit_expr(expr);
            }
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(known) = parts.last().and_then(|p| operator(p))
                {
                    *op = known;
                }
            }
            Expr::Identifier(ident) if ident.quote_style.is_none() => {
                if let name @ ("current_schema" | "current_catalog" | "current_role") =
                    ident.value.to_lowercase().as_str()
                {
                    *expr = call(name, Vec::new());
                    self.effects.reads_system = true;
                }
            }
            Expr::Cast { .. } => cast(expr),
            Expr::Function(function) => {
                strip_catalog(&mut function.name);
                if let Some(array) = array_of(function) {
                    *expr = array;
                    return self.pre_visit_expr(expr);
                }
            }
            Expr::Subquery(query) => {
                if let Some(replaced) = scalar_subquery(query) {
                    *expr = replaced;
                }
            }
            Expr::Exists { subquery, negated }
                if select_of(subquery).is_some_and(reads_nothing) =>
            {
                *expr = Expr::Value(Value::Boolean(*negated).into());
            }
            _ => {}
        }
        if let Expr::Function(function) = expr
            && functions::names().any(|n| function.name.to_string().eq_ignore_ascii_case(n))
        {
            self.effects.reads_system = true;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some((name, value)) = assignment(expr) {
            *expr = Expr::Value(Value::SingleQuotedString(value.clone()).into());
            self.effects.assignments.push((name, value));
        }
        ControlFlow::Continue(())
    }
}

/// Makes nothing of sub-queries in a select list that no row will ever be computed of.
struct Emptier;

impl VisitorMut for Emptier {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let is_array = |f: &Function| matches!(f.args, FunctionArguments::Subquery(_));
        match expr {
            Expr::Subquery(_) | Expr::Exists { .. } => *expr = null(),
            Expr::Function(function) if is_array(function) => *expr = empty_array(),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `EXISTS` in a select list, which DataFusion only runs in conditions: whether an aggregate over the rows is there.
struct Existence;

impl VisitorMut for Existence {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Exists { subquery, negated } = expr else {
            return ControlFlow::Continue(());
        };
        let negated = *negated;
        let Some(select) = simple(subquery).filter(|s| reads_only_system(s) && !is_aggregated(s))
        else {
            return ControlFlow::Continue(());
        };
        let boolean = |value: bool| Expr::Value(Value::Boolean(value).into());
        select.projection = vec![SelectItem::UnnamedExpr(call(
            "bool_and",
            vec![boolean(true)],
        ))];
        let exists = call(
            "coalesce",
            vec![Expr::Subquery(subquery.clone()), boolean(false)],
        );
        *expr = match negated {
            true => Expr::UnaryOp {
                op: ast::UnaryOperator::Not,
                expr: Box::new(exists),
            },
            false => exists,
        };
        ControlFlow::Continue(())
    }
}

fn items(select: &mut Select) -> impl Iterator<Item = &mut Expr> {
    select.projection.iter_mut().filter_map(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    })
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments
        .into_iter()
        .map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a)))
        .collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn string_literal(expr: &Expr) -> Option<&str> {
    match peeled(expr) {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn peeled(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => peeled(inner),
        other => other,
    }
}

fn strip_catalog(name: &mut ObjectName) {
    let in_catalog = |i: &Ident| i.value.eq_ignore_ascii_case("pg_catalog");
    if name.0.len() == 2 && name.0[0].as_ident().is_some_and(in_catalog) {
        name.0.remove(0);
    }
}

fn is_plain_collation(collation: &ObjectName) -> bool {
    let last = collation
        .0
        .last()
        .and_then(|p| p.as_ident())
        .map(|i| i.value.to_lowercase());
    last.is_some_and(|l| matches!(l.as_str(), "default" | "c" | "posix" | "ucs_basic"))
}

fn operator(symbol: &str) -> Option<BinaryOperator> {
    Some(match symbol {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// A type's name without its schema, folded.
fn plain_name(data_type: &DataType) -> String {
    let text = data_type.to_string().to_lowercase().replace('"', "");
    let text = text
        .strip_prefix("pg_catalog.")
        .or_else(|| text.strip_prefix("information_schema."))
        .unwrap_or(&text);
    text.to_owned()
}

fn cast(expr: &mut Expr) {
    let Expr::Cast {
        expr: inner,
        data_type,
        ..
    } = expr
    else {
        return;
    };
    let target = plain_name(data_type);
    if let Expr::Cast {
        expr: innermost,
        data_type: between,
        ..
    } = peeled(inner)
        && let kind @ ("regclass" | "regtype" | "regproc" | "regprocedure") =
            plain_name(between).as_str()
    {
        let kind = kind.replace("procedure", "proc");
        let suffix = match target.as_str() {
            "oid" | "int8" | "bigint" | "int4" | "integer" | "int" => "oid",
            "text" | "name" | "varchar" if kind != "regproc" => "name",
            _ => return,
        };
        *expr = call(&format!("{kind}_{suffix}"), vec![(**innermost).clone()]);
        return;
    }
    match target.as_str() {
        kind @ ("regclass" | "regtype") if string_literal(inner).is_some() => {
            *expr = call(&format!("{kind}_oid"), vec![(**inner).clone()]);
        }
        kind @ ("regclass" | "regtype" | "regnamespace" | "regrole") => {
            *expr = call(kind, vec![(**inner).clone()])
        }
        // Functions are shown by name wherever an OID of one would be.
        "regproc" | "regprocedure" | "regoper" | "regoperator" => match string_literal(inner) {
            Some(name) => {
                let name = name.strip_prefix("pg_catalog.").unwrap_or(name).to_owned();
                *expr = Expr::Value(Value::SingleQuotedString(name).into());
            }
            None => *data_type = DataType::Text,
        },
        _ => {
            if let Some(plain) = plain_type(&target) {
                *data_type = plain;
            }
        }
    }
}

/// Types that only catalogs have, and those that were written with their schema.
fn plain_type(name: &str) -> Option<DataType> {
    if let Some(element) = name.strip_suffix("[]") {
        return plain_type(element)
            .map(|t| DataType::Array(ast::ArrayElemTypeDef::SquareBracket(Box::new(t), None)));
    }
    Some(match name {
        "oid" | "xid" | "cid" | "int8" => DataType::Int8(None),
        "int4" | "cardinal_number" => DataType::Int4(None),
        "int2" => DataType::Int2(None),
        "bool" => DataType::Boolean,
        "text" | "name" | "char" | "cstring" | "pg_node_tree" | "sql_identifier"
        | "character_data" | "yes_or_no" | "aclitem" => DataType::Text,
        "float8" => DataType::DoublePrecision,
        "timestamptz" => DataType::Timestamp(None, ast::TimezoneInfo::Tz),
        "int2vector" => DataType::Array(ast::ArrayElemTypeDef::SquareBracket(
            Box::new(DataType::Int2(None)),
            None,
        )),
        "oidvector" => DataType::Array(ast::ArrayElemTypeDef::SquareBracket(
            Box::new(DataType::Int8(None)),
            None,
        )),
        _ => return None,
    })
}

fn names_of(name: &ObjectName) -> Vec<String> {
    tidegate_parser::name_parts(name)
}

fn system_relation(name: &ObjectName) -> Option<&'static relation::SystemRelation> {
    match names_of(name).as_slice() {
        [name] => relation::find("pg_catalog", name),
        [schema, name] | [_, schema, name] => relation::find(schema, name),
        _ => None,
    }
}

fn is_system(name: &ObjectName) -> bool {
    system_relation(name).is_some()
}

fn is_always_empty(factor: &TableFactor) -> bool {
    let TableFactor::Table {
        name, args: None, ..
    } = factor
    else {
        return false;
    };
    system_relation(name).is_some_and(|r| r.rows.is_none())
}

fn is_empty_join(tables: &TableWithJoins) -> bool {
    let keeps_right = |op: &JoinOperator| {
        matches!(
            op,
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)
        )
    };
    let is_inner = |op: &JoinOperator| {
        matches!(
            op,
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
        )
    };
    if tables.joins.iter().any(|j| keeps_right(&j.join_operator)) {
        return false;
    }
    is_always_empty(&tables.relation)
        || tables
            .joins
            .iter()
            .any(|j| is_inner(&j.join_operator) && is_always_empty(&j.relation))
}

/// Whether a select, one without aggregates, has no rows whatever there is.
fn reads_nothing(select: &Select) -> bool {
    select.from.iter().any(is_empty_join) && !is_aggregated(select)
}

fn is_aggregated(select: &Select) -> bool {
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(list, _) => !list.is_empty(),
    };
    let mut visitor = Aggregates { depth: 0 };
    grouped || select.having.is_some() || select.projection.visit(&mut visitor).is_break()
}

/// Breaks at an aggregate that is not part of a sub-query.
struct Aggregates {
    depth: usize,
}

impl Visitor for Aggregates {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let Expr::Function(function) = expr else {
            return ControlFlow::Continue(());
        };
        let name = names_of(&function.name).pop().unwrap_or_default();
        let counts = self.depth == 0 && tidegate_planner::registry().aggregate.contains_key(&name);
        if counts {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

fn select_of(query: &Query) -> Option<&Select> {
    match query.body.as_ref() {
        SetExpr::Select(select) if query.with.is_none() => Some(select),
        SetExpr::Query(inner) => select_of(inner),
        _ => None,
    }
}

fn simple(query: &mut Query) -> Option<&mut Select> {
    if query.with.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return None;
    }
    match query.body.as_mut() {
        SetExpr::Select(select) if select.distinct.is_none() && select.projection.len() == 1 => {
            Some(select)
        }
        _ => None,
    }
}

fn empty_array() -> Expr {
    let element = Box::new(DataType::Text);
    Expr::Cast {
        kind: ast::CastKind::DoubleColon,
        expr: Box::new(Expr::Array(ast::Array {
            elem: Vec::new(),
            named: true,
        })),
        data_type: DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, None)),
        array: false,
        format: None,
    }
}

/// What `ARRAY(SELECT …)` becomes.
fn array_of(function: &mut Function) -> Option<Expr> {
    if !function.name.to_string().eq_ignore_ascii_case("array") {
        return None;
    }
    let FunctionArguments::Subquery(query) = &mut function.args else {
        return None;
    };
    if select_of(query).is_some_and(reads_nothing) {
        return Some(empty_array());
    }
    let order = query.order_by.take();
    let select = simple(query)?;
    match select.from.as_slice() {
        // The options of a table's TOAST table; no table here has one.
        [
            TableWithJoins {
                relation:
                    TableFactor::Table {
                        name,
                        args: Some(args),
                        ..
                    },
                joins,
            },
        ] if joins.is_empty() => {
            let first = args.args.first().cloned();
            match names_of(name).pop().as_deref() {
                Some("unnest")
                    if first
                        .as_ref()
                        .is_some_and(|a| a.to_string().ends_with(".reloptions")) =>
                {
                    return Some(empty_array());
                }
                Some("pg_options_to_table") => {
                    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(options))) = first else {
                        return None;
                    };
                    return Some(call("pg_options_list", vec![options]));
                }
                _ => {}
            }
        }
        _ => {}
    }
    let element = items(select).next()?.clone();
    let mut aggregated = call("array_agg", vec![element.clone()]);
    if let (Expr::Function(function), Some(order)) = (&mut aggregated, order)
        && let (FunctionArguments::List(list), OrderByKind::Expressions(mut keys)) =
            (&mut function.args, order.kind)
    {
        for key in &mut keys {
            if matches!(&key.expr, Expr::Value(v) if matches!(v.value, Value::Number(..))) {
                key.expr = element.clone();
            }
        }
        list.clauses.push(FunctionArgumentClause::OrderBy(keys));
    }
    select.projection = vec![SelectItem::ExprWithAlias {
        expr: aggregated,
        alias: Ident::new("array"),
    }];
    let list = Expr::Subquery(query.clone());
    Some(call("coalesce", vec![list, empty_array()]))
}

/// What a scalar sub-query becomes, if DataFusion would not run it as it is.
fn scalar_subquery(query: &mut Query) -> Option<Expr> {
    if select_of(query).is_some_and(reads_nothing) {
        return Some(null());
    }
    let select = simple(query)?;
    if is_aggregated(select) || !reads_only_system(select) {
        return None;
    }
    let own: Vec<String> = select.from.iter().flat_map(aliases).collect();
    let is_outer = |expr: &Expr| match expr {
        Expr::CompoundIdentifier(parts) => parts
            .first()
            .is_some_and(|p| !own.contains(&tidegate_parser::fold(p))),
        _ => false,
    };
    let mentions = |expr: &Expr| {
        ast::visit_expressions(expr, |e| {
            if is_outer(e) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .is_break()
    };
    if !select.selection.as_ref().is_some_and(mentions) {
        return None;
    }
    // Asked for columns whose collation is not their type's; there are none.
    if own.len() > 1 && select.from.iter().any(reads_collations) {
        return Some(null());
    }
    let (guards, kept): (Vec<Expr>, Vec<Expr>) = conjuncts(select.selection.take()?)
        .into_iter()
        .partition(|c| is_outer(peeled(c)));
    select.selection = kept.into_iter().reduce(and);
    if let Some(item) = items(select).next() {
        let inner = std::mem::replace(item, null());
        *item = call("max", vec![inner]);
    }
    let subquery = Expr::Subquery(Box::new(query.clone()));
    Some(match guards.into_iter().reduce(and) {
        None => subquery,
        Some(condition) => Expr::Case {
            case_token: ast::helpers::attached_token::AttachedToken::empty(),
            end_token: ast::helpers::attached_token::AttachedToken::empty(),
            operand: None,
            conditions: vec![CaseWhen {
                condition,
                result: subquery,
            }],
            else_result: None,
        },
    })
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(right),
    }
}

fn conjuncts(expr: Expr) -> Vec<Expr> {
    match expr {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            let mut all = conjuncts(*left);
            all.extend(conjuncts(*right));
            all
        }
        other => vec![other],
    }
}

fn factors(tables: &TableWithJoins) -> impl Iterator<Item = &TableFactor> {
    std::iter::once(&tables.relation).chain(tables.joins.iter().map(|j| &j.relation))
}

fn aliases(tables: &TableWithJoins) -> Vec<String> {
    let name = |factor: &TableFactor| match factor {
        TableFactor::Table {
            alias: Some(alias), ..
        } => Some(tidegate_parser::fold(&alias.name)),
        TableFactor::Table { name, .. } => names_of(name).pop(),
        _ => None,
    };
    factors(tables).filter_map(name).collect()
}

fn reads_only_system(select: &Select) -> bool {
    let system = |factor: &TableFactor| matches!(factor, TableFactor::Table { name, args: None, .. } if is_system(name));
    !select.from.is_empty() && select.from.iter().flat_map(factors).all(system)
}

fn reads_collations(tables: &TableWithJoins) -> bool {
    factors(tables).any(|f| {
        matches!(f, TableFactor::Table { name, .. } if system_relation(name).is_some_and(|r| r.name == "pg_collation"))
    })
}

/// The name and value of a `set_config` of literals.
fn assignment(expr: &Expr) -> Option<(String, String)> {
    let Expr::Function(function) = expr else {
        return None;
    };
    if !function.name.to_string().eq_ignore_ascii_case("set_config") {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let text = |index: usize| match list.args.get(index) {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) => {
            string_literal(expr).map(str::to_owned)
        }
        _ => None,
    };
    Some((text(0)?, text(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        let mut query = crate::relations::parse_query(sql).expect("it parses");
        rewrite(&mut query);
        query.to_string()
    }

    #[test]
    fn spellings_of_the_catalog_are_taken_out() {
        assert_eq!(
            rewritten(
                "SELECT a FROM t WHERE a OPERATOR(pg_catalog.~) '^(x)$' COLLATE pg_catalog.default AND pg_catalog.f(a)"
            ),
            "SELECT a FROM t WHERE a ~ '^(x)$' AND f(a)"
        );
        assert_eq!(
            rewritten("SELECT a::pg_catalog.int2[] AS b FROM t"),
            "SELECT a::INT2[] AS b FROM t"
        );
    }

    #[test]
    fn names_and_numbers_of_relations() {
        assert_eq!(
            rewritten("SELECT 'v'::regclass AS c"),
            "SELECT regclass_name('v') AS c"
        );
        assert_eq!(
            rewritten("SELECT 'v'::pg_catalog.regclass::pg_catalog.oid AS c"),
            "SELECT regclass_oid('v') AS c"
        );
        assert_eq!(
            rewritten("SELECT a FROM t WHERE a = 'v'::regclass"),
            "SELECT a FROM t WHERE a = regclass_oid('v')"
        );
        assert_eq!(
            rewritten("SELECT a::regclass AS c FROM t"),
            "SELECT regclass(a) AS c FROM t"
        );
    }

    #[test]
    fn correlated_sub_queries_get_an_aggregate() {
        assert_eq!(
            rewritten(
                "SELECT (SELECT d.adbin FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND a.atthasdef) AS d \
                 FROM pg_catalog.pg_attribute a"
            ),
            "SELECT CASE WHEN a.atthasdef THEN (SELECT max(d.adbin) FROM pg_catalog.pg_attrdef d WHERE d.adrelid = \
             a.attrelid) END AS d FROM pg_catalog.pg_attribute a"
        );
    }

    #[test]
    fn what_is_always_empty_is_not_asked() {
        assert_eq!(
            rewritten(
                "SELECT ARRAY(SELECT m.roleid FROM pg_auth_members m WHERE m.member = r.oid) AS a FROM pg_roles r"
            ),
            "SELECT ARRAY[]::TEXT[] AS a FROM pg_roles r"
        );
        // The aggregate inside the sub-query is not one of the select around it.
        assert_eq!(
            rewritten(
                "SELECT (SELECT string_agg(attname, ',') FROM pg_attribute) AS a FROM pg_publication_rel"
            ),
            "SELECT NULL AS a FROM pg_publication_rel"
        );
        assert_eq!(
            rewritten("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM pg_enum)"),
            "SELECT a FROM t WHERE false"
        );
    }

    #[test]
    fn existence_in_a_select_list_is_an_aggregate() {
        assert_eq!(
            rewritten(
                "SELECT a.x AND EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conrelid = a.oid) AS e FROM a"
            ),
            "SELECT a.x AND coalesce((SELECT bool_and(true) FROM pg_constraint c WHERE c.conrelid = a.oid), false) AS e FROM a"
        );
    }

    #[test]
    fn assignments_are_handed_over() {
        let mut query = crate::relations::parse_query(
            "SELECT pg_catalog.set_config('search_path', 'a', false)",
        )
        .expect("it parses");
        let effects = rewrite(&mut query);
        assert_eq!(
            effects.assignments,
            [("search_path".to_owned(), "a".to_owned())]
        );
    }
}
