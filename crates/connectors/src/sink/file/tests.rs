#![allow(clippy::unwrap_used)]

use super::*;
use crate::Format;
use crate::testing::{options, schema};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use std::collections::BTreeMap;
use tempfile::TempDir;
use tidegate_types::SqlType;

struct Fixture {
    directory: TempDir,
    schema: SchemaRef,
}

impl Fixture {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            schema: schema(&[("id", SqlType::BigInt)]),
        }
    }

    fn try_sink(
        &self,
        id: &str,
        pairs: &[(&str, &str)],
        append_only: bool,
    ) -> Result<FileSink, ConnectorError> {
        let mut all = options(pairs);
        let path = self.directory.path().join("out");
        all.insert("path".into(), path.to_str().unwrap().into());
        let format = Format::new("PLAIN", "JSON", BTreeMap::new()).unwrap();
        FileSink::new(&SinkRequest {
            id,
            connector: "file",
            schema: &self.schema,
            options: &all,
            format: Some(&format),
            append_only,
        })
    }

    fn sink(&self) -> FileSink {
        self.try_sink("7", &[], true).unwrap()
    }

    fn batch(&self, ids: &[i64]) -> Batch {
        let column: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        Batch::insert(RecordBatch::try_new(self.schema.clone(), vec![column]).unwrap())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path().join("out")).unwrap();
        let mut names = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort();
        names
    }

    /// What a reader of the output sees: the lines of files that are not hidden.
    fn visible(&self) -> Vec<String> {
        let shown = self
            .names()
            .into_iter()
            .filter(|name| !name.starts_with('.'));
        let read = |name: String| {
            fs::read_to_string(self.directory.path().join("out").join(name)).unwrap()
        };
        shown
            .flat_map(|name| read(name).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

fn line(id: i64) -> String {
    format!("{{\"id\":{id}}}")
}

#[test]
fn output_appears_with_the_commit_and_only_once() {
    let fixture = Fixture::new();
    let sink = fixture.sink();
    sink.recover(&[]).unwrap();
    let mut writer = sink.open(0).unwrap();
    assert_eq!(writer.prepare(CheckpointId(1)).unwrap(), None);
    writer.write(Epoch(1), &fixture.batch(&[1, 2])).unwrap();
    writer.write(Epoch(2), &fixture.batch(&[3])).unwrap();
    assert_eq!(fixture.visible().len(), 0);
    let first = writer.prepare(CheckpointId(2)).unwrap().unwrap();
    assert_eq!(fixture.visible().len(), 0);
    // The dataflow goes on before the manifest exists.
    writer.write(Epoch(3), &fixture.batch(&[4])).unwrap();
    for _ in 0..3 {
        sink.commit(&first).unwrap();
        assert_eq!(fixture.visible(), [line(1), line(2), line(3)]);
    }
    let second = writer.prepare(CheckpointId(3)).unwrap().unwrap();
    sink.commit(&second).unwrap();
    sink.commit(&first).unwrap();
    assert_eq!(fixture.visible(), [line(1), line(2), line(3), line(4)]);
    assert!(fixture.names()[0].starts_with("part-000000000002-0000-"));
    assert_eq!(sink.counters().inserted(), 4);
    assert!(sink.exactly_once() && !sink.runs_on_worker());
}

/// A crash at each point between two checkpoints: rows of the manifest's tokens appear, all others do not.
#[test]
fn a_crash_anywhere_leaves_each_change_once() {
    for crash in [
        "written",
        "prepared",
        "manifest",
        "half committed",
        "committed",
        "taken away",
    ] {
        let fixture = Fixture::new();
        let sink = fixture.sink();
        sink.recover(&[]).unwrap();
        let mut writers = [sink.open(0).unwrap(), sink.open(1).unwrap()];
        let mut tokens = Vec::new();
        for (id, writer) in writers.iter_mut().enumerate() {
            writer
                .write(Epoch(1), &fixture.batch(&[id as i64]))
                .unwrap();
            if crash != "written" {
                tokens.extend(writer.prepare(CheckpointId(1)).unwrap());
            }
        }
        let manifest = if matches!(crash, "written" | "prepared") {
            vec![]
        } else {
            tokens.clone()
        };
        match crash {
            "half committed" => sink.commit(&tokens[0]).unwrap(),
            "committed" | "taken away" => tokens.iter().for_each(|t| sink.commit(t).unwrap()),
            _ => {}
        }
        if crash == "taken away" {
            let name = fixture.names().remove(0);
            fs::remove_file(fixture.directory.path().join("out").join(name)).unwrap();
        }
        // What another sink is writing to the same place is not ours to remove.
        let other = fixture.try_sink("70", &[], true).unwrap();
        let mut other_writer = other.open(0).unwrap();
        other_writer
            .write(Epoch(1), &fixture.batch(&[100]))
            .unwrap();
        drop((writers, sink));

        let sink = fixture.sink();
        for _ in 0..2 {
            sink.recover(&manifest).unwrap();
        }
        let expected = match crash {
            "written" | "prepared" => vec![],
            "taken away" => vec![line(1)],
            _ => vec![line(0), line(1)],
        };
        assert_eq!(fixture.visible(), expected, "{crash}");
        let hidden = fixture
            .names()
            .into_iter()
            .filter(|n| n.starts_with('.'))
            .collect::<Vec<_>>();
        assert_eq!(hidden.len(), 1, "{crash}: {hidden:?}");
        assert!(hidden[0].starts_with(".tidegate-70-"));
        let token = other_writer.prepare(CheckpointId(1)).unwrap().unwrap();
        other.commit(&token).unwrap();
        assert!(fixture.visible().contains(&line(100)));
    }
}

#[test]
fn an_aborted_piece_disappears() {
    let fixture = Fixture::new();
    let sink = fixture.sink();
    sink.recover(&[]).unwrap();
    let mut writer = sink.open(0).unwrap();
    writer.write(Epoch(1), &fixture.batch(&[1])).unwrap();
    let token = writer.prepare(CheckpointId(1)).unwrap().unwrap();
    sink.abort(&token).unwrap();
    sink.abort(&token).unwrap();
    assert_eq!(fixture.names(), Vec::<String>::new());
    assert!(sink.commit(&Token("nonsense".into())).is_err());
}

#[test]
fn rows_as_often_as_they_were_added() {
    let fixture = Fixture::new();
    let sink = fixture.sink();
    sink.recover(&[]).unwrap();
    let mut writer = sink.open(0).unwrap();
    let (rows, _) = fixture.batch(&[1, 2]).into_parts();
    writer
        .write(
            Epoch(1),
            &Batch::new(rows.clone(), Int64Array::from(vec![2, 0])),
        )
        .unwrap();
    let token = writer.prepare(CheckpointId(1)).unwrap().unwrap();
    sink.commit(&token).unwrap();
    assert_eq!(fixture.visible(), [line(1), line(1)]);
    let retraction = Batch::new(rows, Int64Array::from(vec![1, -1]));
    assert_eq!(
        writer
            .write(Epoch(2), &retraction)
            .unwrap_err()
            .sql()
            .state
            .code(),
        "XX000"
    );
}

#[test]
fn a_view_with_updates_needs_a_changelog() {
    let fixture = Fixture::new();
    let error = fixture.try_sink("1", &[], false).err().unwrap();
    assert!(
        error.sql().hint.as_deref().unwrap().contains("changelog"),
        "{error}"
    );
    let sink = fixture
        .try_sink("1", &[("changelog", "true")], false)
        .unwrap();
    sink.recover(&[]).unwrap();
    let mut writer = sink.open(0).unwrap();
    let (rows, _) = fixture.batch(&[1, 2]).into_parts();
    writer.write(Epoch(1), &fixture.batch(&[5])).unwrap();
    writer
        .write(Epoch(2), &Batch::new(rows, Int64Array::from(vec![-1, 3])))
        .unwrap();
    let token = writer.prepare(CheckpointId(1)).unwrap().unwrap();
    sink.commit(&token).unwrap();
    let expected = [
        "{\"id\":5,\"diff\":1}",
        "{\"id\":1,\"diff\":-1}",
        "{\"id\":2,\"diff\":3}",
    ];
    assert_eq!(fixture.visible(), expected);
}

#[test]
fn statements_are_checked() {
    let mut fixture = Fixture::new();
    let error = fixture
        .try_sink("1", &[("overwrite", "true")], true)
        .err()
        .unwrap();
    assert!(error.to_string().contains("overwrite"));
    assert_eq!(error.sql().state.code(), "22023");
    fixture.schema = schema(&[("diff", SqlType::BigInt)]);
    let error = fixture
        .try_sink("1", &[("changelog", "true")], true)
        .err()
        .unwrap();
    assert_eq!(error.sql().state.code(), "42701");
    assert!(fixture.try_sink("1", &[], true).is_ok());
}
