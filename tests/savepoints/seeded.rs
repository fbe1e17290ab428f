//! `CREATE MATERIALIZED VIEW … FROM SAVEPOINT`: views that begin with saved state hold what their queries give.
//!
//! What they should hold comes from the batch engine, which shares no operator and no state with dataflows, and where it
//! matters from numbers worked out by hand. That they do begin with saved state shows in what they do not read again.

use crate::server::{Server, refused, rows, run, until_rows};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use tokio_postgres::Client;

/// Queries with the state of each kind of operator: joins, groups, top n, distinct, semi and outer joins, windows.
const QUERIES: &[(&str, &str)] = &[
    (
        "grouped",
        "SELECT g, count(*) AS n, sum(x) AS total, min(x) AS least, max(x) AS most FROM t GROUP BY g",
    ),
    (
        "joined",
        "SELECT t.id, d.name, t.x FROM t JOIN d ON d.g = t.g",
    ),
    (
        "outer_joined",
        "SELECT t.id, d.name FROM t FULL JOIN d ON d.g = t.g",
    ),
    (
        "summed",
        "SELECT d.name, count(*) AS n, sum(t.x) AS total FROM t JOIN d ON d.g = t.g GROUP BY d.name",
    ),
    ("highest", "SELECT id, x FROM t ORDER BY x DESC, id LIMIT 5"),
    ("different", "SELECT DISTINCT g FROM t"),
    (
        "absent",
        "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM d WHERE d.g = t.g)",
    ),
    (
        "ranked",
        "SELECT id, row_number() OVER (PARTITION BY g ORDER BY x, id) AS place FROM t",
    ),
    (
        "paired",
        "SELECT a.id, b.id AS other FROM t a JOIN t b ON a.g = b.g AND a.id < b.id",
    ),
    ("whole", "SELECT count(*) AS n, sum(x) AS total FROM t"),
    (
        "above",
        "SELECT n, count(*) AS groups FROM grouped GROUP BY n",
    ),
    ("constant", "SELECT g FROM t UNION ALL SELECT 'always'"),
];

async fn fill(client: &Client) {
    run(
        client,
        "CREATE TABLE t (id bigint PRIMARY KEY, g text, x integer)",
    )
    .await;
    run(client, "CREATE TABLE d (g text PRIMARY KEY, name text)").await;
    for (name, query) in QUERIES {
        run(
            client,
            &format!("CREATE MATERIALIZED VIEW {name} AS {query}"),
        )
        .await;
    }
    run(
        client,
        "INSERT INTO d VALUES ('g0', 'zero'), ('g1', 'one'), ('g9', 'nine')",
    )
    .await;
    run(client, "INSERT INTO t SELECT i, 'g' || (i % 4)::text, (i * 37) % 101 FROM generate_series(1, 200) AS s(i)").await;
}

async fn change(client: &Client) {
    run(client, "DELETE FROM t WHERE id % 5 = 0").await;
    run(
        client,
        "UPDATE t SET x = x + 1000, g = 'g9' WHERE id % 7 = 0",
    )
    .await;
    run(
        client,
        "INSERT INTO t SELECT i, 'new', i FROM generate_series(201, 230) AS s(i)",
    )
    .await;
    run(client, "UPDATE d SET name = 'changed' WHERE g = 'g0'").await;
    run(client, "DELETE FROM d WHERE g = 'g1'").await;
    run(client, "INSERT INTO d VALUES ('new', 'brand new')").await;
}

/// Every view holds what its query gives when it is computed as a batch.
async fn expect_right(client: &Client, suffix: &str) {
    for (name, query) in QUERIES {
        let held = rows(client, &format!("SELECT * FROM {name}{suffix}")).await;
        let computed = rows(client, query).await;
        assert_eq!(held, computed, "{name}{suffix}");
        assert!(!held.is_empty(), "{name}: nothing is compared");
        let different = rows(client, &format!("VERIFY MATERIALIZED VIEW {name}{suffix}")).await;
        assert!(different.is_empty(), "{name}{suffix}: {different:?}");
    }
}

