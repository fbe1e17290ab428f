//! Random queries: what a materialized view may be over, and what is asked ad hoc.

use crate::generate::Type::*;
use crate::generate::{Generator, Relation, Scope, Type};

pub struct Query {
    pub sql: String,
    pub types: Vec<Type>,
    pub shape: &'static str,
    pub weight: usize,
}

/// What a query reads and what is in reach of its expressions.
struct From {
    text: String,
    scope: Scope,
    shape: &'static str,
    weight: usize,
}

/// No query is heavier: about the square of the tables' size.
const HEAVIEST: usize = 24;

fn scope_of(relation: &Relation, alias: &str) -> Scope {
    let columns = relation.columns.iter();
    columns.map(|(n, t)| (format!("{alias}.{n}"), *t)).collect()
}

fn named(list: &[String]) -> String {
    let items = list.iter().enumerate().map(|(i, e)| format!("{e} AS x{i}"));
    items.collect::<Vec<_>>().join(", ")
}

impl Generator {
    pub fn query(&mut self, relations: &[Relation]) -> Query {
        match self.below(17) {
            0 | 1 => self.select(relations, 1),
            2 | 3 => self.select(relations, 3),
            4..=6 => self.grouped(relations),
            7 => self.distinct(relations),
            8 => self.union(relations),
            9 | 10 => self.limited(relations),
            11 | 12 => self.membership(relations),
            13 => self.sub_query(relations),
            14 => self.derived(relations),
            _ => self.nested(relations),
        }
    }

    /// `FROM` with one to three relations.
    fn from(&mut self, relations: &[Relation], most: usize) -> From {
        let first = &relations[self.below(relations.len())];
        let mut from = From {
            text: format!("{} AS q0", first.name),
            scope: scope_of(first, "q0"),
            shape: "one relation",
            weight: first.weight,
        };
        for i in 1..=self.below(most) {
            let next = relations[self.below(relations.len())].clone();
            if from.weight + next.weight <= HEAVIEST {
                self.join(&mut from, &next, &format!("q{i}"));
            }
        }
        from
    }

