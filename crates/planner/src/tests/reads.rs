//! What expressions mean, by running ad-hoc queries through the session that reads use. Expected values are Postgres 15's
//! (`select …` in psql), except where the module docs of the crate say that a type differs.

use super::{Fixture, described, query};
use crate::functions::session_state_defaults;
use crate::{Planner, bind};
use datafusion::arrow::array::RecordBatch;
use datafusion::prelude::SessionContext;
use tidegate_types::text::write_text;
use tidegate_types::{SqlError, SqlType};

/// One row, columns separated by `|`; or the error.
fn read(sql: &str) -> String {
    let fixture = Fixture::new("create table t (k int primary key);");
    let run = || -> Result<Vec<RecordBatch>, SqlError> {
        let planned = Planner::new(&fixture, sql).query(query(sql), &[])?;
        let plan = bind(planned.plan, &mut |relation| {
            let table = datafusion::datasource::empty::EmptyTable::new(relation.schema.clone());
            Ok(datafusion::datasource::provider_as_source(
                std::sync::Arc::new(table),
            ))
        })?;
        let context = SessionContext::new_with_state(session_state_defaults().build());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let collected =
            runtime.block_on(async { context.execute_logical_plan(plan).await?.collect().await });
        collected.map_err(|e| crate::errors::sql_error(&e, sql))
    };
    match run() {
        Ok(batches) => shown(&batches),
        Err(error) => described(&error).lines().next().unwrap().to_owned(),
    }
}

fn shown(batches: &[RecordBatch]) -> String {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells =
                batch
                    .columns()
                    .iter()
                    .zip(batch.schema_ref().fields())
                    .map(|(column, field)| {
                        let mut text = String::new();
                        match column.is_null(row) {
                            true => text.push_str("null"),
                            false => write_text(
                                column.as_ref(),
                                &SqlType::from_field(field),
                                row,
                                &mut text,
                            ),
                        }
                        text
                    });
            rows.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    rows.join("\n")
}

fn check(expressions: &str, expected: &str) {
    assert_eq!(
        read(&format!("select {expressions}")),
        expected,
        "select {expressions}"
    );
}

#[test]
fn numbers() {
    check("7 / 2, -7 / 2, 7 % 3, mod(-7, 3)", "3|-3|1|-1");
    check(
        "1.0 / 3, 10 / 4.0, 2.5 * 4",
        "0.3333333333333333|2.5000000000000000|10.0",
    );
    check(
        "round(2.567, 2), round(2.5), ceil(2.1), floor(-2.1)",
        "2.57|3|3|-3",
    );
    check("1 / 0", "ERROR 22012: division by zero");
    check("1.0 / 0", "ERROR 22012: division by zero");
    check("2147483647 + 1", "ERROR 22003: integer out of range");
    check("100000 * 100000", "ERROR 22003: integer out of range");
    check("2147483648 + 1, -5 - 3, 2 * 3 + 1", "2147483649|-8|7");
    assert_eq!(
        read("select x + 1 from (values (2147483647)) v(x)"),
        "ERROR 22003: integer out of range"
    );
    assert_eq!(
        read("select sum(x * 2) from (values (2147483647)) v(x)"),
        "ERROR 22003: integer out of range"
    );
    check("sign(-3), power(2, 10), sqrt(16.0)", "-1|1024|4");
    check(
        "pg_typeof(1), pg_typeof(1.5), pg_typeof('x'), pg_typeof(1::bigint), pg_typeof(null)",
        "integer|numeric|text|bigint|unknown",
    );
}

#[test]
fn casts_to_whole_numbers_round() {
    check("1.5::int, 2.5::int, (-1.5)::int, 2.25::bigint", "2|3|-2|2");
    check(
        "0.5::float8::int, 1.5::float8::int, 2.5::float8::int, 3.1::real::bigint",
        "0|2|2|3",
    );
    assert_eq!(
        read("select round(n, 1), round(n, 0), n::int from (values (2.25), (-0.55)) v(n)"),
        "2.3|2|2\n-0.6|-1|-1"
    );
}

#[test]
fn aggregates_have_postgres_types() {
    let values = "from (values (1, 5::bigint, 1.5), (2, 6, 2.5), (2, null, 3.5)) v(i, b, n)";
    assert_eq!(
        read(&format!("select sum(i), sum(b), sum(n), count(b) {values}")),
        "5|11|7.5|2"
    );
    assert_eq!(
        read(&format!(
            "select pg_typeof(sum(i)), pg_typeof(sum(b)), pg_typeof(avg(i)), pg_typeof(avg(1.0::float8)) {values}"
        )),
        "bigint|numeric|numeric|double precision"
    );
    assert_eq!(
        read(&format!(
            "select avg(i), avg(b), avg(n), avg(distinct i), sum(distinct i) {values}"
        )),
        "1.6666666666666667|5.5000000000000000|2.5000000000000000|1.5000000000000000|3"
    );
    assert_eq!(
        read("select sum(x) from (values (9223372036854775807), (9223372036854775807)) v(x)"),
        "18446744073709551614"
    );
    assert_eq!(
        read("select sum(k), avg(k), count(*) from t"),
        "null|null|0"
    );
    assert_eq!(
        read(
            "select string_agg(x, '-' order by x desc), pg_typeof(string_agg(x, '')) from (values ('a'), ('b'), (null), ('b')) v(x)"
        ),
        "b-b-a|text"
    );
    assert_eq!(
        read(
            "select string_agg(distinct x, ',' order by x) from (values ('b'), ('a'), ('b')) v(x)"
        ),
        "a,b"
    );
}

