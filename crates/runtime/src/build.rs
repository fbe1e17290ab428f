//! A plan's nodes as timely operators, on one worker.
//!
//! Every worker builds every dataflow, in the same order, because timely numbers channels by position. Where a node has
//! work on one worker only (the log, constants, the single group of an aggregate without keys), the others build it too,
//! and it stays silent there.

use crate::command::{Arriving, Inbox, Install, RestoredState};
use crate::driver::{
    Inlet, NodeContext, OperatorDriver, Outlet, WorkerFailure, show_restored_errors,
};
use crate::hub::{Hub, Tables};
use crate::in_flight;
use crate::input::InputPort;
use crate::input::event_time;
use crate::input::reader::Waker;
use crate::input::shared_source::SourceReader;
use crate::input::source_import::{Beginning, ImportOf, SourceImport};
use crate::input::table::TableInput;
use crate::input::view_import::ViewImport;
use crate::packet::{ByKeyGroup, Packet};
use crate::root::RootDriver;
use crate::seed;
use crate::spec::RelationSpec;
use crate::status::RelationStatus;
use crate::taking_over::{First, TakingOver};
use crate::worker::on_behalf_of;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use tidegate_dataflow::{OperatorError, Port, factory};
use tidegate_plan::{Dataflow, Distribution, Edge, Node, Op};
use tidegate_state::{
    BackendKind, Form, Merge, Run, StateError, Table, TableSpec, ViewSpec, ViewStore,
};
use tidegate_types::{Batch, Epoch, OperatorId, RelationId, TableId};
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::worker::Worker;

/// The index under which a driver's error table has its id: behind any that an operator declares.
const ERROR_TABLE: usize = 1000;
/// The same for the table of how far an input's event time has come. What is behind the errors is for rows in flight.
const EVENT_TIME_TABLE: usize = 999;

type Rows<'scope> = Stream<'scope, u64, Packet>;

/// State tables that a dataflow takes over from the one in whose place it is built.
type Inherited = HashMap<TableId, Box<dyn Table>>;

/// Installs a relation's dataflow; answers its index, by which it can be dropped.
pub(crate) fn install(
    worker: &mut Worker,
    hub: &Rc<Hub>,
    inbox: &Arc<Inbox>,
    install: &Arc<Install>,
) -> Result<usize, StateError> {
    let index = worker.next_dataflow_index();
    let restored = std::mem::take(&mut *install.restored[hub.worker].lock());
    let builder = Builder {
        hub,
        inbox,
        install,
        restored: RefCell::new(restored),
        inherited: RefCell::default(),
        taking_over: RefCell::default(),
    };
    worker.dataflow::<u64, _, _>(|scope| builder.nodes(scope))?;
    Ok(index)
}

/// Installs a dataflow in the place of one that is gone, with its state tables; what nobody takes is removed.
pub(crate) fn replace(
    worker: &mut Worker,
    hub: &Rc<Hub>,
    inbox: &Arc<Inbox>,
    install: &Arc<Install>,
    inherited: Inherited,
) -> Result<usize, StateError> {
    let index = worker.next_dataflow_index();
    let taking_over = match &install.takes_over {
        Some(takes_over) => Some(TakingOver::new(hub, install, takes_over)?),
        None => None,
    };
    let builder = Builder {
        hub,
        inbox,
        install,
        restored: RefCell::default(),
        inherited: RefCell::new(inherited),
        taking_over: RefCell::new(taking_over),
    };
    worker.dataflow::<u64, _, _>(|scope| builder.nodes(scope))?;
    for table in builder.inherited.into_inner().into_keys() {
        hub.backends.drop_table(install.spec.backend, table);
    }
    Ok(index)
}

/// The streams of a dataflow under construction, by operator.
#[derive(Default)]
struct Streams<'scope> {
    rows: HashMap<OperatorId, Rows<'scope>>,
    /// The present output of operators that tell it.
    told: HashMap<OperatorId, Rows<'scope>>,
    /// How many inputs each operator feeds.
    consumers: HashMap<OperatorId, usize>,
    /// Those whose present output has to be told to what is built above them.
    telling: HashSet<OperatorId>,
}

