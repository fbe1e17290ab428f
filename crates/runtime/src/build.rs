//! A plan's nodes as timely operators, on one worker.
//!
//! Every worker builds every dataflow, in the same order, because timely numbers channels by position. Where a node has
//! work on one worker only (the log, constants, the single group of an aggregate without keys), the others build it too,
//! and it stays silent there.

use crate::command::{Inbox, Install, RestoredState};
use crate::driver::{
    Inlet, NodeContext, OperatorDriver, Outlet, WorkerFailure, show_restored_errors,
};
use crate::hub::{Hub, Tables};
use crate::in_flight;
use crate::input::InputPort;
use crate::input::reader::Waker;
use crate::input::shared_source::SourceReader;
use crate::input::source_import::{Beginning, ImportOf, SourceImport};
use crate::input::table::TableInput;
use crate::input::view_import::ViewImport;
use crate::packet::{ByKeyGroup, Packet};
use crate::root::RootDriver;
use crate::seed;
use crate::worker::on_behalf_of;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use tidegate_dataflow::{OperatorError, Port, factory};
use tidegate_plan::{Distribution, Edge, Node, Op};
use tidegate_state::{Form, Merge, Run, StateError, TableSpec, ViewSpec};
use tidegate_types::{Batch, Epoch, RelationId, TableId};
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::worker::Worker;

/// The index under which a driver's error table has its id: behind any that an operator declares.
const ERROR_TABLE: usize = 1000;
/// The same for the table of how far an input's event time has come. What is behind the errors is for rows in flight.
const EVENT_TIME_TABLE: usize = 999;

type Rows<'scope> = Stream<'scope, u64, Packet>;

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
    };
    worker.dataflow::<u64, _, _>(|scope| builder.nodes(scope))?;
    Ok(index)
}

struct Builder<'a> {
    hub: &'a Rc<Hub>,
    inbox: &'a Arc<Inbox>,
    install: &'a Arc<Install>,
    restored: RefCell<RestoredState>,
}

