//! Sessions beside each other: what one writes and another reads, follows, prepares and fetches.

#![allow(clippy::unwrap_used)]

use super::Session;
use crate::api::{CancelReason, Response, SessionApi, SessionOptions};
use crate::{Config, Database};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;
use tidegate_types::SqlError;

fn over_database(test: impl AsyncFnOnce(&Arc<Database>)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(directory.path());
        config.settings.set("workers", "1").unwrap();
        config.settings.set("pin_workers", "off").unwrap();
        let database = Database::open(config).await.unwrap();
        test(&database).await;
        database.shutdown().await.unwrap();
    });
    runtime.shutdown_background();
}

fn session(database: &Arc<Database>) -> Session {
    database.session(SessionOptions::default()).unwrap()
}

/// Lines of cells joined by `|`, or the tag of a command.
async fn ask(session: &mut Session, sql: &str) -> Result<Vec<String>, SqlError> {
    let mut lines = Vec::new();
    for statement in session.parse(sql)? {
        let prepared = session.prepare(statement, Vec::new()).await?;
        match session.execute(&prepared, Vec::new()).await? {
            Response::Rows { stream, .. } => {
                let batches: Vec<_> = stream.try_collect().await?;
                for batch in batches {
                    lines.extend(cells(&batch));
                }
            }
            Response::Command { tag } => lines.push(tag),
            _ => {}
        }
    }
    Ok(lines)
}

fn cells(batch: &arrow::array::RecordBatch) -> Vec<String> {
    let options = FormatOptions::default();
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap())
        .collect();
    let line = |row| {
        let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
        cells.join("|")
    };
    (0..batch.num_rows()).map(line).collect()
}

/// Without the epochs in front.
fn without_epochs(lines: Vec<String>) -> Vec<String> {
    let mut rest: Vec<String> = lines
        .iter()
        .map(|l| l.split_once('|').unwrap().1.to_owned())
        .collect();
    rest.sort();
    rest
}

async fn state(session: &mut Session, sql: &str) -> String {
    let error = ask(session, sql).await.unwrap_err();
    error.state.code().to_owned()
}

#[test]
fn what_was_acknowledged_to_anybody_is_read_by_everybody() {
    over_database(async |database| {
        let (mut writer, mut reader) = (session(database), session(database));
        ask(
            &mut writer,
            "CREATE TABLE t (a int); CREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM t",
        )
        .await
        .unwrap();
        for written in 1..=50 {
            ask(&mut writer, "INSERT INTO t VALUES (1)").await.unwrap();
            let read = ask(&mut reader, "SELECT n FROM n").await.unwrap();
            assert_eq!(read, [written.to_string()]);
        }
        assert_eq!(
            ask(&mut reader, "SET strict_reads = off").await.unwrap(),
            ["SET"]
        );
    });
}

#[test]
fn a_subscription_to_a_query_follows_it_through_a_cursor() {
    over_database(async |database| {
        let (mut writer, mut reader) = (session(database), session(database));
        ask(
            &mut writer,
            "CREATE TABLE t (g text, a int); INSERT INTO t VALUES ('x', 1), ('x', 2), ('y', 5)",
        )
        .await
        .unwrap();
        let declared =
            "DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE (SELECT g, sum(a) AS s FROM t GROUP BY g)";
        ask(&mut reader, declared).await.unwrap();
        let first = ask(&mut reader, "FETCH ALL FROM c").await.unwrap();
        assert_eq!(without_epochs(first), ["1|x|3", "1|y|5"]);
        assert!(
            ask(&mut reader, "FETCH ALL FROM c")
                .await
                .unwrap()
                .is_empty()
        );
        ask(&mut writer, "INSERT INTO t VALUES ('y', 1)")
            .await
            .unwrap();
        let change = ask(&mut reader, "FETCH ALL FROM c WITH (timeout = '10s')")
            .await
            .unwrap();
        assert_eq!(without_epochs(change), ["-1|y|5", "1|y|6"]);
        // What it reads can be dropped all the same.
        ask(&mut writer, "DROP TABLE t").await.unwrap();
        assert_eq!(
            state(&mut reader, "FETCH ALL FROM c WITH (timeout = '10s')").await,
            "55000"
        );
        ask(&mut reader, "CLOSE c").await.unwrap();
        assert_eq!(state(&mut reader, "FETCH c").await, "34000");
    });
}