/// Which of a relation's plans a node belongs to.
#[derive(Clone, Copy)]
enum Part<'a> {
    Standing(&'a Dataflow),
    /// Only being built.
    Arriving(&'a Arriving),
}

impl<'a> Part<'a> {
    fn dataflow(self) -> &'a Dataflow {
        match self {
            Part::Standing(dataflow) => dataflow,
            Part::Arriving(arriving) => &arriving.spec.dataflow,
        }
    }

    fn is_standing(self) -> bool {
        matches!(self, Part::Standing(_))
    }
}

struct Builder<'a> {
    hub: &'a Rc<Hub>,
    inbox: &'a Arc<Inbox>,
    install: &'a Arc<Install>,
    restored: RefCell<RestoredState>,
    inherited: RefCell<Inherited>,
    taking_over: RefCell<Option<TakingOver>>,
}

impl Builder<'_> {
    fn relation(&self) -> RelationId {
        self.install.spec.relation()
    }

    fn nodes<'scope>(&self, scope: Scope<'scope, u64>) -> Result<(), StateError> {
        // What stands is told anew from what is restored.
        self.hub.errors.forget(self.relation(), self.hub.worker);
        let standing = &self.install.spec.dataflow;
        let mut streams = Streams::default();
        for edge in standing.nodes.iter().flat_map(|n| &n.inputs) {
            let from = standing.nodes[edge.from].id;
            *streams.consumers.entry(from).or_default() += 1;
        }
        let mut work: Vec<(Part<'_>, usize)> = (0..standing.nodes.len())
            .map(|index| (Part::Standing(standing), index))
            .collect();
        if let Some(arriving) = &self.install.arriving {
            let kept: HashSet<OperatorId> = standing.nodes.iter().map(|n| n.id).collect();
            let dataflow = &arriving.spec.dataflow;
            for (index, node) in dataflow.nodes.iter().enumerate() {
                if kept.contains(&node.id) {
                    continue;
                }
                work.push((Part::Arriving(arriving), index));
                for edge in &node.inputs {
                    let from = dataflow.nodes[edge.from].id;
                    *streams.consumers.entry(from).or_default() += 1;
                    if kept.contains(&from) {
                        streams.telling.insert(from);
                    }
                }
            }
        }
        for (part, index) in work {
            self.node(&scope, part, index, &mut streams)?;
        }
        Ok(())
    }

    fn node<'scope>(
        &self,
        scope: &Scope<'scope, u64>,
        part: Part<'_>,
        index: usize,
        streams: &mut Streams<'scope>,
    ) -> Result<(), StateError> {
        let dataflow = part.dataflow();
        let node = &dataflow.nodes[index];
        let name = format!("{} of {}", node.op, dataflow.name);
        let mut builder = OperatorBuilder::new(name, *scope);
        let inlets: Vec<Inlet> = node
            .inputs
            .iter()
            .map(|edge| self.inlet(&mut builder, part, edge, streams))
            .collect();
        let context = NodeContext {
            hub: self.hub.clone(),
            credits: self.hub.credits_of(self.relation()),
            work: self.hub.work_of(self.relation(), node.id),
            relation: self.relation(),
            relation_name: dataflow.name.clone(),
            operator: node.id,
            activator: scope.activator_for(builder.operator_info().address),
            start: self.install.start.0,
            may_be_early: only_inserts(dataflow, node).then(|| self.install.spec.choices.clone()),
            is_durable: part.is_standing(),
            in_flight: self.in_flight(node)?,
        };
        if let Op::Materialize { .. } | Op::Sink { .. } = node.op {
            return self.root(builder, part, node, context, inlets);
        }
        let credits = || self.hub.credits_of(self.relation());
        let consumers = streams.consumers.get(&node.id).copied().unwrap_or(0);
        let (output, stream) = builder.new_output();
        let outlet = Outlet::new(output, consumers, credits(), context.work.clone());
        streams.rows.insert(node.id, stream);
        let mut telling = None;
        if part.is_standing() && streams.telling.contains(&node.id) {
            let (output, stream) = builder.new_output();
            telling = Some(Outlet::new(output, 1, credits(), context.work.clone()));
            streams.told.insert(node.id, stream);
        }
        match &node.op {
            Op::TableInput { .. } | Op::Source { .. } | Op::Import { .. } => {
                self.input(builder, scope, part, node, context, outlet)
            }
            _ => self.operator(builder, dataflow, index, context, inlets, (outlet, telling)),
        }
    }

    /// What this worker takes of the rows that a checkpoint's barrier had overtaken in front of a node.
    fn in_flight(&self, node: &Node) -> Result<Vec<(Port, Batch)>, StateError> {
        let table = in_flight::restored_table(self.relation(), node.id);
        match self.restored.borrow_mut().remove(&table) {
            Some(runs) => in_flight::unpack(&runs, &node.inputs, self.hub.worker, self.hub.workers),
            None => Ok(Vec::new()),
        }
    }

    /// An input of an operator, fed through an exchange where the plan asks for one. What an operator that goes on tells
    /// of its present output comes in front of its changes.
    fn inlet<'scope>(
        &self,
        builder: &mut OperatorBuilder<'scope, u64>,
        part: Part<'_>,
        edge: &Edge,
        streams: &Streams<'scope>,
    ) -> Inlet {
        let from = part.dataflow().nodes[edge.from].id;
        let stream = streams.rows.get(&from);
        let stream = stream.expect("only roots have no output, and nothing reads them");
        let mut changes = connect(builder, stream.clone(), &edge.distribution);
        match streams.told.get(&from).filter(|_| !part.is_standing()) {
            None => changes,
            Some(told) => {
                let mut told = connect(builder, told.clone(), &edge.distribution);
                Box::new(move |take| {
                    told(take);
                    changes(take);
                })
            }
        }
    }

    fn operator(
        &self,
        builder: OperatorBuilder<'_, u64>,
        dataflow: &Dataflow,
        index: usize,
        context: NodeContext,
        inlets: Vec<Inlet>,
        (outlet, telling): (Outlet, Option<Outlet>),
    ) -> Result<(), StateError> {
        let node = &dataflow.nodes[index];
        let operator = factory::build(dataflow, index, self.hub.groups)
            .map_err(|e| self.cannot_build(node, &e))?;
        let tables = self.tables(node, true)?;
        if context.is_durable {
            let tables = tables.borrow();
            let errors = tables.last().expect("the error table is the last");
            show_restored_errors(self.hub, self.relation(), node.id, errors.as_ref())?;
        }
        let (relation, work) = (self.relation(), context.work.clone());
        builder.build(move |mut capabilities| {
            let told_at = telling.is_some().then(|| capabilities.pop()).flatten();
            let capability = capabilities.pop().expect("an output has a capability");
            let mut driver =
                OperatorDriver::new(context, operator, tables, true, inlets, outlet, capability);
            if let (Some(telling), Some(capability)) = (telling, told_at) {
                driver = driver.with_replay(telling, capability);
            }
            move |frontiers| on_behalf_of(relation, || work.timed(|| driver.run(frontiers)))
        });
        Ok(())
    }

    fn cannot_build(&self, node: &Node, error: &OperatorError) -> StateError {
        std::panic::panic_any(WorkerFailure {
            relation: Some(self.relation()),
            message: format!("{} cannot be built: {error}", node.op),
        })
    }

    fn input(
        &self,
        builder: OperatorBuilder<'_, u64>,
        scope: &Scope<'_, u64>,
        part: Part<'_>,
        node: &Node,
        context: NodeContext,
        outlet: Outlet,
    ) -> Result<(), StateError> {
        let (tables, is_inherited) = self.position_table(node)?;
        let saved = match &node.op {
            Op::Import { relation, .. } if self.install.is_seeded && part.is_standing() => {
                let restored = self.restored.borrow();
                let saved = restored.get(&saved_input(*relation)).cloned();
                Some(saved.unwrap_or_default())
            }
            _ => None,
        };
        let waker = Waker {
            activator: scope
                .worker()
                .sync_activator_for(builder.operator_info().address.to_vec()),
            inbox: self.inbox.clone(),
        };
        let (spec, status, beginning) = match part {
            Part::Standing(_) => {
                let is_restored = is_inherited || self.install.is_restored;
                let beginning = match (is_restored, self.install.is_seeded) {
                    (true, _) => Beginning::Restored,
                    (false, true) => Beginning::Seeded,
                    (false, false) => Beginning::AtTheStart,
                };
                (&self.install.spec, &self.install.status, beginning)
            }
            Part::Arriving(arriving) => (&arriving.spec, &arriving.status, Beginning::AtTheStart),
        };
        let (spec, status) = (spec.clone(), status.clone());
        let (op, work) = (node.op.clone(), context.work.clone());
        builder.build_reschedule(move |mut capabilities| {
            let capability = capabilities.pop().expect("one output has one capability");
            let port = InputPort::new(context, tables, outlet, capability);
            let relation = spec.relation();
            let feed = Feed {
                spec,
                status,
                beginning,
                saved,
            };
            let mut run = make_input(port, &op, feed, waker);
            move |_| {
                on_behalf_of(relation, || work.timed(&mut run));
                // An input is never at its end by itself: a barrier may always come.
                true
            }
        });
        Ok(())
    }

    fn root(
        &self,
        builder: OperatorBuilder<'_, u64>,
        part: Part<'_>,
        node: &Node,
        context: NodeContext,
        mut inlets: Vec<Inlet>,
    ) -> Result<(), StateError> {
        let inlet = inlets.pop().expect("a root has one input");
        let (relation, work) = (self.relation(), context.work.clone());
        let mut driver = match (&node.op, part) {
            (Op::Materialize { key, .. }, Part::Arriving(arriving)) => {
                let table = arriving_table(&self.install.spec.dataflow, &arriving.spec.dataflow);
                let store = self.open_view(node, key, table)?;
                arriving.stores.lock()[self.hub.worker] = Some(store.clone());
                RootDriver::collect(context, inlet, store)
            }
            (Op::Materialize { key, .. }, Part::Standing(dataflow)) => {
                let taking_over = self.taking_over.borrow_mut().take();
                let (store, first) = match taking_over {
                    Some(TakingOver { store, first }) => (store, first),
                    None => (self.view_store(dataflow, node, key)?, First::default()),
                };
                self.hub.register_view(self.relation(), &store);
                self.install.stores.lock()[self.hub.worker] = Some(store.clone());
                let exporter = self.hub.exporter(self.relation());
                exporter.borrow_mut().store = Some(store.clone());
                RootDriver::materialize(context, inlet, store, exporter, first)
            }
            _ => {
                let sink = self
                    .install
                    .spec
                    .sink
                    .as_ref()
                    .expect("a sink's dataflow comes with its connector");
                match sink.open(self.hub.worker) {
                    Ok(writer) => RootDriver::sink(context, inlet, writer),
                    Err(error) => context.fail(error),
                }
            }
        };
        builder.build(move |_| {
            move |frontiers| on_behalf_of(relation, || work.timed(|| driver.run(frontiers)))
        });
        Ok(())
    }

    /// The store of a view's rows: the one that there is, or a new one with what is restored.
    fn view_store(
        &self,
        dataflow: &Dataflow,
        node: &Node,
        key: &[usize],
    ) -> Result<Arc<ViewStore>, StateError> {
        if let Some(store) = self.hub.view(self.relation()) {
            return Ok(store);
        }
        let table = view_table(dataflow);
        let store = self.open_view(node, key, table)?;
        let restored = self.restored.borrow_mut().remove(&table);
        for run in restored.unwrap_or_default() {
            match self.install.is_seeded {
                true => store.seed(Epoch(self.install.start.0 - 1), &run)?,
                false => store.restore(&run)?,
            }
        }
        let followed = &self.install.followers;
        for changes in followed.by.iter().filter_map(Weak::upgrade) {
            changes.follow(&store, followed.incarnation, followed.up_to)?;
        }
        Ok(store)
    }

    fn open_view(
        &self,
        node: &Node,
        key: &[usize],
        table: TableId,
    ) -> Result<Arc<ViewStore>, StateError> {
        let spec = ViewSpec {
            table,
            schema: node.schema.clone(),
            key: key.to_vec(),
            append_only: is_numbered(node, key),
        };
        self.hub.backends.open_view(self.install.spec.backend, spec)
    }

    /// The declared state tables of a node, restored, and behind them the table of its errors.
    fn tables(&self, node: &Node, with_errors: bool) -> Result<Tables, StateError> {
        let mut specs: Vec<TableSpec> = node
            .state
            .iter()
            .enumerate()
            .map(|(index, table)| TableSpec {
                id: TableId::of(self.relation(), node.id, index),
                form: if table.map { Form::Map } else { Form::Value },
                merge: Merge::Replace,
            })
            .collect();
        if with_errors {
            let id = error_table(self.relation(), node);
            specs.push(TableSpec {
                id,
                form: Form::Value,
                merge: Merge::Replace,
            });
        }
        let backend = self.install.spec.backend;
        let mut tables = Vec::with_capacity(specs.len());
        for spec in &specs {
            tables.push(self.table(backend, spec, &|_| true)?.0);
        }
        let tables: Tables = Rc::new(RefCell::new(tables));
        let ids = specs.into_iter().map(|spec| spec.id).collect();
        self.hub.register_tables(self.relation(), ids, &tables);
        Ok(tables)
    }

    /// A table that is taken over, or else a new one with what is restored; and which of both. Of saved state it is given
    /// what it `owns`.
    fn table(
        &self,
        backend: BackendKind,
        spec: &TableSpec,
        owns: &dyn Fn(&[u8]) -> bool,
    ) -> Result<(Box<dyn Table>, bool), StateError> {
        if let Some(table) = self.inherited.borrow_mut().remove(&spec.id) {
            return Ok((table, true));
        }
        let mut table = self.hub.backends.open_table(backend, spec)?;
        let restored = self.restored.borrow_mut().remove(&spec.id);
        for run in restored.unwrap_or_default() {
            match self.install.is_seeded {
                true => seed::write(table.as_mut(), &run, owns)?,
                false => table.restore(&run)?,
            }
        }
        Ok((table, false))
    }

    /// Where an input stands, and what a source could not decode: small tables, restored whole on every worker (each keeps
    /// to its own splits or groups).
    /// Answers too whether they are taken over.
    fn position_table(&self, node: &Node) -> Result<(Tables, bool), StateError> {
        let ids = input_tables(self.relation(), node);
        let mut tables = Vec::new();
        let mut is_inherited = false;
        for id in &ids {
            let spec = TableSpec {
                id: *id,
                form: Form::Value,
                merge: Merge::Replace,
            };
            let (groups, hub) = (self.hub.groups, self.hub);
            let of_times = has_event_time(node) && *id == event_time_table(self.relation(), node);
            let owns = |key: &[u8]| match of_times {
                true => event_time::owns(key, hub.worker, hub.workers),
                false => seed::owns_position(&node.op, key, groups, hub.worker, hub.workers),
            };
            let (table, inherited) = self.table(BackendKind::Memory, &spec, &owns)?;
            is_inherited |= inherited;
            tables.push(table);
        }
        let tables: Tables = Rc::new(RefCell::new(tables));
        self.hub.register_tables(self.relation(), ids, &tables);
        Ok((tables, is_inherited))
    }
}

