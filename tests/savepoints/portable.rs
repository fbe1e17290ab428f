//! Savepoints as Parquet, opened by DuckDB and pandas.

use crate::server::{Server, rows, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python of the tests, next to the target directory that they were built in.
fn python() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let target = binary.ancestors().nth(2).unwrap();
    target.join("test-venv/bin/python")
}

fn asked(script: &str, folder: &Path) -> Vec<String> {
    let output = Command::new(python())
        .args(["-c", script])
        .arg(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

const DUCKDB: &str = r#"
import duckdb, sys
def text(v):
    if v is None:
        return "∅"
    return str(int(v)) if isinstance(v, float) and v.is_integer() else str(v)

for table in ("v", "w", "top"):
    path = f"{sys.argv[1]}/views/public.{table}.parquet"
    for row in duckdb.sql(f"SELECT * FROM read_parquet('{path}')").fetchall():
        print(table + ":" + "|".join(map(text, row)))
"#;

const TYPES: &str = r#"
import duckdb, sys
path = f"{sys.argv[1]}/views/public.t.parquet"
for name, kind, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{path}')").fetchall():
    print(name + " " + kind)
"#;

const PANDAS: &str = r#"
import glob, json, os, pandas, sys
contents = json.load(open(f"{sys.argv[1]}/contents.json"))
on_disk = {os.path.relpath(p, sys.argv[1]) for p in glob.glob(f"{sys.argv[1]}/**/*.parquet", recursive=True)}
assert {f["file"] for f in contents["files"]} == on_disk, on_disk
for file in contents["files"]:
    frame = pandas.read_parquet(f"{sys.argv[1]}/{file['file']}")
    assert len(frame) == file["rows"], file
    assert list(frame.columns) == [c["name"] for c in file["columns"]], file
    print(file["relation"] + "." + file["table"], len(frame))
    if file["table"] == "groups" and file["relation"] == "public.v":
        print("rows in groups", frame["rows"].sum())
    if file["table"] == "left" and file["relation"] == "public.w":
        print("rows on the left", frame["count"].sum())
"#;

async fn fill(server: &Server) {
    let client = server.connect().await;
    run(&client, "CREATE TABLE t (id bigint PRIMARY KEY, g text, x numeric(10,2), f double precision, d date, at timestamptz, \
         tags text[], raw bytea, u uuid, span interval)").await;
    run(&client, "CREATE MATERIALIZED VIEW v AS SELECT g, count(*) AS n, sum(x) AS total, max(f) AS most FROM t GROUP BY g").await;
    run(&client, "CREATE MATERIALIZED VIEW w AS SELECT a.id, b.id AS other FROM t a LEFT JOIN t b ON a.g = b.g AND a.id < b.id").await;
    run(
        &client,
        "CREATE MATERIALIZED VIEW top AS SELECT id, g FROM t ORDER BY x DESC, id LIMIT 4",
    )
    .await;
    run(&client, "INSERT INTO t SELECT i, CASE WHEN i % 7 = 0 THEN NULL ELSE 'g' || (i % 3)::text END, i / 4.0, i / 3.0, \
         DATE '2026-01-01', TIMESTAMPTZ '2026-01-01 00:00:00+00', ARRAY['a', i::text], 'x'::bytea, \
         '00000000-0000-0000-0000-000000000001'::uuid, INTERVAL '1 day' FROM generate_series(1, 40) AS s(i)").await;
    run(&client, "DELETE FROM t WHERE id % 10 = 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duckdb_and_pandas_open_a_savepoint() {
    for backend in ["memory", "rocksdb"] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let server = Server::start(&data, &[("state_backend", backend)]);
        fill(&server).await;
        let client = server.connect().await;
        let place = directory.path().join("out");
        let there = format!(
            "SAVEPOINT there TO '{}' WITH (format = 'parquet')",
            place.display()
        );
        for (statement, root) in [
            (
                "SAVEPOINT here WITH (format = 'parquet')",
                data.join("checkpoints"),
            ),
            (there.as_str(), place.clone()),
        ] {
            run(&client, statement).await;
            let portable = std::fs::read_dir(root.join("portable")).unwrap();
            let folders: Vec<PathBuf> = portable.map(|e| e.unwrap().path()).collect();
            let [folder] = folders.as_slice() else {
                panic!("{folders:?}");
            };
            let mut expected = Vec::new();
            for (table, columns) in [("v", "*"), ("w", "*"), ("top", "*")] {
                let held = rows(&client, &format!("SELECT {columns} FROM {table}")).await;
                expected.extend(held.into_iter().map(|r| format!("{table}:{r}")));
            }
            expected.sort();
            let found = asked(DUCKDB, folder);
            assert_eq!(found, expected, "{backend}");
            let types = asked(TYPES, folder);
            assert_eq!(
                types,
                [
                    "at TIMESTAMP WITH TIME ZONE",
                    "d DATE",
                    "f DOUBLE",
                    "g VARCHAR",
                    "id BIGINT",
                    "raw BLOB",
                    "span VARCHAR",
                    "tags VARCHAR[]",
                    "u VARCHAR",
                    "x DECIMAL(10,2)",
                ]
            );
            let state = asked(PANDAS, folder);
            assert!(state.contains(&"rows in groups 36".to_owned()), "{state:?}");
            // Rows whose key is NULL match nothing and are not kept.
            assert!(
                state.contains(&"rows on the left 31".to_owned()),
                "{state:?}"
            );
        }
        let listed = rows(
            &client,
            "SELECT name, format, views::text FROM tidegate.savepoints",
        )
        .await;
        assert_eq!(
            listed,
            ["here|parquet|{top,v,w}", "there|parquet|{top,v,w}"]
        );
        // The tools look at these files too.
        let verified = crate::tools::answer(&data, &["savepoint", "verify", "here", "there"]);
        assert_eq!(verified.matches("Parquet files").count(), 2, "{verified}");
        for name in ["here", "there"] {
            run(&client, &format!("VERIFY SAVEPOINT {name}")).await;
            run(&client, &format!("DESCRIBE SAVEPOINT {name}")).await;
            run(&client, &format!("RELEASE SAVEPOINT {name}")).await;
        }
        // Nothing of them stays.
        let left = |root: &Path| match std::fs::read_dir(root.join("portable")) {
            Ok(folders) => folders
                .flat_map(|f| std::fs::read_dir(f.unwrap().path()).unwrap())
                .flat_map(|e| {
                    let path = e.unwrap().path();
                    if path.is_dir() {
                        std::fs::read_dir(path)
                            .unwrap()
                            .map(|e| e.unwrap().path())
                            .filter(|p| p.is_file())
                            .collect()
                    } else {
                        vec![path]
                    }
                })
                .collect::<Vec<_>>(),
            Err(_) => Vec::new(),
        };
        assert!(left(&data.join("checkpoints")).is_empty() && left(&place).is_empty());
    }
}
