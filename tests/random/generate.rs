//! Random tables and values in SQL that Postgres and Tidegate both read; `expressions`, `queries` and `changes` build on it.
//!
//! Domains are small, so that joins meet, groups collide and updates undo one another. No query has a result that depends on
//! the order of rows that compare equal.

use rand::Rng;
use rand::rngs::StdRng;

/// Types of columns. `Approximate` is a numeric whose number of digits is the server's choice; `Other` is compared as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Small,
    Int,
    BigInt,
    Numeric,
    Text,
    Bool,
    Date,
    Time,
    Timestamp,
    Zoned,
    Interval,
    Real,
    Double,
    Uuid,
    Bytes,
    Json,
    Ints,
    Texts,
    Approximate,
    Other,
}

use Type::*;

/// What most columns have, and what all of them may have.
const USUAL: [Type; 8] = [Int, BigInt, Numeric, Text, Bool, Date, Timestamp, Double];
const STORED: [Type; 18] = [
    Small, Int, BigInt, Numeric, Text, Bool, Date, Time, Timestamp, Zoned, Interval, Real, Double,
    Uuid, Bytes, Json, Ints, Texts,
];
/// Types that both order alike.
const ORDERED: [Type; 14] = [
    Small, Int, BigInt, Numeric, Text, Date, Time, Timestamp, Zoned, Interval, Real, Double, Uuid,
    Bytes,
];

impl Type {
    pub fn sql(self) -> &'static str {
        match self {
            Small => "smallint",
            Int => "integer",
            BigInt => "bigint",
            Numeric | Approximate => "numeric(10,2)",
            Text | Other => "text",
            Bool => "boolean",
            Date => "date",
            Time => "time",
            Timestamp => "timestamp",
            Zoned => "timestamptz",
            Interval => "interval",
            Real => "real",
            Double => "double precision",
            Uuid => "uuid",
            Bytes => "bytea",
            Json => "jsonb",
            Ints => "integer[]",
            Texts => "text[]",
        }
    }

    pub fn is_ordered(self) -> bool {
        ORDERED.contains(&self)
    }

    pub fn is_exact(self) -> bool {
        STORED.contains(&self) && !matches!(self, Real | Double)
    }
}

/// A table, a source or a view that queries read.
#[derive(Debug, Clone)]
pub struct Relation {
    pub name: String,
    pub columns: Vec<(String, Type)>,
    pub key: bool,
    /// Roughly ten times the power of the tables' size that its own size is: products of products are not asked for.
    pub weight: usize,
}

/// A column in reach of an expression.
pub type Scope = Vec<(String, Type)>;

pub struct Generator {
    pub rng: StdRng,
    /// Keys are moved to numbers that none had.
    pub moved: usize,
}

impl Generator {
    pub fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    pub fn stored(&mut self) -> Type {
        if self.chance(60) {
            USUAL[self.below(USUAL.len())]
        } else {
            STORED[self.below(STORED.len())]
        }
    }

    pub fn exact(&mut self) -> Type {
        loop {
            let of = self.stored();
            if of.is_exact() {
                return of;
            }
        }
    }

    pub fn table(&mut self, name: &str) -> Relation {
        let key = self.chance(50);
        let mut columns = vec![("a".to_owned(), Int)];
        for i in 0..2 + self.below(6) {
            columns.push((format!("c{i}"), self.stored()));
        }
        columns.push(("s".to_owned(), Text));
        Relation {
            name: name.to_owned(),
            columns,
            key,
            weight: 10,
        }
    }

    pub fn create(&mut self, table: &Relation) -> String {
        let mut columns = Vec::new();
        for (i, (name, stored)) in table.columns.iter().enumerate() {
            let constraint = match (table.key, i) {
                (true, 0) => " PRIMARY KEY".to_owned(),
                (_, 0) => String::new(),
                _ if self.chance(10) => format!(" NOT NULL DEFAULT {}", self.literal(*stored)),
                _ if self.chance(15) => format!(" DEFAULT {}", self.literal(*stored)),
                _ => String::new(),
            };
            columns.push(format!("{name} {}{constraint}", stored.sql()));
        }
        format!("CREATE TABLE {} ({})", table.name, columns.join(", "))
    }