    fn join(&mut self, from: &mut From, next: &Relation, alias: &str) {
        let right = scope_of(next, alias);
        let kind = self.pick(&[
            "JOIN",
            "JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
            "CROSS JOIN",
            "<",
        ]);
        let of = match kind {
            "<" => self.comparable(&right),
            _ => self.equatable(&right),
        };
        let (Some(l), Some(r)) = (self.column(&from.scope, of), self.column(&right, of)) else {
            return;
        };
        let mut both = from.scope.clone();
        both.extend(right);
        let joined = format!("{} AS {alias}", next.name);
        from.weight += next.weight;
        match kind {
            "CROSS JOIN" => {
                from.shape = "cross join";
                from.text = format!("{} CROSS JOIN {joined}", from.text);
            }
            "<" => {
                from.shape = "non-equi join";
                let kind = self.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
                from.text = format!("{} {kind} {joined} ON {l} < {r}", from.text);
            }
            _ => {
                from.shape = "join";
                from.weight = from.weight.saturating_sub(4);
                let second = match (self.chance(20), self.equatable(&both)) {
                    (true, of) => match (self.column(&from.scope, of), self.column(&both, of)) {
                        (Some(l), Some(r)) => format!(" AND {l} = {r}"),
                        _ => String::new(),
                    },
                    _ => String::new(),
                };
                let residual = match self.chance(35) {
                    true => format!(" AND {}", self.predicate(&both, 1)),
                    false => String::new(),
                };
                let distinct = self.chance(10) && kind != "FULL JOIN";
                let op = if distinct {
                    "IS NOT DISTINCT FROM"
                } else {
                    "="
                };
                from.text = format!(
                    "{} {kind} {joined} ON {l} {op} {r}{second}{residual}",
                    from.text
                );
            }
        }
        from.scope = both;
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
            let of = self.stored();
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

    /// Columns whose equality is exact, for operations that compare whole rows.
    fn exact_columns(&mut self, scope: &Scope, count: usize) -> (Vec<String>, Vec<Type>) {
        let columns = (0..count).map(|_| {
            let of = self.exact();
            (self.scalar(scope, of, 1), of)
        });
        columns.unzip()
    }

    fn select(&mut self, relations: &[Relation], most: usize) -> Query {
        let from = self.from(relations, most);
        let filter = self.filter(&from.scope, 60);
        let (list, types) = self.projection(&from.scope);
        let sql = format!("SELECT {} FROM {}{filter}", named(&list), from.text);
        Query {
            sql,
            types,
            shape: from.shape,
            weight: from.weight,
        }
    }

    fn aggregate(&mut self, scope: &Scope) -> (String, Type) {
        let distinct = if self.chance(25) { "DISTINCT " } else { "" };
        let (mut text, of) = match self.below(13) {
            0 => ("count(*)".to_owned(), BigInt),
            1 => {
                let of = self.equatable(scope);
                let x = self.scalar(scope, of, 1);
                (format!("count({distinct}{x})"), BigInt)
            }
            2 => {
                let of = [Int, Small][self.below(2)];
                (
                    format!("sum({distinct}{})", self.scalar(scope, of, 1)),
                    BigInt,
                )
            }
            n @ (3 | 4) => {
                let (of, result) = [(Numeric, Other), (Double, Double)][n - 3];
                (format!("sum({distinct}{})", self.leaf(scope, of)), result)
            }
            5 => {
                let of = [Int, Numeric, Double, BigInt, Small, Real][self.below(6)];
                let result = if matches!(of, Double | Real) {
                    Double
                } else {
                    Approximate
                };
                (
                    format!("avg({distinct}{})", self.scalar(scope, of, 1)),
                    result,
                )
            }
            6 | 7 => {
                let mut of = self.comparable(scope);
                // Postgres has neither the smallest uuid nor the smallest bytea.
                if matches!(of, Uuid | Bytes) {
                    of = Text;
                }
                let f = self.pick(&["min", "max"]);
                (format!("{f}({})", self.scalar(scope, of, 1)), of)
            }
            8 => {
                let f = self.pick(&["bool_and", "bool_or", "every"]);
                (format!("{f}({})", self.predicate(scope, 1)), Bool)
            }
            9 => {
                let x = self.leaf(scope, Text);
                let order = self.pick(&["", " DESC"]);
                let by = format!("{distinct}{x}, ',' ORDER BY {x}{order}");
                (format!("string_agg({by})"), Text)
            }
            10 => {
                let of = [Int, Text, Date, Numeric, Timestamp, Time][self.below(6)];
                let x = self.leaf(scope, of);
                let order = self.pick(&["", " DESC", " NULLS FIRST"]);
                (
                    format!("array_agg({distinct}{x} ORDER BY {x}{order})"),
                    Other,
                )
            }
            11 => {
                let f = self.pick(&[
                    "stddev",
                    "variance",
                    "var_pop",
                    "stddev_pop",
                    "var_samp",
                    "stddev_samp",
                ]);
                let of = [Double, Int, Numeric][self.below(3)];
                let result = if of == Double { Double } else { Approximate };
                (format!("{f}({})", self.leaf(scope, of)), result)
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

    fn having(&mut self, scope: &Scope) -> String {
        match self.below(10) {
            0 => {
                let op = self.pick(&[">", "<=", "<>"]);
                format!(" HAVING count(*) {op} {}", 1 + self.below(3))
            }
            1 => {
                let of = self.comparable(scope);
                let of = if matches!(of, Uuid | Bytes) { Int } else { of };
                let literal = self.literal(of);
                format!(" HAVING max({}) >= {literal}", self.leaf(scope, of))
            }
            2 => format!(" HAVING bool_or({})", self.predicate(scope, 1)),
            _ => String::new(),
        }
    }

    fn grouped(&mut self, relations: &[Relation]) -> Query {
        let most = 1 + self.below(2);
        let from = self.from(relations, most);
        let filter = self.filter(&from.scope, 40);
        let (mut list, mut types): (Vec<String>, Vec<Type>) = (Vec::new(), Vec::new());
        for _ in 0..self.below(4) {
            let of = self.stored();
            if !of.is_exact() {
                continue;
            }
            // Keys are columns and expressions.
            let key = match self.chance(70) {
                true => self.column(&from.scope, of),
                false => Some(self.scalar(&from.scope, of, 1)).filter(|e| e.contains('.')),
            };
            if let Some(key) = key
                && !list.contains(&key)
            {
                list.push(key);
                types.push(of);
            }
        }
        let keys: Vec<String> = (1..=list.len()).map(|i| i.to_string()).collect();
        for _ in 0..1 + self.below(4) {
            let (text, of) = self.aggregate(&from.scope);
            list.push(text);
            types.push(of);
        }
        let mut sql = format!("SELECT {} FROM {}{filter}", named(&list), from.text);
        if !keys.is_empty() {
            sql = format!("{sql} GROUP BY {}", keys.join(", "));
        }
        sql += &self.having(&from.scope);
        let (shape, weight) = match keys.is_empty() {
            true => ("aggregate of all rows", 1),
            false => ("group by", from.weight.min(9)),
        };
        Query {
            sql,
            types,
            shape,
            weight,
        }
    }

    fn distinct(&mut self, relations: &[Relation]) -> Query {
        let from = self.from(relations, 2);
        let filter = self.filter(&from.scope, 40);
        let count = 1 + self.below(3);
        let (list, types) = self.exact_columns(&from.scope, count);
        let sql = format!(
            "SELECT DISTINCT {} FROM {}{filter}",
            named(&list),
            from.text
        );
        Query {
            sql,
            types,
            shape: "distinct",
            weight: from.weight.min(9),
        }
    }

    fn union(&mut self, relations: &[Relation]) -> Query {
        let types: Vec<Type> = (0..1 + self.below(3)).map(|_| self.exact()).collect();
        let (mut branches, mut weight) = (Vec::new(), 0);
        for _ in 0..2 + self.below(2) {
            let from = self.from(relations, 2);
            let list = types.iter().map(|t| self.scalar(&from.scope, *t, 1));
            let list: Vec<String> = list.collect();
            let filter = self.filter(&from.scope, 40);
            branches.push(format!(
                "SELECT {} FROM {}{filter}",
                named(&list),
                from.text
            ));
            weight = weight.max(from.weight);
        }
        let (op, shape) = [
            (" UNION ", "union"),
            (" UNION ALL ", "union all"),
            (" INTERSECT ", "intersect"),
            (" EXCEPT ", "except"),
        ][[0, 0, 1, 1, 2, 3][self.below(6)]];
        // More than two would depend on how strongly each of them binds.
        if shape == "intersect" || shape == "except" {
            branches.truncate(2);
        }
        Query {
            sql: branches.join(op),
            types,
            shape,
            weight: weight + 2,
        }
    }

    fn limited(&mut self, relations: &[Relation]) -> Query {
        let from = self.from(relations, 2);
        let filter = self.filter(&from.scope, 40);
        let count = 1 + self.below(3);
        let (mut list, mut types) = (Vec::new(), Vec::new());
        while list.len() < count {
            let of = self.exact();
            if of.is_ordered() || of == Bool {
                list.push(self.scalar(&from.scope, of, 1));
                types.push(of);
            }
        }
        // Ordered by every column: rows that compare equal are the same.
        let order = (1..=list.len()).map(|i| {
            let how = self.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
            format!("{i}{how}")
        });
        let order = order.collect::<Vec<_>>().join(", ");
        let distinct = if self.chance(15) { "DISTINCT " } else { "" };
        let limit = match self.below(10) {
            0 => format!(" OFFSET {}", self.below(5)),
            1..=4 => format!(" LIMIT {} OFFSET {}", 1 + self.below(6), self.below(4)),
            _ => format!(" LIMIT {}", self.below(7)),
        };
        let sql = format!(
            "SELECT {distinct}{} FROM {}{filter} ORDER BY {order}{limit}",
            named(&list),
            from.text
        );
        let weight = if limit.contains("LIMIT") {
            4
        } else {
            from.weight
        };
        Query {
            sql,
            types,
            shape: "order by limit",
            weight,
        }
    }

    fn inner_relation(
        &mut self,
        relations: &[Relation],
        outer: &Scope,
    ) -> (Relation, Scope, String) {
        let inner = relations[self.below(relations.len())].clone();
        let scope = scope_of(&inner, "i");
        let of = self.equatable(&scope);
        let correlated = match (self.column(outer, of), self.column(&scope, of)) {
            (Some(o), Some(i)) => format!("{i} = {o}"),
            _ => "true".into(),
        };
        (inner, scope, correlated)
    }

    /// A condition with a sub-query, and its shape.
    fn member(&mut self, relations: &[Relation], scope: &Scope) -> (String, &'static str) {
        let (inner, inside, correlated) = self.inner_relation(relations, scope);
        let not = self.pick(&["", "NOT "]);
        let both: Scope = scope.iter().chain(&inside).cloned().collect();
        let residual = match self.chance(40) {
            true => format!(" AND {}", self.predicate(&both, 1)),
            false => String::new(),
        };
        let name = inner.name;
        if self.chance(50) {
            let inside = format!("SELECT 1 FROM {name} AS i WHERE {correlated}{residual}");
            return (format!("{not}EXISTS ({inside})"), "exists");
        }
        let of = self.comparable(&inside);
        let (l, r) = (self.leaf(scope, of), self.leaf(&inside, of));
        let filter = match self.below(3) {
            0 => format!(" WHERE {correlated}{residual}"),
            1 => self.filter(&inside, 100),
            _ => String::new(),
        };
        (
            format!("{l} {not}IN (SELECT {r} FROM {name} AS i{filter})"),
            "in",
        )
    }

    fn membership(&mut self, relations: &[Relation]) -> Query {
        let from = self.from(relations, 2);
        let (mut condition, mut shape) = self.member(relations, &from.scope);
        match self.below(6) {
            0 => {
                condition = format!("{condition} OR {}", self.predicate(&from.scope, 1));
                shape = "sub-query in a disjunction";
            }
            1 => condition = format!("{condition} AND {}", self.predicate(&from.scope, 1)),
            2 => condition = format!("{condition} AND {}", self.member(relations, &from.scope).0),
            _ => {}
        }
        let (list, types) = self.projection(&from.scope);
        let sql = format!(
            "SELECT {} FROM {} WHERE {condition}",
            named(&list),
            from.text
        );
        Query {
            sql,
            types,
            shape,
            weight: from.weight,
        }
    }

    fn sub_query(&mut self, relations: &[Relation]) -> Query {
        let from = self.from(relations, 1);
        let (inner, inside, mut correlated) = self.inner_relation(relations, &from.scope);
        match self.below(5) {
            0 | 1 => correlated = "true".into(),
            2 => correlated = format!("{correlated} AND {}", self.predicate(&inside, 1)),
            _ => {}
        }
        let (mut list, mut types) = self.projection(&from.scope);
        let value = match self.below(4) {
            0 => "count(*)".to_owned(),
            1 => format!("max({})::bigint", self.leaf(&inside, Int)),
            2 => format!("count(DISTINCT {})", self.leaf(&inside, Text)),
            _ => format!("sum({})", self.leaf(&inside, Int)),
        };
        let name = inner.name;
        let sub = format!("(SELECT {value} FROM {name} AS i WHERE {correlated})");
        let mut condition = String::new();
        match self.below(4) {
            0 | 1 => {
                list.push(sub);
                types.push(BigInt);
            }
            2 => {
                list.push(format!(
                    "coalesce({sub}, 0) + {}",
                    self.leaf(&from.scope, Int)
                ));
                types.push(BigInt);
            }
            _ => {
                let l = self.leaf(&from.scope, Int);
                let op = self.pick(&["<", ">=", "="]);
                condition = format!(" WHERE {l} {op} {sub}");
            }
        }
        Query {
            sql: format!("SELECT {} FROM {}{condition}", named(&list), from.text),
            types,
            shape: "scalar sub-query",
            weight: from.weight,
        }
    }

    fn relation_of(name: &str, query: &Query) -> Relation {
        let types = query.types.iter().enumerate();
        Relation {
            name: name.into(),
            columns: types.map(|(i, t)| (format!("x{i}"), *t)).collect(),
            key: false,
            weight: query.weight,
        }
    }

    /// A query over a table expression.
    fn nested(&mut self, relations: &[Relation]) -> Query {
        let inside = match self.below(4) {
            0 => self.grouped(relations),
            1 => self.distinct(relations),
            2 => self.limited(relations),
            _ => self.union(relations),
        };
        let relation = Self::relation_of("n", &inside);
        let outside = match self.below(4) {
            0 | 1 => self.grouped(&[relation]),
            // Twice the same one, which is planned once.
            2 if relation.weight < 11 => self.select(&[relation.clone(), relation], 3),
            _ => self.select(&[relation], 1),
        };
        Query {
            sql: format!("WITH n AS ({}) {}", inside.sql, outside.sql),
            shape: "nested",
            ..outside
        }
    }

    /// A relation joined with an aggregate in parentheses.
    fn derived(&mut self, relations: &[Relation]) -> Query {
        let inside = self.grouped(relations);
        let mut relation = Self::relation_of("", &inside);
        relation.name = format!("({})", inside.sql);
        let first = relations[self.below(relations.len())].clone();
        let mut from = From {
            text: format!("{} AS q0", first.name),
            scope: scope_of(&first, "q0"),
            shape: "one relation",
            weight: first.weight,
        };
        if from.weight + relation.weight <= HEAVIEST {
            self.join(&mut from, &relation, "d");
        }
        let filter = self.filter(&from.scope, 40);
        let (list, types) = self.projection(&from.scope);
        Query {
            sql: format!("SELECT {} FROM {}{filter}", named(&list), from.text),
            types,
            shape: "joined aggregate",
            weight: from.weight,
        }
    }
}
