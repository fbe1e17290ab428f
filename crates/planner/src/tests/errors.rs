//! Errors: states and words as Postgres 15 has them, and what is refused.

use super::{Fixture, described, query};
use crate::Planner;
use expect_test::{Expect, expect};
use tidegate_types::RelationId;

const SCHEMA: &str = "create table t (k int primary key, a int, s text, at timestamp, ids int[]);
    create table u (k int, x int);";

fn check(sql: &str, expected: Expect) {
    expected.assert_eq(&Fixture::new(SCHEMA).explain(sql));
}

#[test]
fn names() {
    check(
        "select nope from t",
        expect![[r#"
        ERROR 42703: column "nope" does not exist
        POSITION: 8
    "#]],
    );
    check(
        "select t.kk from t",
        expect![[r#"
        ERROR 42703: column t.kk does not exist
        HINT: Perhaps you meant to reference the column "t.k".
        POSITION: 8
    "#]],
    );
    check(
        "select k from nope",
        expect![[r#"
        ERROR 42P01: relation "nope" does not exist
        POSITION: 15
    "#]],
    );
    check(
        "select x.k from t",
        expect![[r#"
        ERROR 42P01: missing FROM-clause entry for table "x"
        POSITION: 8
    "#]],
    );
    check(
        "select k from t, u",
        expect![[r#"
        ERROR 42702: column reference "k" is ambiguous
        POSITION: 8
    "#]],
    );
    check(
        "select nofun(k) from t",
        expect![[r#"
        ERROR 42883: function nofun does not exist
        POSITION: 8
    "#]],
    );
    check(
        "select k, k from t",
        expect![[r#"
        ERROR 42701: column "k" specified more than once
    "#]],
    );
    check(
        "select t.k, u.k from t, u",
        expect![[r#"
        ERROR 42701: column "k" specified more than once
    "#]],
    );
    check(
        "select k from t, t",
        expect![[r#"
        ERROR 42712: table name "t" specified more than once
    "#]],
    );
}

#[test]
fn types_and_grouping() {
    check(
        "select a + s from t",
        expect![[r#"
        ERROR 42883: operator does not exist: integer + text
        POSITION: 8
    "#]],
    );
    check(
        "select k from t where a",
        expect![[r#"
        ERROR 42804: argument of WHERE must be type boolean, not type integer
    "#]],
    );
    check(
        "select a, s from t group by a",
        expect![[r#"
        ERROR 42803: column "t.s" must appear in the GROUP BY clause or be used in an aggregate function
        POSITION: 11
    "#]],
    );
    check(
        "select sum(s) from t",
        expect![[r#"
        ERROR 42883: function sum(text) does not exist
        POSITION: 8
    "#]],
    );
    check(
        "select k from t where count(*) > 1",
        expect![[r#"
        ERROR 42803: aggregate functions are not allowed in WHERE
    "#]],
    );
    check(
        "select sum(count(*)) from t",
        expect![[r#"
        ERROR 42803: aggregate function calls cannot be nested
    "#]],
    );
    check(
        "select k from t union select k, x from u",
        expect![[r#"
        ERROR 42601: each UNION query must have the same number of columns
        POSITION: 1
    "#]],
    );
    check(
        "select k from t order by 3 limit 1",
        expect![[r#"
        ERROR 42P10: ORDER BY position 3 is not in select list
    "#]],
    );
    check(
        "select k from t where a = (select k, x from u)",
        expect![[r#"
        ERROR 42601: subquery must return only one column
        HINT: Select only one column in the subquery
    "#]],
    );
    check(
        "select 'x'::int from t",
        expect![[r#"
        ERROR 22P02: invalid input syntax for type integer: "x"
    "#]],
    );
    check(
        "select k from t where a = 'x'",
        expect![[r#"
        ERROR 22P02: invalid input syntax for type integer: "x"
    "#]],
    );
    check(
        "select k::nope from t",
        expect![[r#"
        ERROR 42704: type "nope" does not exist
    "#]],
    );
    check(
        "select k from t where a = $1",
        expect![[r#"
        ERROR 42P02: there is no parameter $1
    "#]],
    );
    check(
        "select lower(k, a) from t",
        expect![[r#"
        ERROR 42883: function lower(integer, integer) does not exist
        POSITION: 8
    "#]],
    );
    check(
        "select 1/0 from t",
        expect![[r#"
        Materialize key (?column?)
          Project Int32(1) / Int32(0) as ?column?  [exchange by (?column?)]
            Import t (k)  [unique (k)]
    "#]],
    );
}

#[test]
fn refused_everywhere() {
    for sql in [
        "select * from t tablesample bernoulli (10)",
        "select * from t for system_time as of now()",
        "select * from t, lateral (select x from u where u.k > t.k limit 1) l",
        "select k from t for update",
        "select k from t where (k, a) in (select k, x from u)",
    ] {
        // Some are refused by the parser already.
        let Ok(mut parsed) =
            tidegate_parser::parse(sql).map_err(|e| assert_eq!(e.sqlstate, "0A000", "{sql}"))
        else {
            continue;
        };
        let parsed = match parsed.remove(0).statement {
            tidegate_parser::Statement::Sql(statement) => *statement,
            other => panic!("{other:?}"),
        };
        let sqlparser::ast::Statement::Query(parsed) = parsed else {
            panic!("{sql} is not a query")
        };
        let fixture = Fixture::new(SCHEMA);
        let planner = Planner::new(&fixture, sql);
        let read = planner.query(*parsed.clone(), &[]).unwrap_err();
        let view = planner
            .plan_materialized_view(*parsed, &[], RelationId(9), "v")
            .unwrap_err();
        assert_eq!(read.state.code(), "0A000", "{sql}: {}", described(&read));
        assert_eq!(view.state.code(), "0A000", "{sql}: {}", described(&view));
        assert!(
            read.message.ends_with("is not supported"),
            "{}",
            read.message
        );
    }
}

#[test]
fn refused_in_views() {
    let cases = [
        (
            "select now() from t",
            "now() elsewhere than in a condition of WHERE or HAVING",
        ),
        (
            "select k from t where date_trunc('hour', now()) < at",
            "this condition on now()",
        ),
        (
            "select k from t where at > now() - interval '1 month'",
            "now() and an interval of months",
        ),
        (
            "select k from t where at > now() or a = 1",
            "this condition on now()",
        ),
        ("select random() from t", "random()"),
        ("select current_date from t", "current_date()"),
        (
            "select k, sum(distinct a) over (order by a) from t",
            "DISTINCT in the window function sum",
        ),
        (
            "with recursive r as (select 1 as n union all select n + 1 from r where n < 3) select n from r",
            "WITH RECURSIVE",
        ),
        (
            "select percentile_cont(a / 9.0) within group (order by a) from t group by a",
            "percentile_cont whose fraction is not a constant",
        ),
        ("select * from range(1, 3)", "the table function range"),
        (
            "select k in (select x from u) from t",
            "IN (sub-query) in this place",
        ),
    ];
    for (sql, feature) in cases {
        let fixture = Fixture::new(SCHEMA);
        let planner = Planner::new(&fixture, sql);
        let view = planner
            .plan_materialized_view(query(sql), &[], RelationId(9), "v")
            .unwrap_err();
        assert_eq!(view.state.code(), "0A000", "{sql}: {}", described(&view));
        assert_eq!(
            view.message,
            format!("{feature} in a materialized view is not supported"),
            "{sql}"
        );
    }
}
