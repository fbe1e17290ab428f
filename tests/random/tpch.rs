//! The 22 queries of TPC-H as materialized views over small tables that are filled, updated and emptied at random, compared
//! with Postgres at several times. Values are drawn from those that the queries ask for, so that each of them has rows.

use crate::reference::{KnownQuery, compare, folder, known};
use crate::servers::{Postgres, Tidegate, run};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SEED: u64 = 22;
const NATIONS: [(&str, usize); 7] = [
    ("GERMANY", 3),
    ("FRANCE", 3),
    ("SAUDI ARABIA", 4),
    ("CANADA", 1),
    ("BRAZIL", 1),
    ("INDIA", 2),
    ("CHINA", 2),
];

/// Random rows of the eight tables, and what changes them.
struct Trade {
    rng: StdRng,
    orders: usize,
}

impl Trade {
    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    fn money(&mut self, most: usize) -> String {
        format!("{}.{:02}", self.below(most), self.below(100))
    }

    fn date(&mut self) -> String {
        let (year, month, day) = (self.below(4), self.below(12), self.below(28));
        format!("date '{}-{:02}-{:02}'", 1993 + year, month + 1, day + 1)
    }

    fn phone(&mut self) -> String {
        let code = self.pick(&["13", "31", "23", "29", "30", "18", "17", "40"]);
        format!("'{code}-{}-000-0000'", 100 + self.below(900))
    }

    fn part(&mut self, key: usize) -> String {
        format!(
            "({key}, '{}', 'Manufacturer#{}', '{}', '{}', {}, '{}', {}, 'part')",
            self.pick(&["forest green", "dark green", "forest blue", "forest red"]),
            1 + self.below(3),
            self.pick(&["Brand#12", "Brand#23", "Brand#34", "Brand#45"]),
            self.pick(&[
                "ECONOMY ANODIZED STEEL",
                "MEDIUM POLISHED BRASS",
                "PROMO BURNISHED TIN",
                "SMALL PLATED BRASS",
            ]),
            self.pick(&["3", "9", "14", "15", "15", "4"]),
            self.pick(&[
                "SM CASE", "SM BOX", "MED BOX", "MED BAG", "LG CASE", "LG PKG"
            ]),
            self.money(2000),
        )
    }

    fn supplier(&mut self, key: usize) -> String {
        format!(
            "({key}, 'Supplier#{key}', 'street {}', {}, {}, {}, '{}')",
            self.below(9),
            key % NATIONS.len(),
            self.phone(),
            self.money(9000),
            self.pick(&["fine", "slow Customer and Complaints", "fast"]),
        )
    }

    fn customer(&mut self, key: usize) -> String {
        format!(
            "({key}, 'Customer#{key}', 'road {}', {}, {}, {}, '{}', 'comment')",
            self.below(9),
            self.below(NATIONS.len()),
            self.phone(),
            self.money(9000),
            self.pick(&["BUILDING", "MACHINERY"]),
        )
    }

    /// An order and its lines.
    fn order(&mut self, parts: usize, suppliers: usize, customers: usize) -> [String; 2] {
        self.orders += 1;
        let key = self.orders;
        let date = self.date();
        let order = format!(
            "INSERT INTO orders VALUES ({key}, {}, '{}', {}, {date}, '{}', 'clerk', 0, '{}')",
            self.below(customers),
            self.pick(&["F", "F", "O", "P"]),
            self.money(90000),
            self.pick(&["1-URGENT", "2-HIGH", "3-MEDIUM"]),
            self.pick(&["nothing", "has special kind requests", "plain"]),
        );
        let mut lines = Vec::new();
        // Some orders are large.
        let (count, least) = match self.below(6) {
            0 => (7, 45),
            _ => (1 + self.below(6), 1),
        };
        for line in 1..=count {
            // From somebody who offers it.
            let part = self.below(parts);
            let supplier = (part + self.below(4) * 3) % suppliers;
            let (shipped, committed) = (self.below(60), 20 + self.below(60));
            let received = shipped + self.below(30);
            lines.push(format!(
                "({key}, {part}, {supplier}, {line}, {}, {}, 0.{:02}, 0.0{}, '{}', '{}', {date} + {shipped}, {date} + {committed}, {date} + {received}, '{}', '{}', 'line')",
                least + self.below(24),
                self.money(50000),
                self.below(10),
                self.below(9),
                self.pick(&["R", "A", "N"]),
                self.pick(&["F", "O"]),
                self.pick(&["DELIVER IN PERSON", "COLLECT COD", "DELIVER IN PERSON"]),
                self.pick(&["AIR", "AIR REG", "MAIL", "SHIP"]),
            ));
        }
        [
            order,
            format!("INSERT INTO lineitem VALUES {}", lines.join(", ")),
        ]
    }

