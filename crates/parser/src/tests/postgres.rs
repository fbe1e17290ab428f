//! Statements of Postgres that are read, whoever refuses them later. Postgres 15 reads each of them.

#![allow(clippy::unwrap_used)]

use crate::{Statement, parse};

const READ: &str = r#"
SELECT 1
TABLE t
VALUES (1), (2)
(SELECT 1) UNION ALL (SELECT 2)
SELECT * FROM t JOIN (u JOIN v ON u.a = v.a) ON t.a = u.a
SELECT * FROM t CROSS JOIN u NATURAL JOIN w LEFT JOIN x USING (a)
SELECT * FROM t, LATERAL (SELECT * FROM u WHERE u.a = t.a) x
SELECT trim(both ' ' from a), extract(year from b), substring(a from 1 for 2), position('a' in b), overlay(a placing b from 1 for 2) FROM t
SELECT a = ANY (ARRAY[1,2]), b <> ALL (SELECT 1), NOT EXISTS (SELECT 1) FROM t
SELECT CASE WHEN a THEN 1 ELSE 2 END, CASE a WHEN 1 THEN 2 END FROM t
SELECT count(*) FILTER (WHERE a > 1), sum(DISTINCT b), string_agg(c, ',' ORDER BY d) FROM t GROUP BY GROUPING SETS ((a), ()), ROLLUP (b, c), CUBE (d)
SELECT a FROM t FETCH FIRST 3 ROWS ONLY
SELECT DISTINCT ON (a) a, b FROM t
SELECT '1'::int, DATE '2020-01-01', INTERVAL '1 day', TIMESTAMP WITH TIME ZONE '2020-01-01 00:00:00+00', E'a\nb', $$x$$, B'01', X'ff'
SELECT a || b, a -> 'x', a ->> 'y', a @> b, a ~ 'x', a !~* 'y', a ^ 2, |/ 4, @ -3 FROM t
SELECT sum(a) OVER (PARTITION BY b ORDER BY c ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t
SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY b)
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT * FROM r
SELECT current_date, current_timestamp, localtime, session_user, user, current_user
SELECT 'a'
SELECT * FROM generate_series(1, 10) WITH ORDINALITY AS g(a, b)
SELECT * FROM unnest(ARRAY[1,2]) AS x(y)
SELECT row(1, 2), (1, 2) = (3, 4), coalesce(a, b), nullif(a, b), greatest(1, 2) FROM t
SELECT * FROM t FOR UPDATE
INSERT INTO t DEFAULT VALUES
INSERT INTO s.t AS x (a, b) VALUES (1, DEFAULT), (2, 3) ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE x.b > 1 RETURNING *
INSERT INTO t SELECT * FROM u ON CONFLICT DO NOTHING
INSERT INTO t (a) WITH x AS (SELECT 1) SELECT * FROM x
UPDATE t SET a = 1, (b, c) = (2, 3) FROM u WHERE t.a = u.a RETURNING t.a
DELETE FROM t USING u WHERE t.a = u.a RETURNING *
TRUNCATE t, u RESTART IDENTITY CASCADE
TRUNCATE TABLE t
CREATE TABLE t (a int PRIMARY KEY, b varchar(10) NOT NULL DEFAULT 'x', c numeric(10,2), d timestamptz, e int[], f double precision, g timestamp without time zone, h char(3), i bytea, j uuid, k jsonb, l time, m interval, n real, o text COLLATE "C", UNIQUE (b), CONSTRAINT ck CHECK (a > 0), FOREIGN KEY (a) REFERENCES u (a))
CREATE TABLE IF NOT EXISTS s.t (a int, b int, PRIMARY KEY (a, b))
CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY, b int GENERATED ALWAYS AS (a + 1) STORED)
CREATE TABLE t AS SELECT 1 AS a
CREATE TABLE t (x) AS SELECT 1
CREATE TABLE t ()
CREATE VIEW v (a, b) AS SELECT 1, 2
CREATE OR REPLACE VIEW v AS SELECT 1
CREATE UNIQUE INDEX i ON t (a, lower(b) DESC)
CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t USING btree (a) INCLUDE (b) WHERE a > 1
CREATE SCHEMA IF NOT EXISTS s
CREATE SCHEMA s AUTHORIZATION ann
CREATE MATERIALIZED VIEW IF NOT EXISTS m (a) AS SELECT 1 WITH DATA
DROP TABLE IF EXISTS a, s.b CASCADE
DROP SCHEMA s RESTRICT
DROP INDEX i
ALTER TABLE t ADD COLUMN c int
ALTER TABLE t RENAME TO u
ALTER TABLE t ALTER COLUMN a SET NOT NULL
ALTER VIEW v RENAME TO w
ALTER INDEX i RENAME TO j
ALTER SCHEMA s RENAME TO s2
ALTER MATERIALIZED VIEW IF EXISTS m RENAME TO n
ALTER MATERIALIZED VIEW m SET SCHEMA s
ALTER SYSTEM SET a = 'b'
ALTER SYSTEM RESET ALL
SET a = 1
SET a TO 'x', 'y'
SET a = on
SET a = -1.5
SET a TO DEFAULT
SET LOCAL a = off
SET SESSION search_path TO public, s
SET x.y = 'z'
SET TIME ZONE 'UTC'
SET TIME ZONE LOCAL
SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE
SET TRANSACTION READ ONLY, DEFERRABLE
SET NAMES 'utf8'
SET client_encoding TO 'UTF8'
SET standard_conforming_strings = on
SET DateStyle = 'ISO, MDY'
SET SESSION AUTHORIZATION DEFAULT
RESET a
RESET ALL
SHOW a
SHOW ALL
SHOW TRANSACTION ISOLATION LEVEL
SHOW TIME ZONE
SHOW search_path
BEGIN
BEGIN WORK
BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, NOT DEFERRABLE
BEGIN TRANSACTION READ WRITE
START TRANSACTION ISOLATION LEVEL REPEATABLE READ DEFERRABLE
COMMIT
COMMIT AND CHAIN
END
ROLLBACK
ROLLBACK WORK
ABORT
SAVEPOINT a
ROLLBACK TO SAVEPOINT a
ROLLBACK TO a
ROLLBACK WORK TO SAVEPOINT a
RELEASE a
RELEASE SAVEPOINT a
SAVEPOINT savepoint
ROLLBACK TO savepoint
PREPARE p (int, text) AS SELECT $1, $2
PREPARE p AS INSERT INTO t VALUES ($1)
EXECUTE p (1, 'x')
EXECUTE p
DEALLOCATE p
DEALLOCATE ALL
DEALLOCATE PREPARE p
DECLARE c CURSOR FOR SELECT 1
DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT 1
FETCH 10 FROM c
FETCH ALL FROM c
FETCH FORWARD 5 FROM c
FETCH NEXT FROM c
FETCH c
FETCH 10 c
FETCH ALL IN c
MOVE 5 FROM c
CLOSE c
CLOSE ALL
COPY t FROM STDIN
COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER true)
COPY t FROM STDIN CSV HEADER
COPY t TO STDOUT
COPY (SELECT 1) TO STDOUT WITH (FORMAT csv)
COPY t FROM '/x'
EXPLAIN SELECT 1
EXPLAIN ANALYZE VERBOSE SELECT 1
EXPLAIN (ANALYZE, VERBOSE off, FORMAT json) SELECT 1
EXPLAIN (SELECT 1)
EXPLAIN INSERT INTO t VALUES (1)
EXPLAIN CREATE MATERIALIZED VIEW m AS SELECT 1
EXPLAIN EXECUTE p
COMMENT ON TABLE t IS 'x'
COMMENT ON COLUMN t.a IS NULL
COMMENT ON MATERIALIZED VIEW m IS 'x'
GRANT SELECT ON t TO ann
GRANT ALL ON ALL TABLES IN SCHEMA s TO ann
REVOKE ALL ON t FROM ann
DISCARD ALL
LISTEN x
UNLISTEN *
NOTIFY x, 'y'
VACUUM
VACUUM t
ANALYZE
ANALYZE t
LOCK TABLE t IN EXCLUSIVE MODE
REFRESH MATERIALIZED VIEW m
MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1)
CHECKPOINT
CLUSTER
REINDEX TABLE t
DO $$ BEGIN END $$
CALL f(1)
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1; select 2'
CREATE TEMP TABLE t (a int)
SELECT * INTO x FROM t
SELECT U&'\0061', U&"d\0061t"
SELECT "a"."b"."c", "select" FROM "t"
SELECT a.* FROM t a
SELECT t FROM t
SELECT * FROM ONLY t
UPDATE ONLY t AS x SET a = DEFAULT
DELETE FROM ONLY t
SELECT $1::int, $2
SELECT 1 IS TRUE, NULL IS UNKNOWN, NOT a IS NOT FALSE FROM t
SELECT - - 1, + 1, 2 ^ 3 ^ 4, 1 <> 2, 1 != 2
SELECT cast(a AS numeric(10,2)), a::timestamp(3), a::varchar FROM t
SELECT count(ALL a), percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t
SELECT 'x' COLLATE "C", a COLLATE "C" FROM t
SELECT interval '1' day, interval '1-2' year to month
SELECT a FROM t WHERE (a, b) IN (SELECT 1, 2)
SELECT date, time, timestamp, year, name, value, type, key, user_id, status, source, sink FROM t
SELECT t.date AS date, x.time time FROM t x
SELECT position, timestamp FROM t
SELECT left(a, 1), right(a, 2), replace(a, 'b', 'c'), format('%s', a), mod(1, 2), log(2, 3), char_length(a) FROM t
SELECT nextval('s'), now() - interval '5 minutes'
SELECT at, before, version, changes, sample FROM t
SELECT * FROM t at
SELECT * FROM t version
SELECT * FROM t emit
SELECT a emit FROM t
"#;

