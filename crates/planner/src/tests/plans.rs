//! The plan of each construct.

use super::Fixture;
use expect_test::{Expect, expect};

const SCHEMA: &str = "
    create table t (k int primary key, a int, b bigint, s text, n numeric(10,2), f double precision);
    create table u (k int not null, x int, s text);
    create table log (k int not null, v int) append only;
    create source events (id bigint, kind text, at timestamp, price bigint) with (connector = 'nexmark');
    create view tv as select k, a + 1 as a1, s from t where a > 0;
    create materialized view mv as select a, count(*) as n from t group by a;
";

pub(super) fn check(sql: &str, expected: Expect) {
    expected.assert_eq(&Fixture::new(SCHEMA).explain(sql));
}

#[test]
fn filters_and_projections() {
    check(
        "select k, a + 1 as next from t where a > 0 and s like 'x%'",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k, a + Int32(1) as next  [exchange by (k)]  [unique (k)]
            Filter a > Int32(0) AND s LIKE Utf8("x%")  [unique (k)]
              Import t (k, a, s)  [unique (k)]
    "#]],
    );
    check(
        "select id, price * 2 from events where kind = 'bid'",
        expect![[r#"
        Materialize  [append-only]
          Project id, price * Int64(2) as ?column?  [append-only]
            Filter kind = Utf8("bid")  [append-only]
              Source events (id, kind, price)  [append-only]
    "#]],
    );
    check(
        "select a1 from tv where s = 'x'",
        expect![[r#"
        Materialize key (a1)
          Project a + Int32(1) as a1  [exchange by (a1)]
            Filter a > Int32(0) AND s = Utf8("x")
              Import t (a, s)
    "#]],
    );
    check(
        "select n from mv where n > 1",
        expect![[r#"
        Materialize key (n)
          Filter n > Int64(1)  [exchange by (n)]
            Import mv (n)
    "#]],
    );
    check(
        "select 1 as one, 'x' as x",
        expect![[r#"
        Materialize key (one, x)  [append-only]  [at most one row]
          Values (Int32(1), Utf8("x"))  [exchange by (one, x)]  [append-only]  [at most one row]
              state emitted: value, key ()
    "#]],
    );
    check(
        "values (1, 'a'), (2, null)",
        expect![[r#"
        Materialize  [append-only]
          Values (Int32(1), Utf8("a")), (Int32(2), Utf8(NULL))  [append-only]
              state emitted: value, key ()
    "#]],
    );
    check(
        "select * from u order by x",
        expect![[r#"
        Materialize key (k, x, s)
          Import u (k, x, s)  [exchange by (k, x, s)]
    "#]],
    );
}

#[test]
fn aggregates() {
    check(
        "select a, count(*), sum(b), avg(a), min(s), max(f) from t group by a",
        expect![[r#"
        Materialize key (a)  [unique (a)]
          Aggregate by (a): count(*), sum(b), avg(a), min(s), max(f)  [exchange by (a)]  [unique (a)]
              state groups: value, key (a)
              state values: map, key (a), sub-key (s)
              state values: map, key (a), sub-key (f)
            Import t (a, b, s, f)  [exchange by (a)]
    "#]],
    );
    check(
        "select count(*) from t",
        expect![[r#"
        Materialize key (count)  [at most one row]
          Aggregate count(*)  [exchange by (count)]  [at most one row]
              state groups: value, key ()
            Import t (k)  [exchange to one worker]  [unique (k)]
    "#]],
    );
    check(
        "select count(*) from log",
        expect![[r#"
        Materialize key (count)  [at most one row]
          Aggregate count(*)  [exchange by (count)]  [at most one row]
              state groups: value, key ()
            Import log (k)  [exchange to one worker]  [append-only]
    "#]],
    );
    check(
        "select a % 10 as g, sum(a) filter (where b > 1), count(distinct s) from t group by a % 10",
        expect![[r#"
        Materialize key (g)  [unique (g)]
          Aggregate by (t.a % Int64(10)): sum(a) filter (t.b > Int64(1)), count(distinct s)  [exchange by (g)]  [unique (g)]
              state groups: value, key (t.a % Int64(10))
              state values: map, key (t.a % Int64(10)), sub-key (s)
            Project a, s, a % Int32(10) as t.a % Int64(10), b > Int64(1) as t.b > Int64(1)  [exchange by (t.a % Int64(10))]
              Import t (a, b, s)
    "#]],
    );
    check(
        "select a, string_agg(s, ',' order by b desc), array_agg(k order by s) from t group by a",
        expect![[r#"
        Materialize key (a)  [unique (a)]
          Aggregate by (a): string_agg(s, Utf8(",") order by b desc), array_agg(k order by s)  [exchange by (a)]  [unique (a)]
              state groups: value, key (a)
              state values: map, key (a), sub-key (b, s, Utf8(","))
              state values: map, key (a), sub-key (s, k)
            Project k, a, b, s, Utf8(",")  [exchange by (a)]  [unique (k)]
              Import t (k, a, b, s)  [unique (k)]
    "#]],
    );
    check(
        "select a, stddev(f), var_pop(f), bool_and(b > 1), every(b > 2) from t group by a",
        expect![[r#"
        Materialize key (a)  [unique (a)]
          Aggregate by (a): stddev_samp(f), var_pop(f), bool_and(t.b > Int64(1)), bool_and(t.b > Int64(2))  [exchange by (a)]  [unique (a)]
              state groups: value, key (a)
            Project a, f, b > Int64(1) as t.b > Int64(1), b > Int64(2) as t.b > Int64(2)  [exchange by (a)]
              Import t (a, b, f)
    "#]],
    );
    check(
        "select a from t group by a having count(*) > 1",
        expect![[r#"
        Materialize key (a)  [unique (a)]
          Project a  [exchange by (a)]  [unique (a)]
            Filter count(Int64(1)) > Int64(1)  [unique (a)]
              Aggregate by (a): count(*)  [unique (a)]
                  state groups: value, key (a)
                Import t (a)  [exchange by (a)]
    "#]],
    );
    check(
        "select distinct a, s from t",
        expect![[r#"
        Materialize key (a, s)  [unique (a, s)]
          Distinct (a, s)  [exchange by (a, s)]  [unique (a, s)]
              state groups: value, key (a, s)
            Import t (a, s)  [exchange by (a, s)]
    "#]],
    );
    check(
        "select distinct kind from events",
        expect![[r#"
        Materialize key (kind)  [append-only]  [unique (kind)]
          Distinct (kind)  [exchange by (kind)]  [append-only]  [unique (kind)]
              state groups: value, key (kind)
            Source events (kind)  [exchange by (kind)]  [append-only]
    "#]],
    );
    check(
        "select max(v) from log",
        expect![[r#"
        Materialize key (max)  [at most one row]
          Aggregate max(v)  [exchange by (max)]  [at most one row]
              state groups: value, key ()
            Import log (v)  [exchange to one worker]  [append-only]
    "#]],
    );
    check(
        "select median(a) from t",
        expect![[r#"
            Materialize key (median)  [at most one row]
              Aggregate percentile_cont(t.a)  [exchange by (median)]  [at most one row]
                  state groups: value, key ()
                  state values: map, key (), sub-key (t.a)
                Project CAST(a AS Float64) as t.a  [exchange to one worker]
                  Import t (a)
        "#]],
    );
}

#[test]
fn joins() {
    check(
        "select t.a, u.x from t join u on t.k = u.k",
        expect![[r#"
        Materialize key (a, x)
          Project a, x  [exchange by (a, x)]
            InnerJoin (k) = (k)
                state left: map, key (k), sub-key (a)
                state right: map, key (k), sub-key (x)
              Import t (k, a)  [exchange by (k)]  [unique (k)]
              Import u (k, x)  [exchange by (k)]
    "#]],
    );
    check(
        "select t.a, u.x from t left join u on t.k = u.k and u.x > t.a",
        expect![[r#"
        Materialize key (a, x)
          Project a, x  [exchange by (a, x)]
            LeftJoin (k) = (k) where right.x > left.a
                state left: map, key (k), sub-key (a)
                state right: map, key (k), sub-key (x)
              Import t (k, a)  [exchange by (k)]  [unique (k)]
              Import u (k, x)  [exchange by (k)]
    "#]],
    );
    check(
        "select t.a, u.x from t right join u on t.k = u.k",
        expect![[r#"
        Materialize key (a, x)
          Project a, x  [exchange by (a, x)]
            RightJoin (k) = (k)
                state left: map, key (k), sub-key (a)
                state right: map, key (k), sub-key (x)
                state left_counts: value, key (k)
              Import t (k, a)  [exchange by (k)]  [unique (k)]
              Import u (k, x)  [exchange by (k)]
    "#]],
    );
    check(
        "select t.k, u.x from t full join u on t.k = u.k + 1",
        expect![[r#"
        Materialize key (k, x)
          Project k, x  [exchange by (k, x)]
            FullJoin (k) = (u.k + Int32(1))
                state left: map, key (k), sub-key ()
                state right: map, key (u.k + Int32(1)), sub-key (x)
                state right_counts: value, key (u.k + Int32(1))
                state left_counts: value, key (k)
              Import t (k)  [exchange by (k)]  [unique (k)]
              Project x, k + Int32(1) as u.k + Int32(1)  [exchange by (u.k + Int32(1))]
                Import u (k, x)
    "#]],
    );
    check(
        "select t.k, u.x from t, u",
        expect![[r#"
        Materialize key (k, x)
          InnerJoin  [exchange by (k, x)]
              state left: map, key (), sub-key (k)
              state right: map, key (), sub-key (x)
            Import t (k)  [exchange to one worker]  [unique (k)]
            Import u (x)  [exchange to one worker]
    "#]],
    );
    check(
        "select t.k, u.x from t join u on t.a < u.x",
        expect![[r#"
        Materialize key (k, x)
          Project k, x  [exchange by (k, x)]
            InnerJoin where left.a < right.x
                state left: map, key (), sub-key (k, a)
                state right: map, key (), sub-key (x)
              Import t (k, a)  [exchange to one worker]  [unique (k)]
              Import u (x)  [exchange to one worker]
    "#]],
    );
    check(
        "select t1.k, t2.a from t t1 join t t2 on t1.k = t2.k",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k, a  [exchange by (k)]  [unique (k)]
            InnerJoin (k) = (k)  [unique (k)]
                state left: map, key (k), sub-key ()
                state right: map, key (k), sub-key (a)
              Import t (k)  [exchange by (k)]  [unique (k)]
              Import t (k, a)  [exchange by (k)]  [unique (k)]
    "#]],
    );
    check(
        "select e.id, l.v from events e join log l on e.id = l.k",
        expect![[r#"
        Materialize  [append-only]
          Project id, v  [append-only]
            InnerJoin (id) = (l.k)  [append-only]
                state left: map, key (id), sub-key ()
                state right: map, key (l.k), sub-key (v)
              Filter id IS NOT NULL  [exchange by (id)]  [append-only]
                Source events (id)  [append-only]
              Project v, CAST(k AS Int64) as l.k  [exchange by (l.k)]  [append-only]
                Import log (k, v)  [append-only]
    "#]],
    );
    check(
        "select k from t join u using (k)",
        expect![[r#"
        Materialize key (k)
          Project k  [exchange by (k)]
            InnerJoin (k) = (k)
                state left: map, key (k), sub-key ()
                state right: map, key (k), sub-key ()
              Import t (k)  [exchange by (k)]  [unique (k)]
              Import u (k)  [exchange by (k)]
    "#]],
    );
    check(
        "select t.k from t join u on t.b = u.x",
        expect![[r#"
        Materialize key (k)
          Project k  [exchange by (k)]
            InnerJoin (b) = (u.x)
                state left: map, key (b), sub-key (k)
                state right: map, key (u.x), sub-key ()
              Filter b IS NOT NULL  [exchange by (b)]  [unique (k)]
                Import t (k, b)  [unique (k)]
              Project CAST(x AS Int64) as u.x  [exchange by (u.x)]
                Filter CAST(x AS Int64) IS NOT NULL
                  Import u (x)
    "#]],
    );
}

#[test]
fn subqueries() {
    check(
        "select k from t where exists (select 1 from u where u.k = t.k)",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          SemiJoin (k) = (k)  [exchange by (k)]  [unique (k)]
              state left: map, key (k), sub-key ()
              state right: value, key (k)
            Import t (k)  [exchange by (k)]  [unique (k)]
            Import u (k)  [exchange by (k)]
    "#]],
    );
    check(
        "select k from t where not exists (select 1 from u where u.k = t.k and u.x > t.a)",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k  [exchange by (k)]  [unique (k)]
            AntiJoin (k) = (k) where right.x > left.a  [unique (k)]
                state left: map, key (k), sub-key (a)
                state right: map, key (k), sub-key (x)
              Import t (k, a)  [exchange by (k)]  [unique (k)]
              Import u (k, x)  [exchange by (k)]
    "#]],
    );
    check(
        "select k from t where a in (select x from u)",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k  [exchange by (k)]  [unique (k)]
            SemiJoin (a) = (x)  [unique (k)]
                state left: map, key (a), sub-key (k)
                state right: value, key (x)
              Filter a IS NOT NULL  [exchange by (a)]  [unique (k)]
                Import t (k, a)  [unique (k)]
              Filter x IS NOT NULL  [exchange by (x)]
                Import u (x)
    "#]],
    );
    check(
        "select k from t where a not in (select x from u)",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k  [exchange by (k)]  [unique (k)]
            AntiJoin (a) = (x) null-aware  [unique (k)]
                state left: map, key (), sub-key (a, k)
                state right: map, key (), sub-key (x)
                state right_counts: value, key ()
              Import t (k, a)  [exchange to one worker]  [unique (k)]
              Import u (x)  [exchange to one worker]
    "#]],
    );
    check(
        "select k from t where a not in (select x from u where u.s = t.s)",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              Project k  [exchange by (k)]  [unique (k)]
                Filter a IS NOT NULL OR NOT mark  [unique (k)]
                  Project k, a, mark  [unique (k)]
                    MarkJoin (s) = (s)  [unique (k)]
                        state left: map, key (s), sub-key (k, a)
                        state right: value, key (s)
                      AntiJoin (s) = (s)  [exchange by (s)]  [unique (k)]
                          state left: map, key (s), sub-key (k, a)
                          state right: value, key (s)
                        AntiJoin (a, s) = (x, s)  [exchange by (s)]  [unique (k)]
                            state left: map, key (a, s), sub-key (k)
                            state right: value, key (x, s)
                          Import t (k, a, s)  [exchange by (a, s)]  [unique (k)]
                          Filter s IS NOT NULL AND x IS NOT NULL  [exchange by (x, s)]
                            Import u (x, s)
                        Project s  [exchange by (s)]
                          Filter x IS NULL AND s IS NOT NULL
                            Import u (x, s)
                      Filter s IS NOT NULL  [exchange by (s)]
                        Import u (s)
        "#]],
    );
    check(
        "select k from t where a > 1 or a in (select x from u)",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k  [exchange by (k)]  [unique (k)]
            Filter a > Int32(1) OR mark  [unique (k)]
              MarkJoin (a) = (x)  [unique (k)]
                  state left: map, key (a), sub-key (k)
                  state right: value, key (x)
                Import t (k, a)  [exchange by (a)]  [unique (k)]
                Filter x IS NOT NULL  [exchange by (x)]
                  Import u (x)
    "#]],
    );
    check(
        "select k from t where a > 1 or a not in (select x from u)",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k  [exchange by (k)]  [unique (k)]
            Filter a > Int32(1) OR NOT mark AND NOT mark AND (a IS NOT NULL OR NOT mark)  [unique (k)]
              MarkJoin  [unique (k)]
                  state left: map, key (), sub-key (k, a, mark, mark)
                  state right: value, key ()
                Filter a > Int32(1) OR NOT mark AND NOT mark  [exchange to one worker]  [unique (k)]
                  MarkJoin  [unique (k)]
                      state left: map, key (), sub-key (k, a, mark)
                      state right: value, key ()
                    Filter a > Int32(1) OR NOT mark  [exchange to one worker]  [unique (k)]
                      MarkJoin (a) = (x)  [unique (k)]
                          state left: map, key (a), sub-key (k)
                          state right: value, key (x)
                        Import t (k, a)  [exchange by (a)]  [unique (k)]
                        Filter x IS NOT NULL  [exchange by (x)]
                          Import u (x)
                    Filter x IS NULL  [exchange to one worker]
                      Import u (x)
                Import u (x)  [exchange to one worker]
    "#]],
    );
    check(
        "select k from t where a = (select max(x) from u)",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k  [exchange by (k)]  [unique (k)]
            InnerJoin (a) = (max(u.x))  [unique (k)]
                state left: map, key (a), sub-key (k)
                state right: map, key (max(u.x)), sub-key ()
              Filter a IS NOT NULL  [exchange by (a)]  [unique (k)]
                Import t (k, a)  [unique (k)]
              Filter max(u.x) IS NOT NULL  [exchange by (max(u.x))]  [at most one row]
                Aggregate max(x)  [at most one row]
                    state groups: value, key ()
                    state values: map, key (), sub-key (x)
                  Import u (x)  [exchange to one worker]
    "#]],
    );
    check(
        "select k from t where a = (select x from u)",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k  [exchange by (k)]  [unique (k)]
            InnerJoin (a) = (x)  [unique (k)]
                state left: map, key (a), sub-key (k)
                state right: map, key (x), sub-key ()
              Filter a IS NOT NULL  [exchange by (a)]  [unique (k)]
                Import t (k, a)  [unique (k)]
              Filter x IS NOT NULL  [exchange by (x)]  [at most one row]
                AtMostOne  [at most one row]
                    state rows: map, key (), sub-key (x)
                  Import u (x)  [exchange to one worker]
    "#]],
    );
    check(
        "select k, (select count(*) from u where u.k = t.k) as n from t",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k, CASE WHEN __always_true IS NULL THEN Int64(0) ELSE count END as n  [exchange by (k)]  [unique (k)]
            LeftJoin (k) = (k)  [unique (k)]
                state left: map, key (k), sub-key ()
                state right: map, key (k), sub-key (count, __always_true)
                state right_counts: value, key (k)
              Import t (k)  [exchange by (k)]  [unique (k)]
              Project k, count(Int64(1)) as count, Boolean(true) as __always_true  [exchange by (k)]  [unique (k)]
                Aggregate by (k): count(*)  [unique (k)]
                    state groups: value, key (k)
                  Import u (k)  [exchange by (k)]
    "#]],
    );
    check(
        "select t.k, l.m from t, lateral (select max(x) as m from u where u.k = t.k) l",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k, m  [exchange by (k)]  [unique (k)]
            LeftJoin (k) = (k)  [unique (k)]
                state left: map, key (k), sub-key ()
                state right: map, key (k), sub-key (m)
                state right_counts: value, key (k)
              Import t (k)  [exchange by (k)]  [unique (k)]
              Aggregate by (k): max(x)  [exchange by (k)]  [unique (k)]
                  state groups: value, key (k)
                  state values: map, key (k), sub-key (x)
                Import u (k, x)  [exchange by (k)]
    "#]],
    );
    check(
        "with c as (select k, a from t where a > 0) select c1.k from c c1 join c c2 on c1.a = c2.a",
        expect![[r#"
        Materialize key (k)
          Project k  [exchange by (k)]
            InnerJoin (a) = (a)
                state left: map, key (a), sub-key (k)
                state right: map, key (a), sub-key ()
              Filter a > Int32(0) AND a IS NOT NULL  [exchange by (a)]  [unique (k)]
                Import t (k, a)  [unique (k)]
              Filter a > Int32(0) AND a IS NOT NULL  [exchange by (a)]
                Import t (a)
    "#]],
    );
}

#[test]
fn sets_and_limits() {
    check(
        "select k from t union all select x from u",
        expect![[r#"
        Materialize key (k)
          Union  [exchange by (k)]
            Import t (k)  [unique (k)]
            Import u (x)
    "#]],
    );
    check(
        "select a from t union select b from t",
        expect![[r#"
        Materialize key (a)  [unique (a)]
          Distinct (a)  [exchange by (a)]  [unique (a)]
              state groups: value, key (a)
            Union  [exchange by (a)]
              Project CAST(a AS Int64) as a
                Import t (a)
              Import t (b)
    "#]],
    );
    check(
        "select id from events union all select k from log",
        expect![[r#"
        Materialize  [append-only]
          Union  [append-only]
            Source events (id)  [append-only]
            Project CAST(k AS Int64) as id  [append-only]
              Import log (k)  [append-only]
    "#]],
    );
    check(
        "select a from t intersect select x from u",
        expect![[r#"
        Materialize key (a)  [unique (a)]
          SemiJoin (a) is not distinct from (x)  [exchange by (a)]  [unique (a)]
              state left: map, key (a), sub-key ()
              state right: value, key (x)
            Distinct (a)  [exchange by (a)]  [unique (a)]
                state groups: value, key (a)
              Import t (a)  [exchange by (a)]
            Import u (x)  [exchange by (x)]
    "#]],
    );
    check(
        "select a from t except select x from u",
        expect![[r#"
        Materialize key (a)  [unique (a)]
          AntiJoin (a) is not distinct from (x)  [exchange by (a)]  [unique (a)]
              state left: map, key (a), sub-key ()
              state right: value, key (x)
            Distinct (a)  [exchange by (a)]  [unique (a)]
                state groups: value, key (a)
              Import t (a)  [exchange by (a)]
            Import u (x)  [exchange by (x)]
    "#]],
    );
    check(
        "select k, a from t order by b desc, k limit 3 offset 1",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          Project k, a  [exchange by (k)]  [unique (k)]
            TopN order by b desc, k limit 3 offset 1  [unique (k)]
                state rows: map, key (), sub-key (b, k, a)
              Import t (k, a, b)  [exchange to one worker]  [unique (k)]
    "#]],
    );
    check(
        "select k from t limit 5",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          TopN limit 5  [exchange by (k)]  [unique (k)]
              state rows: map, key (), sub-key (k)
            Import t (k)  [exchange to one worker]  [unique (k)]
    "#]],
    );
    check(
        "select a, count(*) as c from t group by a order by c desc nulls last fetch first 2 rows only",
        expect![[r#"
        Materialize key (a)  [unique (a)]
          TopN order by c desc nulls last limit 2  [exchange by (a)]  [unique (a)]
              state rows: map, key (), sub-key (c, a)
            Aggregate by (a): count(*)  [exchange to one worker]  [unique (a)]
                state groups: value, key (a)
              Import t (a)  [exchange by (a)]
    "#]],
    );
    check(
        "select k from t order by a + b limit 1",
        expect![[r#"
        Materialize key (k)  [at most one row]
          Project k  [exchange by (k)]  [at most one row]
            TopN order by t.a + t.b limit 1  [at most one row]
                state rows: map, key (), sub-key (t.a + t.b, k)
              Project k, CAST(a AS Int64) + b as t.a + t.b  [exchange to one worker]  [unique (k)]
                Import t (k, a, b)  [unique (k)]
    "#]],
    );
    check(
        "select k from t offset 2",
        expect![[r#"
        Materialize key (k)  [unique (k)]
          TopN offset 2  [exchange by (k)]  [unique (k)]
              state rows: map, key (), sub-key (k)
            Import t (k)  [exchange to one worker]  [unique (k)]
    "#]],
    );
}

#[test]
fn distinct_on() {
    check(
        "select distinct on (k) k, v from log order by k, v desc",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              TopN by (k) order by k, v desc limit 1  [exchange by (k)]  [unique (k)]
                  state rows: value, key (k)
                Import log (k, v)  [exchange by (k)]  [append-only]
        "#]],
    );
    check(
        "select distinct on (a % 10) b + 1 as c from t order by a % 10, s",
        expect![[r#"
            Materialize key (c)
              Project b + Int64(1) as c  [exchange by (c)]
                TopN by (__common_expr_1) order by __common_expr_1, s limit 1  [unique (__common_expr_1)]
                    state rows: map, key (__common_expr_1), sub-key (s, b)
                  Project b, s, a % Int32(10) as __common_expr_1  [exchange by (__common_expr_1)]
                    Import t (a, b, s)
        "#]],
    );
}

#[test]
fn lists_and_series() {
    check(
        "select k, unnest(string_to_array(s, ',')) as word from t",
        expect![[r#"
            Materialize key (k, word)
              Unnest (__unnest_placeholder(string_to_array(t.s,Utf8(","))))  [exchange by (k, __unnest_placeholder(string_to_array(t.s,Utf8(",")),depth=1))]
                Project k, string_to_array(s, Utf8(",")) as __unnest_placeholder(string_to_array(t.s,Utf8(",")))  [unique (k)]
                  Import t (k, s)  [unique (k)]
        "#]],
    );
    check(
        "select x * 2 as y from generate_series(1, 4) as x",
        expect![[r#"
            Materialize  [append-only]
              Project __unnest_placeholder(generate_series(Int64(1),Int64(4)),depth=1) * Int64(2) as y  [append-only]
                Unnest (__unnest_placeholder(generate_series(Int64(1),Int64(4))))  [append-only]
                  Values (List([1, 2, 3, 4]))  [append-only]  [at most one row]
                      state emitted: value, key ()
        "#]],
    );
    check(
        "select k, generate_series(1, a) from t",
        expect![[r#"
        Materialize key (k, generate_series)
          Unnest (__unnest_placeholder(generate_series(Int64(1),t.a)))  [exchange by (k, __unnest_placeholder(generate_series(Int64(1),t.a),depth=1))]
            Project k, generate_series(Int64(1), CAST(a AS Int64)) as __unnest_placeholder(generate_series(Int64(1),t.a))  [unique (k)]
              Import t (k, a)  [unique (k)]
    "#]],
    );
}

#[test]
fn lists_beside_their_rows() {
    check(
        "select t.k, w from t, unnest(string_to_array(t.s, ' ')) as w where t.a > 1 and w <> 'x'",
        expect![[r#"
            Materialize key (k, w)
              Filter __unnest_placeholder(string_to_array(outer_ref(t.s),Utf8(" ")),depth=1) != Utf8("x")  [exchange by (k, __unnest_placeholder(string_to_array(outer_ref(t.s),Utf8(" ")),depth=1))]
                Unnest (__unnest_placeholder(string_to_array(outer_ref(t.s),Utf8(" "))))
                  Project k, string_to_array(s, Utf8(" ")) as __unnest_placeholder(string_to_array(outer_ref(t.s),Utf8(" ")))  [unique (k)]
                    Filter a > Int32(1)  [unique (k)]
                      Import t (k, a, s)  [unique (k)]
        "#]],
    );
    check(
        "select t.k, x.n from t, lateral (select generate_series(1, t.a) as n) as x",
        expect![[r#"
            Materialize key (k, n)
              Unnest (__unnest_placeholder(generate_series(Int64(1),outer_ref(t.a))))  [exchange by (k, __unnest_placeholder(generate_series(Int64(1),outer_ref(t.a)),depth=1))]
                Project k, generate_series(Int64(1), CAST(a AS Int64)) as __unnest_placeholder(generate_series(Int64(1),outer_ref(t.a)))  [unique (k)]
                  Import t (k, a)  [unique (k)]
        "#]],
    );
}

#[test]
fn grouping_sets() {
    check(
        "select a, s, count(*) as n, grouping(a, s) as g from t group by rollup (a, s)",
        expect![[r#"
            Materialize key (a, s, n, g)
              Project a, s, count(Int64(1)) as n, CAST(__grouping_id & UInt8(3) AS Int32) as g  [exchange by (a, s, n, g)]
                Union
                  Project a, s, UInt8(0) as __grouping_id, count(Int64(1))  [unique (a, s)]
                    Aggregate by (a, s): count(*)  [unique (a, s)]
                        state groups: value, key (a, s)
                      Import t (a, s)  [exchange by (a, s)]
                  Project a, Utf8(NULL) as s, UInt8(1) as __grouping_id, count(Int64(1))  [unique (a)]
                    Aggregate by (a): count(*)  [unique (a)]
                        state groups: value, key (a)
                      Import t (a)  [exchange by (a)]
                  Project Int32(NULL) as a, Utf8(NULL) as s, UInt8(3) as __grouping_id, count(Int64(1))  [at most one row]
                    Aggregate count(*)  [at most one row]
                        state groups: value, key ()
                      Import t (a)  [exchange to one worker]
        "#]],
    );
    check(
        "select a, k from t group by grouping sets ((a), (k), ())",
        expect![[r#"
            Materialize key (a, k)
              Union  [exchange by (a, k)]
                Project a, Int32(NULL) as k  [unique (a)]
                  Distinct (a)  [unique (a)]
                      state groups: value, key (a)
                    Import t (a)  [exchange by (a)]
                Project Int32(NULL) as a, k  [unique (k)]
                  Distinct (k)  [unique (k)]
                      state groups: value, key (k)
                    Import t (k)  [exchange by (k)]  [unique (k)]
                Values (Int32(NULL), Int32(NULL))  [append-only]  [at most one row]
                    state emitted: value, key ()
        "#]],
    );
}

#[test]
fn multisets() {
    check(
        "select a from t except all select x from u",
        expect![[r#"
            Materialize key (a)
              Project a  [exchange by (a)]
                AntiJoin (a, row_number) is not distinct from (x, row_number)  [unique (a, copy)]
                    state left: map, key (a, row_number), sub-key ()
                    state right: value, key (x, row_number)
                  TopN by (a) numbered  [exchange by (a, row_number)]  [unique (a, row_number)]
                      state rows: map, key (a), sub-key ()
                      state anchors: map, key (a), sub-key ()
                    Import t (a)  [exchange by (a)]
                  TopN by (x) numbered  [exchange by (x, row_number)]  [unique (x, row_number)]
                      state rows: map, key (x), sub-key ()
                      state anchors: map, key (x), sub-key ()
                    Import u (x)  [exchange by (x)]
        "#]],
    );
    check(
        "select a, b from t intersect all (select x, k from u except all select v, k from log)",
        expect![[r#"
            Materialize key (a, b)
              Project a, b  [exchange by (a, b)]
                SemiJoin (a, b, row_number) is not distinct from (x, , copy)  [unique (a, b, copy)]
                    state left: map, key (a, b, row_number), sub-key ()
                    state right: value, key (x, , copy)
                  TopN by (a, b) numbered  [exchange by (a, b, row_number)]  [unique (a, b, row_number)]
                      state rows: map, key (a, b), sub-key ()
                      state anchors: map, key (a, b), sub-key ()
                    Import t (a, b)  [exchange by (a, b)]
                  Project x, row_number as copy, CAST(k AS Int64) as   [exchange by (x, , copy)]
                    TopN by (x, k) numbered  [unique (x, k, row_number)]
                        state rows: map, key (x, k), sub-key ()
                        state anchors: map, key (x, k), sub-key ()
                      Project k, x  [exchange by (x, k)]
                        AntiJoin (k, x, row_number) is not distinct from (k, v, row_number)  [unique (x, k, copy)]
                            state left: map, key (k, x, row_number), sub-key ()
                            state right: value, key (k, v, row_number)
                          TopN by (x, k) numbered  [exchange by (k, x, row_number)]  [unique (x, k, row_number)]
                              state rows: map, key (x, k), sub-key ()
                              state anchors: map, key (x, k), sub-key ()
                            Import u (k, x)  [exchange by (x, k)]
                          TopN by (v, k) numbered  [exchange by (k, v, row_number)]  [unique (v, k, row_number)]
                              state rows: map, key (v, k), sub-key ()
                              state anchors: map, key (v, k), sub-key ()
                            Import log (k, v)  [exchange by (v, k)]  [append-only]
        "#]],
    );
}

#[test]
fn quantified() {
    check(
        "select k from t where a = any (select x from u)",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              Project k  [exchange by (k)]  [unique (k)]
                SemiJoin (a) = (x)  [unique (k)]
                    state left: map, key (a), sub-key (k)
                    state right: value, key (x)
                  Filter a IS NOT NULL  [exchange by (a)]  [unique (k)]
                    Import t (k, a)  [unique (k)]
                  Filter x IS NOT NULL  [exchange by (x)]
                    Import u (x)
        "#]],
    );
    check(
        "select t.k from t where not t.a > any (select x from u where u.k = t.k)",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              Project k  [exchange by (k)]  [unique (k)]
                AntiJoin (k) = (k) where left.a > right.x IS NOT FALSE  [unique (k)]
                    state left: map, key (k), sub-key (a)
                    state right: map, key (k), sub-key (x)
                  Import t (k, a)  [exchange by (k)]  [unique (k)]
                  Import u (k, x)  [exchange by (k)]
        "#]],
    );
    check(
        "select k from t where a > all (select x from u)",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              Project k  [exchange by (k)]  [unique (k)]
                AntiJoin where left.a > right.x IS NOT TRUE  [unique (k)]
                    state left: map, key (), sub-key (k, a)
                    state right: map, key (), sub-key (x)
                  Import t (k, a)  [exchange to one worker]  [unique (k)]
                  Import u (x)  [exchange to one worker]
        "#]],
    );
}

#[test]
fn nexmark() {
    let schema = "create source bid (auction bigint, bidder bigint, price bigint, channel text, url text,
            date_time timestamp, extra text) with (connector = 'nexmark');
        create source auction (id bigint, item_name text, description text, initial_bid bigint, reserve bigint,
            date_time timestamp, expires timestamp, seller bigint, category bigint, extra text) with (connector = 'nexmark');
        create source person (id bigint, name text, email_address text, credit_card text, city text, state text,
            date_time timestamp, extra text) with (connector = 'nexmark');";
    let fixture = Fixture::new(schema);
    let check = |sql: &str, expected: Expect| expected.assert_eq(&fixture.explain(sql));
    check(
        "select auction, bidder, 0.908 * price as price, date_time, extra from bid",
        expect![[r#"
        Materialize  [append-only]
          Project auction, bidder, Decimal128(0.908,3,3) * CAST(price AS Decimal128(20, 0)) as price, date_time, extra  [append-only]
            Source bid (auction, bidder, price, date_time, extra)  [append-only]
    "#]],
    );
    check(
        "select p.name, p.city, p.state, a.id from auction a join person p on a.seller = p.id
        where a.category = 10 and (p.state = 'OR' or p.state = 'ID' or p.state = 'CA')",
        expect![[r#"
            Materialize  [append-only]
              Project name, city, state, id  [append-only]
                InnerJoin (seller) = (id)  [append-only]
                    state left: map, key (seller), sub-key (id)
                    state right: map, key (id), sub-key (name, city, state)
                  Project id, seller  [exchange by (seller)]  [append-only]
                    Filter seller IS NOT NULL AND category = Int64(10)  [append-only]
                      Source auction (id, seller, category)  [append-only]
                  Filter id IS NOT NULL AND (state = Utf8("OR") OR state = Utf8("ID") OR state = Utf8("CA"))  [exchange by (id)]  [append-only]
                    Source person (id, name, city, state)  [append-only]
        "#]],
    );
    check("select q.category, avg(q.final) from (
            select max(b.price) as final, a.category from auction a, bid b
            where a.id = b.auction and b.date_time between a.date_time and a.expires group by a.id, a.category) q
        group by q.category", expect![[r#"
            Materialize key (category)  [unique (category)]
              Aggregate by (category): avg(final)  [exchange by (category)]  [unique (category)]
                  state groups: value, key (category)
                Project category, max(b.price) as final  [exchange by (category)]
                  Aggregate by (id, category): max(price)  [unique (id, category)]
                      state groups: value, key (id, category)
                    Project id, category, price  [exchange by (id, category)]  [append-only]
                      InnerJoin (id) = (auction) where right.date_time >= left.date_time AND right.date_time <= left.expires  [append-only]
                          state left: map, key (id), sub-key (date_time, expires, category)
                          state right: map, key (auction), sub-key (price, date_time)
                        Filter id IS NOT NULL  [exchange by (id)]  [append-only]
                          Source auction (id, date_time, expires, category)  [append-only]
                        Filter auction IS NOT NULL  [exchange by (auction)]  [append-only]
                          Source bid (auction, price, date_time)  [append-only]
        "#]]);
    check("select auction, to_char(date_time, 'YYYY-MM-DD') as day, count(*) as total_bids,
            count(*) filter (where price < 10000) as rank1_bids, min(price), max(price), avg(price), sum(price)
        from bid group by auction, to_char(date_time, 'YYYY-MM-DD')", expect![[r#"
            Materialize key (auction, day)  [unique (auction, day)]
              Aggregate by (auction, to_char(bid.date_time,Utf8("YYYY-MM-DD"))): count(*), count(*) filter (bid.price < Int64(10000)), min(price), max(price), avg(price), sum(price)  [exchange by (auction, day)]  [unique (auction, day)]
                  state groups: value, key (auction, to_char(bid.date_time,Utf8("YYYY-MM-DD")))
                Project auction, price, price < Int64(10000) as bid.price < Int64(10000), to_char(date_time, Utf8("YYYY-MM-DD")) as to_char(bid.date_time,Utf8("YYYY-MM-DD"))  [exchange by (auction, to_char(bid.date_time,Utf8("YYYY-MM-DD")))]  [append-only]
                  Source bid (auction, price, date_time)  [append-only]
        "#]]);
    check(
        include_str!("../../../../sql/nexmark/q18.sql"),
        expect![[r#"
            Materialize key (bidder, auction)  [unique (bidder, auction)]
              TopN by (bidder, auction) order by date_time desc limit 1  [exchange by (bidder, auction)]  [unique (bidder, auction)]
                  state rows: value, key (bidder, auction)
                Source bid (auction, bidder, price, channel, url, date_time, extra)  [exchange by (bidder, auction)]  [append-only]
        "#]],
    );
    check(
        include_str!("../../../../sql/nexmark/q19.sql"),
        expect![[r#"
            Materialize key (auction, rank_number)  [unique (auction, rank_number)]
              TopN by (auction) order by price desc limit 10 numbered  [exchange by (auction, row_number)]  [unique (auction, row_number)]
                  state rows: value, key (auction)
                Source bid (auction, bidder, price, channel, url, date_time, extra)  [exchange by (auction)]  [append-only]
        "#]],
    );
}
