//! Random changes of tables.

use crate::generate::Type::*;
use crate::generate::{Generator, Relation, Scope};

impl Generator {
    fn row(&mut self, table: &Relation) -> String {
        let mut values = Vec::new();
        for (i, (_, of)) in table.columns.iter().enumerate() {
            values.push(match table.key && i == 0 {
                true => self.below(40).to_string(),
                // Columns may be NOT NULL, which is then refused by both.
                false if self.chance(3) => "DEFAULT".to_owned(),
                false => self.value(*of),
            });
        }
        format!("({})", values.join(", "))
    }

    fn rows(&mut self, table: &Relation, count: usize) -> String {
        let rows: Vec<String> = (0..count).map(|_| self.row(table)).collect();
        rows.join(", ")
    }

    fn insert(&mut self, table: &Relation, tables: &[Relation]) -> String {
        let count = 1 + self.below(8);
        let name = &table.name;
        if self.chance(10) {
            return self.insert_some(table, tables);
        }
        if !table.key {
            return format!("INSERT INTO {name} VALUES {}", self.rows(table, count));
        }
        let text = table.columns.last().expect("tables have columns").0.clone();
        match self.below(6) {
            0 => format!("INSERT INTO {name} VALUES {}", self.rows(table, 1)),
            1 => {
                let rows = self.rows(table, count);
                format!(
                    "INSERT INTO {name} VALUES {rows} ON CONFLICT (a) DO UPDATE SET {text} = excluded.{text}"
                )
            }
            2 => {
                let row = self.row(table);
                let own: Scope = table.columns.clone();
                let own = own.iter().map(|(c, t)| (format!("{name}.{c}"), *t));
                let condition = self.predicate(&own.collect(), 1);
                format!(
                    "INSERT INTO {name} VALUES {row} ON CONFLICT (a) DO UPDATE SET {text} = left(concat(excluded.{text}, {name}.{text}), 4) WHERE {condition}"
                )
            }
            _ => {
                let rows = self.rows(table, count);
                format!("INSERT INTO {name} VALUES {rows} ON CONFLICT (a) DO NOTHING")
            }
        }
    }

    /// Some columns of a query's rows.
    fn insert_some(&mut self, table: &Relation, tables: &[Relation]) -> String {
        let from = &tables[self.below(tables.len())];
        let scope: Scope = from.columns.clone();
        let (mut names, mut values) = (vec![table.columns[0].0.clone()], Vec::new());
        // New keys, so that it does not depend on the order of rows which of them comes first.
        self.moved += 1000;
        values.push(match table.key && !from.key {
            true => format!("{} + 0 * count(*)::integer", self.moved),
            false => format!("{} + {}", scope[0].0, self.moved),
        });
        if !table.key || from.key {
            for (name, of) in table.columns.clone().into_iter().skip(1) {
                if self.chance(60) {
                    values.push(self.scalar(&scope, of, 1));
                    names.push(name);
                }
            }
        }
        format!(
            "INSERT INTO {} ({}) SELECT {} FROM {}",
            table.name,
            names.join(", "),
            values.join(", "),
            from.name
        )
    }

    fn update(&mut self, table: &Relation) -> String {
        let scope: Scope = table.columns.clone();
        let name = &table.name;
        let condition = self.predicate(&scope, 1);
        if table.key && self.chance(10) {
            self.moved += 1000;
            return format!("UPDATE {name} SET a = a + {} WHERE {condition}", self.moved);
        }
        let mut sets: Vec<String> = Vec::new();
        for _ in 0..1 + self.below(2) {
            let at = 1 + self.below(table.columns.len() - 1);
            let (column, of) = table.columns[at].clone();
            let value = if self.chance(15) {
                "NULL".into()
            } else {
                self.scalar(&scope, of, 1)
            };
            // Values grow only so far.
            let value = match of {
                Text => format!("left({value}, 4)"),
                Int => format!("({value}) % 7"),
                BigInt => format!("({value}) % 10000000000"),
                Double | Real => {
                    format!("CASE WHEN abs({value}) < 1000 THEN {value} ELSE 1.5 END")
                }
                Numeric => format!("({value}) % 1000"),
                Ints | Texts | Bytes => self.literal(of),
                _ => value,
            };
            if !sets.iter().any(|s| s.starts_with(&format!("{column} ="))) {
                sets.push(format!("{column} = {value}"));
            }
        }
        format!("UPDATE {name} SET {} WHERE {condition}", sets.join(", "))
    }

    pub fn change(&mut self, table: &Relation, tables: &[Relation]) -> String {
        let scope: Scope = table.columns.clone();
        let name = &table.name;
        let mut sql = match self.below(20) {
            0..=9 => self.insert(table, tables),
            10..=14 => self.update(table),
            15..=18 => {
                let (a, b) = (self.predicate(&scope, 1), self.predicate(&scope, 1));
                format!("DELETE FROM {name} WHERE {a} AND {b}")
            }
            _ if self.chance(30) => return format!("TRUNCATE {name}"),
            _ => self.insert(table, tables),
        };
        if self.chance(40) {
            sql += " RETURNING *";
        }
        sql
    }
}
