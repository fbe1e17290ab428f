//! Each rewrite rule by itself: a tree before and after.

use super::{Fixture, query};
use crate::dataflow::flatten;
use crate::rel::Rel;
use crate::rules::RULES;
use crate::{Planner, explain};
use expect_test::{Expect, expect};
use tidegate_types::RelationId;

const SCHEMA: &str = "create table t (k int primary key, a int, b int, s text); create table u (k int, x int, y text);";

/// Applies the rules named in front and shows the tree before and after the last of them.
fn check(names: &[&str], sql: &str, expected: Expect) {
    let fixture = Fixture::new(SCHEMA);
    let mut rel = Planner::new(&fixture, sql)
        .lowered(query(sql), &[])
        .unwrap()
        .rel;
    let (last, first) = names.split_last().unwrap();
    for name in first {
        rel = rule(name)(rel);
    }
    let before = shown(rel.clone());
    let after = shown(rule(last)(rel));
    assert_ne!(before, after, "the rule changes nothing");
    expected.assert_eq(&format!("{before}--\n{after}"));
}

fn rule(name: &str) -> fn(Rel) -> Rel {
    RULES.iter().find(|(known, _)| known == &name).unwrap().1
}

fn shown(rel: Rel) -> String {
    let text = explain(&flatten(rel, RelationId(9), "v"), false, &|id| {
        Some(format!("r{id}"))
    });
    let operators: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("state "))
        .collect();
    operators.join("\n") + "\n"
}

