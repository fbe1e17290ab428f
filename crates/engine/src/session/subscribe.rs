//! `SUBSCRIBE`: what a view holds, and then every change, with epoch and diff.
//!
//! A subscription to a query runs it as a view of its own, see [`super::transient`]. Cancelling a subscription is how it is
//! meant to end, so that it is no error: the client has its rows and a command tag.

use super::Session;
use super::transient::TransientGuard;
use crate::api::{CancelReason, CopyOptions, Response, RowStream, RowsTag};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use std::sync::Arc;
use tidegate_catalog::{Relation, RelationClass};
use tidegate_parser::sqlparser::ast;
use tidegate_parser::{Subscribe, SubscribeTarget};
use tidegate_runtime::Subscription;
use tidegate_state::StateError;
use tidegate_types::{Epoch, RelationId, SqlError, SqlState};

const BATCH_ROWS: usize = 4096;

impl Session {
    fn subscribed(&self, name: &ast::ObjectName) -> Result<Arc<Relation>, SqlError> {
        let catalog = self.database.catalog.get();
        let relation = catalog.resolve(&tidegate_parser::name_parts(name), &self.path())?;
        match relation.class() {
            RelationClass::Table | RelationClass::MaterializedView => Ok(relation.clone()),
            RelationClass::View => Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot subscribe to view \"{}\"", relation.name),
            )
            .with_hint(format!(
                "Subscribe to its query: SUBSCRIBE (SELECT * FROM {}).",
                relation.name
            ))),
            class => Err(SqlError::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot subscribe to {class} \"{}\"", relation.name),
            )
            .with_hint("Tables, materialized views and queries can be subscribed to.")),
        }
    }

    pub(super) fn subscription_schema(&self, subscribe: &Subscribe) -> Result<SchemaRef, SqlError> {
        let columns = match &subscribe.target {
            SubscribeTarget::Relation(name) => visible_fields(&*self.subscribed(name)?),
            SubscribeTarget::Query(query) => {
                nullable_fields(self.transient_schema(query)?.as_ref())
            }
        };
        Ok(output_schema(columns, subscribe.progress))
    }

    pub(super) async fn subscribe(&mut self, subscribe: &Subscribe) -> Result<Response, SqlError> {
        self.outside_transaction("SUBSCRIBE")?;
        let (schema, stream) = self.subscription(subscribe).await?;
        Ok(Response::Rows {
            schema,
            stream: self.until_cancelled(stream),
            tag: RowsTag::Counted("SUBSCRIBE"),
        })
    }

    /// `COPY (SUBSCRIBE …) TO STDOUT`: how a client that collects results before it shows them can follow one.
    pub(super) async fn copy_subscription(
        &mut self,
        subscribe: &Subscribe,
        options: CopyOptions,
    ) -> Result<Response, SqlError> {
        self.outside_transaction("SUBSCRIBE")?;
        let (schema, stream) = self.subscription(subscribe).await?;
        Ok(Response::CopyOut {
            schema,
            stream: self.until_cancelled(stream),
            options,
        })
    }

    /// The rows of a subscription, without end unless it was asked for one.
    pub(super) async fn subscription(
        &mut self,
        subscribe: &Subscribe,
    ) -> Result<(SchemaRef, RowStream), SqlError> {
        if subscribe.as_of.is_some() {
            return Err(SqlError::not_supported("SUBSCRIBE AS OF").with_hint(
                "A subscription begins with the newest epoch; changes before it are not kept.",
            ));
        }
        let up_to = subscribe.up_to.as_ref().map(epoch_of).transpose()?;
        let runtime = self.database.runtime()?;
        runtime.wait_visible(self.floor()).await?;
        let (guard, id, fields, columns) = match &subscribe.target {
            SubscribeTarget::Relation(name) => {
                let relation = self.subscribed(name)?;
                let columns: Vec<usize> = relation.visible_columns().map(|(i, _)| i).collect();
                (None, relation.id, visible_fields(&relation), columns)
            }
            SubscribeTarget::Query(query) => {
                let (guard, schema) = self.transient(query).await?;
                let columns = (0..schema.fields().len()).collect();
                let id = guard.id;
                (Some(guard), id, nullable_fields(&schema), columns)
            }
        };
        let subscription = runtime.subscribe(id).await?;
        let schema = output_schema(fields, subscribe.progress);
        let feed = Feed {
            subscription,
            output: Output {
                schema: schema.clone(),
                progress: subscribe.progress,
            },
            columns,
            relation: id,
            up_to,
            guard,
        };
        let stream = feed.stream(subscribe.snapshot);
        let stream = match subscribe.limit {
            Some(limit) => limited(stream, limit as usize),
            None => stream,
        };
        Ok((schema, stream))
    }

    /// Ends with the statement's cancellation: in order when the client asked for it, else with the reason.
    fn until_cancelled(&self, stream: RowStream) -> RowStream {
        let cancel = self.cancel.clone();
        let stream = stream.take_until(async move { cancel.cancelled().await });
        let cancel = self.cancel.clone();
        let ended =
            futures::stream::once(async move { cancel.reason() }).filter_map(|reason| async move {
                reason
                    .filter(|r| *r != CancelReason::UserRequest)
                    .map(|r| Err(r.error()))
            });
        stream.chain(ended).boxed()
    }
}

/// The epoch in `UP TO`.
fn epoch_of(expr: &ast::Expr) -> Result<Epoch, SqlError> {
    expr.to_string().parse().map(Epoch).map_err(|_| {
        SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("UP TO takes an epoch, not {expr}"),
        )
        .with_hint("The column \"epoch\" of a subscription shows epochs.")
    })
}

