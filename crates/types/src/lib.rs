//! The words every other crate speaks: batches, epochs, ids, encoded keys, SQL types and errors.
//!
//! Nothing here knows a thread, a clock, a file or a query. Read [`batch`] first (what flows), then [`key`] (how rows
//! become bytes and bytes become key groups), then [`sql_type`] (what SQL calls the Arrow types) and [`text`] (how their
//! values are written and read).

pub mod batch;
pub mod byte_rows;
pub mod epoch;
pub mod error;
pub mod ids;
pub mod key;
pub mod packed;
pub mod sql_type;
pub mod text;
pub mod watermark;

pub use batch::{Batch, Diff};
pub use byte_rows::ByteRows;
pub use epoch::{Barrier, CheckpointId, Epoch, LogPosition};
pub use error::{SqlError, SqlState};
pub use ids::{OperatorId, RelationId, TableId, WorkerId};
pub use key::{KEY_GROUPS, KeyGroup, KeyGroupRange, RowCodec, hash_key, key_group};
pub use packed::{PackedCodec, PackedRows};
pub use sql_type::SqlType;
pub use watermark::Watermarks;
