//! Errors, their texts and their positions. The large table was asked of Postgres 15: it answers the same, character for
//! character.

#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};

use crate::parse;

/// `statement | message | position`, as Postgres 15 reports them.
const AS_POSTGRES: &str = r#"
SELECT 1 2 | syntax error at or near "2" | 10
SELECT * FORM t | syntax error at or near "FORM" | 10
SELECT a FORM t | syntax error at or near "t" | 15
SELEC 1 | syntax error at or near "SELEC" | 1
SELECT ( | syntax error at end of input | 9
SELECT (1 | syntax error at end of input | 10
SELECT 1 + | syntax error at end of input | 11
SELECT * FROM | syntax error at end of input | 14
SELECT * FROM t WHERE | syntax error at end of input | 22
SELECT * FROM t WHERE a = | syntax error at end of input | 26
SELECT * FROM t GROUP a | syntax error at or near "a" | 23
SELECT * FROM t ORDER a | syntax error at or near "a" | 23
SELECT a, FROM t | syntax error at or near "FROM" | 11
SELECT a b c FROM t | syntax error at or near "c" | 12
SELECT * FROM (SELECT a FORM t) x | syntax error at or near "t" | 30
SELECT * FROM (SELECT a b c) x | syntax error at or near "c" | 27
SELECT * FROM (SELECT a FROM t WHERE) x | syntax error at or near ")" | 37
SELECT * FROM t JOIN | syntax error at end of input | 21
SELECT * FROM t JOIN u ON | syntax error at end of input | 26
SELECT CASE WHEN a THEN 1 ELSE END | syntax error at or near "END" | 32
SELECT CASE a END | syntax error at or near "END" | 15
SELECT CAST(a AS) | syntax error at or near ")" | 17
SELECT a FROM t LIMIT | syntax error at end of input | 22
SELECT a IN () FROM t | syntax error at or near ")" | 14
SELECT count(* FROM t | syntax error at or near "FROM" | 16
SELECT f(a,) FROM t | syntax error at or near ")" | 12
SELECT 'abc | unterminated quoted string at or near "'abc" | 8
SELECT "abc | unterminated quoted identifier at or near ""abc" | 8
SELECT $$abc | unterminated dollar-quoted string at or near "$$abc" | 8
SELECT /* abc | unterminated /* comment at or near "/* abc" | 8
SELECT "" | zero-length delimited identifier at or near """" | 8
SELECT 'é' 2 | syntax error at or near "2" | 12
SELECT 1; SELECT 1 2 | syntax error at or near "2" | 20
SELECT (; SELECT 1 | syntax error at or near ";" | 9
INSERT INTO t VALUSE (1) | syntax error at or near "VALUSE" | 15
INSERT INTO t VALUES (1 | syntax error at end of input | 24
INSERT INTO t (a,) VALUES (1) | syntax error at or near ")" | 18
INSERT t VALUES (1) | syntax error at or near "t" | 8
INSERT INTO VALUES (1) | syntax error at or near "1" | 21
UPDATE t a = 1 | syntax error at or near "=" | 12
UPDATE t SET a | syntax error at end of input | 15
UPDATE t SET a = 1 WERE b | syntax error at or near "WERE" | 20
DELETE t WHERE a | syntax error at or near "t" | 8
DELETE FROM t WHERE | syntax error at end of input | 20
CREATE TABLE | syntax error at end of input | 13
CREATE TABLE t | syntax error at end of input | 15
CREATE TABLE t ( | syntax error at end of input | 17
CREATE TABLE t (a int,) | syntax error at or near ")" | 23
CREATE TABLE t (a int, PRIMARY KEY) | syntax error at or near ")" | 35
CREATE TABLE t (a int b int) | syntax error at or near "b" | 23
CREATE TABLE t (select int) | syntax error at or near "select" | 17
CREATE TABLE select (a int) | syntax error at or near "select" | 14
CREATE TABLE t (a int) foo | syntax error at or near "foo" | 24
CREATE OR REPLACE TABLE t (a int) | syntax error at or near "TABLE" | 19
CREATE VIEW v | syntax error at end of input | 14
CREATE VIEW v AS | syntax error at end of input | 17
CREATE VIEW AS SELECT 1 | syntax error at or near "AS" | 13
CREATE MATERIALIZED v AS SELECT 1 | syntax error at or near "v" | 21
CREATE MATERIALIZED VIEW v | syntax error at end of input | 27
CREATE MATERIALIZED VIEW AS SELECT 1 | syntax error at or near "AS" | 26
CREATE MATERIALIZED VIEW v AS SELECT * FROM | syntax error at end of input | 44
CREATE MATERIALIZED VIEW v AS DELETE FROM t | syntax error at or near "DELETE" | 31
CREATE MATERIALIZED VIEW v (a,) AS SELECT 1 | syntax error at or near ")" | 31
CREATE MATERIALIZED VIEW v AS SELECT 1 garbage 2 | syntax error at or near "2" | 48
CREATE NOSUCH x | syntax error at or near "NOSUCH" | 8
CREATE | syntax error at end of input | 7
DROP | syntax error at end of input | 5
DROP TABLE | syntax error at end of input | 11
DROP TABLE t CASCADE RESTRICT | syntax error at or near "RESTRICT" | 22
DROP TABLE t, | syntax error at end of input | 14
DROP TABLE IF t | syntax error at or near "t" | 15
DROP TABLE IF EXISTS | syntax error at end of input | 21
DROP NOSUCH t | syntax error at or near "NOSUCH" | 6
DROP MATERIALIZED TABLE t | syntax error at or near "TABLE" | 19
ALTER MATERIALIZED VIEW | syntax error at end of input | 24
ALTER MATERIALIZED VIEW v | syntax error at end of input | 26
ALTER SYSTEM | syntax error at end of input | 13
ALTER SYSTEM SET | syntax error at end of input | 17
ALTER SYSTEM SET a | syntax error at end of input | 19
ALTER SYSTEM SET a = | syntax error at end of input | 21
SHOW | syntax error at end of input | 5
SHOW a b | syntax error at or near "b" | 8
EXPLAIN | syntax error at end of input | 8
EXPLAIN DROP TABLE t | syntax error at or near "DROP" | 9
EXPLAIN (ANALYZE | syntax error at end of input | 17
EXPLAIN (FOO) SELECT 1 | unrecognized EXPLAIN option "foo" | 10
EXPLAIN SELECT 1 2 | syntax error at or near "2" | 18
SAVEPOINT | syntax error at end of input | 10
SAVEPOINT a b | syntax error at or near "b" | 13
RELEASE | syntax error at end of input | 8
ROLLBACK TO | syntax error at end of input | 12
ROLLBACK TO a b | syntax error at or near "b" | 15
BEGIN ISOLATION LEVEL | syntax error at end of input | 22
BEGIN ISOLATION LEVEL FOO | syntax error at or near "FOO" | 23
SET | syntax error at end of input | 4
SET a | syntax error at end of input | 6
SET a = | syntax error at end of input | 8
CHECKPOINT x | syntax error at or near "x" | 12
TABLE | syntax error at end of input | 6
VALUES | syntax error at end of input | 7
VALUES (1 | syntax error at end of input | 10
WITH a AS (SELECT 1)  | syntax error at end of input | 22
WITH a SELECT 1 | syntax error at or near "SELECT" | 8
SELECT a[1 FROM t | syntax error at or near "FROM" | 12
SELECT a:: | syntax error at end of input | 11
SELECT * FROM t,  | syntax error at end of input | 18
SELECT * FROM t UNION | syntax error at end of input | 22
SELECT 1 AS | syntax error at end of input | 12
SELECT 1 FROM t AS | syntax error at end of input | 19
SELECT sum(a) OVER (PARTITION a) FROM t | syntax error at or near "a" | 31
SELECT * FROM t WHERE a BETWEEN 1 | syntax error at end of input | 34
SELECT * FROM t WHERE a LIKE | syntax error at end of input | 29
SELECT a FROM t HAVING | syntax error at end of input | 23
FOO BAR | syntax error at or near "FOO" | 1
(SELECT 1 | syntax error at end of input | 10
SELECT 1) | syntax error at or near ")" | 9
COPY t FROM | syntax error at end of input | 12
COPY t STDIN | syntax error at or near "STDIN" | 8
PREPARE p SELECT 1 | syntax error at or near "SELECT" | 11
DECLARE c FOR SELECT 1 | syntax error at or near "FOR" | 11
TRUNCATE | syntax error at end of input | 9
GRANT | syntax error at end of input | 6
SELECT (SELECT a FROM t WHERE) | syntax error at or near ")" | 30
SELECT a FROM t WHERE a IN (SELECT b FROM u GROUP) | syntax error at or near ")" | 50
SELECT a FROM (t JOIN u ON) x | syntax error at or near ")" | 27
INSERT INTO s.t FOO (1) | syntax error at or near "FOO" | 17
CREATE VIEW select AS SELECT 1 | syntax error at or near "select" | 13
CREATE VIEW v AS SELECT CASE WHEN a THEN 1 ELSE END FROM t | syntax error at or near "END" | 49
"#;

#[test]
fn syntax_errors_are_those_of_postgres() {
    let mut compared = 0;
    for line in AS_POSTGRES.lines().filter(|line| !line.is_empty()) {
        let (rest, position) = line.rsplit_once(" | ").unwrap();
        let (sql, message) = rest.rsplit_once(" | ").unwrap();
        let error = parse(sql).expect_err(sql);
        assert_eq!(
            (error.message.as_str(), error.position, error.sqlstate),
            (message, position.parse().unwrap(), "42601"),
            "{sql}"
        );
        compared += 1;
    }
    assert!(compared > 100, "only {compared} statements");
}

/// The error as psql shows it, with the caret under the position.
fn check(sql: &str, expected: Expect) {
    let error = parse(sql).expect_err(sql);
    let mut shown = format!(
        "{sql}\n{:>width$}\n{}: {}\n",
        "^",
        error.sqlstate,
        error.message,
        width = error.position
    );
    if let Some(hint) = error.hint {
        shown += &format!("hint: {hint}\n");
    }
    expected.assert_eq(&shown);
}

#[test]
fn our_statements_point_at_what_is_wrong() {
    check(
        "CREATE SOURCE s (a int)",
        expect![[r#"
        CREATE SOURCE s (a int)
                               ^
        42601: syntax error at end of input
        hint: expected WITH (connector = '…', …)
    "#]],
    );
    check(
        "CREATE SOURCE s (a int) WITH connector = 'file'",
        expect![[r#"
            CREATE SOURCE s (a int) WITH connector = 'file'
                                    ^
            42601: syntax error at or near "WITH"
            hint: expected WITH (connector = '…', …)
        "#]],
    );
    check(
        "CREATE SOURCE s (a) WITH (connector = 'file')",
        expect![[r#"
            CREATE SOURCE s (a) WITH (connector = 'file')
                             ^
            42601: column "a" has no type
        "#]],
    );
    check(
        "CREATE SOURCE s WITH (connector 'file')",
        expect![[r#"
        CREATE SOURCE s WITH (connector 'file')
                                        ^
        42601: syntax error at or near "'file'"
        hint: expected "="
    "#]],
    );
    check(
        "CREATE SOURCE s WITH (connector = )",
        expect![[r#"
        CREATE SOURCE s WITH (connector = )
                                          ^
        42601: syntax error at or near ")"
        hint: expected a value
    "#]],
    );
    check(
        "CREATE SOURCE s WITH (a = 1, b = 2, A = 3)",
        expect![[r#"
        CREATE SOURCE s WITH (a = 1, b = 2, A = 3)
                                            ^
        42601: option "a" is given more than once
    "#]],
    );
    check(
        "CREATE SOURCE s WITH (a = 'b') FORMAT PLAIN",
        expect![[r#"
        CREATE SOURCE s WITH (a = 'b') FORMAT PLAIN
                                                   ^
        42601: syntax error at end of input
        hint: expected ENCODE
    "#]],
    );
    check(
        "CREATE SOURCE s WITH (a = 'b') WITH (c = 'd')",
        expect![[r#"
            CREATE SOURCE s WITH (a = 'b') WITH (c = 'd')
                                           ^
            42601: syntax error at or near "WITH"
        "#]],
    );
    check(
        "CREATE OR REPLACE SOURCE s WITH (a = 'b')",
        expect![[r#"
        CREATE OR REPLACE SOURCE s WITH (a = 'b')
                          ^
        42601: syntax error at or near "SOURCE"
    "#]],
    );
    check(
        "CREATE SOURCE s (a int, WATERMARK FOR a) WITH (a = 'b')",
        expect![[r#"
            CREATE SOURCE s (a int, WATERMARK FOR a) WITH (a = 'b')
                                                   ^
            42601: syntax error at or near ")"
            hint: expected AS
        "#]],
    );
    check(
        "CREATE SOURCE s (a int, WATERMARK FOR a AS) WITH (a = 'b')",
        expect![[r#"
            CREATE SOURCE s (a int, WATERMARK FOR a AS) WITH (a = 'b')
                                                      ^
            42601: syntax error at or near ")"
            hint: expected an expression
        "#]],
    );
    check(
        "CREATE TABLE t (a int) ON CONFLICT REPLACE",
        expect![[r#"
        CREATE TABLE t (a int) ON CONFLICT REPLACE
                                           ^
        42601: syntax error at or near "REPLACE"
        hint: expected OVERWRITE, IGNORE, DO NOTHING, DO UPDATE FULL or DO UPDATE IF NOT NULL
    "#]],
    );
    check(
        "CREATE TABLE t (a int) APPEND",
        expect![[r#"
        CREATE TABLE t (a int) APPEND
                               ^
        42601: syntax error at or near "APPEND"
    "#]],
    );
    check(
        "CREATE SINK k",
        expect![[r#"
        CREATE SINK k
                     ^
        42601: syntax error at end of input
        hint: expected AS
    "#]],
    );
    check(
        "CREATE SINK k FROM v",
        expect![[r#"
        CREATE SINK k FROM v
                            ^
        42601: syntax error at end of input
        hint: expected WITH (connector = '…', …)
    "#]],
    );
    check(
        "CREATE SINK k AS SELECT a FROM WITH (connector = 'file')",
        expect![[r#"
            CREATE SINK k AS SELECT a FROM WITH (connector = 'file')
                                           ^
            42601: syntax error at or near "WITH"
            hint: expected identifier
        "#]],
    );
    check(
        "CREATE SINK k AS SELECT a FROM t x y WITH (connector = 'file')",
        expect![[r#"
            CREATE SINK k AS SELECT a FROM t x y WITH (connector = 'file')
                                               ^
            42601: syntax error at or near "y"
        "#]],
    );
    check(
        "CREATE SINK k AS SELECT a FROM t WITH (connector = 'file') garbage",
        expect![[r#"
            CREATE SINK k AS SELECT a FROM t WITH (connector = 'file') garbage
                                                                       ^
            42601: syntax error at or near "garbage"
        "#]],
    );
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT a FROM t EMIT ON WINDOW",
        expect![[r#"
            CREATE MATERIALIZED VIEW v AS SELECT a FROM t EMIT ON WINDOW
                                                                        ^
            42601: syntax error at end of input
            hint: expected CLOSE
        "#]],
    );
    check(
        "CREATE MATERIALIZED VIEW v WITH (a) AS SELECT 1",
        expect![[r#"
            CREATE MATERIALIZED VIEW v WITH (a) AS SELECT 1
                                              ^
            42601: syntax error at or near ")"
            hint: expected "="
        "#]],
    );
    check(
        "SUBSCRIBE",
        expect![[r#"
        SUBSCRIBE
                 ^
        42601: syntax error at end of input
    "#]],
    );
    check(
        "SUBSCRIBE TO SELECT 1",
        expect![[r#"
        SUBSCRIBE TO SELECT 1
                     ^
        42601: syntax error at or near "SELECT"
        hint: put the query in parentheses: SUBSCRIBE TO (SELECT …)
    "#]],
    );
    check(
        "SUBSCRIBE v WITH (SNAPSHOT, SPEED)",
        expect![[r#"
        SUBSCRIBE v WITH (SNAPSHOT, SPEED)
                                    ^
        42601: unrecognized SUBSCRIBE option "speed"
        hint: known options: snapshot, progress
    "#]],
    );
    check(
        "SUBSCRIBE v WITH (SNAPSHOT = maybe)",
        expect![[r#"
        SUBSCRIBE v WITH (SNAPSHOT = maybe)
                                     ^
        42601: snapshot requires a Boolean value
    "#]],
    );
    check(
        "SUBSCRIBE v AS 7",
        expect![[r#"
        SUBSCRIBE v AS 7
                       ^
        42601: syntax error at or near "7"
        hint: expected OF
    "#]],
    );
    check(
        "SUBSCRIBE v LIMIT -1",
        expect![[r#"
        SUBSCRIBE v LIMIT -1
                          ^
        42601: syntax error at or near "-"
        hint: expected a whole number
    "#]],
    );
    check(
        "SAVEPOINT s FOR VIEW v",
        expect![[r#"
        SAVEPOINT s FOR VIEW v
                        ^
        42601: syntax error at or near "VIEW"
        hint: expected MATERIALIZED
    "#]],
    );
    check(
        "SAVEPOINT s TO bucket",
        expect![[r#"
        SAVEPOINT s TO bucket
                       ^
        42601: syntax error at or near "bucket"
        hint: expected a string literal
    "#]],
    );
    check(
        "SAVEPOINT select",
        expect![[r#"
        SAVEPOINT select
                  ^
        42601: syntax error at or near "select"
    "#]],
    );
    check(
        "ROLLBACK TO SAVEPOINT a WITH sinks = 'skip'",
        expect![[r#"
        ROLLBACK TO SAVEPOINT a WITH sinks = 'skip'
                                ^
        42601: syntax error at or near "WITH"
    "#]],
    );
    check(
        "VERIFY v",
        expect![[r#"
        VERIFY v
               ^
        42601: syntax error at or near "v"
        hint: expected SAVEPOINT or MATERIALIZED VIEW
    "#]],
    );
    check(
        "SUSPEND SCHEMA s",
        expect![[r#"
        SUSPEND SCHEMA s
                ^
        42601: syntax error at or near "SCHEMA"
    "#]],
    );
    check(
        "CANCEL JOB x",
        expect![[r#"
        CANCEL JOB x
                   ^
        42601: syntax error at or near "x"
        hint: expected a whole number
    "#]],
    );
    check(
        "SHOW CREATE v",
        expect![[r#"
        SHOW CREATE v
                    ^
        42601: syntax error at or near "v"
    "#]],
    );
    check(
        "SHOW COLUMNS",
        expect![[r#"
        SHOW COLUMNS
                    ^
        42601: syntax error at end of input
        hint: expected FROM
    "#]],
    );
    check(
        "SHOW TABLES LIKE x",
        expect![[r#"
        SHOW TABLES LIKE x
                         ^
        42601: syntax error at or near "x"
        hint: expected a string literal
    "#]],
    );
    check(
        "SHUTDOWN WITH s",
        expect![[r#"
        SHUTDOWN WITH s
                      ^
        42601: syntax error at or near "s"
        hint: expected SAVEPOINT
    "#]],
    );
    check(
        "ALTER MATERIALIZED VIEW v RENAME x",
        expect![[r#"
        ALTER MATERIALIZED VIEW v RENAME x
                                         ^
        42601: syntax error at or near "x"
        hint: expected TO
    "#]],
    );
    check(
        "ALTER MATERIALIZED VIEW v FOO",
        expect![[r#"
        ALTER MATERIALIZED VIEW v FOO
                                  ^
        42601: syntax error at or near "FOO"
        hint: expected RENAME TO, SET SCHEMA, SET or AS
    "#]],
    );
    check(
        "ALTER SYSTEM SET a 1",
        expect![[r#"
        ALTER SYSTEM SET a 1
                           ^
        42601: syntax error at or near "1"
        hint: expected TO
    "#]],
    );
    check(
        "EXPLAIN (FOO) SELECT 1",
        expect![[r#"
        EXPLAIN (FOO) SELECT 1
                 ^
        42601: unrecognized EXPLAIN option "foo"
        hint: known options: analyze, verbose, format
    "#]],
    );
    check(
        "EXPLAIN (FORMAT yaml) SELECT 1",
        expect![[r#"
        EXPLAIN (FORMAT yaml) SELECT 1
                        ^
        22023: unrecognized value for EXPLAIN option "format": "yaml"
        hint: known formats: text, json, dot
    "#]],
    );
    check(
        "EXPLAIN FLUSH",
        expect![[r#"
        EXPLAIN FLUSH
                ^
        42601: syntax error at or near "FLUSH"
        hint: EXPLAIN takes a query, INSERT, UPDATE, DELETE, CREATE MATERIALIZED VIEW, CREATE SINK, CREATE TABLE AS, ALTER MATERIALIZED VIEW … AS, EXECUTE or DECLARE
    "#]],
    );
}

#[test]
fn what_would_be_answered_wrongly_is_refused() {
    check(
        "SELECT * FROM t JOIN u",
        expect![[r#"
        SELECT * FROM t JOIN u
                             ^
        42601: JOIN without ON or USING
        hint: write CROSS JOIN to pair all rows
    "#]],
    );
    check(
        "SELECT * FROM t LEFT JOIN u, v",
        expect![[r#"
        SELECT * FROM t LEFT JOIN u, v
                                  ^
        42601: JOIN without ON or USING
        hint: write CROSS JOIN to pair all rows
    "#]],
    );
    check(
        "SELECT (SELECT 1 FROM (t JOIN u) WHERE a)",
        expect![[r#"
        SELECT (SELECT 1 FROM (t JOIN u) WHERE a)
                                      ^
        42601: JOIN without ON or USING
        hint: write CROSS JOIN to pair all rows
    "#]],
    );
    check(
        "SELECT * FROM t WITH (nolock)",
        expect![[r#"
        SELECT * FROM t WITH (nolock)
                              ^
        42601: table hints are not part of SQL
    "#]],
    );
    check(
        "SELECT * FROM t TABLESAMPLE BERNOULLI (10)",
        expect![[r#"
        SELECT * FROM t TABLESAMPLE BERNOULLI (10)
                      ^
        0A000: TABLESAMPLE is not supported
    "#]],
    );
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT * FROM t JOIN u",
        expect![[r#"
            CREATE MATERIALIZED VIEW v AS SELECT * FROM t JOIN u
                                                               ^
            42601: JOIN without ON or USING
            hint: write CROSS JOIN to pair all rows
        "#]],
    );
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT 1 WITH NO DATA",
        expect![[r#"
            CREATE MATERIALIZED VIEW v AS SELECT 1 WITH NO DATA
                                                   ^
            0A000: CREATE MATERIALIZED VIEW … WITH NO DATA is not supported
        "#]],
    );
    check(
        "CREATE TABLE t (LIKE u)",
        expect![[r#"
        CREATE TABLE t (LIKE u)
                        ^
        0A000: CREATE TABLE (LIKE …) is not supported
    "#]],
    );
    check(
        "CREATE TABLE t (a int) PARTITION BY RANGE (a)",
        expect![[r#"
            CREATE TABLE t (a int) PARTITION BY RANGE (a)
                                   ^
            0A000: CREATE TABLE … PARTITION is not supported
        "#]],
    );
    check(
        "CREATE TABLE t (a int) INHERITS (u)",
        expect![[r#"
        CREATE TABLE t (a int) INHERITS (u)
                               ^
        0A000: CREATE TABLE … INHERITS is not supported
    "#]],
    );
    check(
        "CREATE TABLE t PARTITION OF u DEFAULT",
        expect![[r#"
        CREATE TABLE t PARTITION OF u DEFAULT
                       ^
        0A000: CREATE TABLE … PARTITION is not supported
    "#]],
    );
    check(
        "CREATE SOURCE s (*) WITH (a = 'b')",
        expect![[r#"
        CREATE SOURCE s (*) WITH (a = 'b')
                         ^
        0A000: a column list from a schema registry is not supported
    "#]],
    );
    check(
        "CREATE SOURCE s WITH (password = SECRET pw)",
        expect![[r#"
        CREATE SOURCE s WITH (password = SECRET pw)
                                         ^
        0A000: SECRET in options is not supported
    "#]],
    );
    check(
        "CREATE SINK k INTO t FROM v",
        expect![[r#"
        CREATE SINK k INTO t FROM v
                      ^
        0A000: CREATE SINK … INTO is not supported
    "#]],
    );
    check(
        "INSERT INTO t OVERRIDING SYSTEM VALUE VALUES (1)",
        expect![[r#"
            INSERT INTO t OVERRIDING SYSTEM VALUE VALUES (1)
                          ^
            0A000: INSERT … OVERRIDING is not supported
        "#]],
    );
}

#[test]
fn positions_count_characters_over_the_whole_text() {
    check(
        "SELECT 'ä' AS \"ö\", 1 2",
        expect![[r#"
        SELECT 'ä' AS "ö", 1 2
                             ^
        42601: syntax error at or near "2"
    "#]],
    );
    let sql = "SELECT 'é\n€';\n\n\tSELECT '日本' FORM x;\n";
    let error = parse(sql).unwrap_err();
    let text: String = sql.chars().skip(error.position - 1).take(1).collect();
    assert_eq!(
        (text.as_str(), error.message.as_str()),
        ("x", "syntax error at or near \"x\"")
    );
    let error = parse("SELECT 1;\r\nSELECT (\r\n").unwrap_err();
    assert_eq!(
        (error.message.as_str(), error.position),
        ("syntax error at end of input", 22)
    );
}

#[test]
fn an_error_anywhere_fails_the_whole_text() {
    let error = parse("SELECT 1; SELECT 2; SELECT FROM WHERE; SELECT 4").unwrap_err();
    assert_eq!(error.position, 33);
}

#[test]
fn nesting_and_chains_are_bounded() {
    let nested = |n: usize| format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n));
    assert!(parse(&nested(60)).is_ok());
    for sql in [
        nested(200),
        nested(100_000),
        format!("SELECT {}1", "- ".repeat(100_000)),
        format!("SELECT {}1{}", "f(".repeat(500), ")".repeat(500)),
        format!("SELECT 1 WHERE a{}", " AND a".repeat(100_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 2".repeat(100_000)),
    ] {
        let error = parse(&sql).unwrap_err();
        assert_eq!(
            (error.sqlstate, error.message.as_str()),
            ("54001", "stack depth limit exceeded")
        );
        assert!(error.position > 1 && error.position <= sql.len());
    }
    let calls = format!("SELECT {}1{}", "f(".repeat(50), ")".repeat(50));
    assert!(
        parse(&calls).is_ok(),
        "the work does not double with each call"
    );
    let rows = vec!["(1, 'a' || 'b', 2.5)"; 20_000].join(", ");
    assert!(parse(&format!("INSERT INTO t VALUES {rows}")).is_ok());
    let terms = " OR a = 1".repeat(4_000);
    assert!(parse(&format!("SELECT 1 WHERE a = 0{terms}")).is_ok());
}

/// The library reads some forms again when an attempt fails. Nested, that must not double with each level.
#[test]
fn wrong_statements_do_not_take_for_ever() {
    for open in [
        "position(",
        "CAST(",
        "substring(",
        "overlay(",
        "ceil(",
        "ARRAY[",
        "a IN (",
        "CASE WHEN ",
        "EXISTS(SELECT ",
        "(SELECT * FROM (",
        "(SELECT * FROM a, ((",
        "((SELECT * FROM (((",
        "NOT ",
        "f(",
        "a[",
        "INTERVAL ",
        "extract(",
    ] {
        for levels in [10, 30, 60] {
            for sql in [
                format!("SELECT {}", open.repeat(levels)),
                format!("SELECT * FROM {}", open.repeat(levels)),
                format!("SELECT {}1{}", open.repeat(levels), ")".repeat(levels)),
            ] {
                let start = std::time::Instant::now();
                let _ = parse(&sql);
                assert!(start.elapsed().as_secs() < 5, "{sql}");
            }
        }
    }
}

#[test]
fn a_long_line_is_read_in_one_pass() {
    let statements = parse(&"SELECT 'é'; ".repeat(30_000)).unwrap();
    assert_eq!(statements.len(), 30_000);
    assert!(statements.iter().all(|s| s.text == "SELECT 'é'"));
    assert!(
        statements
            .iter()
            .enumerate()
            .all(|(n, s)| s.offset == n * 13)
    );
}
