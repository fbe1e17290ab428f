//! `pg_catalog`: what there is, in the form that Postgres clients read.

use super::oids;
use super::relation::{self, Rows, SystemRelation};
use super::row::{self, Cell, Row};
use super::scope::Scope;
use super::types;
use crate::settings::{PRESETS, SETTINGS, Scope as SettingScope};
use std::collections::BTreeMap;
use tidegate_catalog::{Catalog, Relation, RelationKind, TableDef};

const CATALOG: &str = "pg_catalog";

const fn table(
    name: &'static str,
    columns: &'static str,
    rows: fn(&Scope) -> Rows,
) -> SystemRelation {
    SystemRelation {
        schema: CATALOG,
        name,
        columns,
        rows: Some(rows),
    }
}

pub(super) const RELATIONS: &[SystemRelation] = &[
    table(
        "pg_class",
        "oid oid, relname name, relnamespace oid, reltype oid = 0, reloftype oid = 0, relowner oid = 10, relam oid = 0, \
         relfilenode oid = 0, reltablespace oid = 0, relpages int4 = 0, reltuples float8, relallvisible int4 = 0, \
         reltoastrelid oid = 0, relhasindex bool = f, relisshared bool = f, relpersistence char = p, relkind char, \
         relnatts int2, relchecks int2, relhasrules bool = f, relhastriggers bool = f, relhassubclass bool = f, \
         relrowsecurity bool = f, relforcerowsecurity bool = f, relispopulated bool = t, relreplident char = d, \
         relispartition bool = f, relrewrite oid = 0, relfrozenxid xid = 0, relminmxid xid = 0, relacl text[], \
         reloptions text[], relpartbound text",
        pg_class,
    ),
    table(
        "pg_attribute",
        "attrelid oid, attname name, atttypid oid, attstattarget int4 = -1, attlen int2, attnum int2, attndims int4 = 0, \
         attcacheoff int4 = -1, atttypmod int4 = -1, attbyval bool = f, attalign char = i, attstorage char = p, \
         attcompression char = '', attnotnull bool = f, atthasdef bool = f, atthasmissing bool = f, attidentity char = '', \
         attgenerated char = '', attisdropped bool = f, attislocal bool = t, attinhcount int4 = 0, attcollation oid = 0, \
         attacl text[], attoptions text[], attfdwoptions text[], attmissingval text",
        pg_attribute,
    ),
    table(
        "pg_attrdef",
        "oid oid, adrelid oid, adnum int2, adbin text",
        pg_attrdef,
    ),
    table(
        "pg_namespace",
        "oid oid, nspname name, nspowner oid = 10, nspacl text[]",
        pg_namespace,
    ),
    table(
        "pg_type",
        "oid oid, typname name, typnamespace oid = 11, typowner oid = 10, typlen int2, typbyval bool = f, typtype char = b, \
         typcategory char, typispreferred bool = f, typisdefined bool = t, typdelim char, typrelid oid = 0, \
         typsubscript text = '-', typelem oid = 0, typarray oid = 0, typinput text, typoutput text, typreceive text, \
         typsend text, typmodin text = '-', typmodout text = '-', typanalyze text = '-', typalign char = i, \
         typstorage char = p, typnotnull bool = f, typbasetype oid = 0, typtypmod int4 = -1, typndims int4 = 0, \
         typcollation oid = 0, typdefaultbin text, typdefault text, typacl text[]",
        pg_type,
    ),
    table(
        "pg_index",
        "indexrelid oid, indrelid oid, indnatts int2, indnkeyatts int2, indisunique bool = t, indnullsnotdistinct bool = f, \
         indisprimary bool = t, indisexclusion bool = f, indimmediate bool = t, indisclustered bool = f, \
         indisvalid bool = t, indcheckxmin bool = f, indisready bool = t, indislive bool = t, indisreplident bool = f, \
         indkey int2[], indcollation oid[], indclass oid[], indoption int2[], indexprs text, indpred text",
        pg_index,
    ),
    table(
        "pg_constraint",
        "oid oid, tableoid oid = 2606, conname name, connamespace oid, contype char, condeferrable bool = f, condeferred bool = f, \
         convalidated bool = t, conrelid oid, contypid oid = 0, conindid oid, conparentid oid = 0, confrelid oid = 0, \
         confupdtype char = '', confdeltype char = '', confmatchtype char = '', conislocal bool = t, \
         coninhcount int4 = 0, connoinherit bool = t, conkey int2[], confkey int2[], conpfeqop oid[], conppeqop oid[], \
         conffeqop oid[], confdelsetcols int2[], conexclop oid[], conbin text",
        pg_constraint,
    ),
    table(
        "pg_description",
        "objoid oid, classoid oid, objsubid int4, description text",
        pg_description,
    ),
    table(
        "pg_am",
        "oid oid, amname name, amhandler text = '-', amtype char",
        pg_am,
    ),
    table(
        "pg_proc",
        "oid oid, proname name, pronamespace oid = 11, proowner oid = 10, prolang oid = 12, procost float8, \
         prorows float8, provariadic oid = 0, prosupport text = '-', prokind char, prosecdef bool = f, \
         proleakproof bool = f, proisstrict bool = f, proretset bool = f, provolatile char = i, proparallel char = s, \
         pronargs int2 = 0, pronargdefaults int2 = 0, prorettype oid = 0, proargtypes oid[], proallargtypes oid[], \
         proargmodes text[], proargnames text[], proargdefaults text, protrftypes oid[], prosrc text, probin text, \
         prosqlbody text, proconfig text[], proacl text[]",
        pg_proc,
    ),
    table(
        "pg_database",
        "oid oid, datname name, datdba oid = 10, encoding int4 = 6, datlocprovider char = c, datistemplate bool = f, \
         datallowconn bool = t, datconnlimit int4 = -1, datfrozenxid xid = 0, datminmxid xid = 0, \
         dattablespace oid = 1663, datcollate text = C, datctype text = C, daticulocale text, datcollversion text, \
         datacl text[]",
        pg_database,
    ),
    table(
        "pg_tablespace",
        "oid oid, spcname name, spcowner oid = 10, spcacl text[], spcoptions text[]",
        pg_tablespace,
    ),
    table(
        "pg_roles",
        "rolname name, rolsuper bool = t, rolinherit bool = t, rolcreaterole bool = t, rolcreatedb bool = t, \
         rolcanlogin bool = t, rolreplication bool = f, rolconnlimit int4 = -1, rolpassword text, \
         rolvaliduntil timestamptz, rolbypassrls bool = t, rolconfig text[], oid oid",
        pg_roles,
    ),
    table(
        "pg_user",
        "usename name, usesysid oid, usecreatedb bool = t, usesuper bool = t, userepl bool = f, usebypassrls bool = t, \
         passwd text, valuntil timestamptz, useconfig text[]",
        pg_user,
    ),
    table(
        "pg_collation",
        "oid oid, collname name, collnamespace oid = 11, collowner oid = 10, collprovider char, \
         collisdeterministic bool = t, collencoding int4 = -1, collcollate text, collctype text, colliculocale text, \
         collversion text",
        pg_collation,
    ),
    table(
        "pg_tables",
        "schemaname name, tablename name, tableowner name, tablespace name, hasindexes bool, hasrules bool = f, \
         hastriggers bool = f, rowsecurity bool = f",
        pg_tables,
    ),
    table(
        "pg_views",
        "schemaname name, viewname name, viewowner name, definition text",
        pg_views,
    ),
    table(
        "pg_matviews",
        "schemaname name, matviewname name, matviewowner name, tablespace name, hasindexes bool = f, ispopulated bool, \
         definition text",
        pg_matviews,
    ),
    table(
        "pg_indexes",
        "schemaname name, tablename name, indexname name, tablespace name, indexdef text",
        pg_indexes,
    ),
    table(
        "pg_settings",
        "name text, setting text, unit text, category text, short_desc text, extra_desc text, context text, vartype text, \
         source text, min_val text, max_val text, enumvals text[], boot_val text, reset_val text, sourcefile text, \
         sourceline int4, pending_restart bool = f",
        pg_settings,
    ),
    table(
        "pg_foreign_data_wrapper",
        "oid oid, fdwname name, fdwowner oid = 10, fdwhandler oid = 0, fdwvalidator oid = 0, fdwacl text[], \
         fdwoptions text[]",
        pg_foreign_data_wrapper,
    ),
    table(
        "pg_foreign_server",
        "oid oid, srvname name, srvowner oid = 10, srvfdw oid, srvtype text, srvversion text, srvacl text[], \
         srvoptions text[]",
        pg_foreign_server,
    ),
    table(
        "pg_foreign_table",
        "ftrelid oid, ftserver oid, ftoptions text[]",
        pg_foreign_table,
    ),
];

