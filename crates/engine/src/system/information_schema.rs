//! `information_schema`, as far as tools ask for it. Materialized views are listed here too, which Postgres does not do:
//! tools that look nowhere else would not find them.

use super::pg_catalog::{key_name, keyed, schema_names, view_definition};
use super::relation::{Rows, SystemRelation};
use super::row::Row;
use super::scope::Scope;
use super::types;
use tidegate_catalog::{Relation, RelationKind};
use tidegate_types::SqlType;

const fn table(
    name: &'static str,
    columns: &'static str,
    rows: Option<fn(&Scope) -> Rows>,
) -> SystemRelation {
    SystemRelation {
        schema: "information_schema",
        name,
        columns,
        rows,
    }
}

pub(super) const RELATIONS: &[SystemRelation] = &[
    table(
        "tables",
        "table_catalog name, table_schema name, table_name name, table_type text, self_referencing_column_name name, \
         reference_generation text, user_defined_type_catalog name, user_defined_type_schema name, \
         user_defined_type_name name, is_insertable_into text, is_typed text = NO, commit_action text",
        Some(tables),
    ),
    table(
        "columns",
        "table_catalog name, table_schema name, table_name name, column_name name, ordinal_position int4, \
         column_default text, is_nullable text, data_type text, character_maximum_length int4, \
         character_octet_length int4, numeric_precision int4, numeric_precision_radix int4, numeric_scale int4, \
         datetime_precision int4, interval_type text, interval_precision int4, character_set_name name, \
         collation_name name, domain_name name, udt_catalog name, udt_schema name = pg_catalog, udt_name name, \
         dtd_identifier name, is_self_referencing text = NO, is_identity text = NO, identity_generation text, \
         is_generated text, generation_expression text, is_updatable text",
        Some(columns),
    ),
    table(
        "schemata",
        "catalog_name name, schema_name name, schema_owner name, default_character_set_catalog name, \
         default_character_set_schema name, default_character_set_name name, sql_path text",
        Some(schemata),
    ),
    table(
        "views",
        "table_catalog name, table_schema name, table_name name, view_definition text, check_option text = NONE, \
         is_updatable text = NO, is_insertable_into text = NO, is_trigger_updatable text = NO, \
         is_trigger_deletable text = NO, is_trigger_insertable_into text = NO",
        Some(views),
    ),
    table(
        "key_column_usage",
        "constraint_catalog name, constraint_schema name, constraint_name name, table_catalog name, table_schema name, \
         table_name name, column_name name, ordinal_position int4, position_in_unique_constraint int4",
        Some(key_column_usage),
    ),
    table(
        "constraint_column_usage",
        "table_catalog name, table_schema name, table_name name, column_name name, constraint_catalog name, \
         constraint_schema name, constraint_name name",
        Some(key_column_usage),
    ),
    table(
        "table_constraints",
        "constraint_catalog name, constraint_schema name, constraint_name name, table_catalog name, table_schema name, \
         table_name name, constraint_type text = 'PRIMARY KEY', is_deferrable text = NO, initially_deferred text = NO, \
         enforced text = YES, nulls_distinct text",
        Some(table_constraints),
    ),
    table(
        "referential_constraints",
        "constraint_catalog name, constraint_schema name, constraint_name name, unique_constraint_catalog name, \
         unique_constraint_schema name, unique_constraint_name name, match_option text, update_rule text, delete_rule text",
        None,
    ),
    table(
        "sequences",
        "sequence_catalog name, sequence_schema name, sequence_name name, data_type text, start_value text, \
         minimum_value text, maximum_value text, increment text, cycle_option text",
        None,
    ),
    table(
        "routines",
        "routine_catalog name, routine_schema name, routine_name name, routine_type text, data_type text",
        None,
    ),
    table(
        "triggers",
        "trigger_catalog name, trigger_schema name, trigger_name name, event_manipulation text, event_object_schema name, event_object_table name",
        None,
    ),
];

fn tables(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let row = |r: &Relation| {
        let kind = match r.kind {
            RelationKind::Table(_) => "BASE TABLE",
            RelationKind::View(_) => "VIEW",
            RelationKind::MaterializedView(_) => "MATERIALIZED VIEW",
            RelationKind::Source(_) | RelationKind::Sink(_) => "FOREIGN",
        };
        Row::new()
            .with("table_catalog", scope.database_name.as_str())
            .with("table_schema", r.schema.as_str())
            .with("table_name", r.name.as_str())
            .with("table_type", kind)
            .with(
                "is_insertable_into",
                yes_or_no(matches!(r.kind, RelationKind::Table(_))),
            )
    };
    let mut rows: Vec<Row> = catalog.relations().map(|r| row(r)).collect();
    for system in super::relation::all() {
        rows.push(
            Row::new()
                .with("table_catalog", scope.database_name.as_str())
                .with("table_schema", system.schema)
                .with("table_name", system.name)
                .with(
                    "table_type",
                    if system.schema == "pg_catalog" {
                        "BASE TABLE"
                    } else {
                        "VIEW"
                    },
                )
                .with("is_insertable_into", "NO"),
        );
    }
    Ok(rows)
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "YES" } else { "NO" }
}

