//! The 22 TPC-H queries: each is planned. The whole plans are kept, since a change in any of them is worth a look.

use super::Fixture;
use expect_test::expect_file;

fn check(number: usize) {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql/tpch");
    let schema = std::fs::read_to_string(format!("{base}/schema.sql")).unwrap();
    let sql = std::fs::read_to_string(format!("{base}/q{number:02}.sql")).unwrap();
    let plan = Fixture::new(&schema).explain(&sql);
    expect_file![format!("{base}/plans/q{number:02}.txt")].assert_eq(&plan);
    assert!(
        plan.starts_with("Materialize"),
        "q{number} is refused:\n{plan}"
    );
}

/// State is found again by operator ids, so that the same text must always give the same plan, whatever hash tables do.
#[test]
fn plans_repeat() {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql/tpch");
    let schema = std::fs::read_to_string(format!("{base}/schema.sql")).unwrap();
    let fixture = Fixture::new(&schema);
    let mut queries: Vec<String> = (1..=22)
        .map(|q| std::fs::read_to_string(format!("{base}/q{q:02}.sql")).unwrap())
        .collect();
    queries.extend(
        [
            "select o_orderkey from orders order by o_clerk, o_custkey, o_orderdate, o_comment, o_totalprice limit 3",
            "select n_name from nation where n_regionkey not in (select r_regionkey from region where r_name = n_name)",
            "select c_name, (select count(*) from orders where o_custkey = c_custkey and o_clerk = c_phone and o_comment = c_name)
             from customer",
            "select a.c_name from customer a join customer b using (c_name, c_phone, c_address, c_nationkey, c_acctbal)",
            "select count(*) from orders, lineitem, customer where l_orderkey = o_orderkey and c_custkey = o_custkey
             and l_shipdate = o_orderdate and l_comment = o_comment and c_name = l_comment and c_phone = o_clerk",
        ]
        .map(str::to_owned),
    );
    for query in &queries {
        let first = fixture.plan(query).unwrap();
        for _ in 0..8 {
            let again = fixture.plan(query).unwrap();
            let ids =
                |d: &tidegate_plan::Dataflow| d.nodes.iter().map(|n| n.id).collect::<Vec<_>>();
            assert_eq!(ids(&first), ids(&again), "{query}\n{first}\n{again}");
        }
    }
}

macro_rules! queries {
    ($($name:ident = $number:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            check($number);
        })*
    };
}

queries! {
    q01 = 1, q02 = 2, q03 = 3, q04 = 4, q05 = 5, q06 = 6, q07 = 7, q08 = 8, q09 = 9, q10 = 10, q11 = 11,
    q12 = 12, q13 = 13, q14 = 14, q15 = 15, q16 = 16, q17 = 17, q18 = 18, q19 = 19, q20 = 20, q21 = 21, q22 = 22,
}