/// The letter of `relkind`.
fn kind_letter(relation: &Relation) -> &'static str {
    match relation.kind {
        RelationKind::Table(_) => "r",
        RelationKind::View(_) => "v",
        RelationKind::MaterializedView(_) => "m",
        RelationKind::Source(_) | RelationKind::Sink(_) => "f",
    }
}

/// A table that has a key which clients may see.
pub(super) fn keyed(relation: &Relation) -> Option<(&TableDef, Vec<i64>)> {
    let RelationKind::Table(def) = &relation.kind else {
        return None;
    };
    let visible: Vec<usize> = relation.visible_columns().map(|(i, _)| i).collect();
    let number = |stored: &usize| {
        visible
            .iter()
            .position(|v| v == stored)
            .map(|p| p as i64 + 1)
    };
    let key: Option<Vec<i64>> = def.primary_key.iter().map(number).collect();
    key.filter(|k| !k.is_empty()).map(|key| (def, key))
}

pub(super) fn key_name(relation: &Relation, def: &TableDef) -> String {
    def.primary_key_name
        .clone()
        .unwrap_or_else(|| format!("{}_pkey", relation.name))
}

/// Names of the key's columns, quoted where they must be.
pub(super) fn key_columns(relation: &Relation, key: &[i64]) -> String {
    let visible: Vec<_> = relation.visible_columns().collect();
    let names: Vec<String> = key
        .iter()
        .map(|n| tidegate_parser::quote_ident(&visible[*n as usize - 1].1.name))
        .collect();
    names.join(", ")
}