async fn create_from(client: &Client, savepoint: &str, suffix: &str) {
    for (name, query) in QUERIES {
        let sql = format!(
            "CREATE MATERIALIZED VIEW {name}{suffix} FROM SAVEPOINT {savepoint} AS {query}"
        );
        run(client, &sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_begin_with_saved_state_and_catch_up() {
    for backend in ["memory", "rocksdb"] {
        let directory = tempfile::tempdir().unwrap();
        let settings = [("state_backend", backend), ("checkpoint_interval", "off")];
        let mut server = Server::start(directory.path(), &settings);
        let client = server.connect().await;
        fill(&client).await;
        run(&client, "SAVEPOINT one").await;
        // At once, without a change in between.
        create_from(&client, "one", "_same").await;
        expect_right(&client, "_same").await;
        change(&client).await;
        create_from(&client, "one", "_later").await;
        expect_right(&client, "_later").await;
        // They go on like any other, and have caught up exactly once.
        run(&client, "DELETE FROM t WHERE id > 215").await;
        run(&client, "INSERT INTO d VALUES ('g1', 'again')").await;
        expect_right(&client, "_same").await;
        expect_right(&client, "_later").await;
        // Their state is in checkpoints, and no longer in need of the savepoint.
        run(&client, "CHECKPOINT").await;
        run(&client, "RELEASE SAVEPOINT one").await;
        run(&client, "UPDATE t SET x = -x WHERE id % 3 = 0").await;
        server.kill();
        server.wait();
        let server = Server::start(directory.path(), &settings);
        let client = server.connect().await;
        expect_right(&client, "_later").await;
        run(&client, "DELETE FROM t WHERE id % 2 = 0").await;
        expect_right(&client, "_later").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_before_the_first_checkpoint_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [("checkpoint_interval", "off")];
    let mut server = Server::start(directory.path(), &settings);
    let client = server.connect().await;
    fill(&client).await;
    run(&client, "SAVEPOINT one").await;
    change(&client).await;
    create_from(&client, "one", "_later").await;
    server.kill();
    server.wait();
    let server = Server::start(directory.path(), &settings);
    let client = server.connect().await;
    for (name, query) in QUERIES {
        let computed = rows(&client, query).await;
        let held = format!("SELECT * FROM {name}_later");
        until_rows(
            &client,
            &format!("SELECT count(*) FROM ({query}) AS q"),
            |n| n[0] != "0",
        )
        .await;
        assert_eq!(rows(&client, &held).await, computed, "{name}");
    }
}

/// The server is the same, and so is the savepoint; workers and backend are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saved_state_fits_other_workers_and_another_backend() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut server = Server::start(data, &[("state_backend", "memory")]);
    let client = server.connect().await;
    fill(&client).await;
    run(&client, "SAVEPOINT one").await;
    change(&client).await;
    server.terminate();
    server.wait();
    let server = Server::spawn(crate::begin::command(
        data,
        3,
        &[("state_backend", "rocksdb")],
    ));
    let client = server.connect().await;
    create_from(&client, "one", "_later").await;
    expect_right(&client, "_later").await;
    run(&client, "DELETE FROM t WHERE id % 2 = 0").await;
    expect_right(&client, "_later").await;
}

/// A table that was made anew holds what it holds now, whatever it held then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_that_were_made_anew_are_compared_row_by_row() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY, x integer)").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, sum(x) AS total FROM t",
    )
    .await;
    run(&client, "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)").await;
    run(&client, "SAVEPOINT one").await;
    run(&client, "DROP TABLE t CASCADE").await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY, x integer)").await;
    run(&client, "INSERT INTO t VALUES (2, 20), (3, 31), (4, 40)").await;
    run(&client, "CREATE MATERIALIZED VIEW v FROM SAVEPOINT one AS SELECT count(*) AS n, sum(x) AS total FROM t").await;
    assert_eq!(rows(&client, "SELECT * FROM v").await, ["3|91"]);
    // Under another name, and of a view with another.
    run(&client, "CREATE MATERIALIZED VIEW renamed (a, b) FROM SAVEPOINT one AS SELECT count(*), sum(x) FROM t").await;
    assert_eq!(rows(&client, "SELECT a, b FROM renamed").await, ["3|91"]);
    let made = rows(&client, "SHOW CREATE MATERIALIZED VIEW renamed").await;
    assert!(!made[0].contains("SAVEPOINT"), "{made:?}");
    run(&client, "DROP TABLE t CASCADE").await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY, x bigint)").await;
    let sql = "CREATE MATERIALIZED VIEW v FROM SAVEPOINT one AS SELECT count(*) AS n, sum(x) AS total FROM t";
    let error = refused(&client, sql).await;
    assert_eq!(error.code().code(), "55000");
    assert_eq!(
        error.message(),
        "\"t\" has other columns or another key than in savepoint \"one\""
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_only_inputs_give_what_came_since() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    run(&client, "CREATE TABLE a (k integer, x integer) APPEND ONLY").await;
    let query = "SELECT k, max(x) AS most, count(*) AS n FROM a GROUP BY k";
    run(&client, &format!("CREATE MATERIALIZED VIEW v AS {query}")).await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW doubled AS SELECT k, x * 2 AS twice FROM a",
    )
    .await;
    run(&client, "SAVEPOINT at_first").await;
    run(
        &client,
        "INSERT INTO a VALUES (1, 5), (1, 7), (2, 1), (1, 7)",
    )
    .await;
    run(&client, "SAVEPOINT partly").await;
    run(&client, "INSERT INTO a VALUES (1, 7), (2, 9)").await;
    for savepoint in ["at_first", "partly"] {
        run(
            &client,
            &format!(
                "CREATE MATERIALIZED VIEW v_{savepoint} FROM SAVEPOINT {savepoint} AS {query}"
            ),
        )
        .await;
        assert_eq!(
            rows(&client, &format!("SELECT * FROM v_{savepoint}")).await,
            ["1|7|4", "2|9|2"]
        );
        run(&client, &format!("CREATE MATERIALIZED VIEW d_{savepoint} FROM SAVEPOINT {savepoint} AS SELECT k, x * 2 AS twice FROM a")).await;
        let doubled = ["1|10", "1|14", "1|14", "1|14", "2|18", "2|2"];
        assert_eq!(
            rows(&client, &format!("SELECT * FROM d_{savepoint}")).await,
            doubled
        );
    }
    // What the savepoint knows and the present does not cannot be taken back from a view that only grows.
    run(&client, "SAVEPOINT later").await;
    run(&client, "ROLLBACK TO SAVEPOINT partly").await;
    let error = refused(
        &client,
        &format!("CREATE MATERIALIZED VIEW x FROM SAVEPOINT later AS {query}"),
    )
    .await;
    assert_eq!(error.code().code(), "55000");
    assert!(error.message().contains("are there no longer"), "{error:?}");
    // Nothing of it stays, and the rest goes on.
    assert_eq!(rows(&client, "SELECT * FROM v").await, ["1|7|3", "2|1|1"]);
    run(&client, "INSERT INTO a VALUES (2, 2)").await;
    assert_eq!(rows(&client, "SELECT * FROM v").await, ["1|7|3", "2|2|2"]);
}

