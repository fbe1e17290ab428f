//! Random tables, expressions, queries and changes, in SQL that Postgres and Tidegate both read.
//!
//! Domains are small, so that joins meet, groups collide and updates undo one another. No query has a result that depends on
//! the order of rows that compare equal.

use rand::Rng;
use rand::rngs::StdRng;

/// Types of columns. `Approximate` is a numeric whose number of digits is the server's choice; `Other` is compared as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Int,
    BigInt,
    Numeric,
    Text,
    Bool,
    Date,
    Timestamp,
    Double,
    Approximate,
    Other,
}

use Type::*;

pub const STORED: [Type; 8] = [Int, BigInt, Numeric, Text, Bool, Date, Timestamp, Double];

impl Type {
    fn sql(self) -> &'static str {
        match self {
            Int => "integer",
            BigInt => "bigint",
            Numeric | Approximate => "numeric(10,2)",
            Text | Other => "text",
            Bool => "boolean",
            Date => "date",
            Timestamp => "timestamp",
            Double => "double precision",
        }
    }
}

/// A table or a view that queries read.
#[derive(Debug, Clone)]
pub struct Relation {
    pub name: String,
    pub columns: Vec<(String, Type)>,
    pub key: bool,
}

/// A column in reach of an expression.
type Scope = Vec<(String, Type)>;

pub struct Query {
    pub sql: String,
    pub types: Vec<Type>,
    pub shape: &'static str,
}

pub struct Generator {
    pub rng: StdRng,
}