pub(super) fn index_definition(relation: &Relation) -> Option<String> {
    let (def, key) = keyed(relation)?;
    let quote = tidegate_parser::quote_ident;
    Some(format!(
        "CREATE UNIQUE INDEX {} ON {}.{} USING btree ({})",
        quote(&key_name(relation, def)),
        quote(&relation.schema),
        quote(&relation.name),
        key_columns(relation, &key)
    ))
}

/// Whether a relation's state is kept on RocksDB; `None` where it keeps none.
pub(super) fn backend(scope: &Scope, relation: &Relation) -> Option<&'static str> {
    let options = match &relation.kind {
        RelationKind::Table(def) => &def.options,
        RelationKind::MaterializedView(def) => &def.options,
        RelationKind::Source(_) | RelationKind::View(_) | RelationKind::Sink(_) => return None,
    };
    let chosen = options.get("state_backend").map_or_else(
        || scope.database.config.settings.text("state_backend"),
        String::as_str,
    );
    Some(if chosen == "rocksdb" {
        "rocksdb"
    } else {
        "memory"
    })
}

fn pg_class(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        let keyed = keyed(relation);
        let method = match backend(scope, relation) {
            Some("rocksdb") => oids::ROCKSDB,
            Some(_) => oids::MEMORY,
            None => 0,
        };
        let namespace = oids::schema(&relation.schema);
        rows.push(
            Row::new()
                .with("oid", oids::relation(relation.id))
                .with("relname", relation.name.as_str())
                .with("relnamespace", namespace)
                .with("relam", method)
                .with("reltuples", -1.0)
                .with("relhasindex", keyed.is_some())
                .with("relchecks", checks(relation).len())
                .with("relkind", kind_letter(relation))
                .with(
                    "relhasrules",
                    matches!(relation.kind, RelationKind::View(_)),
                )
                .with("relnatts", relation.visible_columns().count()),
        );
        if let Some((def, key)) = keyed {
            rows.push(
                Row::new()
                    .with("oid", oids::index(relation))
                    .with("relname", key_name(relation, def))
                    .with("relnamespace", namespace)
                    .with("relam", oids::BTREE)
                    .with("reltuples", -1.0)
                    .with("relkind", "i")
                    .with("relnatts", key.len()),
            );
        }
    }
    for system in relation::all() {
        rows.push(
            Row::new()
                .with("oid", oids::system_relation(system.schema, system.name))
                .with("relname", system.name)
                .with("relnamespace", oids::schema(system.schema))
                .with("reltuples", -1.0)
                .with("relkind", if system.schema == CATALOG { "r" } else { "v" })
                .with("relnatts", row::columns(system.columns).len()),
        );
    }
    Ok(rows)
}