#[test]
fn statements_of_postgres_are_read() {
    let mut read = 0;
    for sql in READ.lines().filter(|line| !line.is_empty()) {
        match parse(sql) {
            Ok(statements) => assert_eq!((statements.len(), statements[0].text.as_str()), (1, sql)),
            Err(error) => panic!("{sql}: {error} at {}", error.position),
        }
        read += 1;
    }
    assert!(read > 150, "only {read} statements");
}

/// Damaged statements neither panic nor hang, and their errors lie in the text.
#[test]
fn damage_is_an_error_inside_the_text() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = move |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n as u64) as usize
    };
    let lines: Vec<&str> = READ.lines().chain(OURS).filter(|l| !l.is_empty()).collect();
    let words: Vec<&str> = lines.iter().flat_map(|l| l.split_inclusive(' ')).collect();
    let mut errors = 0;
    for _ in 0..5_000 {
        let mut parts: Vec<&str> = lines[below(lines.len())].split_inclusive(' ').collect();
        for _ in 0..=below(3) {
            let at = below(parts.len());
            match below(3) {
                0 if parts.len() > 1 => drop(parts.remove(at)),
                1 => parts.swap(at, 0),
                _ => parts.insert(at, words[below(words.len())]),
            }
        }
        let sql = parts.concat();
        if let Err(error) = parse(&sql) {
            errors += 1;
            let end = sql.chars().count() + 1;
            assert!((1..=end).contains(&error.position), "{sql}: {error:?}");
        }
    }
    assert!(errors > 1_000, "only {errors} errors");
}

