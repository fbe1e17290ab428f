//! Operators that look at rows one by one, or at ordered rows.

use super::Expected;
use super::aggregate::compare;
use crate::value::{Row, Value, ZSet, add};
use std::collections::BTreeMap;
use tidegate_plan::{Ranking, SortKey};

/// What an expression means: a value, or the SQLSTATE with which the row fails.
pub type Meaning = fn(&Row) -> Result<Value, &'static str>;

pub fn filter(meaning: Meaning, input: &ZSet) -> Expected {
    let mut expected = Expected::default();
    for (row, count) in input {
        match meaning(row) {
            Ok(Value::Bool(true)) => add(&mut expected.rows, row.clone(), *count),
            Ok(_) => {}
            Err(state) => expected.fail(state, *count),
        }
    }
    expected
}

pub fn project(meanings: &[Meaning], input: &ZSet) -> Expected {
    let mut expected = Expected::default();
    for (row, count) in input {
        match meanings
            .iter()
            .map(|meaning| meaning(row))
            .collect::<Result<Row, _>>()
        {
            Ok(values) => add(&mut expected.rows, values, *count),
            Err(state) => expected.fail(state, *count),
        }
    }
    expected
}

pub fn union(inputs: &[ZSet]) -> Expected {
    let mut expected = Expected::default();
    for (row, count) in inputs.iter().flatten() {
        add(&mut expected.rows, row.clone(), *count);
    }
    expected
}

pub(super) fn partitions(keys: &[usize], input: &ZSet) -> BTreeMap<Row, Vec<Row>> {
    let mut partitions: BTreeMap<Row, Vec<Row>> = BTreeMap::new();
    for (row, count) in input {
        let rows = partitions
            .entry(keys.iter().map(|k| row[*k].clone()).collect())
            .or_default();
        rows.extend(std::iter::repeat_n(
            row.clone(),
            usize::try_from(*count).expect("no negative counts"),
        ));
    }
    partitions
}

pub fn unnest(lists: &[usize], input: &ZSet) -> Expected {
    let mut expected = Expected::default();
    for (row, count) in input {
        let elements = |list: &usize| match &row[*list] {
            Value::List(elements) => elements.clone(),
            _ => Vec::new(),
        };
        let longest = lists.iter().map(|l| elements(l).len()).max().unwrap_or(0);
        for place in 0..longest {
            let mut one = row.clone();
            for list in lists {
                one[*list] = elements(list).get(place).cloned().unwrap_or(Value::Null);
            }
            add(&mut expected.rows, one, *count);
        }
    }
    expected
}

/// What a top-n is asked for.
pub struct TopNWindow<'a> {
    pub partition: &'a [usize],
    pub order: &'a [SortKey],
    pub ranking: Ranking,
    pub offset: u64,
    pub limit: Option<u64>,
    pub numbered: bool,
}

pub fn top_n(window: &TopNWindow<'_>, input: &ZSet) -> Expected {
    let mut expected = Expected::default();
    let order = window.order;
    for mut rows in partitions(window.partition, input).into_values() {
        rows.sort_by(|a, b| compare(order, a, b).then_with(|| a.cmp(b)));
        for (index, row) in rows.iter().enumerate() {
            let before: Vec<&Row> = rows
                .iter()
                .filter(|other| compare(order, other, row).is_lt())
                .collect();
            let number = match window.ranking {
                Ranking::RowNumber => index,
                Ranking::Rank => before.len(),
                Ranking::DenseRank => before.chunk_by(|a, b| compare(order, a, b).is_eq()).count(),
            } as u64;
            let above = number.checked_sub(window.offset);
            if above.is_some_and(|n| window.limit.is_none_or(|limit| n < limit)) {
                let mut row = row.clone();
                row.extend(window.numbered.then_some(Value::Int(number as i64 + 1)));
                add(&mut expected.rows, row, 1);
            }
        }
    }
    expected
}

pub fn at_most_one(keys: &[usize], input: &ZSet) -> Expected {
    let mut expected = Expected::default();
    for mut rows in partitions(keys, input).into_values() {
        match rows.len() {
            1 => add(&mut expected.rows, rows.remove(0), 1),
            _ => expected.fail("21000", 1),
        }
    }
    expected
}