fn pg_attribute(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        for (number, (_, column)) in relation.visible_columns().enumerate() {
            let described = types::row_of(&column.sql_type);
            let is_array = types::oid_of(&column.sql_type) == described.array;
            let varies = is_array || described.length < 0;
            let storage = match described.name {
                _ if !varies => "p",
                "numeric" if !is_array => "m",
                _ => "x",
            };
            rows.push(
                Row::new()
                    .with("attrelid", oids::relation(relation.id))
                    .with("attname", column.name.as_str())
                    .with("atttypid", types::oid_of(&column.sql_type))
                    .with("attlen", if is_array { -1 } else { described.length })
                    .with("attnum", number + 1)
                    .with("attndims", usize::from(is_array))
                    .with("atttypmod", types::modifier_of(&column.sql_type))
                    .with("attstorage", storage)
                    .with("attnotnull", !column.nullable)
                    .with(
                        "atthasdef",
                        column.default.is_some() || column.generated.is_some(),
                    )
                    .with(
                        "attgenerated",
                        if column.generated.is_some() { "s" } else { "" },
                    )
                    .with("attcollation", described.collation),
            );
        }
        if let Some((_, key)) = keyed(relation) {
            let visible: Vec<_> = relation.visible_columns().collect();
            for (number, column) in key.iter().enumerate() {
                let column = visible[*column as usize - 1].1;
                let described = types::row_of(&column.sql_type);
                rows.push(
                    Row::new()
                        .with("attrelid", oids::index(relation))
                        .with("attname", column.name.as_str())
                        .with("atttypid", types::oid_of(&column.sql_type))
                        .with("attlen", described.length)
                        .with("attnum", number + 1)
                        .with("atttypmod", types::modifier_of(&column.sql_type))
                        .with("attcollation", described.collation),
                );
            }
        }
    }
    for system in relation::all() {
        let oid = oids::system_relation(system.schema, system.name);
        for (number, column) in row::columns(system.columns).into_iter().enumerate() {
            let described = types::row_of(&column.sql_type());
            rows.push(
                Row::new()
                    .with("attrelid", oid)
                    .with("attname", column.name)
                    .with("atttypid", types::oid_of(&column.sql_type()))
                    .with("attlen", described.length)
                    .with("attnum", number + 1)
                    .with("attcollation", described.collation),
            );
        }
    }
    Ok(rows)
}

fn pg_attrdef(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        for (number, (_, column)) in relation.visible_columns().enumerate() {
            if let Some(text) = column.default.as_ref().or(column.generated.as_ref()) {
                rows.push(
                    Row::new()
                        .with("oid", oids::column_default(relation.id, number + 1))
                        .with("adrelid", oids::relation(relation.id))
                        .with("adnum", number + 1)
                        .with("adbin", text.as_str()),
                );
            }
        }
    }
    Ok(rows)
}

/// All schemas, the reserved ones too.
pub(super) fn schema_names(catalog: &Catalog) -> Vec<String> {
    let reserved = Catalog::RESERVED_SCHEMAS.iter().map(|s| (*s).to_owned());
    catalog
        .schemas()
        .map(|s| s.name.clone())
        .chain(reserved)
        .collect()
}

fn pg_namespace(scope: &Scope) -> Rows {
    let names = schema_names(&scope.catalog());
    Ok(names
        .into_iter()
        .map(|n| Row::new().with("oid", oids::schema(&n)).with("nspname", n))
        .collect())
}

