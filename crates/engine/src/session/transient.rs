//! Relations without a name that live as long as one subscription to a query.
//!
//! They are dataflows like any materialized view, and known to the runtime alone: not to the catalog, the log or other
//! sessions. Their ids are far above those of the catalog and are not given out twice, so that what a checkpoint holds of
//! one is never taken for another's. Who drops a relation that one of them reads ends it first.

use super::Session;
use crate::database::Database;
use crate::relations::Specs;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate_parser::QueryText;
use tidegate_planner::Planner;
use tidegate_runtime::RelationSpec;
use tidegate_types::{RelationId, SqlError, SqlState};
use tokio::sync::watch;

/// Added to ids of transient relations.
const ID_BASE: u64 = 1 << 62;

/// The transient relations that live now.
#[derive(Default)]
pub(crate) struct Transients {
    live: Mutex<BTreeMap<RelationId, Transient>>,
}

struct Transient {
    reads: Vec<RelationId>,
    ended: watch::Sender<bool>,
}

impl Transients {
    /// Microseconds since 1970, which a restart does not take back.
    fn new_id(&self, reads: Vec<RelationId>) -> (RelationId, watch::Receiver<bool>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_micros() as u64);
        let mut live = self.live.lock();
        let mut id = RelationId(ID_BASE + now);
        while live.contains_key(&id) {
            id.0 += 1;
        }
        let (ended, receiver) = watch::channel(false);
        live.insert(id, Transient { reads, ended });
        (id, receiver)
    }

    fn set_reads(&self, id: RelationId, reads: Vec<RelationId>) {
        if let Some(transient) = self.live.lock().get_mut(&id) {
            transient.reads = reads;
        }
    }

    /// Ends those that read one of these relations, and answers which they were.
    pub fn end_readers(&self, dropped: &[RelationId]) -> Vec<RelationId> {
        let mut live = self.live.lock();
        let mut ended = Vec::new();
        live.retain(|id, transient| {
            let reads = transient.reads.iter().any(|r| dropped.contains(r));
            if reads {
                transient.ended.send_replace(true);
                ended.push(*id);
            }
            !reads
        });
        ended
    }

    fn remove(&self, id: RelationId) -> bool {
        self.live.lock().remove(&id).is_some()
    }
}

/// Keeps a transient relation alive.
pub(super) struct TransientGuard {
    pub id: RelationId,
    database: Arc<Database>,
    ended: watch::Receiver<bool>,
}

impl TransientGuard {
    /// Waits until something that it reads is dropped.
    pub async fn ended(&self) -> SqlError {
        let mut ended = self.ended.clone();
        // The sender goes away only after it has said so, or with the guard.
        let _ = ended.wait_for(|e| *e).await;
        SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the subscription ends because a relation that its query reads was dropped",
        )
    }
}

impl Drop for TransientGuard {
    fn drop(&mut self) {
        let (id, database) = (self.id, self.database.clone());
        if !database.transients.remove(id) {
            return;
        }
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            handle.spawn(async move {
                // Without a runtime there is nothing left of it either.
                if let Ok(runtime) = database.runtime() {
                    let _ = runtime.drop_relations(&[id]).await;
                }
            });
        }
    }
}

impl Session {
    /// The columns of a query that could be maintained.
    pub(super) fn transient_schema(
        &self,
        query: &QueryText,
    ) -> Result<arrow::datatypes::SchemaRef, SqlError> {
        Ok(self.planned(query, RelationId(ID_BASE))?.schema)
    }

    fn planned(
        &self,
        query: &QueryText,
        id: RelationId,
    ) -> Result<tidegate_planner::PlannedView, SqlError> {
        let mut names = self.names();
        names.system = None;
        Planner::new(&names, &query.text)
            .plan_materialized_view(
                crate::relations::parse_query(&query.text)?,
                &[],
                id,
                "subscription",
            )
            .map_err(|mut error| {
                error.position = None;
                error
            })
    }

    /// Runs a query as a view of its own and waits until it holds what was there before.
    pub(super) async fn transient(
        &mut self,
        query: &QueryText,
    ) -> Result<(TransientGuard, arrow::datatypes::SchemaRef), SqlError> {
        let database = self.database.clone();
        let runtime = database.runtime()?;
        let turn = database.ddl.lock().await;
        let (id, ended) = database.transients.new_id(Vec::new());
        let guard = TransientGuard {
            id,
            database: database.clone(),
            ended,
        };
        let planned = self.planned(query, id)?;
        let mut reads = planned.direct.clone();
        reads.extend(planned.dataflow.reads());
        reads.extend(planned.reads.iter().copied());
        database.transients.set_reads(id, reads);
        let schema = planned.schema.clone();
        let spec: RelationSpec = database.transient_spec(planned)?;
        runtime.create(spec).await?;
        drop(turn);
        runtime.wait_complete(id).await?;
        Ok((guard, schema))
    }
}

impl Database {
    fn transient_spec(
        &self,
        planned: tidegate_planner::PlannedView,
    ) -> Result<RelationSpec, SqlError> {
        let catalog = self.catalog.get();
        self.with_connectors(|connectors| {
            Specs {
                catalog: &catalog,
                default_backend: self.default_backend(),
                identity: self.identity(),
                connectors,
            }
            .of_planned(planned)
        })
    }
}