const OURS: [&str; 8] = [
    "CREATE SOURCE s (a int, WATERMARK FOR a AS a - 1) INCLUDE key AS k WITH (connector = 'file') FORMAT PLAIN ENCODE CSV (a = 1)",
    "CREATE SINK k AS SELECT a FROM t WHERE b WITH (connector = 'file') FORMAT PLAIN ENCODE JSON",
    "CREATE OR REPLACE MATERIALIZED VIEW v (a) WITH (b = c) AS SELECT a FROM t EMIT ON WINDOW CLOSE",
    "SUBSCRIBE TO (SELECT a FROM t) WITH (SNAPSHOT = false, PROGRESS) AS OF 1 UP TO 2 LIMIT 3",
    "SAVEPOINT a FOR MATERIALIZED VIEW v, w TO 'url' WITH (format = 'parquet')",
    "EXPLAIN (VERBOSE, FORMAT json) CREATE SINK k FROM v WITH (connector = 'blackhole')",
    "ALTER MATERIALIZED VIEW v SET (a = 1, b.c = 'd')",
    "SHOW MATERIALIZED VIEWS FROM s LIKE 'a%'",
];

/// Postgres reads these; we do not, and say so with a syntax error instead of reading something else.
#[test]
fn known_gaps_are_errors() {
    for sql in [
        "SELECT * FROM t JOIN u JOIN v ON u.a = v.a ON t.a = u.a",
        "SELECT a FROM t ORDER BY a USING >",
        "SELECT a BETWEEN SYMMETRIC 2 AND 1 FROM t",
        "SELECT",
    ] {
        assert_eq!(parse(sql).expect_err(sql).sqlstate, "42601");
    }
}

#[test]
fn what_is_known_by_name_only_says_its_name() {
    for (sql, feature) in [
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1; select 2'",
            "CREATE FUNCTION",
        ),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS $$ select 1; $$",
            "CREATE FUNCTION",
        ),
        (
            "CREATE SECRET s WITH (backend = 'meta') AS 'x'",
            "CREATE SECRET",
        ),
        (
            "CREATE CONNECTION c WITH (type = 'kafka')",
            "CREATE CONNECTION",
        ),
        (
            "CREATE SUBSCRIPTION s FROM v WITH (retention = '1 day')",
            "CREATE SUBSCRIPTION",
        ),
        ("CREATE TEMP TABLE t (a int)", "CREATE TEMP"),
        ("CREATE USER ann", "CREATE USER"),
        ("DROP FUNCTION f", "DROP FUNCTION"),
        ("DROP SECRET IF EXISTS s", "DROP SECRET"),
        ("ALTER SOURCE s ADD COLUMN a int", "ALTER SOURCE"),
        ("ALTER VIEW v OWNER TO ann", "ALTER VIEW"),
        ("REFRESH MATERIALIZED VIEW m", "REFRESH MATERIALIZED VIEW"),
        (
            "DECLARE c SUBSCRIPTION CURSOR FOR s",
            "DECLARE SUBSCRIPTION CURSOR",
        ),
        ("SHOW INTERNAL TABLES", "SHOW INTERNAL TABLES"),
        ("DO $$ BEGIN END $$", "DO"),
    ] {
        let statements = parse(sql).expect(sql);
        let expected = Statement::NotBuilt {
            feature: feature.to_string(),
        };
        assert_eq!(
            (statements.len(), &statements[0].statement),
            (1, &expected),
            "{sql}"
        );
    }
}
