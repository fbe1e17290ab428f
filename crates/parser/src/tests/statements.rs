//! What our own statements become. Trees are written in short: names as SQL, options as `name=value@position`.

#![allow(clippy::unwrap_used)]

use expect_test::{Expect, expect};
use sqlparser::ast::{self, Expr, Ident, ObjectName};

use crate::*;

fn check(sql: &str, expected: Expect) {
    let statements = parse(sql).unwrap_or_else(|e| panic!("{sql}: {e} at {}", e.position));
    let lines: Vec<String> = statements.iter().map(|s| brief(&s.statement)).collect();
    expected.assert_eq(&lines.join("\n---\n"));
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    format!("[{}]", items.join(", "))
}

fn options(options: &[WithOption]) -> String {
    let options: Vec<String> = options
        .iter()
        .map(|o| format!("{}={:?}@{}", o.name, o.value, o.position))
        .collect();
    format!("{{{}}}", options.join(", "))
}

fn format_encode(format: &Option<FormatEncode>) -> String {
    match format {
        None => String::new(),
        Some(f) => {
            let key = f.key_encode.as_ref().map(|k| format!(" key {k}"));
            format!(
                "\n  format {}@{} encode {}@{} {}{}",
                f.format,
                f.position,
                f.encode,
                f.encode_position,
                options(&f.options),
                key.unwrap_or_default()
            )
        }
    }
}

fn watermark(watermark: &Option<Watermark>) -> String {
    watermark.as_ref().map_or(String::new(), |w| {
        format!("\n  watermark {} as {} @{}", w.column, w.expr, w.position)
    })
}

fn include(include: &[IncludeColumn]) -> String {
    include
        .iter()
        .map(|i| {
            format!(
                "\n  include {} field {:?} type {} as {} @{}",
                i.kind,
                i.field,
                i.data_type
                    .as_ref()
                    .map_or("-".to_string(), |t| t.to_string()),
                i.alias.as_ref().map_or("-".to_string(), Ident::to_string),
                i.position
            )
        })
        .collect()
}

fn or_dash<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or("-".to_string(), T::to_string)
}

fn query(query: &QueryText) -> String {
    format!("\n  query {:?}", query.text)
}

