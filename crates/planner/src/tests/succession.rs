//! Plans as they are stored, and what of one goes on in the next.

use super::Fixture;
use crate::{operators, stored_functions};
use expect_test::{Expect, expect};
use tidegate_plan::durable::{FORMAT, ids_of};
use tidegate_plan::{Dataflow, Fate, PlanError, Stored};

/// Every plan of these tests comes back as it was, or with a shape by which the same plan is known.
pub(super) fn is_stored(dataflow: &Dataflow) {
    let text = dataflow.to_stored(stored_functions());
    let (ids, contents) = ids_of(&text).unwrap();
    assert!(dataflow.nodes.iter().map(|n| n.id).eq(ids));
    assert_eq!(contents, dataflow.contents);
    match Stored::read(&text, stored_functions()).unwrap() {
        Stored::Plan(read) => assert_eq!(*read, *dataflow),
        Stored::Shape(shape) => {
            let mut other = dataflow.clone();
            other.nodes.iter_mut().for_each(|n| n.id.0 ^= 1);
            assert_eq!(shape.restore_ids(other).unwrap(), *dataflow);
        }
    }
}

fn shop() -> Fixture {
    Fixture::new(
        "CREATE TABLE items (id BIGINT PRIMARY KEY, kind TEXT NOT NULL, price INT, note JSONB);
         CREATE TABLE sales (id BIGINT PRIMARY KEY, item BIGINT NOT NULL, amount INT);",
    )
}

fn is_whole(sql: &str) -> bool {
    let plan = shop().plan(sql).unwrap();
    let text = plan.to_stored(stored_functions());
    matches!(Stored::read(&text, stored_functions()), Ok(Stored::Plan(_)))
}

#[test]
fn ordinary_plans_are_stored_whole() {
    for sql in [
        "SELECT kind, count(*), sum(price), avg(price), min(note ->> 'x') FROM items GROUP BY kind",
        "SELECT i.kind, s.amount * 2.5 FROM items i LEFT JOIN sales s ON s.item = i.id AND s.amount > 3",
        "SELECT id, CASE WHEN price > 3 THEN note END, price / 2, price::text, '7'::int FROM items",
        "SELECT * FROM sales ORDER BY amount DESC LIMIT 3",
        "SELECT id, row_number() OVER (PARTITION BY kind ORDER BY price) FROM items",
        "SELECT kind FROM items WHERE id IN (SELECT item FROM sales) UNION ALL VALUES ('x')",
    ] {
        assert!(is_whole(sql), "{sql}");
    }
}

#[test]
fn what_cannot_be_read_back_by_name_is_planned_again() {
    let sql =
        "SELECT kind::varchar(3)::varchar(2) || (note ->> 'a')::varchar(5) AS k, id FROM items";
    // Whether or not this one has a stored form, its ids are found again.
    is_stored(&shop().plan(sql).unwrap());
}

#[test]
fn another_format_or_another_plan_is_refused() {
    let plan = shop()
        .plan("SELECT kind, count(*) FROM items GROUP BY kind")
        .unwrap();
    let text = plan.to_stored(stored_functions());
    let newer = text.replacen(&format!("\"format\":{FORMAT}"), "\"format\":77", 1);
    let error = Stored::read(&newer, stored_functions()).unwrap_err();
    assert!(
        matches!(error, PlanError::NewerFormat { found: 77 }),
        "{error}"
    );
    assert!(ids_of(&newer).is_err());
    let error = Stored::read("{\"format\":1}", stored_functions()).unwrap_err();
    assert!(matches!(error, PlanError::Unreadable(_)), "{error}");
    // The form from before there was a number.
    let old = serde_json::to_string(&plan).unwrap();
    let Stored::Shape(shape) = Stored::read(&old, stored_functions()).unwrap() else {
        panic!("a plan without a format was read whole");
    };
    assert_eq!(shape.restore_ids(plan.clone()).unwrap(), plan);
    let other = shop()
        .plan("SELECT kind, sum(id) FROM items GROUP BY kind")
        .unwrap();
    let Stored::Shape(shape) = Stored::read(&old, stored_functions()).unwrap() else {
        panic!("a plan without a format was read whole");
    };
    let error = shape.restore_ids(other).unwrap_err();
    assert!(matches!(error, PlanError::Changed(_)), "{error}");
}

#[test]
fn state_that_is_declared_otherwise_is_refused() {
    let plan = shop()
        .plan("SELECT kind, count(*) FROM items GROUP BY kind")
        .unwrap();
    let text = plan.to_stored(stored_functions());
    let mut form: serde_json::Value = serde_json::from_str(&text).unwrap();
    let nodes = form["nodes"].as_array_mut().unwrap();
    let aggregate = nodes
        .iter_mut()
        .find(|n| n["op"].get("Aggregate").is_some())
        .unwrap();
    aggregate["state"] = 1.into();
    let error = Stored::read(&form.to_string(), stored_functions()).unwrap_err();
    assert!(matches!(error, PlanError::Changed(_)), "{error}");
}

fn check(old: &str, new: &str, expected: Expect) {
    let fixture = shop();
    let old = fixture.plan(old).unwrap();
    let mut plan = fixture.plan(new).unwrap();
    plan.conform(&old);
    let fates = plan.succeed(&old, 5);
    let mut text = String::new();
    for (index, depth, operator) in operators(&plan, &|id| fixture.name(id)) {
        let fate = match fates[index] {
            Fate::Kept => "kept   ",
            Fate::Rebuilt => "rebuilt",
        };
        text.push_str(&format!(
            "{fate} {:indent$}{operator}\n",
            "",
            indent = depth * 2
        ));
        let goes_on = old.nodes.iter().any(|n| n.id == plan.nodes[index].id);
        assert_eq!(goes_on, fates[index] == Fate::Kept, "{operator}");
    }
    let mut ids: Vec<_> = plan.nodes.iter().map(|n| n.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), plan.nodes.len(), "ids are given once");
    expected.assert_eq(&text);
}

#[test]
fn an_aggregate_goes_on_below_another_filter() {
    check(
        "SELECT kind, count(*) AS n FROM items GROUP BY kind",
        "SELECT kind, count(*) AS n FROM items GROUP BY kind HAVING count(*) > 1",
        expect![[r#"
            rebuilt Materialize key (kind)
            rebuilt   Filter count(Int64(1)) > Int64(1)
            kept        Aggregate by (kind): count(*)
            kept          Import items (kind)
        "#]],
    );
}

#[test]
fn the_same_query_changes_nothing() {
    let sql = "SELECT i.kind, sum(s.amount) AS total FROM items i JOIN sales s ON s.item = i.id GROUP BY i.kind";
    let fixture = shop();
    let old = fixture.plan(sql).unwrap();
    let mut plan = fixture.plan(sql).unwrap();
    let fates = plan.succeed(&old, 5);
    assert!(fates.iter().all(|f| *f == Fate::Kept));
    assert_eq!(plan, old);
}

#[test]
fn what_reads_other_columns_is_built_anew() {
    check(
        "SELECT kind, count(*) AS n FROM items GROUP BY kind",
        "SELECT kind, count(price) AS n FROM items GROUP BY kind",
        expect![[r#"
            rebuilt Materialize key (kind)
            rebuilt   Aggregate by (kind): count(price)
            rebuilt     Import items (kind, price)
        "#]],
    );
}
