//! What a manifest says about the columns of each state table, so that it can be read without its plan.

use crate::build;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_checkpoint::TableDescriptor;
use tidegate_checkpoint::schemas::{COLUMN_KEY, TableSchemas, encoding};
use tidegate_plan::state_tables::ENCODING_KEY;
use tidegate_plan::{Dataflow, Node, Op, StateTable};
use tidegate_types::TableId;

/// Fills in the schemas of a dataflow's tables.
pub(crate) fn describe(dataflow: &Dataflow, tables: &mut [TableDescriptor]) {
    let mut schemas = HashMap::new();
    for node in &dataflow.nodes {
        of_node(dataflow, node, &mut |table, found| {
            schemas.insert(table, found);
        });
    }
    for table in tables {
        table.schemas = schemas.get(&table.table).map(TableSchemas::to_json);
    }
}

fn of_node(dataflow: &Dataflow, node: &Node, add: &mut dyn FnMut(TableId, TableSchemas)) {
    let relation = dataflow.relation;
    if build::has_event_time(node) {
        let number = |name: &str| Field::new(name, DataType::Int64, false);
        let schemas = TableSchemas {
            key: single(Field::new("split", DataType::Utf8, false)),
            sub_key: empty(),
            value: Arc::new(Schema::new(vec![number("greatest"), number("late")])),
            encoding: encoding::VARINT.to_owned(),
        };
        add(build::event_time_table(relation, node), schemas);
    }
    match &node.op {
        Op::Materialize { key, .. } => add(build::view_table(dataflow), view(node, key)),
        Op::Source { .. } => {
            let split = Field::new("split", DataType::Utf8, false);
            let schemas = plain(split, "offset", encoding::OFFSET);
            add(build::position_table(relation, node), schemas);
            if build::is_reader(relation, node) {
                let error = Field::new("error", DataType::Utf8, false);
                let schemas = plain(error, "count", encoding::ERRORS);
                add(build::error_table(relation, node), schemas);
            }
        }
        Op::Import { .. } => {
            let group = Field::new("key_group", DataType::UInt8, false);
            let schemas = plain(group, "read_up_to", encoding::SLICE);
            add(build::position_table(relation, node), schemas);
        }
        Op::TableInput { .. } | Op::Sink { .. } => {}
        _ => {
            for (index, table) in node.state.iter().enumerate() {
                add(TableId::of(relation, node.id, index), declared(table));
            }
            let error = Field::new("error", DataType::Utf8, false);
            let schemas = plain(error, "count", encoding::ERRORS);
            add(build::error_table(relation, node), schemas);
        }
    }
}

/// Rows are encoded with the columns of the key first.
fn view(node: &Node, key: &[usize]) -> TableSchemas {
    let all = 0..node.schema.fields().len();
    let order = key.iter().copied().chain(all.filter(|c| !key.contains(c)));
    let field = |column: usize| {
        let field = node.schema.field(column).clone();
        let mut metadata = field.metadata().clone();
        metadata.insert(COLUMN_KEY.to_owned(), column.to_string());
        field.with_metadata(metadata)
    };
    let numbered = build::is_numbered(node, key);
    let name = if numbered {
        encoding::NUMBERED
    } else {
        encoding::COUNT
    };
    TableSchemas {
        key: Arc::new(Schema::new(order.map(field).collect::<Vec<_>>())),
        sub_key: empty(),
        value: single(Field::new("count", DataType::Int64, false)),
        encoding: name.to_owned(),
    }
}

fn declared(table: &StateTable) -> TableSchemas {
    let encoding = table.value.metadata().get(ENCODING_KEY);
    TableSchemas {
        key: table.key.clone(),
        sub_key: table.sub_key.clone(),
        value: table.value.clone(),
        encoding: encoding.cloned().unwrap_or_default(),
    }
}

fn plain(key: Field, value: &str, encoding: &str) -> TableSchemas {
    TableSchemas {
        key: single(key),
        sub_key: empty(),
        value: single(Field::new(value, DataType::Utf8, false)),
        encoding: encoding.to_owned(),
    }
}

fn single(field: Field) -> SchemaRef {
    Arc::new(Schema::new(vec![field]))
}

fn empty() -> SchemaRef {
    Arc::new(Schema::empty())
}