fn brief(statement: &Statement) -> String {
    match statement {
        Statement::Sql(sql) => format!("sql {sql}"),
        Statement::CreateTable(t) => format!(
            "table {} if_not_exists={} append_only={} on_conflict={:?} version={}\n  columns {}\n  constraints {}\n  with {}{}{}{}{}",
            t.name,
            t.if_not_exists,
            t.append_only,
            t.on_conflict,
            or_dash(&t.version_column),
            list(&t.columns),
            list(&t.constraints),
            options(&t.options),
            watermark(&t.watermark),
            include(&t.include),
            format_encode(&t.format),
            t.query.as_ref().map_or(String::new(), query),
        ),
        Statement::CreateSource(s) => format!(
            "source {} if_not_exists={}\n  columns {}\n  constraints {}\n  with {}{}{}{}",
            s.name,
            s.if_not_exists,
            list(&s.columns),
            list(&s.constraints),
            options(&s.options),
            watermark(&s.watermark),
            include(&s.include),
            format_encode(&s.format),
        ),
        Statement::CreateMaterializedView(v) => format!(
            "materialized view {} {} or_replace={} if_not_exists={} emit={} from={}\n  with {}{}",
            v.name,
            list(&v.columns),
            v.or_replace,
            v.if_not_exists,
            v.emit_on_window_close,
            or_dash(&v.from_savepoint),
            options(&v.options),
            query(&v.query),
        ),
        Statement::CreateSink(k) => {
            let input = match &k.input {
                SinkInput::Relation(name) => format!("\n  from {name}"),
                SinkInput::Query(q) => query(q),
            };
            format!(
                "sink {} if_not_exists={}{input}\n  with {}{}",
                k.name,
                k.if_not_exists,
                options(&k.options),
                format_encode(&k.format),
            )
        }
        Statement::Subscribe(s) => {
            let target = match &s.target {
                SubscribeTarget::Relation(name) => name.to_string(),
                SubscribeTarget::Query(q) => format!("{:?}", q.text),
            };
            format!(
                "subscribe {target} snapshot={} progress={} as_of={} up_to={} limit={:?}",
                s.snapshot,
                s.progress,
                or_dash(&s.as_of),
                or_dash(&s.up_to),
                s.limit
            )
        }
        Statement::Drop(d) => format!(
            "drop {} {} if_exists={} cascade={}",
            d.kind,
            list(&d.names),
            d.if_exists,
            d.cascade
        ),
        Statement::AlterMaterializedView(a) => {
            let operation = match &a.operation {
                AlterOperation::RenameTo(to) => format!("rename to {to}"),
                AlterOperation::SetSchema(schema) => format!("set schema {schema}"),
                AlterOperation::Set(set) => format!("set {}", options(set)),
                AlterOperation::Query(q) => query(q),
            };
            format!("alter {} if_exists={} {operation}", a.name, a.if_exists)
        }
        Statement::AlterSystem(a) => format!("{a:?}"),
        Statement::Savepoint(s) => format!(
            "savepoint {} views {} to {:?} with {}",
            s.name,
            list(&s.views),
            s.to,
            options(&s.options)
        ),
        Statement::RollbackToSavepoint { name, options: o } => {
            format!("rollback to {name} with {}", options(o))
        }
        Statement::ReleaseSavepoint { name } => format!("release {name}"),
        Statement::DescribeSavepoint { name } => format!("describe savepoint {name}"),
        Statement::VerifySavepoint { name } => format!("verify savepoint {name}"),
        Statement::VerifyMaterializedView { name } => format!("verify view {name}"),
        Statement::Shutdown { savepoint, drain } => {
            let name = savepoint.as_ref().map(|s| s.name.to_string());
            let to = savepoint.as_ref().and_then(|s| s.to.clone());
            let drain = if *drain { " drain" } else { "" };
            format!("shutdown {} to {}{drain}", or_dash(&name), or_dash(&to))
        }
        Statement::Describe { name } => format!("describe {name}"),
        Statement::Show(s) => {
            let what = match &s.what {
                ShowWhat::Create { kind, name } => format!("create {kind} {name}"),
                ShowWhat::Setting { name, position } => format!("setting {name}@{position}"),
                what => format!("{what:?}"),
            };
            let like = s.like.as_ref().map(|l| {
                format!(
                    " like {:?} case_insensitive={}",
                    l.pattern, l.case_insensitive
                )
            });
            format!(
                "show {what} from {}{}",
                or_dash(&s.from),
                like.unwrap_or_default()
            )
        }
        Statement::Explain(e) => format!(
            "explain analyze={} verbose={} {:?} {:?}\n{}",
            e.analyze,
            e.verbose,
            e.format,
            e.text,
            brief(&e.statement)
        ),
        Statement::ExplainView(e) => format!(
            "explain view {} analyze={} verbose={} {:?}",
            e.name, e.analyze, e.verbose, e.format
        ),
        Statement::Suspend { kind, name } => format!("suspend {kind} {name}"),
        Statement::Resume { kind, name } => format!("resume {kind} {name}"),
        Statement::CancelJob { ids } => format!("cancel {ids:?}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn create_source() {
    check(
        "CREATE SOURCE IF NOT EXISTS s.\"Bids\" (
            auction bigint NOT NULL, \"Price\" numeric(10,2), ts timestamptz, day date AS ts::date,
            watermark int, PRIMARY KEY (auction), WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
         ) INCLUDE key AS k INCLUDE header 'trace' text AS trace INCLUDE offset
         WITH (connector = 'kafka', topic='bids', properties.\"group\".ID = g1, fields.x.min = -5, big = 1.5e3,
               on = true, every = INTERVAL '5 seconds', text = $$it's$$)
         FORMAT DEBEZIUM ENCODE Json (timestamps = 'iso', schemas.enable = false) KEY ENCODE bytes",
        expect![[r#"
            source s."Bids" if_not_exists=true
              columns [auction BIGINT NOT NULL, "Price" NUMERIC(10,2), ts TIMESTAMPTZ, day DATE AS (ts::DATE), watermark INT]
              constraints [PRIMARY KEY (auction)]
              with {connector="kafka"@329, topic="bids"@350, properties.group.id="g1"@364, fields.x.min="-5"@392, big="1.5e3"@411, on="true"@439, every="5 seconds"@450, text="it's"@480}
              watermark ts as ts - INTERVAL '5 seconds' @188
              include key field None type - as k @253
              include header field Some("trace") type TEXT as trace @270
              include offset field None type - as - @307
              format debezium@513 encode json@529 {timestamps="iso"@535, schemas.enable="false"@555} key bytes"#]],
    );
    check(
        "CREATE SOURCE n WITH (connector = 'nexmark', table = 'bid')",
        expect![[r#"
            source n if_not_exists=false
              columns []
              constraints []
              with {connector="nexmark"@23, table="bid"@46}"#]],
    );
    check(
        "create source f () format plain encode csv (delimiter = ';', header = 'true') with (connector = 'file', path = '/in/*.csv')",
        expect![[r#"
            source f if_not_exists=false
              columns []
              constraints []
              with {connector="file"@85, path="/in/*.csv"@105}
              format plain@27 encode csv@40 {delimiter=";"@45, header="true"@62}"#]],
    );
}

#[test]
fn create_table() {
    check(
        "CREATE TABLE IF NOT EXISTS s.t (id int PRIMARY KEY, name varchar(10) NOT NULL DEFAULT 'x', tags text[],
         CONSTRAINT positive CHECK (id > 0), UNIQUE (name))",
        expect![[r#"
            table s.t if_not_exists=true append_only=false on_conflict=None version=-
              columns [id INT PRIMARY KEY, name VARCHAR(10) NOT NULL DEFAULT 'x', tags TEXT[]]
              constraints [CONSTRAINT positive CHECK (id > 0), UNIQUE (name)]
              with {}"#]],
    );
    check(
        "CREATE TABLE t (id int, v int, PRIMARY KEY (id)) APPEND ONLY ON CONFLICT DO UPDATE FULL WITH VERSION COLUMN (v)
         INCLUDE timestamp AS ts WITH (connector = 'webhook') FORMAT PLAIN ENCODE JSON",
        expect![[r#"
            table t if_not_exists=false append_only=true on_conflict=Some(Overwrite) version=v
              columns [id INT, v INT]
              constraints [PRIMARY KEY (id)]
              with {connector="webhook"@152}
              include timestamp field None type - as ts @130
              format plain@182 encode json@195 {}"#]],
    );
    check(
        "CREATE TABLE t (a int) ON CONFLICT DO NOTHING",
        expect![[r#"
            table t if_not_exists=false append_only=false on_conflict=Some(Ignore) version=-
              columns [a INT]
              constraints []
              with {}"#]],
    );
    check(
        "CREATE TABLE t (a int) ON CONFLICT DO UPDATE IF NOT NULL",
        expect![[r#"
            table t if_not_exists=false append_only=false on_conflict=Some(UpdateIfNotNull) version=-
              columns [a INT]
              constraints []
              with {}"#]],
    );
    check(
        "CREATE TABLE t AS SELECT 1 AS a -- one\n",
        expect![[r#"
        table t if_not_exists=false append_only=false on_conflict=None version=-
          columns []
          constraints []
          with {}
          query "SELECT 1 AS a""#]],
    );
    check(
        "CREATE TABLE t (x, y) WITH (retention = '1d') AS TABLE u",
        expect![[r#"
            table t if_not_exists=false append_only=false on_conflict=None version=-
              columns [x, y]
              constraints []
              with {retention="1d"@29}
              query "TABLE u""#]],
    );
    check(
        "CREATE TABLE t ()",
        expect![[r#"
        table t if_not_exists=false append_only=false on_conflict=None version=-
          columns []
          constraints []
          with {}"#]],
    );
    check(
        "CREATE TABLE t WITH (connector = 'kafka') FORMAT PLAIN ENCODE AVRO",
        expect![[r#"
            table t if_not_exists=false append_only=false on_conflict=None version=-
              columns []
              constraints []
              with {connector="kafka"@22}
              format plain@50 encode avro@63 {}"#]],
    );
}

#[test]
fn create_materialized_view() {
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT 1",
        expect![[r#"
        materialized view v [] or_replace=false if_not_exists=false emit=false from=-
          with {}
          query "SELECT 1""#]],
    );
    check(
        "CREATE OR REPLACE MATERIALIZED VIEW s.v (a, \"B\") WITH (state_backend = 'rocksdb', checkpoint_interval = off)
         FROM SAVEPOINT before AS /* why */ SELECT x, count(*) FROM t GROUP BY x -- done
         EMIT ON WINDOW CLOSE;",
        expect![[r#"
            materialized view s.v [a, "B"] or_replace=true if_not_exists=false emit=true from=before
              with {state_backend="rocksdb"@56, checkpoint_interval="off"@83}
              query "SELECT x, count(*) FROM t GROUP BY x""#]],
    );
    check(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT x emit FROM t emit WHERE emit.x > 1 FROM SAVEPOINT s",
        expect![[r#"
            materialized view v [] or_replace=false if_not_exists=true emit=false from=s
              with {}
              query "SELECT x emit FROM t emit WHERE emit.x > 1""#]],
    );
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT a FROM t EMIT ON WINDOW CLOSE FROM SAVEPOINT s",
        expect![[r#"
            materialized view v [] or_replace=false if_not_exists=false emit=true from=s
              with {}
              query "SELECT a FROM t""#]],
    );
    check(
        "CREATE MATERIALIZED VIEW v AS WITH w AS (SELECT 1) SELECT * FROM w WITH DATA",
        expect![[r#"
            materialized view v [] or_replace=false if_not_exists=false emit=false from=-
              with {}
              query "WITH w AS (SELECT 1) SELECT * FROM w""#]],
    );
    check(
        "CREATE MATERIALIZED VIEW v AS VALUES (1, 'a'), (2, 'b')",
        expect![[r#"
            materialized view v [] or_replace=false if_not_exists=false emit=false from=-
              with {}
              query "VALUES (1, 'a'), (2, 'b')""#]],
    );
}

#[test]
fn create_sink() {
    check(
        "CREATE SINK IF NOT EXISTS k FROM s.v WITH (connector = 'file', path = '/out') FORMAT PLAIN ENCODE PARQUET",
        expect![[r#"
            sink k if_not_exists=true
              from s.v
              with {connector="file"@44, path="/out"@64}
              format plain@86 encode parquet@99 {}"#]],
    );
    check(
        "CREATE SINK k AS WITH w AS (SELECT * FROM t) SELECT a, count(*) FROM w -- all
         WITH (connector = 'blackhole')",
        expect![[r#"
            sink k if_not_exists=false
              query "WITH w AS (SELECT * FROM t) SELECT a, count(*) FROM w"
              with {connector="blackhole"@94}"#]],
    );
    check(
        "CREATE SINK k AS SELECT a FROM unnest(ARRAY[1]) WITH ORDINALITY x WITH (connector = 'blackhole')",
        expect![[r#"
            sink k if_not_exists=false
              query "SELECT a FROM unnest(ARRAY[1]) WITH ORDINALITY x"
              with {connector="blackhole"@73}"#]],
    );
}

#[test]
fn subscribe() {
    check(
        "SUBSCRIBE v",
        expect!["subscribe v snapshot=true progress=false as_of=- up_to=- limit=None"],
    );
    check(
        "SUBSCRIBE TO s.v WITH (SNAPSHOT = false, PROGRESS) AS OF 17 UP TO 20 LIMIT 5",
        expect!["subscribe s.v snapshot=false progress=true as_of=17 up_to=20 limit=Some(5)"],
    );
    check(
        "SUBSCRIBE TO (SELECT a FROM t WHERE b) WITH (snapshot)",
        expect![[
            r#"subscribe "SELECT a FROM t WHERE b" snapshot=true progress=false as_of=- up_to=- limit=None"#
        ]],
    );
    check(
        "SUBSCRIBE v AS OF now() - INTERVAL '1 minute' UNTIL 9",
        expect![
            "subscribe v snapshot=true progress=false as_of=now() - INTERVAL '1 minute' up_to=9 limit=None"
        ],
    );
}

#[test]
fn savepoints() {
    check(
        "SAVEPOINT a; SAVEPOINT \"B\" FOR MATERIALIZED VIEW v, s.w TO 's3://b/x' WITH (format = 'parquet');
         SAVEPOINT savepoint; RELEASE a; RELEASE SAVEPOINT a; ROLLBACK TO a; ROLLBACK TO SAVEPOINT a WITH (sinks = 'skip');
         ROLLBACK TRANSACTION TO SAVEPOINT savepoint; ROLLBACK TO savepoint WITH (sinks = skip); ROLLBACK; ABORT;
         SHOW SAVEPOINTS; DESCRIBE SAVEPOINT a; DESCRIBE savepoint; VERIFY SAVEPOINT a; VERIFY MATERIALIZED VIEW s.v;
         SHUTDOWN; SHUTDOWN WITH SAVEPOINT last; SHUTDOWN WITH SAVEPOINT last TO 's3://b' DRAIN",
        expect![[r#"
            savepoint a views [] to None with {}
            ---
            savepoint "B" views [v, s.w] to Some("s3://b/x") with {format="parquet"@77}
            ---
            savepoint savepoint views [] to None with {}
            ---
            release a
            ---
            release a
            ---
            rollback to a with {}
            ---
            rollback to a with {sinks="skip"@205}
            ---
            rollback to savepoint with {}
            ---
            rollback to savepoint with {sinks="skip"@304}
            ---
            sql ROLLBACK
            ---
            sql ROLLBACK
            ---
            show Savepoints from -
            ---
            describe savepoint a
            ---
            describe savepoint
            ---
            verify savepoint a
            ---
            verify view s.v
            ---
            shutdown - to -
            ---
            shutdown last to -
            ---
            shutdown last to s3://b drain"#]],
    );
}

#[test]
fn show_and_describe() {
    check(
        "SHOW TABLES; SHOW TABLES FROM s LIKE 'a%'; SHOW VIEWS IN s; SHOW MATERIALIZED VIEWS ILIKE 'x'; SHOW SOURCES;
         SHOW SINKS; SHOW JOBS; SHOW CHECKPOINTS; SHOW ALL; SHOW RECOVERY; SHOW SCHEMAS; SHOW DATABASES;
         SHOW COLUMNS FROM s.t; SHOW INDEXES FROM t; SHOW CREATE MATERIALIZED VIEW s.v; SHOW CREATE TABLE t;
         SHOW CREATE SOURCE t; SHOW CREATE SINK k; SHOW CREATE VIEW v; SHOW Server_Version; SHOW my.setting;
         SHOW TIME ZONE; SHOW TRANSACTION ISOLATION LEVEL; DESCRIBE s.t; DESC t; DESCRIBE MATERIALIZED VIEW v",
        expect![[r#"
            show Tables from -
            ---
            show Tables from s like "a%" case_insensitive=false
            ---
            show Views from s
            ---
            show MaterializedViews from - like "x" case_insensitive=true
            ---
            show Sources from -
            ---
            show Sinks from -
            ---
            show Jobs from -
            ---
            show Checkpoints from -
            ---
            show All from -
            ---
            show Recovery from -
            ---
            show Schemas from -
            ---
            show Databases from -
            ---
            show Columns from s.t
            ---
            show Indexes from t
            ---
            show create materialized view s.v from -
            ---
            show create table t from -
            ---
            show create source t from -
            ---
            show create sink k from -
            ---
            show create view v from -
            ---
            show setting server_version@400 from -
            ---
            show setting my.setting@421 from -
            ---
            show setting timezone@447 from -
            ---
            show setting transaction_isolation@463 from -
            ---
            describe s.t
            ---
            describe t
            ---
            describe v"#]],
    );
}

#[test]
fn explain() {
    check(
        "EXPLAIN SELECT 1",
        expect![[r#"
        explain analyze=false verbose=false Text "SELECT 1"
        sql SELECT 1"#]],
    );
    check(
        "EXPLAIN ANALYZE VERBOSE (SELECT 1)",
        expect![[r#"
        explain analyze=true verbose=true Text "(SELECT 1)"
        sql (SELECT 1)"#]],
    );
    check(
        "EXPLAIN (ANALYZE false, VERBOSE, FORMAT JSON) CREATE MATERIALIZED VIEW v WITH (a = 1) AS SELECT 1;",
        expect![[r#"
            explain analyze=false verbose=true Json "CREATE MATERIALIZED VIEW v WITH (a = 1) AS SELECT 1"
            materialized view v [] or_replace=false if_not_exists=false emit=false from=-
              with {a="1"@80}
              query "SELECT 1""#]],
    );
    check(
        "EXPLAIN CREATE SINK k FROM v WITH (connector = 'blackhole')",
        expect![[r#"
            explain analyze=false verbose=false Text "CREATE SINK k FROM v WITH (connector = 'blackhole')"
            sink k if_not_exists=false
              from v
              with {connector="blackhole"@36}"#]],
    );
    check(
        "EXPLAIN CREATE SINK k AS SELECT * FROM t WITH (connector = 'blackhole')",
        expect![[r#"
            explain analyze=false verbose=false Text "CREATE SINK k AS SELECT * FROM t WITH (connector = 'blackhole')"
            sink k if_not_exists=false
              query "SELECT * FROM t"
              with {connector="blackhole"@48}"#]],
    );
    check(
        "EXPLAIN ALTER MATERIALIZED VIEW v AS SELECT 2",
        expect![[r#"
            explain analyze=false verbose=false Text "ALTER MATERIALIZED VIEW v AS SELECT 2"
            alter v if_exists=false 
              query "SELECT 2""#]],
    );
    check(
        "EXPLAIN ANALYZE MATERIALIZED VIEW s.v; EXPLAIN (FORMAT DOT) MATERIALIZED VIEW v",
        expect![[r#"
            explain view s.v analyze=true verbose=false Text
            ---
            explain view v analyze=false verbose=false Dot"#]],
    );
}

#[test]
fn drop_and_alter() {
    check(
        "DROP TABLE a, s.\"B\" CASCADE; DROP MATERIALIZED VIEW IF EXISTS v; DROP SOURCE s RESTRICT; DROP SINK k; DROP VIEW v;
         DROP INDEX i; DROP SCHEMA IF EXISTS s CASCADE",
        expect![[r#"
            drop table [a, s."B"] if_exists=false cascade=true
            ---
            drop materialized view [v] if_exists=true cascade=false
            ---
            drop source [s] if_exists=false cascade=false
            ---
            drop sink [k] if_exists=false cascade=false
            ---
            drop view [v] if_exists=false cascade=false
            ---
            drop index [i] if_exists=false cascade=false
            ---
            drop schema [s] if_exists=true cascade=true"#]],
    );
    check(
        "ALTER MATERIALIZED VIEW IF EXISTS s.v RENAME TO w; ALTER MATERIALIZED VIEW v SET SCHEMA s;
         ALTER MATERIALIZED VIEW v SET (state_backend = 'memory', x.y = 2); ALTER MATERIALIZED VIEW v SET parallelism = 4;
         ALTER MATERIALIZED VIEW v AS SELECT 1; ALTER SYSTEM SET checkpoint_interval = '2s';
         ALTER SYSTEM SET checkpoint_interval TO off; ALTER SYSTEM SET x TO DEFAULT; ALTER SYSTEM SET x = 1, 'b';
         ALTER SYSTEM RESET X; ALTER SYSTEM RESET ALL",
        expect![[r#"
            alter s.v if_exists=true rename to w
            ---
            alter v if_exists=false set schema s
            ---
            alter v if_exists=false set {state_backend="memory"@132, x.y="2"@158}
            ---
            alter v if_exists=false set {parallelism="4"@198}
            ---
            alter v if_exists=false 
              query "SELECT 1"
            ---
            Set { name: "checkpoint_interval", value: Some("2s"), position: 280 }
            ---
            Set { name: "checkpoint_interval", value: Some("off"), position: 334 }
            ---
            Set { name: "x", value: None, position: 379 }
            ---
            Set { name: "x", value: Some("1, b"), position: 410 }
            ---
            Reset { name: "x", position: 450 }
            ---
            ResetAll"#]],
    );
}

#[test]
fn control() {
    check(
        "FLUSH; WAIT; CHECKPOINT; RECOVER; SUSPEND MATERIALIZED VIEW v; RESUME SINK s.k; CANCEL JOB 7; CANCEL JOBS 1, 2",
        expect![[r#"
            Flush
            ---
            Wait
            ---
            Checkpoint
            ---
            Recover
            ---
            suspend materialized view v
            ---
            resume sink s.k
            ---
            cancel [7]
            ---
            cancel [1, 2]"#]],
    );
}

#[test]
fn transactions_and_cursors_as_drivers_write_them() {
    check(
        "BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, NOT DEFERRABLE; BEGIN READ WRITE DEFERRABLE;
         START TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY DEFERRABLE; END; FETCH c; FETCH 10 c; FETCH ALL IN c;
         FETCH FORWARD 5 FROM \"C\"; COPY t (a, b) FROM STDIN (FORMAT csv)",
        expect![[r#"
            sql BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY
            ---
            sql BEGIN READ WRITE
            ---
            sql START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY
            ---
            sql END
            ---
            sql FETCH NEXT FROM c
            ---
            sql FETCH 10 FROM c
            ---
            sql FETCH ALL IN c
            ---
            sql FETCH FORWARD 5 FROM "C"
            ---
            sql COPY t (a, b) FROM STDIN (FORMAT csv)"#]],
    );
}

#[test]
fn a_past_version_is_read_from_a_savepoint() {
    let version = |sql: &str| -> (String, Option<Expr>) {
        let statements = parse(sql).unwrap();
        let Statement::Sql(sql) = &statements[0].statement else {
            panic!("a query")
        };
        let ast::Statement::Query(query) = &**sql else {
            panic!("a query")
        };
        let ast::TableFactor::Table { version, alias, .. } =
            &query.body.as_select().unwrap().from[0].relation
        else {
            panic!("a table")
        };
        let expr = version.as_ref().map(|v| match v {
            ast::TableVersion::ForSystemTimeAsOf(expr) => expr.clone(),
            other => panic!("{other:?}"),
        });
        (or_dash(alias), expr)
    };
    let (alias, expr) = version("SELECT * FROM v FOR SYSTEM_TIME AS OF SAVEPOINT \"S\" x");
    assert_eq!(alias, "x");
    // As a function, so that what is planned later sees an expression.
    assert_eq!(expr.unwrap().to_string(), "tidegate_savepoint('S')");
    let (alias, expr) = version("SELECT * FROM v FOR SYSTEM_TIME AS OF PROCTIME() AS p");
    assert_eq!(alias, "AS p");
    assert!(matches!(expr, Some(Expr::Function(_))));
    for alias in ["at", "before", "version", "emit"] {
        let (read, expr) = version(&format!("SELECT * FROM v {alias}"));
        assert_eq!((read.as_str(), expr), (alias, None));
    }
}

#[test]
fn a_text_is_cut_at_semicolons_that_are_tokens() {
    let sql = " ;; SELECT ';' /* ; */; -- ;\n/* a /* nested ; */ b */ SELECT $x$;$x$, \";\" FROM t ;\n;SELECT 'é''; ' ; -- end";
    let statements = parse(sql).unwrap();
    let texts: Vec<&str> = statements.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "SELECT ';'",
            "SELECT $x$;$x$, \";\" FROM t",
            "SELECT 'é''; '"
        ]
    );
    for statement in &statements {
        assert!(sql[statement.offset..].starts_with(&statement.text));
    }
    assert_eq!(parse("").unwrap(), []);
    assert_eq!(parse(" ; -- nothing\n /* at all */ ;").unwrap(), []);
}

#[test]
fn spans_in_trees_are_positions_in_the_text() {
    let sql = "SELECT 'ä';\n  SELECT 'ö', missing FROM t";
    let statements = parse(sql).unwrap();
    let Statement::Sql(statement) = &statements[1].statement else {
        panic!("a query")
    };
    let ast::Statement::Query(query) = &**statement else {
        panic!("a query")
    };
    let ast::SelectItem::UnnamedExpr(Expr::Identifier(column)) =
        &query.body.as_select().unwrap().projection[1]
    else {
        panic!("a column")
    };
    let position = position_of(sql, column.span.start).unwrap();
    assert!(
        sql.chars()
            .skip(position - 1)
            .collect::<String>()
            .starts_with("missing")
    );
    assert_eq!(
        position_of(sql, sqlparser::tokenizer::Location::empty()),
        None
    );
}

#[test]
fn names_fold_and_are_quoted_as_in_postgres() {
    let name = ObjectName::from(vec![
        Ident::new("Sch\u{c4}ma"),
        Ident::with_quote('"', "MiXed"),
        Ident::new("T"),
    ]);
    assert_eq!(name_parts(&name), ["sch\u{e4}ma", "MiXed", "t"]);
    for (name, quoted) in [
        ("plain_1", "plain_1"),
        ("Mixed", "\"Mixed\""),
        ("1st", "\"1st\""),
        ("select", "\"select\""),
        ("a\"b", "\"a\"\"b\""),
        ("", "\"\""),
    ] {
        assert_eq!(quote_ident(name), quoted);
    }
}

#[test]
fn tags_are_those_of_postgres() {
    for (sql, tag) in [
        ("SELECT 1", "SELECT"),
        ("TABLE t", "SELECT"),
        ("INSERT INTO t VALUES (1)", "INSERT"),
        ("TRUNCATE t", "TRUNCATE TABLE"),
        ("BEGIN", "BEGIN"),
        ("START TRANSACTION", "START TRANSACTION"),
        ("END", "COMMIT"),
        ("ABORT", "ROLLBACK"),
        ("ROLLBACK TO a", "ROLLBACK"),
        ("RELEASE a", "RELEASE"),
        ("CREATE TABLE t (a int)", "CREATE TABLE"),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT 1",
            "CREATE MATERIALIZED VIEW",
        ),
        ("DROP VIEW v", "DROP VIEW"),
        ("DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR"),
        ("CLOSE c", "CLOSE CURSOR"),
        ("SET a = 1", "SET"),
        ("RESET a", "RESET"),
        ("DEALLOCATE p", "DEALLOCATE"),
        ("COMMENT ON TABLE t IS 'x'", "COMMENT"),
    ] {
        assert_eq!(parse(sql).unwrap()[0].statement.tag(), tag, "{sql}");
    }
}

#[test]
fn subscriptions_are_fetched_and_copied() {
    let one = |sql: &str| parse(sql).unwrap().remove(0).statement;
    let Statement::DeclareSubscription {
        name,
        hold,
        subscribe,
    } = one("DECLARE c NO SCROLL CURSOR WITH HOLD FOR SUBSCRIBE TO v WITH (progress)")
    else {
        panic!("not a cursor over a subscription")
    };
    assert_eq!(
        (name.value.as_str(), hold, subscribe.progress),
        ("c", true, true)
    );
    let Statement::FetchWithin { fetch, timeout, .. } =
        one("FETCH 10 FROM c WITH (timeout = '1s')")
    else {
        panic!("not a FETCH that waits")
    };
    assert_eq!(
        (fetch.to_string().as_str(), timeout.as_str()),
        ("FETCH 10 FROM c", "1s")
    );
    let Statement::CopySubscription { subscribe, copy } =
        one("COPY (SUBSCRIBE (SELECT a FROM t) WITH (snapshot = false)) TO STDOUT (FORMAT csv)")
    else {
        panic!("not a COPY of a subscription")
    };
    assert!(!subscribe.snapshot);
    assert_eq!(copy.to_string(), "COPY (SELECT 1) TO STDOUT (FORMAT csv)");
    let wrong = parse("FETCH ALL FROM c WITH (patience = 3)").unwrap_err();
    assert_eq!(wrong.message, "unrecognized FETCH option \"patience\"");
}

#[test]
fn relations_are_renamed() {
    for (sql, kind) in [
        ("ALTER TABLE s.t RENAME TO u", ObjectKind::Table),
        ("ALTER VIEW IF EXISTS v RENAME TO u", ObjectKind::View),
        ("ALTER SOURCE s RENAME TO u", ObjectKind::Source),
        ("ALTER SINK k SET SCHEMA u", ObjectKind::Sink),
    ] {
        let Statement::AlterRelation {
            kind: found,
            operation,
            ..
        } = parse(sql).unwrap().remove(0).statement
        else {
            panic!("{sql}")
        };
        assert_eq!(found, kind, "{sql}");
        assert!(
            matches!(operation, AlterOperation::RenameTo(n) | AlterOperation::SetSchema(n) if n.value == "u"),
            "{sql}"
        );
    }
}
