//! From a plan's node to the operator that does it.
//!
//! Nodes that touch the outside (imports, sources, table input, materialization, sinks) are the runtime's own.

use crate::aggregate::{Aggregate, AggregateSpec};
use crate::append_top_n::AppendTopN;
use crate::at_most_one::AtMostOne;
use crate::filter::Filter;
use crate::join::Join;
use crate::project::Project;
use crate::top_n::{TopN, Window};
use crate::union::Union;
use crate::unnest::Unnest;
use crate::values::Values;
use crate::window::WindowFunctions;
use crate::{Operator, OperatorError};
use datafusion::error::DataFusionError;
use tidegate_plan::state_tables::{top_n_keeps_list, top_n_numbers_all};
use tidegate_plan::{Dataflow, Op};
use tidegate_types::{KeyGroupRange, hash_key, key_group};

/// Builds the operator of a node for the worker that owns these key groups.
pub fn build(
    dataflow: &Dataflow,
    index: usize,
    owned: KeyGroupRange,
) -> Result<Box<dyn Operator>, OperatorError> {
    let node = &dataflow.nodes[index];
    let schema = node.schema.clone();
    let owner = owned.contains(key_group(hash_key(&[])));
    let input = |port: usize| dataflow.input_schema(index, port).clone();
    Ok(match &node.op {
        Op::Values { rows } => Box::new(Values::new(rows, schema, owner)?),
        Op::Filter { predicate } => Box::new(Filter::new(predicate, &input(0), schema)?),
        Op::Project { expressions } => Box::new(Project::new(expressions, &input(0), schema)?),
        Op::Union => Box::new(Union::new(schema)),
        Op::Aggregate { keys, calls } => Box::new(Aggregate::new(&AggregateSpec {
            keys,
            calls,
            input: &input(0),
            input_append_only: dataflow.input_append_only(index, 0),
            schema,
            owner,
        })?),
        Op::Join {
            kind,
            left_keys,
            right_keys,
            null_equals_null,
            null_aware,
            residual,
        } => Box::new(Join::new(
            *kind,
            left_keys,
            right_keys,
            *null_equals_null,
            *null_aware,
            residual.as_ref(),
            input(0),
            input(1),
            schema,
            dataflow.input_append_only(index, 0),
            dataflow.input_append_only(index, 1),
        )?),
        Op::TopN {
            partition,
            order,
            ranking,
            offset,
            limit,
            numbered,
        } if top_n_numbers_all(*offset, *limit, *numbered) => Box::new(WindowFunctions::ranking(
            (partition, order, *ranking),
            &input(0),
            schema,
        )?),
        Op::TopN {
            partition,
            order,
            ranking,
            offset,
            limit,
            numbered,
        } => {
            let window = Window {
                partition,
                order,
                ranking: *ranking,
                offset: *offset,
                limit: *limit,
                numbered: *numbered,
            };
            let append_only = dataflow.input_append_only(index, 0);
            match top_n_keeps_list(*ranking, *offset, *limit, append_only) {
                true => Box::new(AppendTopN::new(&window, &input(0), schema)?),
                false => Box::new(TopN::new(&window, &input(0), schema, append_only)?),
            }
        }
        Op::Window {
            partition,
            order,
            calls,
        } => Box::new(WindowFunctions::new(
            (partition, order, calls),
            &input(0),
            schema,
        )?),
        Op::Unnest { lists } => Box::new(Unnest::new(lists, &input(0), schema)?),
        Op::AtMostOne { keys } => Box::new(AtMostOne::new(keys, &input(0), schema)?),
        Op::Import { .. }
        | Op::Source { .. }
        | Op::TableInput { .. }
        | Op::Materialize { .. }
        | Op::Sink { .. } => {
            return Err(
                DataFusionError::Internal(format!("{} is built by the runtime", node.op)).into(),
            );
        }
    })
}
