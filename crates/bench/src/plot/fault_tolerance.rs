//! What checkpoints and recovery cost, as drawings.

use super::{AREA, COLOURS, Svg, median, nice_step};
use serde_json::Value;
use std::collections::BTreeMap;

/// Named lines over one horizontal axis; points of one place are one by their median.
#[derive(Default)]
struct Lines {
    series: Vec<(&'static str, BTreeMap<u64, Vec<f64>>)>,
}

impl Lines {
    fn new(names: &[&'static str]) -> Self {
        Self {
            series: names.iter().map(|n| (*n, BTreeMap::new())).collect(),
        }
    }

    fn add(&mut self, name: &str, x: Option<u64>, y: Option<f64>) {
        let (Some(x), Some(y)) = (x, y) else {
            return;
        };
        if let Some((_, points)) = self.series.iter_mut().find(|(n, _)| *n == name) {
            points.entry(x).or_default().push(y);
        }
    }

    /// Places are drawn at equal distances, as they are chosen.
    fn draw(self, title: &str) -> String {
        let mut places: Vec<u64> = self
            .series
            .iter()
            .flat_map(|s| s.1.keys())
            .copied()
            .collect();
        places.sort_unstable();
        places.dedup();
        let values = self.series.iter().flat_map(|s| s.1.values());
        let highest = values.map(|v| median(v)).fold(0.0, f64::max).max(1e-9);
        let mut svg = Svg::new(title);
        let y = scale(&mut svg, highest);
        let slot = (AREA[2] - AREA[0]) / places.len().max(1) as f64;
        let x = |place: u64| {
            let index = places.iter().position(|p| *p == place).unwrap_or(0);
            AREA[0] + slot * (index as f64 + 0.5)
        };
        for place in &places {
            svg.text(x(*place), AREA[3] + 20.0, "middle", &short(*place));
        }
        for ((_, points), colour) in self.series.iter().zip(COLOURS) {
            let line: Vec<(f64, f64)> = points.iter().map(|(p, v)| (x(*p), y(median(v)))).collect();
            svg.line(&line, colour);
        }
        let names: Vec<&str> = self.series.iter().map(|s| s.0).collect();
        svg.legend(&names);
        svg.finish()
    }
}

/// Draws the vertical axis from zero; answers where a value is.
fn scale(svg: &mut Svg, highest: f64) -> impl Fn(f64) -> f64 + use<> {
    let step = nice_step(highest / 5.0);
    let top = (highest / step).ceil() * step;
    let y = move |value: f64| AREA[3] - value / top * (AREA[3] - AREA[1]);
    let mut mark = 0.0;
    while mark <= top + step / 2.0 {
        let digits = if step < 1.0 { 2 } else { 0 };
        svg.grid(y(mark), &format!("{mark:.digits$}"));
        mark += step;
    }
    y
}

/// 200 k, 5 M.
fn short(number: u64) -> String {
    match number {
        n if n >= 1_000_000 && n.is_multiple_of(100_000) => format!("{} M", n as f64 / 1e6),
        n if n >= 1_000 && n.is_multiple_of(100) => format!("{} k", n as f64 / 1e3),
        n => n.to_string(),
    }
}

fn of<'a>(lines: &'a [Value], benchmark: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |l| l["benchmark"] == benchmark)
}

/// Time of a barrier against the rows that queue in front of a slow operator.
pub(super) fn backpressure(lines: &[Value]) -> String {
    let mut drawn = Lines::new(&["aligned", "unaligned"]);
    let points = of(lines, "backpressure").filter_map(|l| l["points"].as_array());
    for point in points.flatten() {
        for name in ["aligned", "unaligned"] {
            let seconds = point[name]["alignment_ms"].as_f64().map(|ms| ms / 1000.0);
            drawn.add(name, point["queued_rows"].as_u64(), seconds);
        }
    }
    drawn.draw("Seconds until a checkpoint\u{2019}s barrier has passed, against rows in the queue")
}

