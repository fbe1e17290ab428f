//! `EXPLAIN`: the dataflow that would maintain a view, or how a query would run.

use super::{Session, text_rows};
use crate::api::{Response, RowsTag};
use crate::relations::parse_query;
use datafusion::physical_plan::displayable;
use tidegate_catalog::{RelationClass, RelationKind};
use tidegate_parser::sqlparser::ast;
use tidegate_parser::{Explain, ExplainFormat, ExplainView, Statement};
use tidegate_planner::{Planner, explain};
use tidegate_types::{RelationId, SqlError};

impl Session {
    pub(super) async fn explain(&mut self, request: &Explain) -> Result<Response, SqlError> {
        refuse(request.analyze, request.format)?;
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
                let planned = Planner::new(&names, &create.query.text).plan_materialized_view(
                    parse_query(&create.query.text)?,
                    &columns,
                    id,
                    &name,
                )?;
                explain(&planned.dataflow, request.verbose, &|id| self.name_of(id))
            }
            Statement::Sql(statement) => match statement.as_ref() {
                ast::Statement::Query(query) => self.explain_query(query, &request.text).await?,
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

    pub(super) fn explain_view(&mut self, request: &ExplainView) -> Result<Response, SqlError> {
        refuse(request.analyze, request.format)?;
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
        Ok(plan_lines(&explain(
            &spec.dataflow,
            request.verbose,
            &|id| self.name_of(id),
        )))
    }

    fn name_of(&self, id: RelationId) -> Option<String> {
        self.database
            .catalog
            .get()
            .relation(id)
            .map(|r| r.name.clone())
    }

    async fn explain_query(&mut self, query: &ast::Query, text: &str) -> Result<String, SqlError> {
        let names = self.names();
        let mut query = query.clone();
        crate::system::rewrite::rewrite(&mut query);
        let planned = Planner::new(&names, text).query(query, &[])?;
        let reading = self.reading(&super::relations_of(&planned.plan)).await?;
        let physical = self.physical_plan(planned, &reading, text).await?;
        Ok(displayable(physical.as_ref()).indent(false).to_string())
    }
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