/// Whether nothing is ever retracted from the inputs of a node.
fn only_inserts(dataflow: &Dataflow, node: &Node) -> bool {
    let nodes = &dataflow.nodes;
    node.inputs.iter().all(|edge| nodes[edge.from].append_only)
}

fn connect<'scope>(
    builder: &mut OperatorBuilder<'scope, u64>,
    stream: Rows<'scope>,
    distribution: &Distribution,
) -> Inlet {
    match distribution {
        Distribution::Any => {
            let mut input = builder.new_input(stream, Pipeline);
            Box::new(move |take| {
                input.for_each(|capability, packet| {
                    if let Some(batch) = packet.take() {
                        take(*capability.time(), batch);
                    }
                });
            })
        }
        Distribution::Key(columns) => {
            let columns = columns.clone();
            let pact = DistributorPact(move |workers| ByKeyGroup::new(columns, workers));
            let mut input = builder.new_input(stream, pact);
            Box::new(move |take| {
                input.for_each(|capability, packet| {
                    if let Some(batch) = packet.take() {
                        take(*capability.time(), batch);
                    }
                });
            })
        }
    }
}

/// The id of the table that is a view's contents.
pub(crate) fn view_table(dataflow: &Dataflow) -> TableId {
    TableId::of(dataflow.relation, dataflow.contents, 0)
}

