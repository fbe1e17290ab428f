//! The plan as a person reads it: root first, inputs indented below.

use crate::{Dataflow, Distribution, Op, Ranking, SortKey};
use std::fmt::{self, Write};

impl fmt::Display for Dataflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            return Ok(());
        }
        self.write_node(f, self.nodes.len() - 1, None, 0)
    }
}

impl Dataflow {
    fn write_node(
        &self,
        f: &mut fmt::Formatter<'_>,
        index: usize,
        distribution: Option<&Distribution>,
        depth: usize,
    ) -> fmt::Result {
        let node = &self.nodes[index];
        write!(f, "{:indent$}{}", "", node.op, indent = depth * 2)?;
        if let Some(Distribution::Key(columns)) = distribution {
            write!(f, " exchange by {}", positions(columns))?;
        }
        if node.append_only {
            f.write_str(" append-only")?;
        }
        if let Some(key) = &node.unique_key {
            write!(f, " unique {}", positions(key))?;
        }
        f.write_char('\n')?;
        for table in &node.state {
            let form = if table.map { "map" } else { "value" };
            writeln!(
                f,
                "{:indent$}state {}: {form}",
                "",
                table.name,
                indent = depth * 2 + 4
            )?;
        }
        for edge in &node.inputs {
            self.write_node(f, edge.from, Some(&edge.distribution), depth + 1)?;
        }
        Ok(())
    }
}

fn positions(columns: &[usize]) -> String {
    let names: Vec<String> = columns.iter().map(|c| format!("#{c}")).collect();
    format!("({})", names.join(", "))
}

fn sort_keys(order: &[SortKey]) -> String {
    let keys: Vec<String> = order
        .iter()
        .map(|k| format!("#{}{}", k.column, if k.descending { " desc" } else { "" }))
        .collect();
    keys.join(", ")
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Import { relation, columns } => write!(
                f,
                "Import relation {relation} columns {}",
                positions(columns)
            ),
            Op::Source { relation, columns } => write!(
                f,
                "Source relation {relation} columns {}",
                positions(columns)
            ),
            Op::TableInput { relation } => write!(f, "TableInput relation {relation}"),
            Op::Values { rows } => write!(f, "Values {} rows", rows.len()),
            Op::Filter { predicate } => write!(f, "Filter {predicate}"),
            Op::Project { expressions } => {
                let list: Vec<String> = expressions.iter().map(ToString::to_string).collect();
                write!(f, "Project {}", list.join(", "))
            }
            Op::Aggregate { keys, calls } if calls.is_empty() => {
                write!(f, "Distinct by {}", positions(keys))
            }
            Op::Aggregate { keys, calls } => {
                let list: Vec<String> = calls
                    .iter()
                    .map(|c| format!("{:?}{}", c.function, positions(&c.arguments)))
                    .collect();
                write!(f, "Aggregate by {} {}", positions(keys), list.join(", "))
            }
            Op::Join {
                kind,
                left_keys,
                right_keys,
                residual,
                ..
            } => {
                write!(
                    f,
                    "Join {kind:?} on {} = {}",
                    positions(left_keys),
                    positions(right_keys)
                )?;
                match residual {
                    Some(residual) => write!(f, " where {residual}"),
                    None => Ok(()),
                }
            }
            Op::Union => f.write_str("Union"),
            Op::Unnest { lists } => write!(f, "Unnest {}", positions(lists)),
            Op::TopN {
                partition,
                order,
                ranking,
                offset,
                limit,
                numbered,
            } => {
                let (by, order) = (positions(partition), sort_keys(order));
                write!(f, "TopN by {by} order {order} offset {offset}")?;
                if let Some(limit) = limit {
                    write!(f, " limit {limit}")?;
                }
                match ranking {
                    Ranking::RowNumber => {}
                    Ranking::Rank => f.write_str(" with ties")?,
                    Ranking::DenseRank => f.write_str(" of orders")?,
                }
                f.write_str(if *numbered { " numbered" } else { "" })
            }
            Op::Window {
                partition,
                order,
                calls,
            } => {
                let list: Vec<String> = calls.iter().map(ToString::to_string).collect();
                let (by, order) = (positions(partition), sort_keys(order));
                write!(f, "Window by {by} order {order}: {}", list.join(", "))
            }
            Op::Session {
                partition,
                time,
                gap_us,
            } => {
                let by = positions(partition);
                write!(f, "Session by {by} time #{time} gap {gap_us}us")
            }
            Op::TimeFilter { from, until } => {
                f.write_str("TimeFilter")?;
                for (name, bound) in [("from", from), ("until", until)] {
                    if let Some(bound) = bound {
                        write!(f, " {name} #{} {:+}us", bound.column, bound.shift_us)?;
                    }
                }
                Ok(())
            }
            Op::OnClose { key, time } => {
                write!(f, "OnClose by {} time #{time}", positions(key))
            }
            Op::AtMostOne { keys } => write!(f, "AtMostOne by {}", positions(keys)),
            Op::Materialize { relation, key } => {
                write!(f, "Materialize relation {relation} key {}", positions(key))
            }
            Op::Sink { relation } => write!(f, "Sink relation {relation}"),
        }
    }
}
