//! Writers and what they know: each has keys of its own and one statement under way at a time, so that after a crash there
//! are two states that its rows may be in, the acknowledged one and the one that was asked for.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_postgres::Client;

/// Keys of one writer begin at its number times this.
const SPAN: i32 = 100_000;
const CUSTOMERS: i32 = 7;

/// The rows of a writer, or of all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// id → customer, amount
    pub orders: BTreeMap<i32, (i32, i64)>,
    /// id → order, quantity
    pub items: BTreeMap<i32, (i32, i32)>,
}

pub struct Writer {
    number: i32,
    random: StdRng,
    next_id: i32,
    pub acknowledged: Rows,
    /// What holds if the transaction under way was committed.
    pub asked: Option<Rows>,
    pub transactions: u64,
    /// Errors that a test brings about on purpose; what failed with one is not done.
    pub tolerated: &'static [&'static str],
    pub refused: u64,
}

/// Why a transaction was not done.
enum Undone {
    /// The connection is gone.
    Gone,
    /// With an error that is tolerated.
    Refused,
}

impl Writer {
    pub fn new(number: i32, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
        Self {
            number,
            random,
            next_id: number * SPAN,
            acknowledged: Rows::default(),
            asked: None,
            transactions: 0,
            tolerated: &[],
            refused: 0,
        }
    }

    /// Writes until the server is gone.
    pub async fn run(mut self, client: Client) -> Self {
        let never = AtomicBool::new(false);
        self.write(&client, &never).await;
        self
    }

    /// Writes until it is to end, or the server is gone.
    pub async fn run_until(mut self, client: Client, ends: Arc<AtomicBool>) -> Self {
        self.write(&client, &ends).await;
        self
    }

