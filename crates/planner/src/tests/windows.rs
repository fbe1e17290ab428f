//! The plans of numbered rows and of window functions.

use super::plans::check;
use expect_test::expect;

#[test]
fn ranks() {
    // Numbers that nobody sees are not computed, filters over them bound what is kept.
    check(
        "select k, v from (select *, row_number() over (partition by k order by v desc) as n from log) r where n = 1",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              TopN by (k) order by v desc limit 1  [exchange by (k)]  [unique (k)]
                  state rows: value, key (k)
                Import log (k, v)  [exchange by (k)]  [append-only]
        "#]],
    );
    check(
        "select * from (select *, row_number() over (partition by k order by v desc) as n from log) r where n < 11",
        expect![[r#"
            Materialize key (k, n)  [unique (k, n)]
              TopN by (k) order by v desc limit 10 numbered  [exchange by (k, row_number)]  [unique (k, row_number)]
                  state rows: value, key (k)
                Import log (k, v)  [exchange by (k)]  [append-only]
        "#]],
    );
    check(
        "select k, rank() over w as r, dense_rank() over w as d from t window w as (partition by a order by b)",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              Project k, rank as r, dense_rank as d  [exchange by (k)]  [unique (k)]
                TopN by (a) order by b of distinct orders numbered  [unique (k)]
                    state rows: map, key (a), sub-key (b, k, rank)
                    state anchors: map, key (a), sub-key (b, k, rank)
                  TopN by (a) order by b with ties numbered  [exchange by (a)]  [unique (k)]
                      state rows: map, key (a), sub-key (b, k)
                      state anchors: map, key (a), sub-key (b, k)
                    Import t (k, a, b)  [exchange by (a)]  [unique (k)]
        "#]],
    );
    check(
        "select k, a from t qualify rank() over (partition by a order by b) <= 2",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              Project k, a  [exchange by (k)]  [unique (k)]
                TopN by (a) order by b limit 2 with ties  [unique (k)]
                    state rows: map, key (a), sub-key (b, k)
                  Import t (k, a, b)  [exchange by (a)]  [unique (k)]
        "#]],
    );
}

#[test]
fn windows() {
    check(
        "select k, sum(b) over w as s, lag(a, 2) over w, count(*) over (partition by s) as n, row_number() over w as r
         from t window w as (partition by a order by b desc rows between 1 preceding and current row)",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              Project k, sum(t.b) PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW as s, lag(t.a,Int64(2)) PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW as lag, count as n, row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW as r  [exchange by (k)]  [unique (k)]
                Window by (s): count(Int64(1)) ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING  [unique (k)]
                    state rows: map, key (s), sub-key (k, sum(t.b) PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW, lag(t.a,Int64(2)) PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW, row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
                    state anchors: map, key (s), sub-key (k, sum(t.b) PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW, lag(t.a,Int64(2)) PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW, row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
                  Project k, s, sum as sum(t.b) PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW, lag as lag(t.a,Int64(2)) PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW, row_number as row_number() PARTITION BY [t.a] ORDER BY [t.b DESC NULLS FIRST] ROWS BETWEEN 1 PRECEDING AND CURRENT ROW  [exchange by (s)]  [unique (k)]
                    TopN by (a) order by b desc numbered  [unique (k)]
                        state rows: map, key (a), sub-key (b, k, s, sum, lag)
                        state anchors: map, key (a), sub-key (b, k, s, sum, lag)
                      Window by (a) order by b desc: sum(b) ROWS BETWEEN 1 PRECEDING AND CURRENT ROW, lag(a, Int64(2)) ROWS BETWEEN 1 PRECEDING AND CURRENT ROW  [exchange by (a)]  [unique (k)]
                          state rows: map, key (a), sub-key (b, k, s)
                          state anchors: map, key (a), sub-key (b, k, s)
                        Import t (k, a, b, s)  [exchange by (a)]  [unique (k)]
        "#]],
    );
    check(
        "select k from (select k, avg(f) over (partition by a) as m, f from t) x where f > m",
        expect![[r#"
            Materialize key (k)  [unique (k)]
              Project k  [exchange by (k)]  [unique (k)]
                Filter f > avg(t.f) PARTITION BY [t.a] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING  [unique (k)]
                  Project k, f, avg as avg(t.f) PARTITION BY [t.a] ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING  [unique (k)]
                    Window by (a): avg(f) ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING  [unique (k)]
                        state rows: map, key (a), sub-key (k, f)
                        state anchors: map, key (a), sub-key (k, f)
                      Import t (k, a, f)  [exchange by (a)]  [unique (k)]
        "#]],
    );
}

#[test]
fn limits_beside_their_rows() {
    check(
        "select t.k, l.x from t, lateral (select x from u where u.k = t.k order by x desc limit 2) l",
        expect![[r#"
            Materialize key (k, x)
              Project k, x  [exchange by (k, x)]
                InnerJoin (k) = (key)
                    state left: map, key (k), sub-key ()
                    state right: map, key (key), sub-key (x)
                  Import t (k)  [exchange by (k)]  [unique (k)]
                  TopN by (k) order by x desc limit 2  [exchange by (key)]
                      state rows: map, key (k), sub-key (x)
                    Import u (k, x)  [exchange by (k)]
        "#]],
    );
}
