//! Drawings of measured lines, as SVG files beside the documentation.
//!
//! Reads what runs have printed, one JSON object a line, and draws the median of equal runs.

mod fault_tolerance;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

#[derive(Args)]
pub struct Options {
    /// Lines that benchmarks have printed.
    #[arg(long, default_value = "docs/benchmarks/results.jsonl")]
    results: PathBuf,
    /// Where the drawings go.
    #[arg(long, default_value = "docs/benchmarks")]
    directory: PathBuf,
}

/// Million events a second of Feldera's DBSP as hand-written circuits, on two cores.
const REFERENCE: &[(&str, Option<f64>)] = &[
    ("q0", Some(1.9)),
    ("q1", Some(1.6)),
    ("q2", Some(2.0)),
    ("q3", Some(1.9)),
    ("q4", Some(1.5)),
    ("q5", Some(1.9)),
    ("q6", None),
    ("q7", Some(1.5)),
    ("q8", Some(1.9)),
    ("q9", Some(0.46)),
    ("q10", None),
    ("q11", None),
    ("q12", Some(1.9)),
    ("q13", None),
    ("q14", None),
    ("q15", Some(1.3)),
    ("q16", Some(0.45)),
    ("q17", Some(0.81)),
    ("q18", Some(0.77)),
    ("q19", Some(0.74)),
    ("q20", Some(0.75)),
    ("q21", Some(1.85)),
    ("q22", Some(1.7)),
];

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
/// Left, top, right and bottom of the plotting area.
const AREA: [f64; 4] = [70.0, 50.0, 840.0, 370.0];
const COLOURS: [&str; 4] = ["#0b6e8f", "#7cc3d8", "#9a9a9a", "#d1793a"];

pub fn run(options: &Options) -> Result<Value> {
    let text = std::fs::read_to_string(&options.results)
        .with_context(|| format!("reading {}", options.results.display()))?;
    let lines: Vec<Value> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let mut drawn = Vec::new();
    for (name, drawing) in [
        ("nexmark.svg", nexmark(&lines)),
        ("checkpoints.svg", changes(&lines)),
        ("backpressure.svg", fault_tolerance::backpressure(&lines)),
        ("state-size.svg", fault_tolerance::state_size(&lines)),
        ("overhead.svg", fault_tolerance::overhead(&lines)),
        ("recovery.svg", fault_tolerance::recovery(&lines)),
    ] {
        let path = options.directory.join(name);
        std::fs::write(&path, drawing).with_context(|| format!("writing {}", path.display()))?;
        drawn.push(path.display().to_string());
    }
    Ok(json!({ "drawn": drawn }))
}

/// Events a second of each query, into a blackhole and into a view, beside the reference.
fn nexmark(lines: &[Value]) -> String {
    let mut rates: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for line in lines
        .iter()
        .filter(|l| l["benchmark"] == "nexmark" && l["backend"] == "memory")
        .filter(|l| l["checkpoints"] == "1s" && l["watermarks"] != true)
    {
        let (Some(query), Some(into)) = (line["query"].as_str(), line["into"].as_str()) else {
            continue;
        };
        let rate = line["events_per_second"].as_f64().unwrap_or_default() / 1e6;
        rates
            .entry((query.into(), into.into()))
            .or_default()
            .push(rate);
    }
    let rate = |query: &str, into: &str| {
        rates
            .get(&(query.to_owned(), into.to_owned()))
            .map(|runs| median(runs))
    };
    let groups: Vec<(&str, [Option<f64>; 3])> = REFERENCE
        .iter()
        .map(|(q, reference)| (*q, [rate(q, "blackhole"), rate(q, "view"), *reference]))
        .collect();
    let mut svg = Svg::new("Nexmark, two workers, million events a second");
    // From 0.1 to 100, each ten times as much as high.
    let y = |value: f64| AREA[3] - (value.max(0.1).log10() + 1.0) / 3.0 * (AREA[3] - AREA[1]);
    for mark in [0.1, 1.0, 10.0, 100.0] {
        svg.grid(y(mark), &format!("{mark}"));
    }
    let slot = (AREA[2] - AREA[0]) / groups.len() as f64;
    for (index, (query, bars)) in groups.iter().enumerate() {
        let left = AREA[0] + slot * index as f64 + slot * 0.14;
        let width = slot * 0.72 / 3.0;
        for (bar, value) in bars.iter().enumerate() {
            if let Some(value) = value {
                svg.bar(
                    left + width * bar as f64,
                    y(*value),
                    width - 1.0,
                    COLOURS[bar],
                );
            }
        }
        svg.text(left + slot * 0.36, AREA[3] + 20.0, "middle", query);
    }
    svg.legend(&["into a blackhole", "into a view", "DBSP circuits (to beat)"]);
    svg.finish()
}

