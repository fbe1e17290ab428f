//! A plan as it is stored: what ran before a restart runs after it, with the ids under which its state is kept.
//!
//! The form is JSON with a number. Expressions are DataFusion's protobuf in hexadecimal digits; schemas are Arrow IPC;
//! everything else is written as the types say. State tables are not stored but declared again, and compared with a
//! fingerprint of what was declared when the plan was made: a version that would keep an operator's state otherwise says
//! so instead of misreading it.
//!
//! A plan with an expression that has no stored form is kept as its *shape*: a hash and an id for each operator. Its query
//! is planned again at each start, and has to give operators of the same shape, which then get their ids back. The same
//! holds for plans stored by versions before there was a number. So whatever changes in the planner, state is found or
//! the plan is refused; it is never left behind silently.

use crate::{ColumnWatermarks, Dataflow, Edge, Node, Op, StateTable};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Expr;
use datafusion_proto::bytes::Serializeable;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_types::{OperatorId, RelationId};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The number of the form that this version writes. Fields may be added with a default under the same number.
pub const FORMAT: u32 = 1;

/// Why a stored plan cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the stored plan has format {found}, and this version reads formats up to {FORMAT}")]
    NewerFormat { found: u32 },
    #[error("the stored plan cannot be read: {0}")]
    Unreadable(String),
    /// State would be detached from its operators.
    #[error("{0}")]
    Changed(String),
}

/// What a stored plan says.
#[derive(Debug)]
pub enum Stored {
    Plan(Box<Dataflow>),
    /// The query has to be planned again, and the result to fit.
    Shape(Box<Shape>),
}

/// The operators of a plan, in order.
#[derive(Debug)]
pub struct Shape {
    contents: OperatorId,
    /// What the last operator does, which keeps to its predecessor's form and not to the planner's; with its inputs and
    /// its columns. `None` in plans from before there was a format.
    root: Option<(Op, Vec<Edge>, SchemaRef)>,
    /// `None` as the hash in plans from before there was a format: there the id is the hash.
    nodes: Vec<(OperatorId, Option<u64>)>,
}

#[derive(Serialize, Deserialize)]
struct Form {
    format: u32,
    relation: RelationId,
    name: String,
    contents: OperatorId,
    /// Expressions are text for people, and the query is planned again.
    replanned: bool,
    nodes: Vec<NodeForm>,
}

#[derive(Serialize, Deserialize)]
struct NodeForm {
    id: OperatorId,
    shape: u64,
    op: serde_json::Value,
    inputs: Vec<Edge>,
    schema: String,
    append_only: bool,
    unique_key: Option<Vec<usize>>,
    #[serde(default)]
    watermarks: ColumnWatermarks,
    /// A fingerprint of the state tables.
    state: u64,
}

/// Read before the rest, which another format may not have.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    format: u32,
}

/// From before there was a format.
#[derive(Deserialize)]
struct OldForm {
    nodes: Vec<OldNode>,
}

#[derive(Deserialize)]
struct OldNode {
    id: OperatorId,
}

enum Way {
    Writing,
    Reading(Arc<TaskContext>),
}

thread_local! {
    /// How expressions are written and read on this thread at the moment: serde hands nothing down to them.
    static WAY: RefCell<Option<Way>> = const { RefCell::new(None) };
}

fn on_the_way<T>(way: Way, work: impl FnOnce() -> T) -> T {
    WAY.with_borrow_mut(|w| *w = Some(way));
    let result = work();
    WAY.with_borrow_mut(|w| *w = None);
    result
}

pub(crate) fn is_writing() -> bool {
    WAY.with_borrow(|way| matches!(way, Some(Way::Writing)))
}

pub(crate) fn read_expr(text: &str) -> Result<Expr, String> {
    let functions = WAY.with_borrow(|way| match way {
        Some(Way::Reading(functions)) => Some(functions.clone()),
        _ => None,
    });
    let functions = functions.ok_or("an expression is read outside of a plan")?;
    let bytes = from_hex(text)?;
    Expr::from_bytes_with_ctx(&bytes, &functions).map_err(|e| e.to_string())
}

