//! Aggregates against what Postgres 15 answers to the same rows.

use expect_test::expect;
use tidegate_plan::{AggregateCall, AggregateFunction as F, Op, SortKey};
use tidegate_testkit::check::columns;
use tidegate_testkit::{Check, check};
use tidegate_types::SqlType;

fn call(function: F, arguments: &[usize]) -> AggregateCall {
    AggregateCall {
        function,
        arguments: arguments.to_vec(),
        distinct: false,
        filter: None,
        order_by: Vec::new(),
        parameter: None,
    }
}

fn numeric(precision: u8, scale: i8) -> SqlType {
    SqlType::Numeric { precision, scale }
}

fn aggregate(
    keys: &[usize],
    calls: Vec<AggregateCall>,
    input: &[SqlType],
    output: &[SqlType],
) -> Check {
    Check {
        op: Op::Aggregate {
            keys: keys.to_vec(),
            calls,
        },
        inputs: vec![columns(input)],
        output: columns(output),
        append_only: false,
    }
}

/// `select k, count(*), count(v), sum(v), avg(v), min(v), max(v) from t group by k`
#[test]
fn groups_come_change_and_go() {
    let calls = vec![
        call(F::Count, &[]),
        call(F::Count, &[1]),
        call(F::Sum, &[1]),
        call(F::Avg, &[1]),
        call(F::Min, &[1]),
        call(F::Max, &[1]),
    ];
    use SqlType::{BigInt, Integer, Text};
    let operator = aggregate(
        &[0],
        calls,
        &[Text, Integer],
        &[
            Text,
            BigInt,
            BigInt,
            BigInt,
            numeric(38, 4),
            Integer,
            Integer,
        ],
    );
    check(
        operator,
        "+1 (a,1)
         +1 (a,2)
         +1 (b,)
         +1 (,5)
         --
         -1 (a,2)
         +1 (a,2)
         --
         -1 (a,2)
         +2 (b,7)
         -1 (,5)
         --",
        expect![[r#"
            +1 (,1,1,5,5.0000,5,5)
            +1 (a,2,2,3,1.5000,1,2)
            +1 (b,1,0,,,,)
            --
            --
            +1 (a,1,1,1,1.0000,1,1)
            +1 (b,3,2,14,7.0000,7,7)
            -1 (,1,1,5,5.0000,5,5)
            -1 (a,2,2,3,1.5000,1,2)
            -1 (b,1,0,,,,)
            --
        "#]],
    );
}

#[test]
fn the_global_group_is_always_there() {
    let operator = aggregate(
        &[],
        vec![call(F::Count, &[]), call(F::Sum, &[0])],
        &[SqlType::BigInt],
        &[SqlType::BigInt, numeric(38, 0)],
    );
    check(
        operator,
        "--
         --
         +1 (9223372036854775807)
         +1 (9223372036854775807)
         --
         -2 (9223372036854775807)
         --",
        expect![[r#"
            +1 (0,)
            --
            --
            +1 (2,18446744073709551614)
            -1 (0,)
            --
            +1 (0,)
            -1 (2,18446744073709551614)
            --
        "#]],
    );
}

/// Postgres refuses the whole query ("bigint out of range"); here it is the group that fails, until its sum fits again.
#[test]
fn a_sum_that_does_not_fit_is_an_error_in_place_of_its_row() {
    let operator = aggregate(
        &[0],
        vec![call(F::Sum, &[1])],
        &[SqlType::Text, SqlType::BigInt],
        &[SqlType::Text, SqlType::BigInt],
    );
    check(
        operator,
        "+1 (a,9223372036854775807)
         --
         +1 (a,1)
         +1 (b,1)
         --
         +1 (a,5)
         --
         -1 (a,5)
         -1 (a,1)
         --",
        expect![[r#"
            +1 (a,9223372036854775807)
            --
            ! +1 22003 (a) bigint out of range
            +1 (b,1)
            -1 (a,9223372036854775807)
            --
            --
            ! -1 22003 (a) bigint out of range
            +1 (a,9223372036854775807)
            --
        "#]],
    );
}

/// `select sum(f), avg(f), stddev_samp(f), var_pop(f), max(f) from t`, the large value coming and going. The deviations are
/// the exact ones, rounded; Postgres, which rounds on the way, has 0.14142135623730948 and 0.009999999999999995.
#[test]
fn floats_do_not_drift() {
    let calls = [F::Sum, F::Avg, F::StddevSamp, F::VarPop, F::Max]
        .into_iter()
        .map(|function| call(function, &[0]))
        .collect();
    let operator = aggregate(&[], calls, &[SqlType::Double], &vec![SqlType::Double; 5]);
    check(
        operator,
        "+1 (0.1)
         +1 (0.3)
         --
         +1 (1e300)
         --
         -1 (1e300)
         +1 (NaN)
         --
         -1 (NaN)
         +1 (-Infinity)
         --
         -1 (-Infinity)
         --",
        expect![[r#"
            +1 (0.4,0.2,0.1414213562373095,0.009999999999999998,0.3)
            --
            ! +1 22003 () value out of range: overflow
            -1 (0.4,0.2,0.1414213562373095,0.009999999999999998,0.3)
            --
            ! -1 22003 () value out of range: overflow
            +1 (NaN,NaN,NaN,NaN,NaN)
            --
            +1 (-Infinity,-Infinity,NaN,NaN,0.3)
            -1 (NaN,NaN,NaN,NaN,NaN)
            --
            +1 (0.4,0.2,0.1414213562373095,0.009999999999999998,0.3)
            -1 (-Infinity,-Infinity,NaN,NaN,0.3)
            --
        "#]],
    );
}

/// `select array_agg(v order by v desc nulls last), string_agg(s, d order by v nulls last, s), count(distinct v),
/// sum(distinct v), bool_or(b) filter (where f) from t`
#[test]
fn lists_are_ordered_and_distinct_is_counted() {
    let order = |descending, nulls_first| {
        vec![SortKey {
            column: 0,
            descending,
            nulls_first,
        }]
    };
    let calls = vec![
        AggregateCall {
            order_by: order(true, false),
            ..call(F::ArrayAgg, &[0])
        },
        AggregateCall {
            order_by: order(false, false),
            ..call(F::StringAgg, &[1, 2])
        },
        AggregateCall {
            distinct: true,
            ..call(F::Count, &[0])
        },
        AggregateCall {
            distinct: true,
            ..call(F::Sum, &[0])
        },
        AggregateCall {
            filter: Some(4),
            ..call(F::BoolOr, &[3])
        },
    ];
    use SqlType::{Array, BigInt, Boolean, Integer, Text};
    let operator = aggregate(
        &[],
        calls,
        &[Integer, Text, Text, Boolean, Boolean],
        &[Array(Box::new(Integer)), Text, BigInt, BigInt, Boolean],
    );
    check(
        operator,
        "+1 (2,y,-,t,f)
         +1 (1,x,-,f,t)
         +1 (2,z,-,t,f)
         +1 (,n,-,,t)
         --
         -1 (2,y,-,t,f)
         +1 (3,,-,t,t)
         --
         -1 (2,z,-,t,f)
         --",
        expect![[r#"
            +1 ("{2,2,1,NULL}",x-y-z-n,2,3,f)
            --
            +1 ("{3,2,1,NULL}",x-z-n,3,6,t)
            -1 ("{2,2,1,NULL}",x-y-z-n,2,3,f)
            --
            +1 ("{3,1,NULL}",x-n,2,4,t)
            -1 ("{3,2,1,NULL}",x-z-n,3,6,t)
            --
        "#]],
    );
}

/// `select distinct k from t`
#[test]
fn distinct_follows_the_last_copy() {
    let operator = aggregate(&[0], Vec::new(), &[SqlType::Double], &[SqlType::Double]);
    check(
        operator,
        "+1 (0)
         +1 (-0)
         +1 (NaN)
         +1 ()
         --
         -1 (0)
         -1 ()
         --
         -1 (-0)
         --",
        expect![[r#"
            +1 ()
            +1 (0)
            +1 (NaN)
            --
            -1 ()
            --
            -1 (0)
            --
        "#]],
    );
}
