//! The wire with real clients (tokio-postgres, psql) and with raw bytes, over a database that is not there: see [`fake`].
#![allow(clippy::unwrap_used)]

mod fake;

use super::{PgConfig, PgServer};
use crate::metrics::FrontendMetrics;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use fake::{ALL_TYPES, Fake};
use futures::{SinkExt, StreamExt, TryStreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage, types::Type};

struct Server {
    fake: Arc<Fake>,
    port: u16,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

async fn server() -> Server {
    server_for(100).await
}

async fn server_for(max_connections: usize) -> Server {
    let fake = Arc::new(Fake::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = watch::channel(false);
    let server = PgServer::new(
        fake.clone(),
        Arc::new(FrontendMetrics::default()),
        PgConfig { max_connections },
    );
    let task = tokio::spawn(async move { server.serve(listener, stopped).await });
    Server {
        fake,
        port,
        stop,
        task,
    }
}

impl Server {
    fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user("ann")
            .application_name("tests");
        config
    }

    async fn connect(&self) -> Client {
        let (client, connection) = self.config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn eventually(&self, what: &str, holds: impl Fn(&Fake) -> bool) {
        for _ in 0..500 {
            if holds(&self.fake) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never happened: {what}");
    }
}

fn told(messages: &[SimpleQueryMessage]) -> Vec<String> {
    messages
        .iter()
        .map(|m| match m {
            SimpleQueryMessage::Row(row) => row.get(0).unwrap_or("∅").to_owned(),
            SimpleQueryMessage::CommandComplete(count) => format!("done {count}"),
            SimpleQueryMessage::RowDescription(columns) => format!("columns {}", columns.len()),
            _ => "?".to_owned(),
        })
        .collect()
}

#[tokio::test]
async fn several_statements_of_a_text_are_one_transaction() {
    let server = server().await;
    let client = server.connect().await;
    let messages = client
        .simple_query("SELECT generate(4); INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    assert_eq!(
        told(&messages),
        ["columns 1", "0", "1", "2", "3", "done 4", "done 1"]
    );
    let log = server.fake.log();
    assert_eq!(
        log,
        [
            "begin implicit",
            "SELECT generate(4)",
            "INSERT INTO t VALUES (1)",
            "commit implicit"
        ]
    );

    let error = client
        .simple_query("INSERT INTO t VALUES (1); SELECT fail(); SELECT generate(1)")
        .await
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22012");
    let log = server.fake.log();
    assert_eq!(
        log,
        [
            "begin implicit",
            "INSERT INTO t VALUES (1)",
            "SELECT fail()",
            "roll back implicit"
        ]
    );

    assert_eq!(told(&client.simple_query(" ; ").await.unwrap()), ["done 0"]);
    client
        .simple_query("INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    assert_eq!(server.fake.log(), ["INSERT INTO t VALUES (1)"]);
}

#[tokio::test]
async fn errors_carry_all_their_fields() {
    let server = server().await;
    let client = server.connect().await;
    let error = client.simple_query("SELECT fail()").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(
        (error.severity(), error.code().code(), error.message()),
        ("ERROR", "22012", "division by zero")
    );
    assert_eq!(
        (error.detail(), error.hint()),
        (Some("a detail"), Some("a hint"))
    );
    assert_eq!(
        error.position(),
        Some(&tokio_postgres::error::ErrorPosition::Original(8))
    );
    let error = client.simple_query("SELEC 1").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42601");
    let error = client.simple_query("SELECT broken()").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22012");
    assert_eq!(
        told(&client.simple_query("SELECT generate(1)").await.unwrap()).len(),
        3
    );
}

#[tokio::test]
async fn a_failed_block_stays_failed_until_it_ends() {
    let server = server().await;
    let client = server.connect().await;
    client.simple_query("BEGIN").await.unwrap();
    client.simple_query("SELECT fail()").await.unwrap_err();
    let error = client.simple_query("SELECT generate(1)").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25P02");
    client.simple_query("ROLLBACK").await.unwrap();
    client.simple_query("SELECT generate(1)").await.unwrap();
}

#[tokio::test]
async fn values_are_sent_in_text_and_in_binary() {
    let server = server().await;
    let client = server.connect().await;
    let messages = client.simple_query("SELECT all_types").await.unwrap();
    let SimpleQueryMessage::Row(row) = &messages[1] else {
        panic!("a row comes after its description")
    };
    for (index, (name, text)) in ALL_TYPES.iter().enumerate() {
        let expected = if *name == "double" {
            "9.999999999999999e+22"
        } else {
            text
        };
        assert_eq!(row.get(index), Some(expected), "{name}");
    }
    let SimpleQueryMessage::Row(nulls) = &messages[2] else {
        panic!("two rows")
    };
    assert!((0..ALL_TYPES.len()).all(|index| nulls.get(index).is_none()));

    let rows = client.query("SELECT all_types", &[]).await.unwrap();
    let row = &rows[0];
    assert!(row.get::<_, bool>("boolean"));
    assert_eq!(row.get::<_, i16>("smallint"), -2);
    assert_eq!(row.get::<_, i32>("integer"), 42);
    assert_eq!(row.get::<_, i64>("bigint"), 9_000_000_000);
    assert_eq!(row.get::<_, f32>("real"), 1.5);
    assert_eq!(row.get::<_, f64>("double"), 1e23);
    assert_eq!(row.get::<_, &str>("text"), "é");
    assert_eq!(row.get::<_, &str>("char"), "ab   ");
    assert_eq!(row.get::<_, &[u8]>("bytea"), [0, 0xff]);
    assert_eq!(
        row.get::<_, uuid::Uuid>("uuid").to_string(),
        ALL_TYPES[16].1
    );
    assert_eq!(
        row.get::<_, Vec<Option<i32>>>("array"),
        [Some(1), None, Some(3)]
    );
    let oids: Vec<u32> = row.columns().iter().map(|c| c.type_().oid()).collect();
    assert_eq!(
        oids,
        [
            16, 21, 23, 20, 700, 701, 1700, 25, 1043, 1042, 17, 1082, 1083, 1114, 1184, 1186, 2950,
            3802, 1007
        ]
    );
    assert_eq!(rows[1].get::<_, Option<i32>>("integer"), None);
}

#[tokio::test]
async fn parameters_arrive_as_they_were_sent() {
    let server = server().await;
    let client = server.connect().await;
    let types = [
        Type::INT4,
        Type::TEXT,
        Type::BOOL,
        Type::INT4_ARRAY,
        Type::BYTEA,
        Type::FLOAT8,
    ];
    let statement = client
        .prepare_typed("SELECT echo($1, $2, $3, $4, $5, $6)", &types)
        .await
        .unwrap();
    assert_eq!(statement.params(), types);
    let row = client
        .query_one(
            &statement,
            &[
                &7i32,
                &"x'y",
                &None::<bool>,
                &vec![1i32, 2],
                &&b"\x00\x01"[..],
                &-0.5f64,
            ],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);
    assert_eq!(row.get::<_, &str>(1), "x'y");
    assert_eq!(row.get::<_, Option<bool>>(2), None);
    assert_eq!(row.get::<_, Vec<i32>>(3), [1, 2]);
    assert_eq!(row.get::<_, &[u8]>(4), [0, 1]);
    assert_eq!(row.get::<_, f64>(5), -0.5);
    // Alone between two syncs: no transaction is made around it.
    assert_eq!(server.fake.log(), ["SELECT echo($1, $2, $3, $4, $5, $6)"]);
}

#[tokio::test]
async fn a_portal_is_read_in_parts() {
    let server = server().await;
    let mut client = server.connect().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT generate(8)", &[]).await.unwrap();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        sizes.push(transaction.query_portal(&portal, 3).await.unwrap().len());
    }
    assert_eq!(sizes, [3, 3, 2, 0]);
    let last: Vec<i32> = {
        let portal = transaction.bind("SELECT generate(5)", &[]).await.unwrap();
        transaction.query_portal(&portal, 4).await.unwrap();
        let rows = transaction.query_portal(&portal, 0).await.unwrap();
        rows.iter().map(|r| r.get(0)).collect()
    };
    assert_eq!(last, [4]);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_statement_is_cancelled_from_another_connection() {
    let server = server().await;
    let client = server.connect().await;
    let cancel = client.cancel_token();
    for text in ["SELECT hang()", "SELECT endless(1)", "SELECT endless(1000)"] {
        let query = client.simple_query(text);
        let cancelled = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cancel.cancel_query(NoTls).await.unwrap();
        };
        let (result, ()) = tokio::join!(query, cancelled);
        assert_eq!(
            result.unwrap_err().code().unwrap().code(),
            "57014",
            "{text}"
        );
    }
    // A request between statements is lost.
    cancel.cancel_query(NoTls).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.simple_query("SELECT generate(1)").await.unwrap();
}

#[tokio::test]
async fn rows_of_an_endless_stream_arrive_as_they_come() {
    let server = server().await;
    let client = server.connect().await;
    let rows = client
        .query_raw("SELECT endless(1)", Vec::<i32>::new())
        .await
        .unwrap();
    let mut rows = pin!(rows);
    for _ in 0..5 {
        tokio::time::timeout(Duration::from_secs(5), rows.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_statement() {
    let server = server().await;
    for text in ["SELECT endless(1)", "SELECT endless(1000)"] {
        let before = server.fake.dropped.load(Ordering::SeqCst);
        let polled = server.fake.polled.load(Ordering::SeqCst);
        let (client, connection) = server.config().connect(NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let query = tokio::spawn(async move { client.simple_query(text).await.map(drop) });
        server
            .eventually("the stream is read", |f| {
                f.polled.load(Ordering::SeqCst) > polled + 1
            })
            .await;
        connection.abort();
        query.abort();
        server
            .eventually("the stream is dropped", |f| {
                f.dropped.load(Ordering::SeqCst) > before
            })
            .await;
    }
    let (client, connection) = server.config().connect(NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    tokio::spawn(async move { client.simple_query("SELECT hang()").await.map(drop) });
    server
        .eventually("it runs", |f| {
            f.log.lock().unwrap().iter().any(|l| l == "SELECT hang()")
        })
        .await;
    connection.abort();
    server
        .eventually("it is cancelled", |f| {
            f.log.lock().unwrap().iter().any(|l| l == "ConnectionLost")
        })
        .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_stream_up() {
    let server = server().await;
    let mut raw = Raw::open(&server).await;
    raw.send(b'Q', b"SELECT endless(1000)\0").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let first = server.fake.polled.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let later = server.fake.polled.load(Ordering::SeqCst);
    // What fits the sockets' buffers is read; then nothing more is.
    assert_eq!(first, later);
    assert!(later < 5_000, "{later} batches were read ahead");
}

#[tokio::test]
async fn copy_moves_data_both_ways() {
    let server = server().await;
    let client = server.connect().await;
    let sink = client
        .copy_in::<_, Bytes>("COPY t FROM STDIN")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    for piece in ["1\tx\n2", "\ty\n", "3\t\\N"] {
        sink.send(Bytes::from(piece)).await.unwrap();
    }
    assert_eq!(sink.as_mut().finish().await.unwrap(), 3);
    assert_eq!(server.fake.log(), ["COPY t FROM STDIN", "copied 3"]);

    let sink = client
        .copy_in::<_, Bytes>("COPY t FROM STDIN")
        .await
        .unwrap();
    let mut sink = pin!(sink);
    sink.send(Bytes::from("not a number\tx\n")).await.unwrap();
    let error = sink.as_mut().finish().await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22P02");
    assert_eq!(
        server.fake.log()[1],
        "copy undone: invalid input syntax for type integer: \"not a number\""
    );

    let data: Vec<Bytes> = client
        .copy_out("COPY t TO STDOUT")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(data.concat(), b"1\ta\\tb\n\\N\t\\N\n");
    client.simple_query("SELECT generate(1)").await.unwrap();
}

#[tokio::test]
async fn connections_are_limited() {
    let server = server_for(1).await;
    let first = server.connect().await;
    let error = server.config().connect(NoTls).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "53300");
    // Cancelling is possible nevertheless.
    let cancel = first.cancel_token();
    let query = first.simple_query("SELECT hang()");
    let cancelled = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel_query(NoTls).await.unwrap();
    };
    assert_eq!(
        tokio::join!(query, cancelled)
            .0
            .unwrap_err()
            .code()
            .unwrap()
            .code(),
        "57014"
    );
    drop(first);
    for _ in 0..100 {
        if server.config().connect(NoTls).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place of the first connection was never free again");
}

#[tokio::test]
async fn notices_and_settings_are_told() {
    let server = server().await;
    let (client, mut connection) = server.config().connect(NoTls).await.unwrap();
    assert!(
        connection
            .parameter("server_version")
            .unwrap()
            .starts_with("15.0 (Tidegate ")
    );
    assert_eq!(connection.parameter("application_name"), Some("tests"));
    assert_eq!(connection.parameter("integer_datetimes"), Some("on"));
    let query = tokio::spawn(async move { client.simple_query("SET a = 1").await.map(drop) });
    let mut notices = Vec::new();
    while let Some(Ok(message)) = futures::future::poll_fn(|cx| connection.poll_message(cx)).await {
        if let AsyncMessage::Notice(notice) = message {
            notices.push(format!("{} {}", notice.severity(), notice.message()));
        }
    }
    query.await.unwrap().unwrap();
    assert_eq!(notices, ["NOTICE it was set"]);
    assert_eq!(connection.parameter("application_name"), Some("changed"));
}

#[tokio::test]
async fn an_unknown_setting_is_refused_at_the_door() {
    let server = server().await;
    let error = server
        .config()
        .options("-c no_such_setting=1")
        .connect(NoTls)
        .await
        .err()
        .unwrap();
    let error = error.as_db_error().unwrap();
    assert_eq!((error.severity(), error.code().code()), ("FATAL", "42704"));
}

#[tokio::test]
async fn stopping_ends_idle_and_running_sessions() {
    let server = server().await;
    let idle = server.connect().await;
    let running = server.connect().await;
    let query = tokio::spawn(async move { running.simple_query("SELECT hang()").await.map(drop) });
    server
        .eventually("it runs", |f| !f.log.lock().unwrap().is_empty())
        .await;
    server.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), server.task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        query.await.unwrap().unwrap_err().code().unwrap().code(),
        "57P01"
    );
    assert!(idle.simple_query("SELECT generate(1)").await.is_err());
    assert!(
        TcpStream::connect(("127.0.0.1", server.port))
            .await
            .is_err()
    );
}

/// A client that sends what it likes.
struct Raw {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Raw {
    async fn open(server: &Server) -> Raw {
        let stream = TcpStream::connect(("127.0.0.1", server.port))
            .await
            .unwrap();
        let mut raw = Raw {
            stream,
            buffer: BytesMut::new(),
        };
        let mut body = BytesMut::new();
        body.put_u32(3 << 16);
        body.put_slice(b"user\0ann\0\0");
        raw.packet(&body).await;
        assert!(raw.until(b'Z').await.ends_with(&["Z I".to_owned()]));
        raw
    }

    async fn packet(&mut self, body: &[u8]) {
        self.stream.write_u32(body.len() as u32 + 4).await.unwrap();
        self.stream.write_all(body).await.unwrap();
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        self.stream.write_u8(kind).await.unwrap();
        self.packet(body).await;
    }

    /// Messages up to one of this kind, each as its kind with what matters of it.
    async fn until(&mut self, last: u8) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            while self.buffer.len() < 5
                || self.buffer.len() < 1 + (&self.buffer[1..5]).get_u32() as usize
            {
                let read = tokio::time::timeout(
                    Duration::from_secs(5),
                    self.stream.read_buf(&mut self.buffer),
                );
                if read.await.expect("an answer in time").unwrap() == 0 {
                    told.push("end".to_owned());
                    return told;
                }
            }
            let kind = self.buffer.get_u8();
            let length = self.buffer.get_u32() as usize - 4;
            let body = self.buffer.split_to(length);
            let text = match kind {
                b'Z' => format!("Z {}", body[0] as char),
                b'C' => format!("C {}", String::from_utf8_lossy(&body[..length - 1])),
                b'E' => {
                    let code = body
                        .as_ref()
                        .split(|b: &u8| *b == 0)
                        .find(|f| f.first() == Some(&b'C'))
                        .unwrap();
                    format!("E {}", String::from_utf8_lossy(&code[1..]))
                }
                other => (other as char).to_string(),
            };
            told.push(text);
            if kind == last {
                return told;
            }
        }
    }
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat()
}

/// The unnamed portal from a statement, without parameters, all in text.
fn bind(statement: &str) -> Vec<u8> {
    [b"\0", statement.as_bytes(), b"\0\0\0\0\0\0\0"].concat()
}

const EXECUTE: &[u8] = b"\0\0\0\0\0";

#[tokio::test]
async fn a_pipeline_is_one_transaction_and_ends_at_its_first_error() {
    let server = server().await;
    let mut raw = Raw::open(&server).await;
    for (sql, rest) in [
        ("INSERT INTO t VALUES (1)", true),
        ("SELECT fail()", true),
        ("INSERT INTO t VALUES (2)", false),
    ] {
        raw.send(b'P', &parse("", sql)).await;
        raw.send(b'B', &bind("")).await;
        raw.send(b'E', EXECUTE).await;
        if !rest {
            raw.send(b'S', b"").await;
        }
    }
    let told = raw.until(b'Z').await;
    assert_eq!(told, ["1", "2", "C INSERT 0 1", "1", "2", "E 22012", "Z I"]);
    assert_eq!(
        server.fake.log(),
        [
            "begin implicit",
            "INSERT INTO t VALUES (1)",
            "SELECT fail()",
            "roll back implicit"
        ]
    );
    for _ in 0..2 {
        raw.send(b'P', &parse("", "INSERT INTO t VALUES (3)")).await;
        raw.send(b'B', &bind("")).await;
        raw.send(b'E', EXECUTE).await;
    }
    raw.send(b'S', b"").await;
    assert_eq!(
        raw.until(b'Z').await,
        ["1", "2", "C INSERT 0 1", "1", "2", "C INSERT 0 1", "Z I"]
    );
    assert_eq!(server.fake.log().last().unwrap(), "commit implicit");
}

#[tokio::test]
async fn a_parameter_that_cannot_be_read_fails_the_block() {
    let server = server().await;
    let mut raw = Raw::open(&server).await;
    raw.send(b'Q', b"BEGIN\0").await;
    assert_eq!(raw.until(b'Z').await, ["C BEGIN", "Z T"]);
    raw.send(b'P', b"\0SELECT echo($1)\0\0\x01\0\0\0\x17").await;
    raw.send(b'B', b"\0\0\0\0\0\x01\0\0\0\x01x\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.until(b'Z').await, ["1", "E 22P02", "Z E"]);
    raw.send(b'B', b"\0\0\0\0\0\0\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.until(b'Z').await, ["E 08P01", "Z E"]);
}

#[tokio::test]
async fn statements_and_portals_are_described_and_closed() {
    let server = server().await;
    let mut raw = Raw::open(&server).await;
    raw.send(b'P', &parse("s", "SELECT generate(1)")).await;
    raw.send(b'D', b"Ss\0").await;
    raw.send(b'B', &bind("s")).await;
    raw.send(b'D', b"P\0").await;
    raw.send(b'E', EXECUTE).await;
    raw.send(b'E', EXECUTE).await;
    raw.send(b'C', b"Ss\0").await;
    raw.send(b'C', b"Pnone\0").await;
    raw.send(b'S', b"").await;
    let told = raw.until(b'Z').await;
    assert_eq!(
        told,
        [
            "1",
            "t",
            "T",
            "2",
            "T",
            "D",
            "C SELECT 1",
            "C SELECT 0",
            "3",
            "3",
            "Z I"
        ]
    );
    raw.send(b'B', &bind("s")).await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.until(b'Z').await, ["E 26000", "Z I"]);
    raw.send(b'E', b"nowhere\0\0\0\0\0").await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.until(b'Z').await, ["E 34000", "Z I"]);
    raw.send(b'P', &parse("", "")).await;
    raw.send(b'B', &bind("")).await;
    raw.send(b'D', b"P\0").await;
    raw.send(b'E', EXECUTE).await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.until(b'Z').await, ["1", "2", "n", "I", "Z I"]);
    raw.send(b'P', &parse("", "SELECT generate(1); SELECT generate(1)"))
        .await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.until(b'Z').await, ["E 42601", "Z I"]);
}

#[tokio::test]
async fn encryption_is_declined_and_bad_messages_are_survived() {
    let server = server().await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    for request in [80_877_104u32, 80_877_103] {
        stream.write_u32(8).await.unwrap();
        stream.write_u32(request).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
    }
    drop(stream);

    let mut raw = Raw::open(&server).await;
    raw.send(b'Q', b"no end").await;
    assert_eq!(raw.until(b'Z').await, ["E 08P01", "Z I"]);
    raw.send(b'B', b"\0").await;
    raw.send(b'P', &parse("", "SELECT generate(1)")).await;
    raw.send(b'S', b"").await;
    assert_eq!(raw.until(b'Z').await, ["E 08P01", "Z I"]);
    // What is left of a copy that failed.
    raw.send(b'd', b"data").await;
    raw.send(b'c', b"").await;
    raw.send(b'Q', b"SELECT generate(1)\0").await;
    assert_eq!(raw.until(b'Z').await, ["T", "D", "C SELECT 1", "Z I"]);
    raw.send(b'?', b"").await;
    assert_eq!(raw.until(b'Z').await, ["E 08P01", "end"]);
}

#[tokio::test]
async fn a_newer_protocol_is_negotiated_down() {
    let server = server().await;
    let stream = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    let mut raw = Raw {
        stream,
        buffer: BytesMut::new(),
    };
    let mut body = BytesMut::new();
    body.put_u32(3 << 16 | 2);
    body.put_slice(b"user\0ann\0_pq_.new\x001\0\0");
    raw.packet(&body).await;
    let told = raw.until(b'Z').await;
    assert_eq!(&told[..2], ["v", "R"]);
    let mut old = TcpStream::connect(("127.0.0.1", server.port))
        .await
        .unwrap();
    old.write_all(&[0, 0, 0, 8, 0, 2, 0, 0]).await.unwrap();
    let mut answer = Vec::new();
    old.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("0A000"));
}

#[tokio::test]
async fn psql_speaks_with_us() {
    if std::process::Command::new("psql")
        .arg("--version")
        .output()
        .is_err()
    {
        // psql is not everywhere; tokio-postgres covers the same messages.
        return;
    }
    let server = server().await;
    let port = server.port.to_string();
    let run = async |sql: &str| {
        let output = tokio::process::Command::new("psql")
            .args([
                "-X",
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                "ann",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                sql,
            ])
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap();
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(
        run("SELECT generate(2)").await.0,
        " n \n---\n 0\n 1\n(2 rows)\n\n"
    );
    assert_eq!(run("INSERT INTO t VALUES (1)").await.0, "INSERT 0 1\n");
    assert_eq!(run("COPY t TO STDOUT").await.0, "1\ta\\tb\n\\N\t\\N\n");
    let (_, error) = run("SELECT fail()").await;
    assert_eq!(
        error,
        "ERROR:  division by zero\nLINE 1: SELECT fail()\n               ^\nDETAIL:  a detail\nHINT:  a hint\n"
    );
    assert_eq!(
        run("SET a = 1").await,
        ("SET\n".into(), "NOTICE:  it was set\n".into())
    );
}