fn columns(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        for (number, (_, column)) in relation.visible_columns().enumerate() {
            let row = Row::new()
                .with("table_catalog", scope.database_name.as_str())
                .with("table_schema", relation.schema.as_str())
                .with("table_name", relation.name.as_str())
                .with("column_name", column.name.as_str())
                .with("ordinal_position", number + 1)
                .with("column_default", column.default.clone())
                .with("is_nullable", yes_or_no(column.nullable))
                .with("udt_catalog", scope.database_name.as_str())
                .with("dtd_identifier", (number + 1).to_string())
                .with(
                    "is_generated",
                    if column.generated.is_some() {
                        "ALWAYS"
                    } else {
                        "NEVER"
                    },
                )
                .with("generation_expression", column.generated.clone())
                .with(
                    "is_updatable",
                    yes_or_no(matches!(relation.kind, RelationKind::Table(_))),
                );
            rows.push(with_type(row, &column.sql_type));
        }
    }
    for system in super::relation::all() {
        for (number, column) in super::row::columns(system.columns).into_iter().enumerate() {
            let row = Row::new()
                .with("table_catalog", scope.database_name.as_str())
                .with("table_schema", system.schema)
                .with("table_name", system.name)
                .with("column_name", column.name)
                .with("ordinal_position", number + 1)
                .with("is_nullable", "YES")
                .with("udt_catalog", scope.database_name.as_str())
                .with("dtd_identifier", (number + 1).to_string())
                .with("is_generated", "NEVER")
                .with("is_updatable", "NO");
            rows.push(with_type(row, &column.sql_type()));
        }
    }
    Ok(rows)
}

/// The columns that tell of a type.
fn with_type(row: Row, sql_type: &SqlType) -> Row {
    let row = row.with("udt_name", types::udt_name(sql_type));
    if matches!(sql_type, SqlType::Array(_)) {
        return row.with("data_type", "ARRAY");
    }
    let row = row.with("data_type", types::row_of(sql_type).display);
    let number = |row: Row, precision: i64, radix: i64, scale: Option<i64>| {
        row.with("numeric_precision", precision)
            .with("numeric_precision_radix", radix)
            .with("numeric_scale", scale)
    };
    match sql_type {
        SqlType::SmallInt => number(row, 16, 2, Some(0)),
        SqlType::Integer => number(row, 32, 2, Some(0)),
        SqlType::BigInt => number(row, 64, 2, Some(0)),
        SqlType::Real => number(row, 24, 2, None),
        SqlType::Double => number(row, 53, 2, None),
        SqlType::Numeric { precision, scale } if types::modifier_of(sql_type) >= 0 => {
            number(row, i64::from(*precision), 10, Some(i64::from(*scale)))
        }
        SqlType::Numeric { .. } => row.with("numeric_precision_radix", 10i64),
        SqlType::Varchar { length } | SqlType::Char { length } => row
            .with("character_maximum_length", i64::from(*length))
            .with("character_octet_length", i64::from(*length) * 4),
        SqlType::Text => row.with("character_octet_length", 1i64 << 30),
        SqlType::Date => row.with("datetime_precision", 0i64),
        SqlType::Time | SqlType::Timestamp | SqlType::TimestampTz | SqlType::Interval => {
            row.with("datetime_precision", 6i64)
        }
        _ => row,
    }
}

fn schemata(scope: &Scope) -> Rows {
    let row = |name: String| {
        Row::new()
            .with("catalog_name", scope.database_name.as_str())
            .with("schema_name", name)
            .with("schema_owner", crate::database::OWNER)
    };
    Ok(schema_names(&scope.catalog())
        .into_iter()
        .map(row)
        .collect())
}

fn views(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let views = catalog
        .relations()
        .filter(|r| matches!(r.kind, RelationKind::View(_)));
    let row = |r: &Relation| {
        Row::new()
            .with("table_catalog", scope.database_name.as_str())
            .with("table_schema", r.schema.as_str())
            .with("table_name", r.name.as_str())
            .with("view_definition", view_definition(r))
    };
    Ok(views.map(|r| row(r)).collect())
}

fn constraint(scope: &Scope, relation: &Relation, name: String) -> Row {
    Row::new()
        .with("constraint_catalog", scope.database_name.as_str())
        .with("constraint_schema", relation.schema.as_str())
        .with("constraint_name", name)
        .with("table_catalog", scope.database_name.as_str())
        .with("table_schema", relation.schema.as_str())
        .with("table_name", relation.name.as_str())
}

fn table_constraints(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let row = |r: &Relation| keyed(r).map(|(def, _)| constraint(scope, r, key_name(r, def)));
    Ok(catalog.relations().filter_map(|r| row(r)).collect())
}

fn key_column_usage(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        let Some((def, key)) = keyed(relation) else {
            continue;
        };
        let visible: Vec<_> = relation.visible_columns().collect();
        for (position, number) in key.iter().enumerate() {
            rows.push(
                constraint(scope, relation, key_name(relation, def))
                    .with("column_name", visible[*number as usize - 1].1.name.as_str())
                    .with("ordinal_position", position + 1),
            );
        }
    }
    Ok(rows)
}
