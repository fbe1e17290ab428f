//! Names of objects. All other modules ask here.
//!
//! ```text
//! generations/<generation>.json      one per server that ever claimed the storage
//! manifests/<number>.json            checkpoints and fences, one sequence
//! savepoints/<name>.json
//! runs/<generation>/<serial>-….run   sorted runs; a serial is used once within its generation
//! runs/s-<savepoint>-<copy>/<n>.run   those of a savepoint that was copied here: no server owns them
//! portable/<savepoint>-<copy>/…     savepoints as Parquet
//! history/<generation>-<part>.json   what became of checkpoints
//! ```

use std::sync::Arc;
use tidegate_types::{CheckpointId, TableId, WorkerId};

pub(crate) const GENERATIONS: &str = "generations";
pub(crate) const MANIFESTS: &str = "manifests";
pub(crate) const SAVEPOINTS: &str = "savepoints";
pub(crate) const RUNS: &str = "runs";
pub(crate) const HISTORY: &str = "history";

/// A file name of a savepoint must fit into 255 bytes.
const LONGEST_NAME: usize = 240;

pub(crate) fn generation(generation: u64) -> String {
    format!("{GENERATIONS}/{generation:010}.json")
}

pub(crate) fn manifest(number: u64) -> String {
    format!("{MANIFESTS}/{number:020}.json")
}

pub(crate) fn history(generation: u64, part: u64) -> String {
    format!("{HISTORY}/{generation:010}-{part:06}.json")
}

pub(crate) fn checkpoint_run(
    generation: u64,
    serial: u64,
    checkpoint: CheckpointId,
    worker: WorkerId,
) -> Arc<str> {
    format!("{RUNS}/{generation:010}/{serial:010}-c{checkpoint}-w{worker}.run").into()
}

pub(crate) fn merged_run(generation: u64, serial: u64, table: TableId) -> Arc<str> {
    format!("{RUNS}/{generation:010}/{serial:010}-m{table}.run").into()
}

pub(crate) fn imported_run(generation: u64, serial: u64) -> Arc<str> {
    format!("{RUNS}/{generation:010}/{serial:010}-i.run").into()
}

/// The folder of a portable copy.
pub(crate) fn portable(name: &str, copy: u64) -> Result<String, &'static str> {
    let runs = copied_runs(name, copy)?;
    let folder = runs.rsplit_once("/s-").map_or("savepoint", |(_, f)| f);
    Ok(format!("portable/{folder}"))
}

/// The objects of one copy of a savepoint.
pub(crate) fn copied_runs(name: &str, copy: u64) -> Result<String, &'static str> {
    let object = savepoint(name)?;
    let file = object
        .strip_prefix(SAVEPOINTS)
        .and_then(|f| f.strip_prefix('/')?.strip_suffix(".json"))
        .unwrap_or("savepoint");
    // Beside the name there has to be room for what tells copies apart.
    let file = &file[..file.len().min(200)];
    Ok(format!("{RUNS}/s-{file}-{copy:016x}"))
}

/// The number in `folder/<number>.json`.
pub(crate) fn number_of(object: &str) -> Option<u64> {
    object
        .rsplit_once('/')?
        .1
        .strip_suffix(".json")?
        .parse()
        .ok()
}

/// The generation that wrote a run object.
pub(crate) fn generation_of_run(object: &str) -> Option<u64> {
    object
        .strip_prefix(RUNS)?
        .strip_prefix('/')?
        .split_once('/')?
        .0
        .parse()
        .ok()
}

/// The object of a savepoint: letters, digits, `_` and `-` as they are, other bytes as `=XX`.
pub(crate) fn savepoint(name: &str) -> Result<String, &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    let mut file = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => file.push(byte as char),
            _ => file.push_str(&format!("={byte:02X}")),
        }
    }
    if file.len() > LONGEST_NAME {
        return Err("it is too long");
    }
    Ok(format!("{SAVEPOINTS}/{file}.json"))
}

/// The name of the savepoint in an object, for objects whose content cannot be read.
pub(crate) fn savepoint_name(object: &str) -> Option<String> {
    let file = object.rsplit_once('/')?.1.strip_suffix(".json")?;
    let mut bytes = Vec::new();
    let mut rest = file.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'=' {
            let code = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(code, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savepoint_names_survive() {
        for name in ["before_upgrade", "Größe/1 %", "..", "a=b", "x.json"] {
            let object = savepoint(name).expect("valid");
            assert_eq!(savepoint_name(&object).as_deref(), Some(name));
            assert!(
                object["savepoints/".len()..]
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-=.".contains(&b))
            );
        }
        assert!(savepoint("").is_err() && savepoint(&"ü".repeat(100)).is_err());
        assert_eq!(
            generation_of_run("runs/0000000012/0000000001-c1-w0.run"),
            Some(12)
        );
        assert_eq!(number_of(&manifest(77)), Some(77));
    }
}
