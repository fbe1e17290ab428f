//! What a checkpoint is: the manifest, in memory and as a file.
//!
//! A manifest file is two lines: a header (format, length and checksum of the second line) and a body, both JSON. Files
//! are numbered without gaps by every server that ever ran on the storage, and each is created conditionally: that
//! creation is the commit point of a checkpoint and what keeps two servers apart. A file is of one of three kinds: a
//! checkpoint; a savepoint (kept elsewhere, same format); or a *fence*, which has no state and only says which
//! generation writes from here on and which epochs are reserved.
//!
//! A checkpoint's file is complete, or a delta over an earlier checkpoint's ([`crate::delta`]); readers of this module
//! never see the difference.

use crate::error::{CheckpointError, Damage, Result};
use crate::run_file::RunRef;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate_state::{Form, Merge};
use tidegate_types::key::CODEC_VERSION;
use tidegate_types::{
    CheckpointId, Epoch, KEY_GROUPS, LogPosition, OperatorId, RelationId, TableId,
};

/// The version of manifests and of run objects that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The name of tables that hold rows which a checkpoint's barrier had overtaken.
pub const IN_FLIGHT: &str = "in flight";

/// All that a restart needs to know, as of one barrier.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Its place in the sequence of manifest files.
    pub number: u64,
    /// The server that wrote it.
    pub generation: u64,
    /// `None`: an automatic checkpoint.
    pub savepoint: Option<String>,
    pub checkpoint: CheckpointId,
    pub epoch: Epoch,
    /// The barrier's time, in milliseconds since 1970: what `now()` meant in the epoch.
    pub time_ms: i64,
    /// When the manifest was written, by the wall clock.
    pub created_ms: i64,
    pub log_position: LogPosition,
    /// No epoch above this was used before the next manifest file was written.
    pub reserved_epoch: Epoch,
    /// The catalog's own durable form.
    pub catalog: Arc<serde_json::Value>,
    pub tables: BTreeMap<TableId, Arc<TableEntry>>,
    /// What sinks prepared for this checkpoint and commit once it exists.
    pub sink_tokens: BTreeMap<RelationId, Vec<u8>>,
    /// Bytes of run objects written for this checkpoint.
    pub bytes_written: u64,
    /// Of a savepoint.
    pub details: SavepointDetails,
}

/// What a savepoint has beyond its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointDetails {
    /// Where it lies, when that is not the storage that lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The folder, in the storage where it lies, of its rows as Parquet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portable: Option<String>,
    /// The views that it was taken for; empty: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<String>,
}

impl Manifest {
    pub fn table(&self, table: TableId) -> Option<&TableEntry> {
        self.tables.get(&table).map(|t| &**t)
    }

    pub fn rows(&self) -> u64 {
        self.tables.values().map(|t| t.rows()).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.tables.values().map(|t| t.bytes()).sum()
    }

    /// Bytes of rows that the checkpoint's barrier had overtaken. With such rows it is a point to recover from, and ends
    /// no epoch.
    pub fn in_flight_bytes(&self) -> u64 {
        let in_flight = self
            .tables
            .values()
            .filter(|t| t.descriptor.name == IN_FLIGHT);
        in_flight.map(|t| t.bytes()).sum()
    }

    /// Every run object that it needs.
    pub fn objects(&self) -> BTreeSet<Arc<str>> {
        self.tables
            .values()
            .flat_map(|t| t.runs.iter().map(|r| r.object.clone()))
            .collect()
    }
}

/// A state table as a manifest knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableEntry {
    pub descriptor: TableDescriptor,
    /// Oldest first; a later one overrides (or adds to) earlier ones.
    pub runs: Vec<RunRef>,
}

impl TableEntry {
    /// Rows over all runs: at least as many as there are live ones.
    pub fn rows(&self) -> u64 {
        self.runs.iter().map(|r| r.rows).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|r| r.bytes).sum()
    }
}

/// What is needed to decode a table and to know whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableDescriptor {
    #[serde(with = "hex::table")]
    pub table: TableId,
    pub relation: RelationId,
    #[serde(with = "hex::operator")]
    pub operator: OperatorId,
    pub name: String,
    pub form: Form,
    pub merge: Merge,
    /// How to read keys, sub-keys and values, in a form that the caller chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schemas: Option<serde_json::Value>,
}

/// The body of a manifest file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ManifestFile {
    pub number: u64,
    pub generation: u64,
    pub key_groups: usize,
    pub codec: u32,
    pub created_ms: i64,
    pub reserved_epoch: Epoch,
    /// The checkpoints that have not expired, besides this one, by the numbers of their files.
    pub retained: Vec<u64>,
    #[serde(flatten)]
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Content {
    Fence {},
    Checkpoint(Box<Snapshot>),
    Savepoint {
        name: String,
        snapshot: Box<Snapshot>,
        #[serde(default)]
        details: SavepointDetails,
    },
}

/// The state that a file describes, complete or relative to another file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub checkpoint: CheckpointId,
    pub epoch: Epoch,
    pub time_ms: i64,
    pub log_position: LogPosition,
    pub bytes_written: u64,
    /// The file that this one is relative to; none: complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_to: Option<u64>,
    /// None: as in the other file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<Arc<serde_json::Value>>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        with = "hex::tokens"
    )]
    pub sink_tokens: BTreeMap<RelationId, Vec<u8>>,
    /// New tables, and those whose description changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableDescriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "hex::tables")]
    pub dropped: Vec<TableId>,
    /// Of tables that changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<crate::delta::RunChanges>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    tidegate: String,
    format: u32,
    bytes: u64,
    crc32c: String,
}

