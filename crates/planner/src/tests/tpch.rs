//! The 22 TPC-H queries: each is planned. The whole plans are kept, since a change in any of them is worth a look.

use super::Fixture;
use expect_test::expect_file;

fn check(number: usize) {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql/tpch");
    let schema = std::fs::read_to_string(format!("{base}/schema.sql")).unwrap();
    let sql = std::fs::read_to_string(format!("{base}/q{number:02}.sql")).unwrap();
    let plan = Fixture::new(&schema).explain(&sql);
    expect_file![format!("{base}/plans/q{number:02}.txt")].assert_eq(&plan);
    assert!(plan.starts_with("Materialize"), "q{number} is refused:\n{plan}");
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