/// Bytes of a checkpoint against the size of the state, for equal changes.
pub(super) fn state_size(lines: &[Value]) -> String {
    const CHANGED: [(u64, &str); 3] = [
        (100_000, "100 k keys changed"),
        (10_000, "10 k"),
        (1_000, "1 k"),
    ];
    let mut drawn = Lines::new(&CHANGED.map(|c| c.1));
    for line in of(lines, "changes").filter(|l| l["backend"] == "memory") {
        for point in line["then"].as_array().into_iter().flatten() {
            let changed = CHANGED.iter().find(|c| point["changed_keys"] == c.0);
            if let Some((_, name)) = changed {
                let megabytes = point["bytes"].as_f64().map(|b| b / 1e6);
                drawn.add(name, line["keys"].as_u64(), megabytes);
            }
        }
    }
    drawn.draw("Megabytes that a checkpoint writes, against keys in the state")
}

/// Rows a second with each way to take checkpoints.
pub(super) fn overhead(lines: &[Value]) -> String {
    let ways = [
        ("off", "async"),
        ("1s", "async"),
        ("100ms", "async"),
        ("1s", "sync"),
        ("100ms", "sync"),
    ];
    let execution = |l: &Value| {
        let settings = l["settings"].as_array();
        let is_sync = settings
            .into_iter()
            .flatten()
            .any(|s| s == "checkpoint_execution=sync");
        if is_sync { "sync" } else { "async" }
    };
    let rate = |backend: &str, way: (&str, &str)| {
        let runs: Vec<f64> = of(lines, "keyed")
            .filter(|l| l["backend"] == backend && l["keys"] == 1_000_000)
            .filter(|l| l["checkpoints"] == way.0 && execution(l) == way.1)
            .filter_map(|l| l["rows_per_second"].as_f64())
            .collect();
        (!runs.is_empty()).then(|| median(&runs) / 1e6)
    };
    let bars = ways.map(|way| ["memory", "rocksdb"].map(|backend| rate(backend, way)));
    let values = bars.iter().flatten().flatten();
    let highest = values.fold(1e-9, |a: f64, b| a.max(*b));
    let mut svg = Svg::new("Million rows a second into 1 M keys, by how checkpoints are taken");
    let y = scale(&mut svg, highest);
    let slot = (AREA[2] - AREA[0]) / ways.len() as f64;
    for (index, ((interval, execution), bars)) in ways.iter().zip(bars).enumerate() {
        let left = AREA[0] + slot * (index as f64 + 0.2);
        let width = slot * 0.3;
        for (bar, value) in bars.into_iter().enumerate() {
            if let Some(value) = value {
                let x = left + width * bar as f64;
                svg.bar(x, y(value), width - 2.0, COLOURS[bar]);
            }
        }
        let name = match *interval {
            "off" => "off".to_owned(),
            interval => format!("{interval}, {execution}"),
        };
        svg.text(left + width, AREA[3] + 20.0, "middle", &name);
    }
    svg.legend(&["memory", "rocksdb"]);
    svg.finish()
}

/// Seconds from the start of a server until its view can be read, against the size of its state.
pub(super) fn recovery(lines: &[Value]) -> String {
    let names = ["memory", "rocksdb, same files", "rocksdb, moved"];
    let mut drawn = Lines::new(&names);
    for line in of(lines, "recovery") {
        let name = match (line["backend"].as_str(), line["moved"].as_bool()) {
            (Some("rocksdb"), Some(true)) => names[2],
            (Some("rocksdb"), _) => names[1],
            // Nothing of it is left after a stop: moved or not is the same.
            _ => names[0],
        };
        let seconds = line["readable_seconds"].as_f64();
        drawn.add(name, line["keys"].as_u64(), seconds);
    }
    drawn.draw("Seconds until a view can be read after a restart, against keys in the state")
}
