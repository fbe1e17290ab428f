//! `SUBSCRIBE`: what a view holds, and then every change, with epoch and diff.

use super::Session;
use crate::api::{Response, RowStream, RowsTag};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use std::sync::Arc;
use tidegate_catalog::{Relation, RelationClass};
use tidegate_parser::{Subscribe, SubscribeTarget};
use tidegate_runtime::runtime::Subscription;
use tidegate_types::{Epoch, SqlError, SqlState};

const BATCH_ROWS: usize = 4096;

impl Session {
    fn subscribed(&self, subscribe: &Subscribe) -> Result<Arc<Relation>, SqlError> {
        let refused = [
            (subscribe.progress, "SUBSCRIBE WITH (PROGRESS)"),
            (subscribe.as_of.is_some(), "SUBSCRIBE AS OF"),
            (subscribe.up_to.is_some(), "SUBSCRIBE UP TO"),
        ];
        if let Some((_, feature)) = refused.iter().find(|(asked, _)| *asked) {
            return Err(SqlError::not_supported(feature));
        }
        let name = match &subscribe.target {
            SubscribeTarget::Relation(name) => name,
            SubscribeTarget::Query(_) => {
                return Err(SqlError::not_supported("SUBSCRIBE to a query")
                    .with_hint("Create a materialized view of it and subscribe to that."));
            }
        };
        let catalog = self.database.catalog.get();
        let relation = catalog.resolve(&tidegate_parser::name_parts(name), &self.path())?;
        match relation.class() {
            RelationClass::Table | RelationClass::MaterializedView => Ok(relation.clone()),
            class => Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot subscribe to {class} \"{}\"", relation.name),
            )
            .with_hint("Tables and materialized views can be subscribed to.")),
        }
    }

    pub(super) fn subscription_schema(&self, subscribe: &Subscribe) -> Result<SchemaRef, SqlError> {
        Ok(output_schema(&*self.subscribed(subscribe)?))
    }

    pub(super) async fn subscribe(&mut self, subscribe: &Subscribe) -> Result<Response, SqlError> {
        self.outside_transaction("SUBSCRIBE")?;
        let relation = self.subscribed(subscribe)?;
        let runtime = self.database.runtime()?;
        runtime.wait_visible(self.last_write).await?;
        let subscription = runtime.subscribe(relation.id).await?;
        let schema = output_schema(&relation);
        let columns: Vec<usize> = relation.visible_columns().map(|(i, _)| i).collect();
        let feed = Feed {
            subscription,
            schema: schema.clone(),
            columns,
            relation,
        };
        let stream = feed.stream(subscribe.snapshot);
        let stream = match subscribe.limit {
            Some(limit) => limited(stream, limit as usize),
            None => stream,
        };
        let cancel = self.cancel.clone();
        let stream = stream.take_until(async move { cancel.cancelled().await });
        let cancel = self.cancel.clone();
        let ended = futures::stream::once(async move { cancel.reason() })
            .filter_map(|reason| async move { reason.map(|r| Err(r.error())) });
        let stream = stream.chain(ended).boxed();
        Ok(Response::Rows {
            schema,
            stream,
            tag: RowsTag::Counted("SUBSCRIBE"),
        })
    }
}

fn output_schema(relation: &Relation) -> SchemaRef {
    let mut fields = vec![
        Field::new("epoch", DataType::Int64, false),
        Field::new("diff", DataType::Int64, false),
    ];
    fields.extend(
        relation
            .visible_columns()
            .map(|(_, c)| c.sql_type.field(&c.name, true)),
    );
    Arc::new(Schema::new(fields))
}

struct Feed {
    subscription: Subscription,
    schema: SchemaRef,
    columns: Vec<usize>,
    relation: Arc<Relation>,
}

impl Feed {
    fn stream(mut self, with_snapshot: bool) -> RowStream {
        let start = self.subscription.snapshot.epoch;
        let mut first = Vec::new();
        if with_snapshot {
            for part in self
                .subscription
                .snapshot
                .views
                .remove(&self.relation.id)
                .into_iter()
                .flat_map(|v| v.parts)
            {
                match part.scan(Some(&self.columns), BATCH_ROWS) {
                    Ok(scan) => {
                        let schema = self.schema.clone();
                        first.push(
                            futures::stream::iter(scan.map(move |batch| {
                                let batch = batch.map_err(SqlError::internal)?;
                                let ones = vec![1; batch.num_rows()];
                                output(&schema, start, &ones, batch.columns())
                            }))
                            .boxed(),
                        );
                    }
                    Err(error) => {
                        first.push(futures::stream::iter([Err(SqlError::internal(error))]).boxed())
                    }
                }
            }
        }
        let snapshot = futures::stream::iter(first).flatten();
        let changes = futures::stream::unfold(
            (self, start, false),
            |(mut feed, epoch, failed)| async move {
                if failed {
                    return None;
                }
                let (batches, epoch, failed) = match feed.next(epoch).await {
                    Ok((batches, epoch)) => (batches.into_iter().map(Ok).collect(), epoch, false),
                    Err(error) => (vec![Err(error)], epoch, true),
                };
                Some((futures::stream::iter(batches), (feed, epoch, failed)))
            },
        );
        snapshot.chain(changes.flatten()).boxed()
    }

    /// Everything that changed in the epochs published since.
    async fn next(&mut self, after: Epoch) -> Result<(Vec<RecordBatch>, Epoch), SqlError> {
        let reached = self.subscription.published.after(after).await?;
        let mut deltas = Vec::new();
        for part in &mut self.subscription.changes {
            while let Some(delta) = part.try_next() {
                let delta = delta
                    .map_err(|e| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, e.to_string()))?;
                for batch in delta.batches().map_err(SqlError::internal)? {
                    deltas.push((delta.epoch, batch));
                }
            }
        }
        deltas.sort_by_key(|(epoch, _)| *epoch);
        let mut outputs = Vec::new();
        for (epoch, batch) in deltas {
            let columns: Vec<ArrayRef> = self
                .columns
                .iter()
                .map(|c| batch.column(*c).clone())
                .collect();
            outputs.push(output(&self.schema, epoch, &batch.diff_values(), &columns)?);
        }
        Ok((outputs, reached))
    }
}

fn output(
    schema: &SchemaRef,
    epoch: Epoch,
    diffs: &[i64],
    columns: &[ArrayRef],
) -> Result<RecordBatch, SqlError> {
    let mut all: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![epoch.0 as i64; diffs.len()])),
        Arc::new(Int64Array::from(diffs.to_vec())),
    ];
    all.extend(columns.iter().cloned());
    RecordBatch::try_new(schema.clone(), all).map_err(SqlError::internal)
}

/// Ends with the last wanted row, without waiting for a change that nobody wants.
fn limited(stream: RowStream, limit: usize) -> RowStream {
    futures::stream::unfold((stream, limit), |(mut stream, left)| async move {
        if left == 0 {
            return None;
        }
        match stream.next().await? {
            Ok(batch) => {
                let rows = batch.num_rows().min(left);
                Some((Ok(batch.slice(0, rows)), (stream, left - rows)))
            }
            Err(error) => Some((Err(error), (stream, 0))),
        }
    })
    .boxed()
}