impl Generator {
    pub fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }
    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    // ---- tables ----

    pub fn table(&mut self, name: &str) -> Relation {
        let key = self.chance(50);
        let mut columns = vec![("a".to_owned(), Int)];
        for i in 0..2 + self.below(5) {
            let stored = STORED[self.below(STORED.len())];
            columns.push((format!("c{i}"), stored));
        }
        columns.push(("s".to_owned(), Text));
        Relation {
            name: name.to_owned(),
            columns,
            key,
        }
    }

    pub fn create(&self, table: &Relation) -> String {
        let columns = table.columns.iter().enumerate().map(|(i, (name, stored))| {
            let key = if table.key && i == 0 {
                " PRIMARY KEY"
            } else {
                ""
            };
            format!("{name} {}{key}", stored.sql())
        });
        format!(
            "CREATE TABLE {} ({})",
            table.name,
            columns.collect::<Vec<_>>().join(", ")
        )
    }

    pub fn literal(&mut self, of: Type) -> String {
        let n = self.below(6) as i64;
        match of {
            Int => format!("{}", n - 2)
                .replace("-2", "(-2)")
                .replace("-1", "(-1)"),
            BigInt => format!("{}::bigint", n * 1_000_000_007),
            Numeric | Approximate => format!("{}.{}5::numeric(10,2)", n, self.below(3)),
            Text | Other => format!(
                "'{}'",
                self.pick(&["a", "b", "ab", "", "Zed", "x y", "ä", "a%"])
            ),
            Bool => self.pick(&["true", "false"]).to_owned(),
            Date => format!("date '2024-0{}-28'", n + 1),
            Timestamp => format!("timestamp '2024-02-2{} 1{}:30:00'", n, n),
            Double => format!("({}::double precision)", n as f64 / 2.0 - 0.5),
        }
    }

    fn value(&mut self, of: Type) -> String {
        if self.chance(20) {
            "NULL".into()
        } else {
            self.literal(of)
        }
    }

    // ---- scalar expressions ----

    fn column(&mut self, scope: &Scope, of: Type) -> Option<String> {
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

    fn leaf(&mut self, scope: &Scope, of: Type) -> String {
        if self.chance(85)
            && let Some(column) = self.column(scope, of)
        {
            return column;
        }
        self.literal(of)
    }

    pub fn scalar(&mut self, scope: &Scope, of: Type, depth: usize) -> String {
        if depth == 0 || self.chance(35) {
            return self.leaf(scope, of);
        }
        let d = depth - 1;
        match self.below(12) {
            0 => {
                let (c, a, b) = (
                    self.scalar(scope, Bool, d),
                    self.scalar(scope, of, d),
                    self.scalar(scope, of, d),
                );
                return format!("CASE WHEN {c} THEN {a} ELSE {b} END");
            }
            1 => {
                return format!(
                    "coalesce({}, {})",
                    self.scalar(scope, of, d),
                    self.scalar(scope, of, d)
                );
            }
            2 => {
                return format!(
                    "nullif({}, {})",
                    self.scalar(scope, of, d),
                    self.leaf(scope, of)
                );
            }
            3 if of != Bool => {
                let f = self.pick(&["greatest", "least"]);
                return format!(
                    "{f}({}, {})",
                    self.scalar(scope, of, d),
                    self.scalar(scope, of, d)
                );
            }
            _ => {}
        }
        match of {
            Int => self.integer(scope, d),
            BigInt => match self.below(3) {
                0 => format!("({})::bigint", self.scalar(scope, Int, d)),
                1 => format!(
                    "({} + {})",
                    self.scalar(scope, BigInt, d),
                    self.leaf(scope, BigInt)
                ),
                _ => format!("abs({})", self.scalar(scope, BigInt, d)),
            },
            Numeric | Approximate => match self.below(4) {
                0 => format!(
                    "({} - {})",
                    self.scalar(scope, Numeric, d),
                    self.leaf(scope, Numeric)
                ),
                1 => format!("({})::numeric(10,2)", self.scalar(scope, Int, d)),
                2 => format!("abs({})", self.scalar(scope, Numeric, d)),
                _ => format!("(-{})", self.leaf(scope, Numeric)),
            },
            Text | Other => self.text(scope, d),
            Bool => self.predicate(scope, d),
            Date => match self.below(3) {
                0 => format!("({} + {})", self.leaf(scope, Date), self.leaf(scope, Int)),
                1 => format!("({})::date", self.leaf(scope, Timestamp)),
                _ => self.leaf(scope, Date),
            },
            Timestamp => match self.below(4) {
                0 => format!(
                    "date_trunc('{}', {})",
                    self.pick(&["day", "hour", "month", "year"]),
                    self.leaf(scope, Timestamp)
                ),
                1 => format!(
                    "({} + interval '{}')",
                    self.leaf(scope, Timestamp),
                    self.pick(&["1 day", "90 minutes", "1 month", "-3 hours"])
                ),
                2 => format!("({})::timestamp", self.leaf(scope, Date)),
                _ => self.leaf(scope, Timestamp),
            },
            Double => match self.below(5) {
                0 => format!(
                    "({} {} {})",
                    self.scalar(scope, Double, d),
                    self.pick(&["+", "-", "*"]),
                    self.leaf(scope, Double)
                ),
                1 => format!("({})::double precision", self.scalar(scope, Int, d)),
                2 => format!(
                    "{}({})",
                    self.pick(&["abs", "floor", "ceil", "round", "sign"]),
                    self.scalar(scope, Double, d)
                ),
                3 => format!("sqrt(abs({}))", self.leaf(scope, Double)),
                _ => format!(
                    "({} / nullif({}, 0))",
                    self.leaf(scope, Double),
                    self.leaf(scope, Double)
                ),
            },
        }
    }

    fn integer(&mut self, scope: &Scope, d: usize) -> String {
        match self.below(9) {
            0 => format!(
                "({} + {})",
                self.scalar(scope, Int, d),
                self.scalar(scope, Int, d)
            ),
            1 => format!(
                "({} - {})",
                self.scalar(scope, Int, d),
                self.leaf(scope, Int)
            ),
            2 => format!("({} * {})", self.leaf(scope, Int), self.leaf(scope, Int)),
            3 => format!(
                "({} / nullif({}, 0))",
                self.scalar(scope, Int, d),
                self.leaf(scope, Int)
            ),
            4 => format!(
                "({} % nullif({}, 0))",
                self.scalar(scope, Int, d),
                self.leaf(scope, Int)
            ),
            5 => format!("abs({})", self.scalar(scope, Int, d)),
            6 => format!("length({})", self.scalar(scope, Text, d)),
            7 => format!(
                "extract({} from {})::integer",
                self.pick(&["year", "month", "day", "dow", "doy"]),
                self.leaf(scope, Date)
            ),
            _ => format!("strpos({}, 'a')", self.scalar(scope, Text, d)),
        }
    }

    fn text(&mut self, scope: &Scope, d: usize) -> String {
        let a = self.scalar(scope, Text, d);
        match self.below(14) {
            0 => format!("({a} || {})", self.leaf(scope, Text)),
            1 => format!("upper({a})"),
            2 => format!("lower({a})"),
            3 => format!("substr({a}, {}, 2)", 1 + self.below(2)),
            4 => format!("replace({a}, 'a', 'bb')"),
            5 => format!(
                "{}({a}, {})",
                self.pick(&["left", "right"]),
                1 + self.below(2)
            ),
            6 => format!("({})::text", self.scalar(scope, Int, d)),
            7 => format!("({})::text", self.leaf(scope, Date)),
            8 => format!("concat({a}, '-', {})", self.leaf(scope, Int)),
            9 => format!("reverse({a})"),
            10 => format!("lpad({a}, 3, '*')"),
            11 => format!("({})::text", self.leaf(scope, Numeric)),
            12 => format!("to_char({}, 'YYYY-MM')", self.leaf(scope, Timestamp)),
            _ => format!("btrim({a}, ' a')"),
        }
    }

    fn comparable(&mut self, scope: &Scope) -> Type {
        let fitting: Vec<Type> = scope
            .iter()
            .map(|(_, t)| *t)
            .filter(|t| STORED.contains(t) && *t != Bool)
            .collect();
        if fitting.is_empty() {
            Int
        } else {
            fitting[self.below(fitting.len())]
        }
    }

    pub fn predicate(&mut self, scope: &Scope, depth: usize) -> String {
        let d = depth.saturating_sub(1);
        let of = self.comparable(scope);
        match self.below(11) {
            0 if depth > 0 => format!(
                "({} AND {})",
                self.predicate(scope, d),
                self.predicate(scope, d)
            ),
            1 if depth > 0 => format!(
                "({} OR {})",
                self.predicate(scope, d),
                self.predicate(scope, d)
            ),
            2 if depth > 0 => format!("(NOT {})", self.predicate(scope, d)),
            3 => format!(
                "({} IS {}NULL)",
                self.leaf(scope, of),
                self.pick(&["", "NOT "])
            ),
            4 => format!(
                "({} {}BETWEEN {} AND {})",
                self.leaf(scope, of),
                self.pick(&["", "NOT "]),
                self.literal(of),
                self.literal(of)
            ),
            5 => format!(
                "({} {}IN ({}, {}))",
                self.leaf(scope, of),
                self.pick(&["", "NOT "]),
                self.literal(of),
                self.literal(of)
            ),
            6 => format!(
                "({} {} '{}')",
                self.leaf(scope, Text),
                self.pick(&["LIKE", "NOT LIKE", "ILIKE"]),
                self.pick(&["a%", "%b%", "_", "%e_"])
            ),
            7 => format!(
                "({} IS {}DISTINCT FROM {})",
                self.leaf(scope, of),
                self.pick(&["", "NOT "]),
                self.leaf(scope, of)
            ),
            8 => self.leaf(scope, Bool),
            _ => {
                let op = self.pick(&["=", "<>", "<", "<=", ">", ">="]);
                format!(
                    "({} {op} {})",
                    self.scalar(scope, of, d),
                    self.leaf(scope, of)
                )
            }
        }
    }

    // ---- queries ----

    fn scope_of(relation: &Relation, alias: &str) -> Scope {
        relation
            .columns
            .iter()
            .map(|(n, t)| (format!("{alias}.{n}"), *t))
            .collect()
    }

    /// `FROM` with one to three relations, and what it brings into reach.
    fn from(&mut self, relations: &[Relation], most: usize) -> (String, Scope, &'static str) {
        let first = self.below(relations.len());
        let mut scope = Self::scope_of(&relations[first], "q0");
        let mut text = format!("{} AS q0", relations[first].name);
        let mut shape = "one relation";
        for i in 1..=self.below(most) {
            let next = relations[self.below(relations.len())].clone();
            let alias = format!("q{i}");
            let right = Self::scope_of(&next, &alias);
            let of = self.comparable(&right);
            let (Some(l), Some(r)) = (self.column(&scope, of), self.column(&right, of)) else {
                continue;
            };
            let mut both = scope.clone();
            both.extend(right);
            let kind = self.pick(&[
                "JOIN",
                "JOIN",
                "LEFT JOIN",
                "RIGHT JOIN",
                "FULL JOIN",
                "CROSS JOIN",
                "<",
            ]);
            match kind {
                "CROSS JOIN" => {
                    shape = "cross join";
                    text = format!("{text} CROSS JOIN {} AS {alias}", next.name);
                }
                "<" => {
                    shape = "non-equi join";
                    let kind = self.pick(&["JOIN", "LEFT JOIN"]);
                    text = format!("{text} {kind} {} AS {alias} ON {l} < {r}", next.name);
                }
                _ => {
                    shape = "join";
                    let residual = match self.chance(35) {
                        true => format!(" AND {}", self.predicate(&both, 1)),
                        false => String::new(),
                    };
                    let op = if self.chance(10) && kind != "FULL JOIN" {
                        "IS NOT DISTINCT FROM"
                    } else {
                        "="
                    };
                    text = format!(
                        "{text} {kind} {} AS {alias} ON {l} {op} {r}{residual}",
                        next.name
                    );
                }
            }
            scope = both;
        }
        (text, scope, shape)
    }

    fn filter(&mut self, scope: &Scope, percent: u32) -> String {
        match self.chance(percent) {
            true => format!(" WHERE {}", self.predicate(scope, 2)),
            false => String::new(),
        }
    }

    fn projection(&mut self, scope: &Scope) -> (Vec<String>, Vec<Type>) {
        let (mut list, mut types) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.below(4) {
            let of = STORED[self.below(STORED.len())];
            list.push(self.scalar(scope, of, 2));
            types.push(of);
        }
        for _ in 0..1 + self.below(2) {
            let (name, of) = scope[self.below(scope.len())].clone();
            list.push(name);
            types.push(of);
        }
        (list, types)
    }

    fn named(list: &[String]) -> String {
        let items = list.iter().enumerate().map(|(i, e)| format!("{e} AS x{i}"));
        items.collect::<Vec<_>>().join(", ")
    }

    pub fn query(&mut self, relations: &[Relation]) -> Query {
        match self.below(13) {
            0 | 1 => self.select(relations, 1),
            2 | 3 => self.select(relations, 3),
            4..=6 => self.grouped(relations),
            7 => self.distinct(relations),
            8 => self.union(relations),
            9 => self.limited(relations),
            10 => self.membership(relations),
            11 => self.sub_query(relations),
            _ => self.nested(relations),
        }
    }

    fn select(&mut self, relations: &[Relation], most: usize) -> Query {
        let (from, scope, shape) = self.from(relations, most);
        let filter = self.filter(&scope, 60);
        let (list, types) = self.projection(&scope);
        let sql = format!("SELECT {} FROM {from}{filter}", Self::named(&list));
        Query { sql, types, shape }
    }

    fn aggregate(&mut self, scope: &Scope) -> (String, Type) {
        let distinct = if self.chance(25) { "DISTINCT " } else { "" };
        let (mut text, of) = match self.below(12) {
            0 => ("count(*)".to_owned(), BigInt),
            1 => {
                let of = self.comparable(scope);
                (
                    format!("count({distinct}{})", self.scalar(scope, of, 1)),
                    BigInt,
                )
            }
            2 => (
                format!("sum({distinct}{})", self.scalar(scope, Int, 1)),
                BigInt,
            ),
            3 => (
                format!("sum({distinct}{})", self.leaf(scope, Numeric)),
                Other,
            ),
            4 => (
                format!("sum({distinct}{})", self.leaf(scope, Double)),
                Double,
            ),
            5 => {
                let of = [Int, Numeric, Double][self.below(3)];
                let result = if of == Double { Double } else { Approximate };
                (
                    format!("avg({distinct}{})", self.scalar(scope, of, 1)),
                    result,
                )
            }
            6 => {
                let of = self.comparable(scope);
                (
                    format!(
                        "{}({})",
                        self.pick(&["min", "max"]),
                        self.scalar(scope, of, 1)
                    ),
                    of,
                )
            }
            7 => (
                format!(
                    "{}({})",
                    self.pick(&["bool_and", "bool_or"]),
                    self.predicate(scope, 1)
                ),
                Bool,
            ),
            8 => {
                let x = self.leaf(scope, Text);
                let order = self.pick(&["", " DESC"]);
                (
                    format!("string_agg({distinct}{x}, ',' ORDER BY {x}{order})"),
                    Text,
                )
            }
            9 => {
                let of = [Int, Text, Date][self.below(3)];
                let x = self.leaf(scope, of);
                let order = self.pick(&["", " DESC", " NULLS FIRST"]);
                (
                    format!("array_agg({distinct}{x} ORDER BY {x}{order})"),
                    Other,
                )
            }
            10 => {
                let f = self.pick(&[
                    "stddev",
                    "variance",
                    "var_pop",
                    "stddev_pop",
                    "var_samp",
                    "stddev_samp",
                ]);
                (format!("{f}({})", self.leaf(scope, Double)), Double)
            }
            _ => (
                format!("sum({distinct}{})", self.leaf(scope, BigInt)),
                Other,
            ),
        };
        if self.chance(25) {
            text = format!("{text} FILTER (WHERE {})", self.predicate(scope, 1));
        }
        (text, of)
    }

    fn grouped(&mut self, relations: &[Relation]) -> Query {
        let most = 1 + self.below(2);
        let (from, scope, _) = self.from(relations, most);
        let filter = self.filter(&scope, 40);
        let (mut list, mut types, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.below(3) {
            let of = STORED[self.below(STORED.len())];
            if let Some(column) = self.column(&scope, of)
                && !list.contains(&column)
            {
                keys.push(column.clone());
                list.push(column);
                types.push(of);
            }
        }
        for _ in 0..1 + self.below(4) {
            let (text, of) = self.aggregate(&scope);
            list.push(text);
            types.push(of);
        }
        let mut sql = format!("SELECT {} FROM {from}{filter}", Self::named(&list));
        if !keys.is_empty() {
            sql = format!("{sql} GROUP BY {}", keys.join(", "));
        }
        let having = self.chance(30);
        if having {
            sql = format!(
                "{sql} HAVING count(*) {} {}",
                self.pick(&[">", "<=", "<>"]),
                1 + self.below(3)
            );
        }
        let shape = if keys.is_empty() {
            "aggregate of all rows"
        } else {
            "group by"
        };
        Query { sql, types, shape }
    }

    /// Columns whose equality is exact, for operations that compare whole rows.
    fn exact(&mut self, scope: &Scope, count: usize) -> (Vec<String>, Vec<Type>) {
        (0..count)
            .map(|_| {
                let of = [Int, Text, Bool, Date, Numeric][self.below(5)];
                (self.scalar(scope, of, 1), of)
            })
            .unzip()
    }

    fn distinct(&mut self, relations: &[Relation]) -> Query {
        let (from, scope, _) = self.from(relations, 2);
        let filter = self.filter(&scope, 40);
        let count = 1 + self.below(3);
        let (list, types) = self.exact(&scope, count);
        let sql = format!("SELECT DISTINCT {} FROM {from}{filter}", Self::named(&list));
        Query {
            sql,
            types,
            shape: "distinct",
        }
    }

    fn union(&mut self, relations: &[Relation]) -> Query {
        let types: Vec<Type> = (0..1 + self.below(3))
            .map(|_| [Int, Text, Bool, Date][self.below(4)])
            .collect();
        let mut branches = Vec::new();
        for _ in 0..2 + self.below(2) {
            let (from, scope, _) = self.from(relations, 2);
            let list: Vec<String> = types.iter().map(|t| self.scalar(&scope, *t, 1)).collect();
            let filter = self.filter(&scope, 40);
            branches.push(format!("SELECT {} FROM {from}{filter}", Self::named(&list)));
        }
        let sql = branches.join(self.pick(&[" UNION ", " UNION ALL "]));
        Query {
            sql,
            types,
            shape: "union",
        }
    }

    fn limited(&mut self, relations: &[Relation]) -> Query {
        let (from, scope, _) = self.from(relations, 2);
        let filter = self.filter(&scope, 40);
        let count = 1 + self.below(3);
        let (list, types) = self.exact(&scope, count);
        // Ordered by every column: rows that compare equal are the same.
        let order = (1..=list.len()).map(|i| {
            format!(
                "{i}{}",
                self.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"])
            )
        });
        let order = order.collect::<Vec<_>>().join(", ");
        let limit = format!(" LIMIT {}", 1 + self.below(6));
        let offset = if self.chance(40) {
            format!(" OFFSET {}", self.below(4))
        } else {
            String::new()
        };
        let sql = format!(
            "SELECT {} FROM {from}{filter} ORDER BY {order}{limit}{offset}",
            Self::named(&list)
        );
        Query {
            sql,
            types,
            shape: "order by limit",
        }
    }

    fn inner_relation(
        &mut self,
        relations: &[Relation],
        outer: &Scope,
    ) -> (Relation, Scope, String) {
        let inner = relations[self.below(relations.len())].clone();
        let scope = Self::scope_of(&inner, "i");
        let of = self.comparable(&scope);
        let correlated = match (self.column(outer, of), self.column(&scope, of)) {
            (Some(o), Some(i)) => format!("{i} = {o}"),
            _ => "true".into(),
        };
        (inner, scope, correlated)
    }

    fn membership(&mut self, relations: &[Relation]) -> Query {
        let (from, scope, _) = self.from(relations, 1);
        let (inner, inside, correlated) = self.inner_relation(relations, &scope);
        let not = self.pick(&["", "NOT "]);
        let (condition, shape) = if self.chance(50) {
            let residual = match self.chance(40) {
                true => {
                    let both: Scope = scope.iter().chain(&inside).cloned().collect();
                    format!(" AND {}", self.predicate(&both, 1))
                }
                false => String::new(),
            };
            (
                format!(
                    "{not}EXISTS (SELECT 1 FROM {} AS i WHERE {correlated}{residual})",
                    inner.name
                ),
                "exists",
            )
        } else {
            let of = self.comparable(&inside);
            let (l, r) = (self.leaf(&scope, of), self.leaf(&inside, of));
            let filter = self.filter(&inside, 50);
            (
                format!("{l} {not}IN (SELECT {r} FROM {} AS i{filter})", inner.name),
                "in",
            )
        };
        let (list, types) = self.projection(&scope);
        let sql = format!(
            "SELECT {} FROM {from} WHERE {condition}",
            Self::named(&list)
        );
        Query { sql, types, shape }
    }

    fn sub_query(&mut self, relations: &[Relation]) -> Query {
        let (from, scope, _) = self.from(relations, 1);
        let (inner, inside, correlated) = self.inner_relation(relations, &scope);
        let correlated = if self.chance(60) {
            correlated
        } else {
            "true".into()
        };
        let (list, mut types) = self.projection(&scope);
        let value = match self.below(3) {
            0 => "count(*)".to_owned(),
            1 => format!("max({})::bigint", self.leaf(&inside, Int)),
            _ => format!("sum({})", self.leaf(&inside, Int)),
        };
        let sub = format!(
            "(SELECT {value} FROM {} AS i WHERE {correlated})",
            inner.name
        );
        if self.chance(50) {
            types.push(BigInt);
            let sql = format!("SELECT {}, {sub} AS sub FROM {from}", Self::named(&list));
            return Query {
                sql,
                types,
                shape: "scalar sub-query",
            };
        }
        let l = self.leaf(&scope, Int);
        let op = self.pick(&["<", ">=", "="]);
        let sql = format!(
            "SELECT {} FROM {from} WHERE {l} {op} {sub}",
            Self::named(&list)
        );
        Query {
            sql,
            types,
            shape: "scalar sub-query",
        }
    }

    fn nested(&mut self, relations: &[Relation]) -> Query {
        let inside = match self.below(4) {
            0 => self.grouped(relations),
            1 => self.distinct(relations),
            2 => self.limited(relations),
            _ => self.union(relations),
        };
        let columns = inside
            .types
            .iter()
            .enumerate()
            .map(|(i, t)| (format!("x{i}"), *t))
            .collect();
        let relation = Relation {
            name: "n".into(),
            columns,
            key: false,
        };
        let outside = match self.chance(50) {
            true => self.grouped(&[relation]),
            false => self.select(&[relation], 1),
        };
        let sql = format!("WITH n AS ({}) {}", inside.sql, outside.sql);
        Query {
            sql,
            types: outside.types,
            shape: "nested",
        }
    }

    // ---- changes ----

    fn rows(&mut self, table: &Relation, count: usize) -> String {
        let rows: Vec<String> = (0..count)
            .map(|_| {
                let values = table.columns.iter().enumerate().map(|(i, (_, of))| {
                    match table.key && i == 0 {
                        true => self.below(40).to_string(),
                        false => self.value(*of),
                    }
                });
                format!("({})", values.collect::<Vec<_>>().join(", "))
            })
            .collect();
        rows.join(", ")
    }

    fn insert(&mut self, table: &Relation) -> String {
        let count = 1 + self.below(8);
        let name = &table.name;
        if !table.key {
            return format!("INSERT INTO {name} VALUES {}", self.rows(table, count));
        }
        match self.below(4) {
            0 => format!("INSERT INTO {name} VALUES {}", self.rows(table, 1)),
            1 => format!(
                "INSERT INTO {name} VALUES {} ON CONFLICT (a) DO UPDATE SET s = excluded.s",
                self.rows(table, 1)
            ),
            _ => format!(
                "INSERT INTO {name} VALUES {} ON CONFLICT (a) DO NOTHING",
                self.rows(table, count)
            ),
        }
    }

    pub fn change(&mut self, table: &Relation) -> String {
        let scope: Scope = table.columns.clone();
        let name = &table.name;
        match self.below(20) {
            0..=9 => self.insert(table),
            10..=14 => {
                let at = 1 + self.below(table.columns.len() - 1);
                let (column, of) = table.columns[at].clone();
                let value = if self.chance(15) {
                    "NULL".into()
                } else {
                    self.scalar(&scope, of, 1)
                };
                // Text grows by concatenation only so far.
                let value = if of == Text {
                    format!("left({value}, 4)")
                } else {
                    value
                };
                let value = match of {
                    Int => format!("({value}) % 7"),
                    BigInt => format!("({value}) % 10000000000"),
                    Double => format!("CASE WHEN abs({value}) < 1000 THEN {value} ELSE 1.5 END"),
                    Numeric => format!("({value}) % 1000"),
                    _ => value,
                };
                format!(
                    "UPDATE {name} SET {column} = {value} WHERE {}",
                    self.predicate(&scope, 1)
                )
            }
            15..=18 => format!(
                "DELETE FROM {name} WHERE {} AND {}",
                self.predicate(&scope, 1),
                self.predicate(&scope, 1)
            ),
            _ if self.chance(30) => format!("TRUNCATE {name}"),
            _ => self.insert(table),
        }
    }
}