    pub fn literal(&mut self, of: Type) -> String {
        let n = self.below(6) as i64;
        match of {
            Int => format!("{}", n - 2)
                .replace("-2", "(-2)")
                .replace("-1", "(-1)"),
            Small => format!("({})::smallint", n - 1),
            BigInt => format!("{}::bigint", n * 1_000_000_007),
            Numeric | Approximate => format!("{}.{}5::numeric(10,2)", n, self.below(3)),
            Text | Other => {
                let text = self.pick(&["a", "b", "ab", "", "Zed", "x y", "ä", "a%"]);
                format!("'{text}'::text")
            }
            Bool => self.pick(&["true", "false"]).to_owned(),
            Date => format!("date '2024-0{}-28'", n + 1),
            Time => format!("time '1{}:30:0{n}'", n),
            Timestamp => format!("timestamp '2024-02-2{n} 1{n}:30:00'"),
            Zoned => format!("timestamptz '2024-02-2{n} 1{n}:30:00+00'"),
            // None is as long as another that is written otherwise, such as 24 hours and one day.
            Interval => {
                let text = self.pick(&["1 day", "2 days", "90 minutes", "-3 hours", "0", "1 year"]);
                format!("interval '{text}'")
            }
            Real => format!("({})::real", n as f64 / 2.0 - 0.5),
            Double => format!("({})::double precision", n as f64 / 2.0 - 0.5),
            Uuid => format!("'0000000{n}-0000-4000-8000-00000000000{n}'::uuid"),
            Bytes => {
                let bytes = self.pick(&["", "00", "01ff", "61", "6162"]);
                format!(r"'\x{bytes}'::bytea")
            }
            Json => {
                let json = self.pick(&[
                    r#"{"a": 1, "b": [1, null]}"#,
                    r#"{"a": "x"}"#,
                    r#"{"b": {"a": 2.50}, "a": null}"#,
                    "[1, 2]",
                    r#""x""#,
                    "null",
                    "{}",
                ]);
                format!("'{json}'::jsonb")
            }
            Ints => {
                let list = self.pick(&["{}", "{1}", "{1,2}", "{NULL,2}", "{3,1,2}"]);
                format!("'{list}'::integer[]")
            }
            Texts => {
                let list = self.pick(&["{}", "{a}", "{a,b}", "{NULL,\"x y\"}", r#"{""}"#]);
                format!("'{list}'::text[]")
            }
        }
    }

    pub fn value(&mut self, of: Type) -> String {
        if self.chance(20) {
            "NULL".into()
        } else {
            self.literal(of)
        }
    }

    pub fn column(&mut self, scope: &Scope, of: Type) -> Option<String> {
        let fitting: Vec<&String> = scope
            .iter()
            .filter(|(_, t)| *t == of)
            .map(|(n, _)| n)
            .collect();
        if fitting.is_empty() {
            return None;
        }
        Some(fitting[self.below(fitting.len())].clone())
    }

    pub fn leaf(&mut self, scope: &Scope, of: Type) -> String {
        if self.chance(85)
            && let Some(column) = self.column(scope, of)
        {
            return column;
        }
        self.literal(of)
    }

    /// The type of one of the columns that have an order.
    pub fn comparable(&mut self, scope: &Scope) -> Type {
        let fitting = scope.iter().map(|(_, t)| *t).filter(|t| t.is_ordered());
        let fitting: Vec<Type> = fitting.collect();
        if fitting.is_empty() {
            Int
        } else {
            fitting[self.below(fitting.len())]
        }
    }

    /// The type of one of the columns that can be compared for equality.
    pub fn equatable(&mut self, scope: &Scope) -> Type {
        let fitting = scope.iter().map(|(_, t)| *t).filter(|t| STORED.contains(t));
        let fitting: Vec<Type> = fitting.collect();
        if fitting.is_empty() {
            Int
        } else {
            fitting[self.below(fitting.len())]
        }
    }
}
