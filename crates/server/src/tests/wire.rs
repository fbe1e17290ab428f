//! A real database behind the wire protocol, in this process, with tokio-postgres as its client.

use futures::{SinkExt, StreamExt, TryStreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::{Config, Database};
use tidegate_frontend::metrics::FrontendMetrics;
use tidegate_frontend::pg::{PgConfig, PgServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

struct Server {
    database: Arc<Database>,
    port: u16,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

async fn server() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::new(directory.path().join("data"))
        .with("workers", "2")
        .and_then(|c| c.with("pin_workers", "off"))
        .unwrap();
    let database = Database::open(config).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = watch::channel(false);
    let metrics = Arc::new(FrontendMetrics::default());
    let server = PgServer::new(database.clone(), metrics, PgConfig::default());
    let task = tokio::spawn(async move { server.serve(listener, stopped).await });
    Server {
        database,
        port,
        stop,
        task,
        _directory: directory,
    }
}

impl Server {
    async fn connect(&self) -> Client {
        let address = format!("host=127.0.0.1 port={} user=ann dbname=tidegate", self.port);
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
        self.database.shutdown().await.unwrap();
    }
}

fn cells(messages: &[SimpleQueryMessage]) -> Vec<String> {
    messages
        .iter()
        .filter_map(|m| match m {
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|c| row.get(c).unwrap_or("∅"));
                Some(cells.collect::<Vec<_>>().join("|"))
            }
            _ => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_every_type_go_in_and_out_in_binary() {
    let server = server().await;
    let client = server.connect().await;
    client
        .simple_query(
            "CREATE TABLE t (a smallint, b integer PRIMARY KEY, c bigint, d real, e double precision, f text, g varchar(5), \
             h bytea, i date, j time, k timestamp, l timestamptz, m uuid, n jsonb, o boolean, p integer[], q text[])",
        )
        .await
        .unwrap();
    let date = chrono::NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
    let time = chrono::NaiveTime::from_hms_micro_opt(4, 5, 6, 700_000).unwrap();
    let timestamp = date.and_time(time);
    let zoned = timestamp.and_utc();
    let uuid = uuid::Uuid::new_v4();
    let json = serde_json::json!({"b": [1, null], "a": "x"});
    let insert = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
    let inserted = client
        .execute(
            insert,
            &[
                &1i16,
                &2i32,
                &3i64,
                &1.5f32,
                &2.5f64,
                &"text",
                &"vary",
                &&b"\x00\xff"[..],
                &date,
                &time,
                &timestamp,
                &zoned,
                &uuid,
                &json,
                &true,
                &vec![Some(1i32), None],
                &vec!["a", "b c"],
            ],
        )
        .await
        .unwrap();
    assert_eq!(inserted, 1);
    let row = client
        .query_one("SELECT * FROM t WHERE b = $1", &[&2i32])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i16>("a"), 1);
    assert_eq!(row.get::<_, i64>("c"), 3);
    assert_eq!(row.get::<_, f32>("d"), 1.5);
    assert_eq!(row.get::<_, f64>("e"), 2.5);
    assert_eq!(row.get::<_, &str>("f"), "text");
    assert_eq!(row.get::<_, &str>("g"), "vary");
    assert_eq!(row.get::<_, &[u8]>("h"), b"\x00\xff");
    assert_eq!(row.get::<_, chrono::NaiveDate>("i"), date);
    assert_eq!(row.get::<_, chrono::NaiveTime>("j"), time);
    assert_eq!(row.get::<_, chrono::NaiveDateTime>("k"), timestamp);
    assert_eq!(row.get::<_, chrono::DateTime<chrono::Utc>>("l"), zoned);
    assert_eq!(row.get::<_, uuid::Uuid>("m"), uuid);
    assert_eq!(row.get::<_, serde_json::Value>("n"), json);
    assert!(row.get::<_, bool>("o"));
    assert_eq!(row.get::<_, Vec<Option<i32>>>("p"), [Some(1), None]);
    assert_eq!(row.get::<_, Vec<String>>("q"), ["a", "b c"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_all_or_nothing_over_the_wire() {
    let server = server().await;
    let mut client = server.connect().await;
    client
        .simple_query("CREATE TABLE t (a integer PRIMARY KEY)")
        .await
        .unwrap();
    client
        .simple_query("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t")
        .await
        .unwrap();
    // One text is one transaction.
    client
        .simple_query("INSERT INTO t VALUES (1); INSERT INTO t VALUES (1/0)")
        .await
        .unwrap_err();
    assert_eq!(
        cells(&client.simple_query("SELECT n FROM v").await.unwrap()),
        ["0"]
    );
    let transaction = client.transaction().await.unwrap();
    transaction
        .execute("INSERT INTO t VALUES ($1)", &[&1i32])
        .await
        .unwrap();
    let error = transaction
        .execute("INSERT INTO t VALUES ($1)", &[&1i32])
        .await
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");
    let error = transaction
        .execute("INSERT INTO t VALUES (2)", &[])
        .await
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25P02");
    transaction.rollback().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    for a in 0..10i32 {
        transaction
            .execute("INSERT INTO t VALUES ($1)", &[&a])
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    assert_eq!(
        cells(&client.simple_query("SELECT n FROM v").await.unwrap()),
        ["10"]
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_and_subscribe_stream() {
    let server = server().await;
    let client = server.connect().await;
    client
        .simple_query("CREATE TABLE t (a integer PRIMARY KEY, b text)")
        .await
        .unwrap();
    client
        .simple_query("CREATE MATERIALIZED VIEW v AS SELECT b, count(*) AS n FROM t GROUP BY b")
        .await
        .unwrap();
    let other = server.connect().await;
    let changes = other
        .query_raw("SUBSCRIBE TO v", Vec::<i32>::new())
        .await
        .unwrap();
    let mut changes = pin!(changes);

    let sink = client
        .copy_in::<_, bytes::Bytes>("COPY t FROM STDIN")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    for first in (0..30_000).step_by(1_000) {
        let lines: String = (first..first + 1_000)
            .map(|a| format!("{a}\tg{}\n", a % 3))
            .collect();
        sink.send(lines.into()).await.unwrap();
    }
    assert_eq!(sink.as_mut().finish().await.unwrap(), 30_000);
    let rows = client
        .simple_query("SELECT b, n FROM v ORDER BY b")
        .await
        .unwrap();
    assert_eq!(cells(&rows), ["g0|10000", "g1|10000", "g2|10000"]);
    let change = tokio::time::timeout(Duration::from_secs(10), changes.next()).await;
    let change = change.expect("a change arrives in time").unwrap().unwrap();
    assert_eq!(change.get::<_, i64>("diff"), 1);

    let data: Vec<bytes::Bytes> = client
        .copy_out(
            "COPY (SELECT a, b FROM t WHERE a < 2 ORDER BY a) TO STDOUT WITH (FORMAT csv, HEADER)",
        )
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(data.concat(), b"a,b\n0,g0\n1,g1\n");

    let cancel = other.cancel_token();
    cancel.cancel_query(NoTls).await.unwrap();
    // Whoever cancels a subscription has seen enough of it: it ends as if it had come to an end.
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(change) = changes.next().await {
            change.unwrap();
        }
    });
    ended.await.unwrap();
    server.stop().await;
}