    async fn write(&mut self, client: &Client, ends: &AtomicBool) {
        while !ends.load(Ordering::Relaxed) {
            match self.transaction(client).await {
                Ok(()) => {}
                Err(Undone::Gone) => return,
                Err(Undone::Refused) => {
                    self.asked = None;
                    self.refused += 1;
                    // Only a transaction that was begun can be left; whatever the answer is, none is open after it.
                    if client.simple_query("ROLLBACK").await.is_err() && client.is_closed() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    async fn transaction(&mut self, client: &Client) -> Result<(), Undone> {
        let (statements, after) = self.choose();
        self.asked = Some(after);
        let several = statements.len() > 1;
        if several && self.random.random_bool(0.5) {
            self.execute(client, "BEGIN").await?;
            for statement in &statements {
                self.execute(client, statement).await?;
            }
            self.execute(client, "COMMIT").await?;
        } else {
            // One text is one transaction.
            self.execute(client, &statements.join("; ")).await?;
        }
        self.acknowledged = self.asked.take().expect("set above");
        self.transactions += 1;
        Ok(())
    }

    /// An error of the server itself is a failure of the test: no two writers touch the same rows.
    async fn execute(&self, client: &Client, sql: &str) -> Result<(), Undone> {
        match client.simple_query(sql).await {
            Ok(_) => Ok(()),
            Err(error) => match error.as_db_error() {
                None => Err(Undone::Gone),
                Some(refused) if self.tolerated.contains(&refused.code().code()) => {
                    Err(Undone::Refused)
                }
                Some(_) => panic!("{sql}: {error:?}"),
            },
        }
    }

    fn choose(&mut self) -> (Vec<String>, Rows) {
        let mut after = self.acknowledged.clone();
        let grown = after.orders.len() > 150;
        let statements = match self.random.random_range(0..10) {
            0..=3 if !grown => self.place(&mut after),
            4 | 5 if after.orders.len() > 1 => self.transfer(&mut after),
            6 => self.raise(&mut after),
            _ if after.orders.is_empty() => self.place(&mut after),
            7 | 8 => self.update_items(&mut after),
            _ => self.cancel(&mut after),
        };
        (statements, after)
    }

    /// An order with its items, in one transaction of two statements.
    fn place(&mut self, after: &mut Rows) -> Vec<String> {
        let id = self.id();
        let (customer, amount) = (
            self.random.random_range(0..CUSTOMERS),
            self.random.random_range(1..1000),
        );
        after.orders.insert(id, (customer, amount));
        let mut values = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let (item, quantity) = (self.id(), self.random.random_range(1..10));
            after.items.insert(item, (id, quantity));
            values.push(format!("({item}, {id}, {quantity})"));
        }
        vec![
            format!("INSERT INTO orders VALUES ({id}, {customer}, {amount})"),
            format!("INSERT INTO items VALUES {}", values.join(", ")),
        ]
    }

    fn transfer(&mut self, after: &mut Rows) -> Vec<String> {
        let (from, to) = (self.pick(after), self.pick(after));
        let amount = self.random.random_range(1..50);
        after.orders.get_mut(&from).expect("picked").1 -= amount;
        after.orders.get_mut(&to).expect("picked").1 += amount;
        vec![
            format!("UPDATE orders SET amount = amount - {amount} WHERE id = {from}"),
            format!("UPDATE orders SET amount = amount + {amount} WHERE id = {to}"),
        ]
    }

    /// All of this writer's orders of one customer at once.
    fn raise(&mut self, after: &mut Rows) -> Vec<String> {
        let customer = self.random.random_range(0..CUSTOMERS);
        for order in after.orders.values_mut().filter(|o| o.0 == customer) {
            order.1 += 1;
        }
        let (first, end) = (self.number * SPAN, (self.number + 1) * SPAN);
        vec![format!(
            "UPDATE orders SET amount = amount + 1 WHERE customer = {customer} AND id >= {first} AND id < {end}"
        )]
    }

    fn update_items(&mut self, after: &mut Rows) -> Vec<String> {
        let (from, to) = (self.pick(after), self.pick(after));
        for item in after.items.values_mut().filter(|i| i.0 == from) {
            *item = (to, item.1 + 1);
        }
        vec![format!(
            "UPDATE items SET order_id = {to}, quantity = quantity + 1 WHERE order_id = {from}"
        )]
    }

    fn cancel(&mut self, after: &mut Rows) -> Vec<String> {
        let id = self.pick(after);
        after.orders.remove(&id);
        after.items.retain(|_, item| item.0 != id);
        vec![
            format!("DELETE FROM items WHERE order_id = {id}"),
            format!("DELETE FROM orders WHERE id = {id}"),
        ]
    }

    fn pick(&mut self, rows: &Rows) -> i32 {
        let index = self.random.random_range(0..rows.orders.len());
        *rows.orders.keys().nth(index).expect("within bounds")
    }

    fn id(&mut self) -> i32 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether it is open if its last transaction is there.
    pub fn is_unsettled(&self) -> bool {
        self.asked.is_some()
    }

    /// Takes what the server has as the truth, after proving that it is one of the two states that may be. Says whether
    /// the transaction that was under way is there.
    pub fn settle(&mut self, all: &Rows, context: &str) -> bool {
        let mine = |id: &i32| id / SPAN == self.number;
        let found = Rows {
            orders: all
                .orders
                .iter()
                .filter(|(id, _)| mine(id))
                .map(|(k, v)| (*k, *v))
                .collect(),
            items: all
                .items
                .iter()
                .filter(|(id, _)| mine(id))
                .map(|(k, v)| (*k, *v))
                .collect(),
        };
        let asked = self.asked.take();
        if found == self.acknowledged {
            return false;
        }
        if asked.as_ref() == Some(&found) {
            self.acknowledged = found;
            return true;
        }
        let under_way = asked.map(|asked| {
            let changed = asked.orders.into_iter();
            let changed = changed.filter(|(k, v)| self.acknowledged.orders.get(k) != Some(v));
            changed.collect::<Vec<_>>()
        });
        let lost: Vec<_> = self
            .acknowledged
            .orders
            .iter()
            .filter(|(k, v)| found.orders.get(k) != Some(v))
            .collect();
        let new: Vec<_> = found
            .orders
            .iter()
            .filter(|(k, v)| self.acknowledged.orders.get(k) != Some(v))
            .collect();
        let (had, has) = (self.acknowledged.items.len(), found.items.len());
        panic!(
            "{context}: writer {} finds neither what was acknowledged nor what was under way: orders {lost:?} became \
             {new:?}, {had} items became {has}; under way were {under_way:?}",
            self.number
        );
    }
}

impl Rows {
    /// From `SELECT *` of both tables, cells joined by `|`.
    pub fn parse(orders: &[String], items: &[String]) -> Self {
        let cells = |row: &String| -> Vec<i64> {
            row.split('|')
                .map(|c| c.parse().expect("a number"))
                .collect()
        };
        Self {
            orders: orders
                .iter()
                .map(cells)
                .map(|c| (c[0] as i32, (c[1] as i32, c[2])))
                .collect(),
            items: items
                .iter()
                .map(cells)
                .map(|c| (c[0] as i32, (c[1] as i32, c[2] as i32)))
                .collect(),
        }
    }

    /// The rows of a view, computed without the server.
    pub fn of_view(&self, name: &str) -> Vec<String> {
        match name {
            "per_customer" => self.per_customer(),
            "per_order" => self.per_order(),
            "on_views" => self.on_views(),
            "outer_join" => self.outer_join(),
            "largest" => self.largest(),
            "lonely" => self.lonely(),
            _ => panic!("nobody knows what {name} should hold"),
        }
    }

    /// customer|amount|quantity, the latter of the orders that have items.
    fn on_views(&self) -> Vec<String> {
        let mut quantities: BTreeMap<i32, i64> = BTreeMap::new();
        for (order, quantity) in self.items.values() {
            if let Some((customer, _)) = self.orders.get(order) {
                *quantities.entry(*customer).or_default() += i64::from(*quantity);
            }
        }
        let mut totals: BTreeMap<i32, i64> = BTreeMap::new();
        for (customer, amount) in self.orders.values() {
            *totals.entry(*customer).or_default() += amount;
        }
        sorted(totals.iter().map(|(customer, total)| {
            let quantity = quantities.get(customer);
            let quantity = quantity.map_or("∅".to_owned(), i64::to_string);
            format!("{customer}|{total}|{quantity}")
        }))
    }

    /// order|item|quantity of the full join.
    fn outer_join(&self) -> Vec<String> {
        let with_items: BTreeSet<i32> = self.items.values().map(|(order, _)| *order).collect();
        let items = self.items.iter().map(|(id, (order, quantity))| {
            let order = match self.orders.contains_key(order) {
                true => order.to_string(),
                false => "∅".to_owned(),
            };
            format!("{order}|{id}|{quantity}")
        });
        let without = self.orders.keys().filter(|id| !with_items.contains(id));
        sorted(items.chain(without.map(|id| format!("{id}|∅|∅"))))
    }

    /// id|amount of the ten with the largest amounts.
    fn largest(&self) -> Vec<String> {
        let mut orders: Vec<(i64, i32)> = self.orders.iter().map(|(id, o)| (-o.1, *id)).collect();
        orders.sort();
        let largest = orders.iter().take(10);
        sorted(largest.map(|(amount, id)| format!("{id}|{}", -amount)))
    }

    /// id|customer of orders without an item of more than five.
    fn lonely(&self) -> Vec<String> {
        let large = self.items.values().filter(|(_, quantity)| *quantity > 5);
        let large: BTreeSet<i32> = large.map(|(order, _)| *order).collect();
        let lonely = self.orders.iter().filter(|(id, _)| !large.contains(id));
        sorted(lonely.map(|(id, (customer, _))| format!("{id}|{customer}")))
    }

    /// customer|orders|amount
    fn per_customer(&self) -> Vec<String> {
        let mut groups: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
        for (customer, amount) in self.orders.values() {
            let group = groups.entry(*customer).or_default();
            *group = (group.0 + 1, group.1 + amount);
        }
        sorted(
            groups
                .iter()
                .map(|(customer, (n, total))| format!("{customer}|{n}|{total}")),
        )
    }

    /// order|customer|items|quantity of the inner join.
    fn per_order(&self) -> Vec<String> {
        let mut groups: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
        for (order, quantity) in self.items.values() {
            let group = groups.entry(*order).or_default();
            *group = (group.0 + 1, group.1 + i64::from(*quantity));
        }
        let joined = groups.iter().filter_map(|(id, (n, quantity))| {
            let (customer, _) = self.orders.get(id)?;
            Some(format!("{id}|{customer}|{n}|{quantity}"))
        });
        sorted(joined)
    }
}

fn sorted(rows: impl Iterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}