    /// The tables that stay about as they are.
    fn fill(&mut self) -> Vec<String> {
        let mut statements = vec![
            "INSERT INTO region VALUES (0, 'AFRICA', ''), (1, 'AMERICA', ''), (2, 'ASIA', ''), (3, 'EUROPE', ''), (4, 'MIDDLE EAST', '')".to_owned(),
        ];
        let nations = NATIONS.iter().enumerate();
        let nations =
            nations.map(|(key, (name, region))| format!("({key}, '{name}', {region}, '')"));
        let nations: Vec<String> = nations.collect();
        statements.push(format!("INSERT INTO nation VALUES {}", nations.join(", ")));
        let parts: Vec<String> = (0..30).map(|key| self.part(key)).collect();
        let suppliers: Vec<String> = (0..12).map(|key| self.supplier(key)).collect();
        let customers: Vec<String> = (0..25).map(|key| self.customer(key)).collect();
        let mut offers = Vec::new();
        for part in 0..30 {
            for supplier in 0..4 {
                offers.push(format!(
                    "({part}, {}, {}, {}, '')",
                    (part + supplier * 3) % 12,
                    self.below(500),
                    self.money(1000)
                ));
            }
        }
        for (table, rows) in [
            ("part", parts),
            ("supplier", suppliers),
            ("customer", customers),
            ("partsupp", offers),
        ] {
            statements.push(format!("INSERT INTO {table} VALUES {}", rows.join(", ")));
        }
        for _ in 0..60 {
            statements.extend(self.order(30, 12, 25));
        }
        statements
    }

    fn change(&mut self) -> Vec<String> {
        let some = 2 + self.below(9);
        let rest = self.below(some);
        match self.below(12) {
            0..=3 => self.order(30, 12, 25).to_vec(),
            4 => vec![
                format!("DELETE FROM lineitem WHERE l_orderkey % {some} = {rest}"),
                format!("DELETE FROM orders WHERE o_orderkey % {some} = {rest}"),
            ],
            5 => vec![format!(
                "UPDATE lineitem SET l_quantity = l_quantity + 1, l_discount = 0.06 WHERE l_partkey % {some} = {rest}"
            )],
            6 => vec![format!(
                "UPDATE part SET p_size = {}, p_brand = '{}' WHERE p_partkey % {some} = {rest}",
                self.pick(&["3", "15", "49"]),
                self.pick(&["Brand#12", "Brand#23", "Brand#34"]),
            )],
            7 => vec![format!(
                "UPDATE supplier SET s_nationkey = {} WHERE s_suppkey % {some} = {rest}",
                self.below(NATIONS.len())
            )],
            8 => vec![format!(
                "UPDATE partsupp SET ps_supplycost = ps_supplycost * 0.9, ps_availqty = ps_availqty + 5 WHERE ps_partkey % {some} = {rest}"
            )],
            9 => vec![format!(
                "UPDATE customer SET c_acctbal = c_acctbal - 100, c_mktsegment = 'BUILDING' WHERE c_custkey % {some} = {rest}"
            )],
            10 => vec![format!(
                "UPDATE orders SET o_orderdate = {}, o_orderstatus = 'F' WHERE o_orderkey % {some} = {rest}",
                self.date()
            )],
            _ => vec![format!(
                "UPDATE lineitem SET l_receiptdate = l_commitdate + 3, l_returnflag = 'R' WHERE l_orderkey % {some} = {rest}"
            )],
        }
    }
}