impl ManifestFile {
    pub fn to_bytes(&self) -> Bytes {
        let body = serde_json::to_vec(self).expect("a manifest has string keys only");
        let header = Header {
            tidegate: "manifest".to_owned(),
            format: FORMAT_VERSION,
            bytes: body.len() as u64,
            crc32c: format!("{:08x}", crc32c::crc32c(&body)),
        };
        let mut bytes = serde_json::to_vec(&header).expect("a header has string keys only");
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        bytes.push(b'\n');
        bytes.into()
    }

    /// Reads a file, or says where it is damaged, or that it is too new.
    pub fn parse(object: &str, bytes: &[u8]) -> Result<Self> {
        let damage = |offset: usize, what: String| {
            CheckpointError::from(Damage {
                object: object.into(),
                offset: Some(offset as u64),
                what,
            })
        };
        let end = bytes
            .iter()
            .position(|b| *b == b'\n')
            .unwrap_or(bytes.len());
        let header: Header = serde_json::from_slice(&bytes[..end])
            .map_err(|e| damage(0, format!("its header does not parse: {e}")))?;
        let unsupported = |what, found: u64, supported: u64| {
            Err(CheckpointError::Unsupported {
                object: object.to_owned(),
                what,
                found,
                supported,
            })
        };
        if header.tidegate != "manifest" {
            return Err(damage(
                0,
                format!("it is a {:?}, not a manifest", header.tidegate),
            ));
        }
        if header.format > FORMAT_VERSION {
            return unsupported(
                "format version",
                header.format.into(),
                FORMAT_VERSION.into(),
            );
        }
        let start = end + 1;
        let body = bytes
            .get(start..start.saturating_add(header.bytes as usize))
            .ok_or_else(|| {
                damage(
                    start,
                    format!(
                        "it ends after {} of {} bytes",
                        bytes.len().saturating_sub(start),
                        header.bytes
                    ),
                )
            })?;
        let found = format!("{:08x}", crc32c::crc32c(body));
        if found != header.crc32c {
            return Err(damage(
                start,
                format!("its checksum is {found} instead of {}", header.crc32c),
            ));
        }
        let file: Self = serde_json::from_slice(body)
            .map_err(|e| damage(start, format!("its body does not parse: {e}")))?;
        if file.key_groups != KEY_GROUPS {
            return unsupported(
                "number of key groups",
                file.key_groups as u64,
                KEY_GROUPS as u64,
            );
        }
        if file.codec > CODEC_VERSION {
            return unsupported("row codec version", file.codec.into(), CODEC_VERSION.into());
        }
        Ok(file)
    }
}

/// Ids are hashes over all 64 bits, and tools that read JSON numbers as doubles would alter them.
pub(crate) mod hex {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::collections::BTreeMap;
    use tidegate_types::{OperatorId, RelationId, TableId};

    fn parse<E: Error>(text: &str) -> Result<u64, E> {
        u64::from_str_radix(text, 16)
            .map_err(|e| E::custom(format!("\"{text}\" is not an id: {e}")))
    }

    pub mod table {
        use super::*;
        pub fn serialize<S: Serializer>(id: &TableId, s: S) -> Result<S::Ok, S::Error> {
            s.collect_str(id)
        }
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<TableId, D::Error> {
            parse(&String::deserialize(d)?).map(TableId)
        }
    }

    pub mod operator {
        use super::*;
        pub fn serialize<S: Serializer>(id: &OperatorId, s: S) -> Result<S::Ok, S::Error> {
            s.collect_str(id)
        }
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<OperatorId, D::Error> {
            parse(&String::deserialize(d)?).map(OperatorId)
        }
    }

    pub mod tables {
        use super::*;
        pub fn serialize<S: Serializer>(ids: &[TableId], s: S) -> Result<S::Ok, S::Error> {
            s.collect_seq(ids.iter().map(ToString::to_string))
        }
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<TableId>, D::Error> {
            Vec::<String>::deserialize(d)?
                .iter()
                .map(|t| parse(t).map(TableId))
                .collect()
        }
    }

    pub mod tokens {
        use super::*;
        pub fn serialize<S: Serializer>(
            tokens: &BTreeMap<RelationId, Vec<u8>>,
            s: S,
        ) -> Result<S::Ok, S::Error> {
            let text = |t: &Vec<u8>| t.iter().map(|b| format!("{b:02x}")).collect::<String>();
            tokens
                .iter()
                .map(|(id, t)| (id.0.to_string(), text(t)))
                .collect::<BTreeMap<_, _>>()
                .serialize(s)
        }
        pub fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<BTreeMap<RelationId, Vec<u8>>, D::Error> {
            let byte = |pair: &[u8]| {
                let text = std::str::from_utf8(pair).ok()?;
                (text.len() == 2)
                    .then(|| u8::from_str_radix(text, 16).ok())
                    .flatten()
            };
            BTreeMap::<String, String>::deserialize(d)?
                .into_iter()
                .map(|(id, text)| {
                    let id = id
                        .parse()
                        .map_err(|e| D::Error::custom(format!("\"{id}\" is not an id: {e}")))?;
                    let token: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
                    Ok((
                        RelationId(id),
                        token.ok_or_else(|| D::Error::custom("a sink token is not hex"))?,
                    ))
                })
                .collect()
        }
    }
}