/// The id of the table in which the rows of a plan are collected that is to take over. They become the view's contents
/// where it cannot keep the old ones.
fn arriving_table(standing: &Dataflow, arriving: &Dataflow) -> TableId {
    match standing.contents == arriving.contents {
        true => TableId::of(arriving.relation, arriving.root().id, 0),
        false => view_table(arriving),
    }
}

/// Whether the rows of a view are kept by their numbers, in the order of arrival.
pub(crate) fn is_numbered(root: &Node, key: &[usize]) -> bool {
    root.append_only && key.is_empty()
}

/// The id under which a relation that begins with a savepoint finds the rows that one of its inputs had there.
pub(crate) fn saved_input(input: RelationId) -> TableId {
    TableId::of(input, tidegate_plan::CONTENTS, 0)
}

/// The id of the table in which an input keeps its position.
pub(crate) fn position_table(relation: RelationId, node: &Node) -> TableId {
    TableId::of(relation, node.id, 0)
}

/// The id of the table in which a driver keeps its operator's failed rows.
pub(crate) fn error_table(relation: RelationId, node: &Node) -> TableId {
    TableId::of(relation, node.id, ERROR_TABLE)
}

/// The tables of a dataflow that every worker restores whole.
pub(crate) fn position_tables(dataflow: &tidegate_plan::Dataflow) -> Vec<TableId> {
    let inputs = dataflow.nodes.iter().filter(|n| {
        matches!(
            n.op,
            Op::Source { .. } | Op::Import { .. } | Op::TableInput { .. }
        )
    });
    inputs
        .flat_map(|node| input_tables(dataflow.relation, node))
        .collect()
}

