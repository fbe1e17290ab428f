//! What the engine hands to the runtime, and what the runtime asks of the engine.

pub use crate::input::event_time::EventTime;
use crate::policy::RelationChoices;
use std::sync::Arc;
use tidegate_connectors::{Sink, Source};
use tidegate_plan::Dataflow;
use tidegate_state::BackendKind;
use tidegate_types::{Batch, LogPosition, RelationId, SqlError};

/// A table, source, materialized view or sink to run.
#[derive(Clone)]
pub struct RelationSpec {
    pub dataflow: Dataflow,
    /// The dataflows of the sources that this one reads, each with its connector.
    pub readers: Vec<RelationSpec>,
    /// The connector, when this is the dataflow of a source.
    pub source: Option<Arc<dyn Source>>,
    /// The connector, when the root of the dataflow is a sink.
    pub sink: Option<Arc<dyn Sink>>,
    pub backend: BackendKind,
    /// What its rows' times are, of a source or table with a watermark.
    pub event_time: Option<EventTime>,
    /// How its checkpoints differ from the server's.
    pub choices: Arc<RelationChoices>,
}

impl RelationSpec {
    pub fn relation(&self) -> RelationId {
        self.dataflow.relation
    }

    /// The dataflow of a source that this one reads, or is.
    fn reader(&self, source: RelationId) -> Option<&RelationSpec> {
        let all = std::iter::once(self).chain(&self.readers);
        all.into_iter().find(|s| s.relation() == source)
    }

    pub(crate) fn event_time_of(&self, source: RelationId) -> Option<EventTime> {
        self.reader(source).and_then(|reader| reader.event_time)
    }

    /// The connector of a source that this dataflow reads.
    pub(crate) fn connector(&self, source: RelationId) -> Arc<dyn Source> {
        self.reader(source)
            .and_then(|r| r.source.clone())
            .expect("a dataflow that reads a source comes with its connector")
    }

    /// Whether this is the dataflow of a source: nothing but its reader, which runs while somebody reads it.
    pub fn is_reader(&self) -> bool {
        self.source.is_some()
    }
}

/// The command log as the runtime sees it: where changes of tables are read again after a failure.
pub trait ChangeLog: Send + Sync {
    /// Visits the row changes after this position, in order. Returns the position of the last entry.
    fn replay(
        &self,
        after: LogPosition,
        visit: &mut dyn FnMut(LogPosition, RelationId, Batch) -> Result<(), SqlError>,
    ) -> Result<LogPosition, SqlError>;

    /// Entries up to here are in every retained checkpoint and will not be asked for again.
    fn truncate_to(&self, oldest_retained: LogPosition);
}

/// The catalog as it is to be stored with a checkpoint.
pub trait CatalogSnapshot: Send + Sync {
    /// `running` are the plans that the state in the checkpoint is of: they may be older than the catalog.
    fn snapshot(&self, running: &[&Dataflow]) -> serde_json::Value;

    /// What a checkpoint with this catalog holds the state of, where that is another plan than the one to run: in order,
    /// for each of these.
    fn saved(
        &self,
        catalog: &serde_json::Value,
        relations: &[RelationSpec],
    ) -> Result<Vec<Option<RelationSpec>>, SqlError>;
}
