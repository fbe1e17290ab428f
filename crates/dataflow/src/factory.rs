//! From a plan's node to the operator that does it.
//!
//! Nodes that touch the outside (imports, sources, table input, materialization, sinks) are the runtime's own.

use crate::aggregate::{Aggregate, AggregateSpec};
use crate::append_top_n::AppendTopN;
use crate::at_most_one::AtMostOne;
use crate::closing::Closing;
use crate::filter::Filter;
use crate::forgetting::Forgetting;
use crate::join::Join;
use crate::on_close::OnClose;
use crate::project::Project;
use crate::session::Session;
use crate::time_filter::TimeFilter;
use crate::top_n::{TopN, Window};
use crate::union::Union;
use crate::unnest::Unnest;
use crate::values::Values;
use crate::window::WindowFunctions;
use crate::{Operator, OperatorError};
use datafusion::error::DataFusionError;
use tidegate_plan::join_state::join_partition_keys;
use tidegate_plan::state_tables::{top_n_keeps_list, top_n_numbers_all};
use tidegate_plan::watermark::of_column;
use tidegate_plan::{Dataflow, Op};
use tidegate_types::{KeyGroupRange, hash_key, key_group};

/// Builds the operator of a node for the worker that owns these key groups.
pub fn build(
    dataflow: &Dataflow,
    index: usize,
    owned: KeyGroupRange,
) -> Result<Box<dyn Operator>, OperatorError> {
    let operator = of_node(dataflow, index, owned)?;
    let keys: Vec<&[usize]> = match &dataflow.nodes[index].op {
        Op::Aggregate { keys, .. } | Op::AtMostOne { keys } => vec![keys],
        Op::TopN { partition, .. }
        | Op::Window { partition, .. }
        | Op::Session { partition, .. } => vec![partition],
        Op::Join {
            kind,
            left_keys,
            right_keys,
            null_aware,
            ..
        } => vec![
            join_partition_keys(*kind, *null_aware, left_keys),
            join_partition_keys(*kind, *null_aware, right_keys),
        ],
        _ => return Ok(operator),
    };
    Ok(match Closing::of_node(dataflow, index, &keys)? {
        Some(closing) => Box::new(Forgetting::new(operator, closing, &keys, dataflow, index)?),
        None => operator,
    })
}

fn of_node(
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
        Op::Session {
            partition,
            time,
            gap_us,
        } => Box::new(Session::new(
            partition,
            *time,
            *gap_us,
            &input(0),
            of_column(dataflow.input_watermarks(index, 0), *time),
            schema,
        )?),
        Op::OnClose { key, time } => {
            let closing = Closing::of_node(dataflow, index, &[key])?;
            let closing = closing.ok_or_else(|| {
                let message = format!("column {time} has no watermark");
                DataFusionError::Internal(message)
            })?;
            Box::new(OnClose::new(key, closing, &input(0), schema)?)
        }
        Op::TimeFilter { from, until } => Box::new(TimeFilter::new(
            from.as_ref(),
            until.as_ref(),
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