/// The id of the table of how far an input's event time has come.
pub(crate) fn event_time_table(relation: RelationId, node: &Node) -> TableId {
    TableId::of(relation, node.id, EVENT_TIME_TABLE)
}

/// The tables of an input: its position, what a source's own reader could not decode, and last its event time.
fn input_tables(relation: RelationId, node: &Node) -> Vec<TableId> {
    let mut tables = Vec::new();
    if !matches!(node.op, Op::TableInput { .. }) {
        tables.push(position_table(relation, node));
    }
    if is_reader(relation, node) {
        tables.push(error_table(relation, node));
    }
    if has_event_time(node) {
        tables.push(event_time_table(relation, node));
    }
    tables
}

/// Whether rows of an input may have to be told late.
pub(crate) fn has_event_time(node: &Node) -> bool {
    matches!(node.op, Op::Source { .. } | Op::TableInput { .. })
}

/// Whether this is the source's own reader, and not a view's end of it.
pub(crate) fn is_reader(relation: RelationId, node: &Node) -> bool {
    matches!(&node.op, Op::Source { relation: source, .. } if *source == relation)
}

/// From where an input is fed.
struct Feed {
    spec: RelationSpec,
    status: Arc<RelationStatus>,
    beginning: Beginning,
    /// The rows that an imported view had in a savepoint from which this one begins.
    saved: Option<Vec<Run>>,
}