impl Dataflow {
    /// What a catalog keeps. `functions` are those that expressions are read back with.
    pub fn to_stored(&self, functions: &Arc<TaskContext>) -> String {
        let whole = self.form(false).ok().filter(|text| {
            // A function that is not found by its name would come back as another, or not at all.
            matches!(Stored::read(text, functions), Ok(Stored::Plan(read)) if *read == *self)
        });
        whole.unwrap_or_else(|| {
            self.form(true)
                .expect("operators as text for people are plain data")
        })
    }

    fn form(&self, replanned: bool) -> Result<String, PlanError> {
        let shapes = self.shapes();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (node, shape) in self.nodes.iter().zip(shapes) {
            let written = || serde_json::to_value(&node.op);
            let op = match replanned {
                true => written(),
                false => on_the_way(Way::Writing, written),
            };
            nodes.push(NodeForm {
                id: node.id,
                shape,
                op: op.map_err(unreadable)?,
                inputs: node.inputs.clone(),
                schema: schema_to_text(&node.schema).map_err(unreadable)?,
                append_only: node.append_only,
                unique_key: node.unique_key.clone(),
                watermarks: node.watermarks.clone(),
                state: fingerprint(&node.state),
            });
        }
        let form = Form {
            format: FORMAT,
            relation: self.relation,
            name: self.name.clone(),
            contents: self.contents,
            replanned,
            nodes,
        };
        serde_json::to_string(&form).map_err(unreadable)
    }

    /// For each node a hash of what it does and of the shapes of its inputs: equal for equal nodes, whatever their ids.
    pub fn shapes(&self) -> Vec<u64> {
        let mut shapes: Vec<u64> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let mut hash = Xxh3::new();
            hash.update(&serde_json::to_vec(&node.op).expect("an operator is plain data"));
            for edge in &node.inputs {
                hash.update(&shapes[edge.from].to_be_bytes());
                hash.update(format!("{:?}", edge.distribution).as_bytes());
            }
            hash.update(&[u8::from(node.append_only)]);
            shapes.push(hash.digest());
        }
        shapes
    }
}

impl Stored {
    pub fn read(text: &str, functions: &Arc<TaskContext>) -> Result<Self, PlanError> {
        let header: Header = serde_json::from_str(text).map_err(unreadable)?;
        match header.format {
            0 => {
                let old: OldForm = serde_json::from_str(text).map_err(unreadable)?;
                return Ok(Stored::Shape(Box::new(Shape {
                    contents: crate::CONTENTS,
                    root: None,
                    nodes: old.nodes.into_iter().map(|n| (n.id, None)).collect(),
                })));
            }
            FORMAT => {}
            found => return Err(PlanError::NewerFormat { found }),
        }
        let form: Form = serde_json::from_str(text).map_err(unreadable)?;
        if form.replanned {
            return form.shape().map(Box::new).map(Stored::Shape);
        }
        form.plan(functions).map(Box::new).map(Stored::Plan)
    }
}

/// The ids of a stored plan's operators in order, and of its contents: what tells two plans of a view apart.
pub fn ids_of(text: &str) -> Result<(Vec<OperatorId>, OperatorId), PlanError> {
    #[derive(Deserialize)]
    struct Ids {
        #[serde(default)]
        format: u32,
        contents: Option<OperatorId>,
        nodes: Vec<OldNode>,
    }
    let ids: Ids = serde_json::from_str(text).map_err(unreadable)?;
    if ids.format > FORMAT {
        return Err(PlanError::NewerFormat { found: ids.format });
    }
    let nodes = ids.nodes.into_iter().map(|n| n.id).collect();
    Ok((nodes, ids.contents.unwrap_or(crate::CONTENTS)))
}

impl Form {
    fn shape(mut self) -> Result<Shape, PlanError> {
        let nodes = self.nodes.iter().map(|n| (n.id, Some(n.shape))).collect();
        let root = self.nodes.pop();
        let root = root.ok_or_else(|| unreadable("it has no operators"))?;
        // It has no expressions.
        let op = serde_json::from_value(root.op).map_err(unreadable)?;
        let schema = schema_from_text(&root.schema).map_err(unreadable)?;
        Ok(Shape {
            contents: self.contents,
            root: Some((op, root.inputs, schema)),
            nodes,
        })
    }