#[test]
fn not_in_below_or_knows_null() {
    // Postgres: NOT IN is unknown when the list has a NULL that does not match otherwise.
    let ask = |x: &str, list: &str| {
        read(&format!(
            "select count(*) from (values ({x})) v(x) where x = 99 or x not in (select y from (values {list}) w(y))"
        ))
    };
    assert_eq!(ask("1", "(2), (3)"), "1");
    assert_eq!(ask("1", "(2), (null)"), "0");
    assert_eq!(ask("2", "(2), (null)"), "0");
    assert_eq!(ask("null::int", "(2), (3)"), "0");
    assert_eq!(ask("99", "(99), (null)"), "1");
    let empty =
        "select count(*) from (values (null::int)) v(x) where x = 99 or x not in (select k from t)";
    assert_eq!(read(empty), "1");
    let negated = "select count(*) from (values (1)) v(x) where not (x = 99 and true or x in (select y from (values (2), (null)) w(y)))";
    assert_eq!(read(negated), "0");
    let correlated = "select count(*) from (select 1 as a) q where exists (select 1 from (values (1::bigint)) w(y) where y = q.a)";
    assert_eq!(read(correlated), "1");
}

#[test]
fn text_and_casts() {
    check("1::text || 'x', true::text, 1.50::text", "1x|true|1.50");
    check(
        "timestamp '2024-01-02 03:04:05'::text, date '2024-01-02'::text",
        "2024-01-02 03:04:05|2024-01-02",
    );
    check(
        "'12'::int + 1, '2024-01-02'::date + interval '1 day'",
        "13|2024-01-03 00:00:00",
    );
    check(
        "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    );
    check(
        "'x'::int",
        "ERROR 22P02: invalid input syntax for type integer: \"x\"",
    );
    check(
        "'{\"b\":1, \"a\": [1, 2]}'::jsonb",
        "{\"a\": [1, 2], \"b\": 1}",
    );
    check(
        "'{\"a\": {\"b\": \"x\"}}'::jsonb -> 'a' ->> 'b', '{\"a\": [1]}'::jsonb -> 'a'",
        "x|[1]",
    );
    check(
        "'abcdef'::varchar(3), upper('ab'), length('häm')",
        "abc|AB|3",
    );
    check(
        "to_char(timestamp '2024-02-05 15:04:09', 'YYYY-MM-DD HH24:MI:SS')",
        "2024-02-05 15:04:09",
    );
    check(
        "split_part('a/b/c', '/', 2), replace('aba', 'a', 'x'), substring('hello' from 2 for 3)",
        "b|xbx|ell",
    );
    check(
        "extract(year from date '2024-05-06'), date_trunc('month', timestamp '2024-05-06 07:08:09')",
        "2024|2024-05-01 00:00:00",
    );
    check(
        "date '2024-01-02' < '2024-01-03', 5 in ('5', '6'), 5 between '1' and '9'",
        "t|t|t",
    );
    check(
        "date '2024-03-01' - date '2024-02-01', date '2024-01-31' + 1",
        "29|2024-02-01",
    );
    check(
        "date '2024-01-31' + interval '1 month', timestamp '2024-03-31 10:00:00' - interval '1 month 2 hours'",
        "2024-02-29 00:00:00|2024-02-29 08:00:00",
    );
    check(
        "timestamp '2500-01-01 00:00:00' + interval '1 day', timestamptz '2024-01-01 00:00:00+00' + interval '90 minutes'",
        "2500-01-02 00:00:00|2024-01-01 01:30:00+00",
    );
    check(
        "timestamp '2024-01-03 02:00:00' - timestamp '2024-01-01 00:00:00'",
        "2 days 02:00:00",
    );
    check(
        "pg_typeof(date '2024-01-01' + interval '1 day'), pg_typeof(now() - now())",
        "timestamp without time zone|interval",
    );
    let dates = "from (values (date '2024-01-02')) v(d)";
    assert_eq!(
        read(&format!(
            "select pg_typeof(case when d is null then '2024-01-03' else d end), case when d is null then '2024-01-03' else d end {dates}"
        )),
        "date|2024-01-02"
    );
    check("array[1,2]::text, array[1,2]", "{1,2}|{1,2}");
}

#[test]
fn names_of_columns() {
    let fixture = Fixture::new("create table t (k int primary key, a int);");
    let names = |sql: &str| -> Vec<String> {
        let planned = Planner::new(&fixture, sql).query(query(sql), &[]).unwrap();
        planned
            .schema
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect()
    };
    assert_eq!(
        names("select count(*), sum(a), a + 1, a, a from t group by a"),
        ["count", "sum", "?column?", "a", "a"]
    );
    assert_eq!(
        names("select s.count from (select count(*) from t) s"),
        ["count"]
    );
    assert_eq!(
        names("select a, count(*) from t group by 1 order by count(*) desc, 1"),
        ["a", "count"]
    );
    assert_eq!(
        names("select upper(x.y) from (select k::text as y from t) x group by upper(x.y)"),
        ["upper"]
    );
    assert_eq!(names("select * from t, t t2"), ["k", "a", "k", "a"]);
}

#[test]
fn parameters_are_typed_by_their_use() {
    let fixture = Fixture::new("create table t (k int primary key, a text);");
    let sql = "select k from t where k = $1 and a = $2";
    let planned = Planner::new(&fixture, sql).query(query(sql), &[]).unwrap();
    assert_eq!(
        planned.parameters().unwrap(),
        [Some(SqlType::Integer), Some(SqlType::Text)]
    );
}