fn make_input(port: InputPort, op: &Op, feed: Feed, waker: Waker) -> Box<dyn FnMut()> {
    let Feed {
        spec,
        status,
        beginning,
        saved,
    } = feed;
    let own = spec.relation();
    match op {
        Op::TableInput { .. } => {
            let mut input = TableInput::new(port, spec.event_time);
            Box::new(move || input.run())
        }
        Op::Source { relation, columns } => {
            let source = spec.connector(*relation);
            let relation_failed = |error: tidegate_connectors::ConnectorError| -> ! {
                std::panic::panic_any(WorkerFailure {
                    relation: Some(own),
                    message: error.to_string(),
                })
            };
            let event_time = spec.event_time_of(*relation);
            if *relation == own {
                match SourceReader::new(port, source, event_time, waker) {
                    Ok(mut reader) => Box::new(move || reader.run()),
                    Err(error) => relation_failed(error),
                }
            } else {
                match SourceImport::new(
                    port,
                    ImportOf {
                        relation: *relation,
                        columns: columns.clone(),
                        source,
                        event_time,
                    },
                    beginning,
                    waker,
                    status,
                ) {
                    Ok(mut import) => Box::new(move || import.run()),
                    Err(error) => relation_failed(error),
                }
            }
        }
        Op::Import { relation, columns } => {
            let passed = port.cx.hub.passed_by(*relation);
            let mut import =
                ViewImport::new(port, *relation, columns.clone(), passed, status, saved);
            Box::new(move || import.run())
        }
        other => unreachable!("{other} is no input"),
    }
}