fn pg_type(_: &Scope) -> Rows {
    let mut rows = Vec::new();
    for row in types::TYPES {
        let base = |name: &str, oid: i64, length: i64, category: &str| {
            let io = |suffix: &str| {
                format!(
                    "{}{suffix}",
                    if name.starts_with('_') {
                        "array_"
                    } else {
                        name
                    }
                )
            };
            Row::new()
                .with("oid", oid)
                .with("typname", name)
                .with("typlen", length)
                .with("typcategory", category)
                .with("typdelim", ",")
                .with("typtype", if row.category == "P" { "p" } else { "b" })
                .with("typstorage", if length < 0 { "x" } else { "p" })
                .with("typcollation", row.collation)
                .with("typinput", io("in"))
                .with("typoutput", io("out"))
                .with("typreceive", io("recv"))
                .with("typsend", io("send"))
        };
        rows.push(base(row.name, row.oid, row.length, row.category).with("typarray", row.array));
        if row.array != 0 {
            let array = base(&format!("_{}", row.name), row.array, -1, "A");
            rows.push(
                array
                    .with("typelem", row.oid)
                    .with("typsubscript", "array_subscript_handler"),
            );
        }
    }
    Ok(rows)
}

fn pg_index(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let row = |relation: &Relation| {
        let (_, key) = keyed(relation)?;
        Some(
            Row::new()
                .with("indexrelid", oids::index(relation))
                .with("indrelid", oids::relation(relation.id))
                .with("indnatts", key.len())
                .with("indnkeyatts", key.len())
                .with("indoption", vec![0; key.len()])
                .with("indcollation", vec![0; key.len()])
                .with("indclass", vec![0; key.len()])
                .with("indkey", key),
        )
    };
    Ok(catalog.relations().filter_map(|r| row(r)).collect())
}

/// The `CHECK` constraints of a table.
pub(super) fn checks(relation: &Relation) -> &[tidegate_catalog::Check] {
    match &relation.kind {
        RelationKind::Table(def) => &def.checks,
        _ => &[],
    }
}

fn pg_description(scope: &Scope) -> Rows {
    let class = oids::system_relation("pg_catalog", "pg_class");
    let mut rows = Vec::new();
    for relation in scope.catalog().relations() {
        for (about, comment) in &relation.comments {
            let number = match about.as_str() {
                "" => Some(0),
                column => relation.column(column).map(|(index, _)| index + 1),
            };
            let Some(number) = number else { continue };
            rows.push(
                Row::new()
                    .with("objoid", oids::relation(relation.id))
                    .with("classoid", class)
                    .with("objsubid", number)
                    .with("description", comment.as_str()),
            );
        }
    }
    Ok(rows)
}

fn pg_constraint(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let mut rows = key_constraints(&catalog);
    for relation in catalog.relations() {
        for (number, check) in checks(relation).iter().enumerate() {
            rows.push(
                Row::new()
                    .with("oid", oids::check(relation, number))
                    .with("conname", check.name.as_str())
                    .with("connamespace", oids::schema(&relation.schema))
                    .with("contype", "c")
                    .with("conrelid", oids::relation(relation.id))
                    .with("conindid", 0_i64)
                    .with("conbin", check.condition.as_str()),
            );
        }
    }
    Ok(rows)
}

fn key_constraints(catalog: &Catalog) -> Vec<Row> {
    let row = |relation: &Relation| {
        let (def, key) = keyed(relation)?;
        Some(
            Row::new()
                .with("contype", "p")
                .with("oid", oids::constraint(relation))
                .with("conname", key_name(relation, def))
                .with("connamespace", oids::schema(&relation.schema))
                .with("conrelid", oids::relation(relation.id))
                .with("conindid", oids::index(relation))
                .with("conkey", key),
        )
    };
    catalog.relations().filter_map(|r| row(r)).collect()
}

fn pg_am(_: &Scope) -> Rows {
    let methods = [
        (oids::BTREE, "btree", "i"),
        (oids::MEMORY, "memory", "t"),
        (oids::ROCKSDB, "rocksdb", "t"),
    ];
    let row = |(oid, name, kind): (i64, &str, &str)| {
        Row::new()
            .with("oid", oid)
            .with("amname", name)
            .with("amtype", kind)
    };
    Ok(methods.into_iter().map(row).collect())
}