impl Builder<'_> {
    fn relation(&self) -> RelationId {
        self.install.spec.relation()
    }

    fn nodes<'scope>(&self, scope: Scope<'scope, u64>) -> Result<(), StateError> {
        let nodes = &self.install.spec.dataflow.nodes;
        // What stands is told anew from what is restored.
        self.hub.errors.forget(self.relation(), self.hub.worker);
        let mut consumers = vec![0; nodes.len()];
        for edge in nodes.iter().flat_map(|n| &n.inputs) {
            consumers[edge.from] += 1;
        }
        let mut streams: Vec<Option<Rows<'scope>>> = Vec::with_capacity(nodes.len());
        for (index, consumers) in consumers.into_iter().enumerate() {
            let stream = self.node(&scope, index, consumers, &streams)?;
            streams.push(stream);
        }
        Ok(())
    }

    fn node<'scope>(
        &self,
        scope: &Scope<'scope, u64>,
        index: usize,
        consumers: usize,
        streams: &[Option<Rows<'scope>>],
    ) -> Result<Option<Rows<'scope>>, StateError> {
        let node = &self.install.spec.dataflow.nodes[index];
        let name = format!("{} of {}", node.op, self.install.spec.dataflow.name);
        let mut builder = OperatorBuilder::new(name, *scope);
        let inlets: Vec<Inlet> = node
            .inputs
            .iter()
            .map(|edge| self.inlet(&mut builder, edge, streams))
            .collect();
        let context = NodeContext {
            hub: self.hub.clone(),
            credits: self.hub.credits_of(self.relation()),
            relation: self.relation(),
            relation_name: self.install.spec.dataflow.name.clone(),
            operator: node.id,
            activator: scope.activator_for(builder.operator_info().address),
            start: self.install.start.0,
            may_be_early: self
                .only_inserts(node)
                .then(|| self.install.spec.choices.clone()),
            in_flight: self.in_flight(node)?,
        };
        if let Op::Materialize { .. } | Op::Sink { .. } = node.op {
            self.root(builder, node, context, inlets)?;
            return Ok(None);
        }
        let (output, stream) = builder.new_output();
        let outlet = Outlet::new(output, consumers, self.hub.credits_of(self.relation()));
        match &node.op {
            Op::TableInput { .. } | Op::Source { .. } | Op::Import { .. } => {
                self.input(builder, scope, node, context, outlet)?;
            }
            _ => self.operator(builder, index, context, inlets, outlet)?,
        }
        Ok(Some(stream))
    }

    /// Whether nothing is ever retracted from the inputs of a node.
    fn only_inserts(&self, node: &Node) -> bool {
        let nodes = &self.install.spec.dataflow.nodes;
        node.inputs.iter().all(|edge| nodes[edge.from].append_only)
    }

    /// What this worker takes of the rows that a checkpoint's barrier had overtaken in front of a node.
    fn in_flight(&self, node: &Node) -> Result<Vec<(Port, Batch)>, StateError> {
        let table = in_flight::restored_table(self.relation(), node.id);
        match self.restored.borrow_mut().remove(&table) {
            Some(runs) => in_flight::unpack(&runs, &node.inputs, self.hub.worker, self.hub.workers),
            None => Ok(Vec::new()),
        }
    }

    /// An input of an operator, fed through an exchange where the plan asks for one.
    fn inlet<'scope>(
        &self,
        builder: &mut OperatorBuilder<'scope, u64>,
        edge: &Edge,
        streams: &[Option<Rows<'scope>>],
    ) -> Inlet {
        let stream = streams[edge.from]
            .clone()
            .expect("only roots have no output, and nothing reads them");
        match &edge.distribution {
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

    fn operator(
        &self,
        builder: OperatorBuilder<'_, u64>,
        index: usize,
        context: NodeContext,
        inlets: Vec<Inlet>,
        outlet: Outlet,
    ) -> Result<(), StateError> {
        let dataflow = &self.install.spec.dataflow;
        let node = &dataflow.nodes[index];
        let operator = factory::build(dataflow, index, self.hub.groups)
            .map_err(|e| self.cannot_build(node, &e))?;
        let tables = self.tables(node, true)?;
        {
            let tables = tables.borrow();
            let errors = tables.last().expect("the error table is the last");
            show_restored_errors(self.hub, self.relation(), node.id, errors.as_ref())?;
        }
        let relation = self.relation();
        builder.build(move |mut capabilities| {
            let capability = capabilities.pop().expect("one output has one capability");
            let mut driver =
                OperatorDriver::new(context, operator, tables, true, inlets, outlet, capability);
            move |frontiers| on_behalf_of(relation, || driver.run(frontiers))
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
        node: &Node,
        context: NodeContext,
        outlet: Outlet,
    ) -> Result<(), StateError> {
        let tables = self.position_table(node)?;
        let saved = match &node.op {
            Op::Import { relation, .. } if self.install.is_seeded => {
                let restored = self.restored.borrow();
                let saved = restored.get(&view_table(*relation)).cloned();
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
        let install = self.install.clone();
        let op = node.op.clone();
        builder.build_reschedule(move |mut capabilities| {
            let capability = capabilities.pop().expect("one output has one capability");
            let port = InputPort::new(context, tables, outlet, capability);
            let mut run = make_input(port, &op, &install, waker, saved);
            move |_| {
                on_behalf_of(install.spec.relation(), &mut run);
                // An input is never at its end by itself: a barrier may always come.
                true
            }
        });
        Ok(())
    }

    fn root(
        &self,
        builder: OperatorBuilder<'_, u64>,
        node: &Node,
        context: NodeContext,
        mut inlets: Vec<Inlet>,
    ) -> Result<(), StateError> {
        let inlet = inlets.pop().expect("a root has one input");
        let mut driver = match &node.op {
            Op::Materialize { key, .. } => {
                let store = self.view_store(node, key)?;
                let exporter = self.hub.exporter(self.relation());
                exporter.borrow_mut().store = Some(store.clone());
                RootDriver::materialize(context, inlet, store, exporter)
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
        let relation = self.relation();
        builder.build(move |_| move |frontiers| on_behalf_of(relation, || driver.run(frontiers)));
        Ok(())
    }

    fn view_store(
        &self,
        node: &Node,
        key: &[usize],
    ) -> Result<Arc<tidegate_state::ViewStore>, StateError> {
        let relation = self.relation();
        let spec = ViewSpec {
            table: view_table(relation),
            schema: node.schema.clone(),
            key: key.to_vec(),
            append_only: is_numbered(node, key),
        };
        let store = self
            .hub
            .backends
            .open_view(self.install.spec.backend, spec)?;
        for run in self
            .restored
            .borrow_mut()
            .remove(&view_table(relation))
            .unwrap_or_default()
        {
            match self.install.is_seeded {
                true => store.seed(Epoch(self.install.start.0 - 1), &run)?,
                false => store.restore(&run)?,
            }
        }
        let followed = &self.install.followers;
        for changes in followed.by.iter().filter_map(Weak::upgrade) {
            changes.follow(&store, followed.incarnation, followed.up_to)?;
        }
        self.hub.register_view(relation, &store);
        self.install.stores.lock()[self.hub.worker] = Some(store.clone());
        Ok(store)
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
        let mut tables = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut table = self
                .hub
                .backends
                .open_table(self.install.spec.backend, &spec)?;
            for run in self
                .restored
                .borrow_mut()
                .remove(&spec.id)
                .unwrap_or_default()
            {
                match self.install.is_seeded {
                    true => seed::write(table.as_mut(), &run, |_| true)?,
                    false => table.restore(&run)?,
                }
            }
            tables.push(table);
        }
        let tables: Tables = Rc::new(RefCell::new(tables));
        self.hub.register_tables(self.relation(), &tables);
        Ok(tables)
    }

    /// Where an input stands, and what a source could not decode: small tables, restored whole on every worker (each keeps
    /// to its own splits or groups).
    fn position_table(&self, node: &Node) -> Result<Tables, StateError> {
        let mut tables = Vec::new();
        for id in input_tables(self.relation(), node) {
            let spec = TableSpec {
                id,
                form: Form::Value,
                merge: Merge::Replace,
            };
            let backend = tidegate_state::BackendKind::Memory;
            let mut table = self.hub.backends.open_table(backend, &spec)?;
            for run in self
                .restored
                .borrow_mut()
                .remove(&spec.id)
                .unwrap_or_default()
            {
                if self.install.is_seeded {
                    let (groups, hub) = (self.hub.groups, self.hub);
                    seed::write(table.as_mut(), &run, |key| {
                        seed::owns_position(&node.op, key, groups, hub.worker, hub.workers)
                    })?;
                } else {
                    table.restore(&run)?;
                }
            }
            tables.push(table);
        }
        let tables: Tables = Rc::new(RefCell::new(tables));
        self.hub.register_tables(self.relation(), &tables);
        Ok(tables)
    }
}

/// The id of the table that is a view's contents.
pub(crate) fn view_table(relation: RelationId) -> TableId {
    TableId::of(relation, tidegate_types::OperatorId(0), 0)
}

/// Whether the rows of a view are kept by their numbers, in the order of arrival.
pub(crate) fn is_numbered(root: &Node, key: &[usize]) -> bool {
    root.append_only && key.is_empty()
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

fn make_input(
    port: InputPort,
    op: &Op,
    install: &Install,
    waker: Waker,
    saved: Option<Vec<Run>>,
) -> Box<dyn FnMut()> {
    let own = install.spec.relation();
    match op {
        Op::TableInput { .. } => {
            let mut input = TableInput::new(port, install.spec.event_time);
            Box::new(move || input.run())
        }
        Op::Source { relation, columns } => {
            let source = install.spec.connector(*relation);
            let relation_failed = |error: tidegate_connectors::ConnectorError| -> ! {
                std::panic::panic_any(WorkerFailure {
                    relation: Some(own),
                    message: error.to_string(),
                })
            };
            let event_time = install.spec.event_time_of(*relation);
            if *relation == own {
                match SourceReader::new(port, source, event_time, waker) {
                    Ok(mut reader) => Box::new(move || reader.run()),
                    Err(error) => relation_failed(error),
                }
            } else {
                let status = install.status.clone();
                let restored = match (install.is_restored, install.is_seeded) {
                    (false, false) => Beginning::AtTheStart,
                    (true, _) => Beginning::Restored,
                    (false, true) => Beginning::Seeded,
                };
                match SourceImport::new(
                    port,
                    ImportOf {
                        relation: *relation,
                        columns: columns.clone(),
                        source,
                        event_time,
                    },
                    restored,
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
            let mut import = ViewImport::new(
                port,
                *relation,
                columns.clone(),
                passed,
                install.status.clone(),
                saved,
            );
            Box::new(move || import.run())
        }
        other => unreachable!("{other} is no input"),
    }
}
