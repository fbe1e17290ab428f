//! `EXPLAIN`: the dataflow that would maintain a view, or how a query would run.

use super::{Session, text_rows};
use crate::api::{Response, RowsTag};
use crate::relations::parse_query;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::displayable;
use std::collections::HashMap;
use std::fmt::Write;
use tidegate_catalog::{RelationClass, RelationKind};
use tidegate_parser::sqlparser::ast;
use tidegate_parser::{Explain, ExplainFormat, ExplainView, Statement};
use tidegate_plan::{Dataflow, Op};
use tidegate_planner::{Planner, explain, operators};
use tidegate_runtime::OperatorState;
use tidegate_types::{OperatorId, RelationId, SqlError};

impl Session {
    pub(super) async fn explain(&mut self, request: &Explain) -> Result<Response, SqlError> {
        let of_query = matches!(request.statement.as_ref(), Statement::Sql(s) if matches!(s.as_ref(), ast::Statement::Query(_)));
        refuse(request.analyze && !of_query, request.format)?;
        let text = match request.statement.as_ref() {
            Statement::CreateMaterializedView(create) => {
                let mut names = self.names();
                names.system = None;
                let id = names.catalog.next_id();
                let name = tidegate_parser::name_parts(&create.name)
                    .pop()
                    .unwrap_or_default();
                let columns: Vec<String> =
                    create.columns.iter().map(tidegate_parser::fold).collect();
                let planned = Planner::new(&names, &create.query.text)
                    .emitting_on_close(create.emit_on_window_close)
                    .plan_materialized_view(
                        parse_query(&create.query.text)?,
                        &columns,
                        id,
                        &name,
                    )?;
                explain(&planned.dataflow, request.verbose, &|id| self.name_of(id))
            }
            Statement::AlterMaterializedView(alter) => {
                self.explain_alter(alter, &request.text).await?
            }
            Statement::Sql(statement) => match statement.as_ref() {
                ast::Statement::Query(query) => {
                    self.explain_query(query, &request.text, request.analyze)
                        .await?
                }
                other => {
                    return Err(SqlError::not_supported(format!(
                        "EXPLAIN of {}",
                        Statement::Sql(Box::new(other.clone())).tag()
                    )));
                }
            },
            other => {
                return Err(SqlError::not_supported(format!(
                    "EXPLAIN of {}",
                    other.tag()
                )));
            }
        };
        Ok(plan_lines(&text))
    }

    pub(super) async fn explain_view(
        &mut self,
        request: &ExplainView,
    ) -> Result<Response, SqlError> {
        refuse(false, request.format)?;
        let catalog = self.database.catalog.get();
        let name = tidegate_parser::name_parts(&request.name);
        let relation =
            catalog.resolve_class(&name, &self.path(), RelationClass::MaterializedView)?;
        let RelationKind::MaterializedView(_) = &relation.kind else {
            unreachable!("the class was asked for")
        };
        let spec = self
            .database
            .spec(&catalog, relation)?
            .ok_or_else(|| SqlError::internal("a view has a plan"))?;
        if request.analyze {
            let runtime = self.database.runtime()?;
            let states = runtime.operator_states_by_worker(relation.id).await?;
            let text = analyzed(&spec.dataflow, &states, request.verbose, &|id| {
                self.name_of(id)
            });
            return Ok(plan_lines(&text));
        }
        Ok(plan_lines(&explain(
            &spec.dataflow,
            request.verbose,
            &|id| self.name_of(id),
        )))
    }

    pub(super) fn name_of(&self, id: RelationId) -> Option<String> {
        self.database
            .catalog
            .get()
            .relation(id)
            .map(|r| r.name.clone())
    }

    /// How DataFusion would run a query, or, having run it, how it did.
    async fn explain_query(
        &mut self,
        query: &ast::Query,
        text: &str,
        analyze: bool,
    ) -> Result<String, SqlError> {
        let names = self.names();
        let mut query = query.clone();
        crate::system::rewrite::rewrite(&mut query);
        let planned = Planner::new(&names, text).query(query, &[])?;
        let reading = self.reading(&super::relations_of(&planned.plan)).await?;
        let physical = self.physical_plan(planned, &reading, text).await?;
        if !analyze {
            return Ok(displayable(physical.as_ref()).indent(false).to_string());
        }
        let began = std::time::Instant::now();
        let batches = self.run_to_end(physical.clone(), text).await?;
        let rows: usize = batches.iter().map(|b| b.num_rows()).sum();
        let took = began.elapsed().as_secs_f64() * 1e3;
        let plan = DisplayableExecutionPlan::with_metrics(physical.as_ref());
        Ok(format!(
            "{}Rows: {rows}\nExecution Time: {took:.3} ms",
            plan.indent(false)
        ))
    }
}

/// What each operator has done since its worker was started, and what it keeps: summed up, and in the verbose form of each
/// worker.
fn analyzed(
    dataflow: &Dataflow,
    states: &HashMap<OperatorId, Vec<OperatorState>>,
    verbose: bool,
    name: &dyn Fn(RelationId) -> Option<String>,
) -> String {
    let mut text = String::new();
    for (index, depth, operator) in operators(dataflow, name) {
        let node = &dataflow.nodes[index];
        let of_workers = states.get(&node.id).map_or(&[][..], Vec::as_slice);
        let mut sum = OperatorState::default();
        of_workers.iter().for_each(|state| sum += *state);
        let keeps = !node.state.is_empty() || matches!(node.op, Op::Materialize { .. });
        let indent = depth * 2;
        let _ = writeln!(text, "{:indent$}{operator}  {}", "", measured(&sum, keeps));
        for (worker, state) in of_workers.iter().enumerate().filter(|_| verbose) {
            let measured = measured(state, keeps);
            let _ = writeln!(text, "{:indent$}    worker {worker}: {measured}", "");
        }
    }
    text
}

fn measured(state: &OperatorState, keeps: bool) -> String {
    let work = &state.work;
    let time = work.busy.as_secs_f64() * 1e3;
    let (rows_in, rows_out) = (work.rows_in, work.rows_out);
    let mut text = format!("(rows in={rows_in} out={rows_out} time={time:.3} ms)");
    if keeps {
        let _ = write!(text, " (state rows={} bytes={})", state.rows, state.bytes);
    }
    text
}

fn refuse(analyze: bool, format: ExplainFormat) -> Result<(), SqlError> {
    if analyze {
        return Err(SqlError::not_supported("EXPLAIN ANALYZE"));
    }
    if format != ExplainFormat::Text {
        return Err(SqlError::not_supported("EXPLAIN in this format"));
    }
    Ok(())
}

fn plan_lines(text: &str) -> Response {
    let lines = text
        .lines()
        .map(|line| vec![Some(line.to_owned())])
        .collect();
    text_rows(&["QUERY PLAN"], lines, RowsTag::Plain("EXPLAIN"))
}