fn pg_proc(_: &Scope) -> Rows {
    let registry = tidegate_planner::registry();
    let mut kinds: BTreeMap<String, &str> = BTreeMap::new();
    let system = super::functions::names().map(|n| (n.to_owned(), "f"));
    kinds.extend(
        registry
            .scalar
            .keys()
            .map(|n| (n.clone(), "f"))
            .chain(system),
    );
    kinds.extend(registry.window.keys().map(|n| (n.clone(), "w")));
    kinds.extend(registry.aggregate.keys().map(|n| (n.clone(), "a")));
    let row = |(name, kind): (String, &str)| {
        Row::new()
            .with("oid", oids::function(&name))
            .with("procost", 1.0)
            .with("prorows", 0.0)
            .with("prokind", kind)
            .with("prosrc", name.as_str())
            .with("proname", name)
    };
    Ok(kinds.into_iter().map(row).collect())
}

fn pg_database(scope: &Scope) -> Rows {
    Ok(vec![
        Row::new()
            .with("oid", oids::DATABASE)
            .with("datname", scope.database_name.as_str()),
    ])
}

fn pg_tablespace(_: &Scope) -> Rows {
    Ok(vec![
        Row::new()
            .with("oid", oids::TABLESPACE)
            .with("spcname", "pg_default"),
    ])
}

fn pg_roles(scope: &Scope) -> Rows {
    Ok(scope
        .roles()
        .into_iter()
        .map(|(oid, name)| Row::new().with("oid", oid).with("rolname", name))
        .collect())
}

fn pg_user(scope: &Scope) -> Rows {
    Ok(scope
        .roles()
        .into_iter()
        .map(|(oid, name)| Row::new().with("usesysid", oid).with("usename", name))
        .collect())
}

fn pg_collation(_: &Scope) -> Rows {
    let row = |oid: i64, name: &str, provider: &str| {
        Row::new()
            .with("oid", oid)
            .with("collname", name)
            .with("collprovider", provider)
    };
    let c = |oid, name| {
        row(oid, name, "c")
            .with("collcollate", name)
            .with("collctype", name)
    };
    Ok(vec![
        row(oids::DEFAULT_COLLATION, "default", "d"),
        c(950, "C"),
        c(951, "POSIX"),
    ])
}

fn pg_tables(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let tables = catalog
        .relations()
        .filter(|r| matches!(r.kind, RelationKind::Table(_)));
    let row = |r: &Relation| {
        Row::new()
            .with("schemaname", r.schema.as_str())
            .with("tablename", r.name.as_str())
            .with("tableowner", r.owner.as_str())
            .with("hasindexes", keyed(r).is_some())
    };
    Ok(tables.map(|r| row(r)).collect())
}

/// The query of a view as clients are shown it.
pub(super) fn view_definition(relation: &Relation) -> Option<String> {
    let query = match &relation.kind {
        RelationKind::View(def) => &def.query,
        RelationKind::MaterializedView(def) => &def.query,
        RelationKind::Table(_) | RelationKind::Source(_) | RelationKind::Sink(_) => return None,
    };
    Some(format!(" {};", query.trim().trim_end_matches(';')))
}

fn pg_views(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let views = catalog
        .relations()
        .filter(|r| matches!(r.kind, RelationKind::View(_)));
    let row = |r: &Relation| {
        Row::new()
            .with("schemaname", r.schema.as_str())
            .with("viewname", r.name.as_str())
            .with("viewowner", r.owner.as_str())
            .with("definition", view_definition(r))
    };
    Ok(views.map(|r| row(r)).collect())
}

fn pg_matviews(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let building: Vec<_> = scope
        .database
        .runtime()?
        .status()
        .jobs
        .iter()
        .filter(|j| !j.is_alteration)
        .map(|j| j.relation)
        .collect();
    let views = catalog
        .relations()
        .filter(|r| matches!(r.kind, RelationKind::MaterializedView(_)));
    let row = |r: &Relation| {
        Row::new()
            .with("schemaname", r.schema.as_str())
            .with("matviewname", r.name.as_str())
            .with("matviewowner", r.owner.as_str())
            .with("ispopulated", !building.contains(&r.id))
            .with("definition", view_definition(r))
    };
    Ok(views.map(|r| row(r)).collect())
}