/// Bytes written and milliseconds waited for, against changed keys, both on logarithmic axes.
fn changes(lines: &[Value]) -> String {
    let of_memory = |l: &&Value| l["benchmark"] == "changes" && l["backend"] == "memory";
    // Of several sizes of state the one that most is said about.
    let is_usual = |l: &&Value| of_memory(l) && l["keys"] == 1_000_000;
    let newest = lines.iter().rev().find(is_usual);
    let newest = newest.or_else(|| lines.iter().rev().find(of_memory));
    let points: Vec<[f64; 3]> = newest
        .and_then(|l| l["then"].as_array())
        .into_iter()
        .flatten()
        .map(|p| ["changed_keys", "bytes", "sync_ms"].map(|k| p[k].as_f64().unwrap_or_default()))
        .collect();
    let keys = newest.and_then(|l| l["keys"].as_u64()).unwrap_or_default();
    let mut svg = Svg::new(&format!("A checkpoint against changed keys, of {keys}"));
    let exponents = |value: f64| value.max(1e-3).log10();
    let (low, high) = (2.0, 5.0);
    let x = |keys: f64| {
        AREA[0] + 30.0 + (exponents(keys) - low) / (high - low) * (AREA[2] - AREA[0] - 60.0)
    };
    let (bottom, top) = (-2.0, 8.0);
    let y =
        |value: f64| AREA[3] - (exponents(value) - bottom) / (top - bottom) * (AREA[3] - AREA[1]);
    for exponent in [-2, 0, 2, 4, 6, 8] {
        svg.grid(y(10f64.powi(exponent)), &format!("10^{exponent}"));
    }
    for (series, colour) in [(1, COLOURS[0]), (2, COLOURS[1])] {
        let places: Vec<(f64, f64)> = points.iter().map(|p| (x(p[0]), y(p[series]))).collect();
        svg.line(&places, colour);
    }
    for point in &points {
        svg.text(
            x(point[0]),
            AREA[3] + 20.0,
            "middle",
            &format!("{}", point[0]),
        );
    }
    svg.legend(&["bytes written", "milliseconds that workers wait"]);
    svg.finish()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// 1, 2 or 5 times a power of ten, not below the wish.
fn nice_step(wish: f64) -> f64 {
    let power = 10f64.powf(wish.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|s| s * power >= wish);
    step.unwrap_or(10.0) * power
}

struct Svg {
    body: String,
}

impl Svg {
    fn new(title: &str) -> Self {
        let mut svg = Self {
            body: String::new(),
        };
        svg.text(AREA[0], 28.0, "start", title);
        svg
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("a string takes all that is written");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        self.add(format_args!(
            r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="#333">{text}</text>"##
        ));
    }

    fn grid(&mut self, y: f64, label: &str) {
        let (left, right) = (AREA[0], AREA[2]);
        self.add(format_args!(
            r##"<line x1="{left}" x2="{right}" y1="{y:.1}" y2="{y:.1}" stroke="#ddd"/>"##
        ));
        self.text(left - 8.0, y + 5.0, "end", label);
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, colour: &str) {
        let height = AREA[3] - y;
        self.add(format_args!(
            r##"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"##
        ));
    }

    fn line(&mut self, places: &[(f64, f64)], colour: &str) {
        let path: Vec<String> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        self.add(format_args!(
            r##"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"##,
            path.join(" ")
        ));
        for (x, y) in places {
            self.add(format_args!(
                r##"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"##
            ));
        }
    }

    fn legend(&mut self, names: &[&str]) {
        for (index, name) in names.iter().enumerate() {
            let x = AREA[0] + 770.0 / names.len().max(3) as f64 * index as f64;
            let colour = COLOURS[index];
            self.add(format_args!(
                r##"<rect x="{x}" y="398" width="12" height="12" fill="{colour}"/>"##
            ));
            self.text(x + 18.0, 409.0, "start", name);
        }
    }

    fn finish(self) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"14\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n{}</svg>\n",
            self.body
        )
    }
}
