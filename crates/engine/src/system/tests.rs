//! What clients ask the catalog, through a database.

#![allow(clippy::unwrap_used)]

use crate::api::{Response, SessionApi, SessionOptions};
use crate::{Config, Database};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use std::sync::Arc;

struct Fixture {
    database: Arc<Database>,
    _directory: tempfile::TempDir,
}

/// Runs a test over a database. What the database still does when a test has failed is not waited for.
fn over_database(test: impl AsyncFnOnce(&Fixture)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let work = std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let fixture = Fixture::new().await;
            test(&fixture).await;
            fixture.database.shutdown().await.unwrap();
        });
    });
    let result = std::panic::catch_unwind(work);
    runtime.shutdown_background();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(directory.path());
        config.settings.set("workers", "1").unwrap();
        config.settings.set("pin_workers", "off").unwrap();
        let database = Database::open(config).await.unwrap();
        let fixture = Self {
            database,
            _directory: directory,
        };
        fixture
            .ask("CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, amount numeric(10,2) DEFAULT 0, tags text[])")
            .await;
        fixture
            .ask("CREATE VIEW v AS SELECT id, amount FROM orders")
            .await;
        fixture.ask("CREATE MATERIALIZED VIEW mv AS SELECT customer, count(*) AS n FROM orders GROUP BY customer").await;
        fixture
            .ask("CREATE SOURCE s WITH (connector = 'nexmark', \"table\" = 'bid', events = '10')")
            .await;
        fixture
    }

    /// Lines of cells joined by `|`; NULL is nothing.
    async fn ask(&self, sql: &str) -> Vec<String> {
        let options = SessionOptions {
            user: "me".into(),
            database: "db".into(),
            ..SessionOptions::default()
        };
        let mut session = self.database.session(options).unwrap();
        let mut lines = Vec::new();
        for statement in session.parse(sql).unwrap() {
            let prepared = session
                .prepare(statement, Vec::new())
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            let response = session
                .execute(&prepared, Vec::new())
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            let Response::Rows { stream, .. } = response else {
                continue;
            };
            for batch in stream
                .try_collect::<Vec<_>>()
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
            {
                let options = FormatOptions::default();
                let columns: Vec<_> = batch
                    .columns()
                    .iter()
                    .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap())
                    .collect();
                for row in 0..batch.num_rows() {
                    let cells: Vec<String> =
                        columns.iter().map(|c| c.value(row).to_string()).collect();
                    lines.push(cells.join("|"));
                }
            }
        }
        lines
    }
}

#[test]
fn psql_describes_relations() {
    over_database(async |fixture| {
        let listed = fixture
            .ask(
                "SELECT n.nspname as \"Schema\", c.relname, c.relkind, pg_catalog.pg_get_userbyid(c.relowner) \
                 FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r','p','v','m','S','f','') AND n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast' \
                 AND n.nspname <> 'information_schema' AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1,2",
            )
            .await;
        assert_eq!(
            listed,
            [
                "public|mv|m|tidegate",
                "public|orders|r|tidegate",
                "public|s|f|tidegate",
                "public|v|v|tidegate"
            ]
        );
        // Postgres 15 answers the same, but for the collation of arrays, which it does not show either.
        let columns = fixture
            .ask(
                "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
                 (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_catalog.pg_attrdef d \
                  WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef), a.attnotnull, \
                 (SELECT c.collname FROM pg_catalog.pg_collation c, pg_catalog.pg_type t \
                  WHERE c.oid = a.attcollation AND t.oid = a.atttypid AND a.attcollation <> t.typcollation) AS attcollation \
                 FROM pg_catalog.pg_attribute a WHERE a.attrelid = 'orders'::regclass AND a.attnum > 0 AND NOT a.attisdropped \
                 ORDER BY a.attnum",
            )
            .await;
        assert_eq!(
            columns,
            [
                "id|integer||true|",
                "customer|text||true|",
                "amount|numeric(10,2)|0|false|",
                "tags|text[]||false|"
            ]
        );
        let indexes = fixture
            .ask(
                "SELECT c2.relname, i.indisprimary, pg_catalog.pg_get_indexdef(i.indexrelid, 0, true), \
                 pg_catalog.pg_get_constraintdef(con.oid, true), contype \
                 FROM pg_catalog.pg_class c, pg_catalog.pg_class c2, pg_catalog.pg_index i LEFT JOIN pg_catalog.pg_constraint con \
                 ON (conrelid = i.indrelid AND conindid = i.indexrelid AND contype IN ('p','u','x')) \
                 WHERE c.oid = 'orders'::regclass AND c.oid = i.indrelid AND i.indexrelid = c2.oid",
            )
            .await;
        let definition = "CREATE UNIQUE INDEX orders_pkey ON public.orders USING btree (id)";
        assert_eq!(
            indexes,
            [format!("orders_pkey|true|{definition}|PRIMARY KEY (id)|p")]
        );
    });
}

#[test]
fn sessions_are_told_who_and_where_they_are() {
    over_database(async |fixture| {
        let told = fixture
            .ask(
                "SELECT current_database(), current_schema, current_schemas(true), current_user, session_user, \
                 pg_catalog.current_setting('search_path'), current_setting('nothing', true), 'orders'::regclass, \
                 'mv'::regclass::oid = (SELECT oid FROM pg_class WHERE relname = 'mv'), to_regclass('none'), 'int4'::regtype",
            )
            .await;
        assert_eq!(
            told,
            ["db|public|[pg_catalog, public]|me|me|public||orders|true||integer"]
        );
        let set = fixture.ask("SELECT set_config('search_path', 'information_schema, public', false); SHOW search_path").await;
        assert_eq!(
            set,
            ["information_schema, public", "information_schema, public"]
        );
    });
}

#[test]
fn tools_find_columns_and_keys() {
    over_database(async |fixture| {
        let columns = fixture
            .ask(
                "SELECT column_name, data_type, is_nullable, numeric_precision, numeric_scale, udt_name \
                 FROM information_schema.columns WHERE table_name = 'orders' ORDER BY ordinal_position",
            )
            .await;
        // As Postgres 15 answers.
        assert_eq!(
            columns,
            [
                "id|integer|NO|32|0|int4",
                "customer|text|NO|||text",
                "amount|numeric|YES|10|2|numeric",
                "tags|ARRAY|YES|||_text"
            ]
        );
        let keys = fixture
            .ask(
                "SELECT k.column_name FROM information_schema.table_constraints c JOIN information_schema.key_column_usage k \
                 USING (constraint_name) WHERE c.constraint_type = 'PRIMARY KEY' AND c.table_name = 'orders'",
            )
            .await;
        assert_eq!(keys, ["id"]);
    });
}

#[test]
fn every_system_relation_can_be_read() {
    over_database(async |fixture| {
        for relation in super::relation::all() {
            fixture
                .ask(&format!(
                    "SELECT * FROM {}.\"{}\"",
                    relation.schema, relation.name
                ))
                .await;
        }
        let operators = fixture
            .ask("SELECT type, state_tables FROM tidegate.operators WHERE relation = 'mv' ORDER BY position DESC LIMIT 2")
            .await;
        assert_eq!(operators, ["Materialize|0", "Aggregate|1"]);
        assert_eq!(
            fixture
                .ask("SELECT name, status FROM tidegate.materialized_views")
                .await,
            ["mv|running"]
        );
        let error = fixture.ask("SELECT count(*) FROM tidegate.errors").await;
        assert_eq!(error, ["0"]);
    });
}