#[test]
fn a_subscription_tells_progress_and_ends_where_it_is_told_to() {
    over_database(async |database| {
        let (mut writer, mut reader) = (session(database), session(database));
        ask(
            &mut writer,
            "CREATE TABLE t (a int); INSERT INTO t VALUES (1)",
        )
        .await
        .unwrap();
        let all = ask(&mut reader, "SUBSCRIBE t WITH (progress) LIMIT 2")
            .await
            .unwrap();
        assert_eq!(without_epochs(all), ["false|1|1", "true||"]);
        let none = ask(&mut reader, "SUBSCRIBE t UP TO 1").await.unwrap();
        assert!(none.is_empty());
        // Cancelling is how one without an end ends.
        let statement = reader.parse("SUBSCRIBE t").unwrap().remove(0);
        let prepared = reader.prepare(statement, Vec::new()).await.unwrap();
        let response = reader.execute(&prepared, Vec::new()).await.unwrap();
        let Response::Rows { mut stream, .. } = response else {
            panic!("no rows")
        };
        assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 1);
        reader.cancel_token().cancel(CancelReason::UserRequest);
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn prepared_statements_and_cursors_by_name() {
    over_database(async |database| {
        let mut s = session(database);
        ask(&mut s, "CREATE TABLE t (a int PRIMARY KEY, b text)")
            .await
            .unwrap();
        ask(
            &mut s,
            "PREPARE put (int, text) AS INSERT INTO t VALUES ($1, $2)",
        )
        .await
        .unwrap();
        for n in 1..=5 {
            let tag = ask(&mut s, &format!("EXECUTE put({n}, 'v{n}')"))
                .await
                .unwrap();
            assert_eq!(tag, ["INSERT 0 1"]);
        }
        assert_eq!(state(&mut s, "EXECUTE put(1)").await, "42601");
        assert_eq!(state(&mut s, "PREPARE put AS SELECT 1").await, "42P05");
        ask(&mut s, "DEALLOCATE put").await.unwrap();
        assert_eq!(state(&mut s, "EXECUTE put(1, 'x')").await, "26000");
        assert_eq!(
            state(&mut s, "DECLARE c CURSOR FOR SELECT a FROM t").await,
            "25P01"
        );
        ask(&mut s, "BEGIN").await.unwrap();
        ask(&mut s, "DECLARE c CURSOR FOR SELECT a FROM t ORDER BY a")
            .await
            .unwrap();
        assert_eq!(ask(&mut s, "FETCH 2 FROM c").await.unwrap(), ["1", "2"]);
        assert_eq!(ask(&mut s, "FETCH NEXT FROM c").await.unwrap(), ["3"]);
        assert_eq!(ask(&mut s, "FETCH ALL FROM c").await.unwrap(), ["4", "5"]);
        assert!(ask(&mut s, "FETCH c").await.unwrap().is_empty());
        ask(&mut s, "COMMIT").await.unwrap();
        assert_eq!(state(&mut s, "FETCH c").await, "34000");
    });
}

#[test]
fn ddl_in_a_block_takes_effect_at_once_and_not_behind_changes() {
    over_database(async |database| {
        let (mut s, mut other) = (session(database), session(database));
        ask(&mut s, "BEGIN").await.unwrap();
        ask(&mut s, "CREATE TABLE t (a int)").await.unwrap();
        assert_eq!(s.take_notices().len(), 1);
        ask(&mut s, "INSERT INTO t VALUES (1)").await.unwrap();
        assert_eq!(ask(&mut s, "SELECT a FROM t").await.unwrap(), ["1"]);
        assert!(ask(&mut other, "SELECT a FROM t").await.unwrap().is_empty());
        assert_eq!(state(&mut s, "CREATE TABLE u (a int)").await, "25001");
        ask(&mut s, "ROLLBACK").await.unwrap();
        assert!(ask(&mut s, "SELECT a FROM t").await.unwrap().is_empty());
    });
}

#[test]
fn settings_go_back_with_their_transaction() {
    over_database(async |database| {
        let mut s = session(database);
        ask(&mut s, "BEGIN; SET background_ddl = on; ROLLBACK")
            .await
            .unwrap();
        assert_eq!(ask(&mut s, "SHOW background_ddl").await.unwrap(), ["off"]);
        ask(&mut s, "BEGIN; SET LOCAL background_ddl = on")
            .await
            .unwrap();
        assert_eq!(ask(&mut s, "SHOW background_ddl").await.unwrap(), ["on"]);
        ask(&mut s, "COMMIT").await.unwrap();
        assert_eq!(ask(&mut s, "SHOW background_ddl").await.unwrap(), ["off"]);
        ask(&mut s, "BEGIN; SET background_ddl = on; COMMIT")
            .await
            .unwrap();
        assert_eq!(ask(&mut s, "SHOW background_ddl").await.unwrap(), ["on"]);
    });
}