fn pg_indexes(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let row = |r: &Relation| {
        let (def, _) = keyed(r)?;
        Some(
            Row::new()
                .with("schemaname", r.schema.as_str())
                .with("tablename", r.name.as_str())
                .with("indexname", key_name(r, def))
                .with("indexdef", index_definition(r)),
        )
    };
    Ok(catalog.relations().filter_map(|r| row(r)).collect())
}

fn pg_settings(scope: &Scope) -> Rows {
    let mut rows = Vec::new();
    for setting in SETTINGS {
        let started = scope
            .database
            .config
            .settings
            .get(setting.name)
            .unwrap_or(setting.default);
        let value = scope.settings.get(setting.name).unwrap_or(setting.default);
        rows.push(
            Row::new()
                .with("name", setting.name)
                .with("setting", value)
                .with("category", "Tidegate")
                .with("short_desc", setting.description)
                .with(
                    "context",
                    if setting.scope == SettingScope::Session {
                        "user"
                    } else {
                        "postmaster"
                    },
                )
                .with("vartype", "string")
                .with(
                    "source",
                    if value == setting.default {
                        "default"
                    } else {
                        "session"
                    },
                )
                .with("boot_val", setting.default)
                .with("reset_val", started),
        );
    }
    for (name, value) in PRESETS {
        rows.push(
            Row::new()
                .with("name", *name)
                .with("setting", *value)
                .with("category", "Preset Options")
                .with("short_desc", "Cannot be changed.")
                .with("context", "internal")
                .with("vartype", "string")
                .with("source", "default")
                .with("boot_val", *value)
                .with("reset_val", *value),
        );
    }
    Ok(rows)
}

/// A source's or sink's connector and options.
pub(super) fn connector(relation: &Relation) -> Option<(&str, &BTreeMap<String, String>)> {
    match &relation.kind {
        RelationKind::Source(def) => Some((&def.connector, &def.options)),
        RelationKind::Sink(def) => Some((&def.connector, &def.options)),
        RelationKind::Table(_) | RelationKind::View(_) | RelationKind::MaterializedView(_) => None,
    }
}

fn connectors(catalog: &Catalog) -> Vec<String> {
    let mut names: Vec<String> = catalog
        .relations()
        .filter_map(|r| connector(r))
        .map(|(c, _)| c.to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn pg_foreign_data_wrapper(scope: &Scope) -> Rows {
    let names = connectors(&scope.catalog());
    Ok(names
        .into_iter()
        .map(|n| {
            Row::new()
                .with("oid", oids::connector(&n))
                .with("fdwname", n)
        })
        .collect())
}

fn pg_foreign_server(scope: &Scope) -> Rows {
    let row = |name: String| {
        let oid = oids::connector(&name);
        Row::new()
            .with("oid", oid)
            .with("srvfdw", oid)
            .with("srvname", name)
    };
    Ok(connectors(&scope.catalog()).into_iter().map(row).collect())
}

fn pg_foreign_table(scope: &Scope) -> Rows {
    let catalog = scope.catalog();
    let row = |relation: &Relation| {
        let (name, options) = connector(relation)?;
        let options: Vec<String> = visible_options(options)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Some(
            Row::new()
                .with("ftrelid", oids::relation(relation.id))
                .with("ftserver", oids::connector(name))
                .with("ftoptions", Cell::Texts(options)),
        )
    };
    Ok(catalog.relations().filter_map(|r| row(r)).collect())
}

/// Options as they were given, without what the engine keeps among them and without secrets.
pub(super) fn visible_options(
    options: &BTreeMap<String, String>,
) -> impl Iterator<Item = (&str, &str)> {
    let own =
        |name: &str| name.starts_with("tidegate.") || name == crate::relations::SEARCH_PATH_OPTION;
    let shown = options.iter().filter(move |(name, _)| !own(name));
    shown.map(|(name, value)| match crate::secrets::is_secret(name) {
        true => (name.as_str(), crate::secrets::MASK),
        false => (name.as_str(), value.as_str()),
    })
}