async fn compare_all(
    tidegate: &Tidegate,
    postgres: &Postgres,
    queries: &mut [KnownQuery],
    when: &str,
) {
    for query in queries {
        let view = format!("SELECT * FROM {}", query.name);
        compare(tidegate, postgres, query, &view, when).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tpch_views_equal_what_postgres_answers() {
    let postgres = match Postgres::start().await {
        Ok(postgres) => postgres,
        Err(reason) => return eprintln!("SKIPPED: no oracle: {reason}"),
    };
    let mut tidegate = Tidegate::start("rocksdb", 2).await;
    let schema = std::fs::read_to_string(folder("tpch").join("schema.sql")).unwrap();
    for sql in schema.split(';').filter(|sql| !sql.trim().is_empty()) {
        run(&tidegate.client, sql).await.unwrap();
        run(&postgres.client, sql).await.unwrap();
    }
    let mut queries = Vec::new();
    for number in 1..=22 {
        queries.push(known(&postgres, &folder("tpch"), &format!("q{number:02}")).await);
    }
    let (before, after) = queries.split_at(11);
    for query in before {
        create(&tidegate, query).await;
    }
    let mut trade = Trade {
        rng: StdRng::seed_from_u64(SEED),
        orders: 0,
    };
    let mut changes = 0;
    let fill = trade.fill();
    apply(&tidegate, &postgres, &fill, &mut changes).await;
    for query in after {
        create(&tidegate, query).await;
    }
    compare_all(&tidegate, &postgres, &mut queries, "when filled").await;
    let mut comparisons = queries.len();
    for round in 0..8 {
        for _ in 0..12 {
            let statements = trade.change();
            apply(&tidegate, &postgres, &statements, &mut changes).await;
        }
        if round == 4 {
            tidegate.crash().await;
        }
        let when = format!("after {changes} changes");
        compare_all(&tidegate, &postgres, &mut queries, &when).await;
        comparisons += queries.len();
    }
    for query in &mut queries {
        let sql = query.sql.clone();
        compare(&tidegate, &postgres, query, &sql, "as a query").await;
        comparisons += 1;
    }
    let never: Vec<&str> = queries
        .iter()
        .filter(|q| q.rows == 0)
        .map(|q| q.name.as_str())
        .collect();
    assert!(never.is_empty(), "without a row all the time: {never:?}");
    // Everything goes: what is left is what the queries say of nothing.
    for table in [
        "lineitem", "orders", "partsupp", "customer", "supplier", "part",
    ] {
        let sql = format!("DELETE FROM {table}");
        apply(&tidegate, &postgres, &[sql], &mut changes).await;
    }
    compare_all(&tidegate, &postgres, &mut queries, "when all is deleted").await;
    comparisons += queries.len();
    let rows: usize = queries.iter().map(|q| q.rows).sum();
    eprintln!("TPC-H: {comparisons} comparisons of {rows} rows, {changes} changes, 1 crash");
}

async fn create(tidegate: &Tidegate, query: &KnownQuery) {
    let sql = format!("CREATE MATERIALIZED VIEW {} AS {}", query.name, query.sql);
    if let Err(refusal) = run(&tidegate.client, &sql).await {
        panic!("{sql}: {refusal:?}");
    }
}

async fn apply(
    tidegate: &Tidegate,
    postgres: &Postgres,
    statements: &[String],
    changes: &mut usize,
) {
    for sql in statements {
        for client in [&tidegate.client, &postgres.client] {
            if let Err(refusal) = run(client, sql).await {
                panic!("{sql}: {refusal:?}");
            }
        }
        *changes += 1;
    }
}