    fn plan(self, functions: &Arc<TaskContext>) -> Result<Dataflow, PlanError> {
        let mut dataflow = Dataflow {
            relation: self.relation,
            name: self.name,
            nodes: Vec::with_capacity(self.nodes.len()),
            contents: self.contents,
        };
        let mut fingerprints = Vec::new();
        for (index, node) in self.nodes.into_iter().enumerate() {
            if node.inputs.iter().any(|edge| edge.from >= index) {
                return Err(unreadable("an operator comes before its input"));
            }
            let way = Way::Reading(functions.clone());
            let op: Op = on_the_way(way, || serde_json::from_value(node.op)).map_err(unreadable)?;
            fingerprints.push(node.state);
            dataflow.nodes.push(Node {
                id: node.id,
                op,
                inputs: node.inputs,
                schema: schema_from_text(&node.schema).map_err(unreadable)?,
                append_only: node.append_only,
                unique_key: node.unique_key,
                watermarks: node.watermarks,
                state: Vec::new(),
            });
        }
        if dataflow.nodes.is_empty() {
            return Err(unreadable("it has no operators"));
        }
        dataflow.declare_state();
        for (node, stored) in dataflow.nodes.iter().zip(fingerprints) {
            if fingerprint(&node.state) != stored {
                return Err(PlanError::Changed(format!(
                    "operator {} ({}) keeps its state in another form in this version",
                    node.id, node.op
                )));
            }
        }
        Ok(dataflow)
    }
}

impl Shape {
    /// Gives a plan that was made anew the ids of this one.
    pub fn restore_ids(&self, mut dataflow: Dataflow) -> Result<Dataflow, PlanError> {
        if let (Some((op, inputs, schema)), Some(node)) = (&self.root, dataflow.nodes.last_mut())
            && std::mem::discriminant(op) == std::mem::discriminant(&node.op)
            && schema.fields().len() == node.schema.fields().len()
        {
            node.op.clone_from(op);
            node.inputs.clone_from(inputs);
            node.schema = schema.clone();
        }
        let fits = dataflow.nodes.len() == self.nodes.len()
            && dataflow
                .nodes
                .iter()
                .zip(dataflow.shapes())
                .zip(&self.nodes)
                .all(|((node, shape), (id, stored))| match stored {
                    Some(stored) => shape == *stored,
                    None => node.id == *id,
                });
        if !fits {
            return Err(PlanError::Changed(
                "this version plans its query differently, so that its state would not be found"
                    .to_owned(),
            ));
        }
        for (node, (id, _)) in dataflow.nodes.iter_mut().zip(&self.nodes) {
            node.id = *id;
        }
        dataflow.contents = self.contents;
        Ok(dataflow)
    }
}

fn unreadable(why: impl ToString) -> PlanError {
    PlanError::Unreadable(why.to_string())
}

/// What decides how the tables of an operator are read.
fn fingerprint(tables: &[StateTable]) -> u64 {
    let mut text = String::new();
    for table in tables {
        text.push_str(&format!("{} {} ", table.name, table.map));
        for schema in [&table.key, &table.sub_key, &table.value] {
            describe(schema, &mut text);
        }
    }
    xxh3_64(text.as_bytes())
}

fn describe(schema: &Schema, text: &mut String) {
    for field in schema.fields() {
        let metadata: BTreeMap<_, _> = field.metadata().iter().collect();
        let (data_type, nullable) = (field.data_type(), field.is_nullable());
        text.push_str(&format!("{data_type} {nullable} {metadata:?},"));
    }
    let metadata: BTreeMap<_, _> = schema.metadata().iter().collect();
    text.push_str(&format!("{metadata:?};"));
}

fn schema_to_text(schema: &SchemaRef) -> Result<String, arrow::error::ArrowError> {
    let mut bytes = Vec::new();
    StreamWriter::try_new(&mut bytes, schema)?.finish()?;
    Ok(to_hex(&bytes))
}

fn schema_from_text(text: &str) -> Result<SchemaRef, String> {
    let bytes = from_hex(text)?;
    let reader = StreamReader::try_new(bytes.as_slice(), None).map_err(|e| e.to_string())?;
    Ok(reader.schema())
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdef";
    let pair = |b: &u8| [digits[usize::from(b >> 4)], digits[usize::from(b & 15)]];
    let digits = bytes.iter().flat_map(pair).map(char::from);
    digits.collect()
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).map_err(|e| e.to_string())?;
        u8::from_str_radix(pair, 16).map_err(|e| e.to_string())
    });
    bytes.collect()
}