fn visible_fields(relation: &Relation) -> Vec<Field> {
    relation
        .visible_columns()
        .map(|(_, c)| c.sql_type.field(&c.name, true))
        .collect()
}

fn nullable_fields(schema: &Schema) -> Vec<Field> {
    let fields = schema.fields().iter();
    fields
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect()
}

fn output_schema(columns: Vec<Field>, progress: bool) -> SchemaRef {
    let mut fields = vec![Field::new("epoch", DataType::Int64, false)];
    if progress {
        fields.push(Field::new("progressed", DataType::Boolean, false));
    }
    fields.push(Field::new("diff", DataType::Int64, progress));
    fields.extend(columns);
    Arc::new(Schema::new(fields))
}

/// How changes become rows for the client.
#[derive(Clone)]
struct Output {
    schema: SchemaRef,
    progress: bool,
}

impl Output {
    fn changes(
        &self,
        epoch: Epoch,
        diffs: &[i64],
        columns: &[ArrayRef],
    ) -> Result<RecordBatch, SqlError> {
        let mut all: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![
            epoch.0 as i64;
            diffs.len()
        ]))];
        if self.progress {
            all.push(Arc::new(BooleanArray::from(vec![false; diffs.len()])));
        }
        all.push(Arc::new(Int64Array::from(diffs.to_vec())));
        all.extend(columns.iter().cloned());
        RecordBatch::try_new(self.schema.clone(), all).map_err(SqlError::internal)
    }

    /// Everything of the epochs up to this one has been told.
    fn progressed(&self, epoch: Epoch) -> Result<RecordBatch, SqlError> {
        let mut all: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![epoch.0 as i64])),
            Arc::new(BooleanArray::from(vec![true])),
        ];
        for field in &self.schema.fields()[2..] {
            all.push(new_null_array(field.data_type(), 1));
        }
        RecordBatch::try_new(self.schema.clone(), all).map_err(SqlError::internal)
    }
}

struct Feed {
    subscription: Subscription,
    output: Output,
    columns: Vec<usize>,
    relation: RelationId,
    /// The first epoch whose changes are not wanted.
    up_to: Option<Epoch>,
    /// Of a subscription to a query.
    guard: Option<TransientGuard>,
}

impl Feed {
    fn stream(mut self, with_snapshot: bool) -> RowStream {
        let start = self.subscription.snapshot.epoch;
        let over = self.up_to.is_some_and(|end| end <= start);
        let mut first = Vec::new();
        if with_snapshot && !over {
            first = self.snapshot(start);
        }
        if self.output.progress && !over {
            first.push(futures::stream::iter([self.output.progressed(start)]).boxed());
        }
        let snapshot = futures::stream::iter(first).flatten();
        let changes =
            futures::stream::unfold((self, start, over), |(mut feed, epoch, over)| async move {
                if over {
                    return None;
                }
                let (batches, epoch, over) = match feed.next(epoch).await {
                    Ok((batches, epoch)) => {
                        let over = feed.up_to.is_some_and(|end| end.0 <= epoch.0 + 1);
                        (batches.into_iter().map(Ok).collect(), epoch, over)
                    }
                    Err(error) => (vec![Err(error)], epoch, true),
                };
                Some((futures::stream::iter(batches), (feed, epoch, over)))
            });
        snapshot.chain(changes.flatten()).boxed()
    }

    fn snapshot(&mut self, start: Epoch) -> Vec<RowStream> {
        let view = self.subscription.snapshot.views.remove(&self.relation);
        let mut streams: Vec<RowStream> = Vec::new();
        for part in view.into_iter().flat_map(|v| v.parts) {
            streams.push(match part.scan(Some(&self.columns), BATCH_ROWS) {
                Ok(scan) => {
                    let output = self.output.clone();
                    futures::stream::iter(scan.map(move |batch| {
                        let batch = batch.map_err(SqlError::internal)?;
                        let ones = vec![1; batch.num_rows()];
                        output.changes(start, &ones, batch.columns())
                    }))
                    .boxed()
                }
                Err(error) => futures::stream::iter([Err(SqlError::internal(error))]).boxed(),
            });
        }
        streams
    }

    /// Everything that changed in the epochs published since.
    async fn next(&mut self, after: Epoch) -> Result<(Vec<RecordBatch>, Epoch), SqlError> {
        let published = self.subscription.published.after(after);
        let reached = match &self.guard {
            None => published.await?,
            Some(guard) => tokio::select! {
                reached = published => reached?,
                ended = guard.ended() => return Err(ended),
            },
        };
        let mut deltas = Vec::new();
        let taken = self.subscription.changes.take();
        let failed = |e: StateError| match e {
            StateError::Replaced => SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the subscription ends because the view was altered and has other columns",
            )
            .with_hint("Subscribe again."),
            other => SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, other.to_string()),
        };
        for delta in taken.map_err(failed)? {
            for batch in delta.batches().map_err(SqlError::internal)? {
                deltas.push((delta.epoch, batch));
            }
        }
        deltas.retain(|(epoch, _)| self.up_to.is_none_or(|end| *epoch < end));
        deltas.sort_by_key(|(epoch, _)| *epoch);
        let mut outputs = Vec::new();
        for (epoch, batch) in deltas {
            let columns: Vec<ArrayRef> = self
                .columns
                .iter()
                .map(|c| batch.column(*c).clone())
                .collect();
            let told = self.output.changes(epoch, &batch.diff_values(), &columns)?;
            outputs.push(told);
        }
        if self.output.progress {
            let end = self
                .up_to
                .map_or(reached, |end| reached.min(Epoch(end.0.saturating_sub(1))));
            outputs.push(self.output.progressed(end)?);
        }
        Ok((outputs, reached))
    }
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
