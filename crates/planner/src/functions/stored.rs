//! The functions by whose names the expressions of a stored plan are read back.
//!
//! All of the registry, and those that a rewrite makes for one type. There is one of these for each type with a modifier
//! (`varchar(7)`), so they are not all here; a plan with one of the others is planned again at each start
//! ([`tidegate_plan::durable`]).

use super::{registry, same_type, text};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionConfig;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tidegate_types::SqlType;

pub fn stored_functions() -> &'static Arc<TaskContext> {
    static FUNCTIONS: OnceLock<Arc<TaskContext>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let registry = registry();
        let mut scalar = registry.scalar.clone();
        for function in of_types() {
            scalar.insert(function.name().to_owned(), function);
        }
        Arc::new(TaskContext::new(
            None,
            "stored plans".to_owned(),
            SessionConfig::new(),
            scalar,
            registry.higher_order.clone(),
            registry.aggregate.clone(),
            registry.window.clone(),
            Arc::default(),
        ))
    })
}

fn of_types() -> Vec<Arc<ScalarUDF>> {
    let simple = [
        SqlType::Boolean,
        SqlType::SmallInt,
        SqlType::Integer,
        SqlType::BigInt,
        SqlType::Real,
        SqlType::Double,
        SqlType::Text,
        SqlType::Bytea,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::TimestampTz,
        SqlType::Interval,
        SqlType::Uuid,
        SqlType::Jsonb,
    ];
    let numbers = (1..=38u8).flat_map(|precision| {
        let scales = 0..=precision as i8;
        scales.map(move |scale| SqlType::Numeric { precision, scale })
    });
    let arrays = simple.iter().map(|t| SqlType::Array(Box::new(t.clone())));
    let mut functions: HashMap<String, Arc<ScalarUDF>> = HashMap::new();
    let all: Vec<SqlType> = simple
        .iter()
        .cloned()
        .chain(arrays)
        .chain(numbers)
        .collect();
    for target in all {
        for function in [
            text::reader_of(target.clone()),
            same_type::typed(target.clone(), false),
            same_type::typed(target, true),
        ] {
            functions.insert(function.name().to_owned(), function);
        }
    }
    functions.into_values().collect()
}