fn append(file: &Path, lines: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

/// The first lines of the file are altered after they were read. Whoever reads them again is found out by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_are_read_on_from_where_they_were() {
    for keeps_reader in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("in.csv");
        std::fs::write(&file, "1,10\n2,20\n").unwrap();
        let server = Server::start(&directory.path().join("data"), &[]);
        let client = server.connect().await;
        let source = format!(
            "CREATE SOURCE s (k integer, x integer) WITH (connector = 'file', path = '{}', follow = 'true') FORMAT PLAIN ENCODE CSV (header = 'false')",
            file.display()
        );
        run(&client, &source).await;
        let query = "SELECT count(*) AS n, sum(x) AS total FROM s";
        run(&client, &format!("CREATE MATERIALIZED VIEW v AS {query}")).await;
        until_rows(&client, "SELECT * FROM v", |r| r == ["2|30"]).await;
        run(&client, "SAVEPOINT one").await;
        append(&file, "3,30\n");
        until_rows(&client, "SELECT * FROM v", |r| r == ["3|60"]).await;
        if !keeps_reader {
            run(&client, "DROP MATERIALIZED VIEW v").await;
        }
        let mut altered = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        altered.seek(SeekFrom::Start(0)).unwrap();
        altered.write_all(b"1,99\n2,99\n").unwrap();
        drop(altered);
        run(
            &client,
            &format!("CREATE MATERIALIZED VIEW w FROM SAVEPOINT one AS {query}"),
        )
        .await;
        until_rows(&client, "SELECT * FROM w", |r| r == ["3|60"]).await;
        append(&file, "4,40\n");
        until_rows(&client, "SELECT * FROM w", |r| r == ["4|100"]).await;
        // One that is built sees the altered lines: the comparison means something.
        run(
            &client,
            &format!("CREATE MATERIALIZED VIEW built AS {query}"),
        )
        .await;
        until_rows(&client, "SELECT * FROM built", |r| r == ["4|268"]).await;
        // A file that ends before the saved position is not the file that it was.
        std::fs::write(&file, "1,1\n").unwrap();
        let error = refused(
            &client,
            &format!("CREATE MATERIALIZED VIEW x FROM SAVEPOINT one AS {query}"),
        )
        .await;
        assert_eq!(error.code().code(), "55000");
        assert_eq!(
            error.message(),
            "source \"s\" no longer holds the position that savepoint \"one\" has of it"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_with_the_operators() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE t (id bigint PRIMARY KEY, g text, x integer)",
    )
    .await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n FROM t GROUP BY g",
    )
    .await;
    run(&client, "CREATE MATERIALIZED VIEW u AS SELECT id FROM t").await;
    run(&client, "SAVEPOINT part FOR MATERIALIZED VIEW u").await;
    run(&client, "SAVEPOINT one").await;
    run(&client, "CREATE TABLE late (id bigint PRIMARY KEY)").await;
    let from = |savepoint: &str, query: &str| {
        format!("CREATE MATERIALIZED VIEW w FROM SAVEPOINT {savepoint} AS {query}")
    };
    let error = refused(
        &client,
        &from("one", "SELECT g, sum(x) AS n FROM t GROUP BY g"),
    )
    .await;
    assert_eq!(error.code().code(), "55000");
    assert_eq!(
        error.message(),
        "savepoint \"one\" holds no state of a view with the query of \"w\""
    );
    let detail = error.detail().unwrap();
    assert!(
        detail.contains("Aggregate by") && detail.contains("Sum"),
        "{detail}"
    );
    assert!(!detail.contains("rows of the view"), "{detail}");
    let error = refused(
        &client,
        &from("part", "SELECT g, count(*) AS n FROM t GROUP BY g"),
    )
    .await;
    assert_eq!(error.code().code(), "55000");
    let error = refused(&client, &from("one", "SELECT id FROM late")).await;
    assert_eq!(
        error.message(),
        "savepoint \"one\" does not know table \"late\", which the view reads"
    );
    let error = refused(&client, &from("nothing", "SELECT id FROM t")).await;
    assert_eq!(error.code().code(), "3B001");
    assert!(
        rows(
            &client,
            "SELECT name FROM tidegate.materialized_views WHERE name = 'w'"
        )
        .await
        .is_empty()
    );
    run(&client, &from("part", "SELECT id FROM t")).await;
}
