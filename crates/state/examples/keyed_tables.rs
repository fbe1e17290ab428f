//! How fast state tables alone are: a sum per key, read and written by chunks of distinct keys as an aggregate does, with
//! a checkpoint every second whose runs are read as an encoder would.
//!
//! `keyed_tables <memory|rocksdb> <keys> <rows> <limit in MB> [map]`: one JSON line.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tidegate_state::{
    BackendConfig, BackendKind, Backends, Cell, Change, Form, Merge, Run, TableSpec,
};
use tidegate_types::{CheckpointId, KeyGroupRange, TableId};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EPOCH_ROWS: u64 = 65_536;
const CHUNK: usize = 4096;

fn key(n: u64) -> [u8; 9] {
    let mut key = [1; 9];
    key[1..].copy_from_slice(&n.to_be_bytes());
    key
}

/// xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn proc_value(file: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(file).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with(name));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let kind = match arguments[1].as_str() {
        "rocksdb" => BackendKind::RocksDb,
        _ => BackendKind::Memory,
    };
    let keys: u64 = arguments[2].parse().unwrap();
    let rows: u64 = arguments[3].parse().unwrap();
    let limit: usize = arguments[4].parse::<usize>().unwrap() << 20;
    let map = arguments.get(5).is_some_and(|a| a == "map");
    let home = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let backends = Backends::open(BackendConfig {
        directory: home.path().to_owned(),
        worker: 0,
        groups: KeyGroupRange::ALL,
        cache_limit_bytes: limit / 4,
        overlay_limit_bytes: limit / 4,
        memory: tidegate_state::memory::MemoryAccount::default(),
    })
    .unwrap();
    let spec = TableSpec {
        id: TableId(7),
        form: if map { Form::Map } else { Form::Value },
        merge: Merge::Replace,
    };
    let mut table = backends.open_table(kind, &spec).unwrap();
    let (to_encode, runs) = channel::<(CheckpointId, Run)>();
    let (encoded, completed) = channel::<(CheckpointId, u64)>();
    let encoder = std::thread::spawn(move || {
        while let Ok((checkpoint, run)) = runs.recv() {
            let mut bytes = 0;
            for piece in run.pieces() {
                for e in piece.unwrap().iter() {
                    bytes += (e.key.len() + e.value.map_or(0, <[u8]>::len)) as u64;
                }
            }
            if encoded.send((checkpoint, bytes)).is_err() {
                return;
            }
        }
    });
    let (started, mut last, mut checkpoint) = (Instant::now(), Instant::now(), 0);
    let (mut random, mut done, mut checkpoint_bytes, mut pending) =
        (88_172_645_463_325_252, 0, 0, 0);
    let mut slowest = Duration::ZERO;
    while done < rows {
        let epoch_started = Instant::now();
        let mut sums: HashMap<u64, i64> = HashMap::new();
        for _ in 0..EPOCH_ROWS {
            let n = next(&mut random);
            *sums.entry(n % keys).or_default() += (n >> 60) as i64;
        }
        done += EPOCH_ROWS;
        let groups: Vec<([u8; 9], i64)> = sums.into_iter().map(|(k, s)| (key(k), s)).collect();
        for chunk in groups.chunks(CHUNK) {
            let cells: Vec<Cell<'_>> = chunk.iter().map(|(k, _)| Cell::key(k)).collect();
            let mut new: Vec<[u8; 16]> = vec![[0; 16]; cells.len()];
            let mut add = |i: usize, old: Option<&[u8]>| {
                let old = old.map_or(0, |o| i64::from_le_bytes(o[..8].try_into().unwrap()));
                new[i][..8].copy_from_slice(&(old + chunk[i].1).to_le_bytes());
            };
            table.get_many(&cells, &mut add).unwrap();
            let changes = cells.iter().zip(&new).map(|(cell, value)| Change {
                cell: *cell,
                value: Some(value),
            });
            let changes: Vec<Change<'_>> = changes.collect();
            table.write_many(&changes).unwrap();
        }
        slowest = slowest.max(epoch_started.elapsed());
        while let Ok((checkpoint, bytes)) = completed.try_recv() {
            checkpoint_bytes += bytes;
            pending -= 1;
            table.completed(checkpoint).unwrap();
        }
        if last.elapsed() > Duration::from_secs(1) && pending == 0 {
            last = Instant::now();
            checkpoint += 1;
            if let Some(run) = table.seal(CheckpointId(checkpoint)).unwrap() {
                pending += 1;
                to_encode.send((CheckpointId(checkpoint), run)).unwrap();
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{{\"backend\":\"{}\",\"keys\":{keys},\"limit_mb\":{},\"rows_per_second\":{:.0},\"rows_per_cpu_second\":{:.0},\"slowest_epoch_ms\":{},\"checkpoints\":{checkpoint},\"checkpoint_mb\":{},\"peak_mb\":{}}}",
        arguments[1],
        limit >> 20,
        done as f64 / seconds,
        done as f64 / cpu_seconds(),
        slowest.as_millis(),
        checkpoint_bytes >> 20,
        proc_value("/proc/self/status", "VmHWM") >> 10
    );
    drop(to_encode);
    encoder.join().unwrap();
}
