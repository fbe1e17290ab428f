//! Sessions: a row's reach grows row by row until nothing more is within the gap.

use super::Expected;
use super::rows::partitions;
use crate::value::{Value, ZSet, add};

pub fn session(partition: &[usize], time: usize, gap_us: i64, input: &ZSet) -> Expected {
    let mut expected = Expected::default();
    for rows in partitions(partition, input).into_values() {
        let times: Vec<i64> = rows
            .iter()
            .filter_map(|row| match row[time] {
                Value::Int(time) => Some(time),
                _ => None,
            })
            .collect();
        for row in rows {
            let mut result = row.clone();
            match row[time] {
                Value::Int(own) => {
                    let (mut low, mut high) = (own, own);
                    loop {
                        let next_low = times.iter().filter(|t| **t >= low - gap_us).min();
                        let next_high = times.iter().filter(|t| **t <= high + gap_us).max();
                        let next = (
                            low.min(*next_low.expect("the row itself")),
                            high.max(*next_high.expect("the row itself")),
                        );
                        if next == (low, high) {
                            break;
                        }
                        (low, high) = next;
                    }
                    result.extend([Value::Int(low), Value::Int(high + gap_us)]);
                }
                _ => result.extend([Value::Null, Value::Null]),
            }
            add(&mut expected.rows, result, 1);
        }
    }
    expected
}