#[test]
fn prune_columns() {
    check(
        &["prune_columns"],
        "select t.a, w.s from t join u on t.k + 1 = u.k + 2 join t w on w.b = u.x",
        expect![[r#"
        Project a, s
          InnerJoin (x) = (b)
            Project a, x  [exchange by (x)]
              InnerJoin (t.k + Int32(1)) = (u.k + Int32(2))
                Project k, a, k + Int32(1) as t.k + Int32(1)  [exchange by (t.k + Int32(1))]  [unique (k)]
                  Import r1 (k, a)  [unique (k)]
                Project k, x, k + Int32(2) as u.k + Int32(2)  [exchange by (u.k + Int32(2))]
                  Filter k + Int32(2) IS NOT NULL AND x IS NOT NULL
                    Import r2 (k, x)
            Filter b IS NOT NULL  [exchange by (b)]
              Import r1 (b, s)
        --
        Project a, s
          InnerJoin (x) = (b)
            Project a, x  [exchange by (x)]
              InnerJoin (t.k + Int32(1)) = (u.k + Int32(2))
                Project a, k + Int32(1) as t.k + Int32(1)  [exchange by (t.k + Int32(1))]
                  Import r1 (k, a)  [unique (k)]
                Project x, k + Int32(2) as u.k + Int32(2)  [exchange by (u.k + Int32(2))]
                  Filter k + Int32(2) IS NOT NULL AND x IS NOT NULL
                    Import r2 (k, x)
            Filter b IS NOT NULL  [exchange by (b)]
              Import r1 (b, s)
    "#]],
    );
    check(
        &["prune_columns"],
        "select k from t order by a + 1 limit 3",
        expect![[r#"
            Project k  [unique (k)]
              TopN order by t.a + Int64(1) limit 3  [unique (k)]
                Project k, a, a + Int32(1) as t.a + Int64(1)  [exchange to one worker]  [unique (k)]
                  Import r1 (k, a)  [unique (k)]
            --
            Project k  [unique (k)]
              TopN order by t.a + Int64(1) limit 3  [unique (k)]
                Project k, a + Int32(1) as t.a + Int64(1)  [exchange to one worker]  [unique (k)]
                  Import r1 (k, a)  [unique (k)]
        "#]],
    );
}

#[test]
fn bound_ranks() {
    let ranked =
        "from (select k, a, row_number() over (partition by a order by b desc) as n from t) r";
    check(
        &["bound_ranks"],
        &format!("select k, n {ranked} where n <= 3 and k > 0"),
        expect![[r#"
            Project k, row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW as n  [unique (k)]
              Filter row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW <= Int64(3) AND k > Int32(0)  [unique (k)]
                Project k, row_number as row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW  [unique (k)]
                  TopN by (a) order by b desc numbered  [unique (k)]
                    Import r1 (k, a, b)  [exchange by (a)]  [unique (k)]
            --
            Project k, row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW as n  [unique (k)]
              Project k, row_number as row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW  [unique (k)]
                Filter k > Int32(0)  [unique (k)]
                  TopN by (a) order by b desc limit 3 numbered  [unique (k)]
                    Import r1 (k, a, b)  [exchange by (a)]  [unique (k)]
        "#]],
    );
    check(
        &["bound_ranks", "prune_columns"],
        &format!("select k {ranked} where 1 = n"),
        expect![[r#"
            Project k
              Project k, row_number as row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                TopN by (a) order by b desc limit 1 numbered  [unique (a)]
                  Import r1 (k, a, b)  [exchange by (a)]  [unique (k)]
            --
            Project k
              Project k
                TopN by (a) order by b desc limit 1  [unique (a)]
                  Import r1 (k, a, b)  [exchange by (a)]  [unique (k)]
        "#]],
    );
    check(
        &["bound_ranks"],
        &format!("select k, a {ranked} where n between 3 and 4"),
        expect![[r#"
            Project k, a  [unique (k)]
              Filter row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW >= Int64(3) AND row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW <= Int64(4)  [unique (k)]
                Project k, a, row_number as row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW  [unique (k)]
                  TopN by (a) order by b desc numbered  [unique (k)]
                    Import r1 (k, a, b)  [exchange by (a)]  [unique (k)]
            --
            Project k, a  [unique (k)]
              Project k, a, row_number as row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW  [unique (k)]
                TopN by (a) order by b desc limit 2 offset 2 numbered  [unique (k)]
                  Import r1 (k, a, b)  [exchange by (a)]  [unique (k)]
        "#]],
    );
    check(
        &["bound_ranks"],
        "select k, n from (select k, rank() over (partition by a order by b) as n from t) r where n = 2",
        expect![[r#"
            Project k, rank() PARTITION BY [t.a] ORDER BY [t.b ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW as n  [unique (k)]
              Filter rank() PARTITION BY [t.a] ORDER BY [t.b ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW = Int64(2)  [unique (k)]
                Project k, rank as rank() PARTITION BY [t.a] ORDER BY [t.b ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW  [unique (k)]
                  TopN by (a) order by b with ties numbered  [unique (k)]
                    Import r1 (k, a, b)  [exchange by (a)]  [unique (k)]
            --
            Project k, rank() PARTITION BY [t.a] ORDER BY [t.b ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW as n  [unique (k)]
              Project k, rank as rank() PARTITION BY [t.a] ORDER BY [t.b ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW  [unique (k)]
                Filter rank = Int64(2)  [unique (k)]
                  TopN by (a) order by b limit 2 with ties numbered  [unique (k)]
                    Import r1 (k, a, b)  [exchange by (a)]  [unique (k)]
        "#]],
    );
}

#[test]
fn merge_projections() {
    check(
        &["prune_columns", "merge_projections"],
        "select k + 1 as n from t order by a + 1 limit 3",
        expect![[r#"
            Project n
              TopN order by t.a + Int64(1) limit 3
                Project n, a + Int32(1) as t.a + Int64(1)  [exchange to one worker]
                  Project a, k + Int32(1) as n
                    Import r1 (k, a)  [unique (k)]
            --
            Project n
              TopN order by t.a + Int64(1) limit 3
                Project k + Int32(1) as n, a + Int32(1) as t.a + Int64(1)  [exchange to one worker]
                  Import r1 (k, a)  [unique (k)]
        "#]],
    );
}

#[test]
fn merge_filters() {
    // DataFusion merges its own, so the tree is made by hand.
    let fixture = Fixture::new(SCHEMA);
    let sql = "select a from t where a > 1";
    let lower = Planner::new(&fixture, sql)
        .lowered(query(sql), &[])
        .unwrap()
        .rel;
    let positive = datafusion::logical_expr::col("0").gt(datafusion::logical_expr::lit(2i32));
    let op = tidegate_plan::Op::Filter {
        predicate: tidegate_plan::ScalarExpr::new(positive),
    };
    let schema = lower.schema.clone();
    let rel = Rel::new(op, vec![lower], schema);
    let before = shown(rel.clone());
    let after = shown(rule("merge_filters")(rel));
    expect![[r#"
        Filter a > Int32(2)
          Filter a > Int32(1)
            Import r1 (a)
        --
        Filter a > Int32(1) AND a > Int32(2)
          Import r1 (a)
    "#]]
    .assert_eq(&format!("{before}--\n{after}"));
}

#[test]
fn remove_projections() {
    check(
        &["remove_projections"],
        "select a, count(*) from t group by a",
        expect![[r#"
        Project a, count(Int64(1)) as count  [unique (a)]
          Aggregate by (a): count(*)  [unique (a)]
            Import r1 (a)  [exchange by (a)]
        --
        Aggregate by (a): count(*)  [unique (a)]
          Import r1 (a)  [exchange by (a)]
    "#]],
    );
}

#[test]
fn fold_values() {
    check(
        &["fold_values"],
        "select 1 as one, 'x' as x",
        expect![[r#"
        Project Int32(1) as one, Utf8("x") as x  [append-only]  [at most one row]
          Values (Boolean(true))  [append-only]  [at most one row]
        --
        Values (Int32(1), Utf8("x"))  [append-only]  [at most one row]
    "#]],
    );
}
