//! Functions with which clients have the catalog explained: `format_type`, `pg_get_viewdef`, `has_table_privilege`.
//!
//! They are computed a row at a time from the catalog as it is when the query runs. They take any arguments: an OID may come
//! as a number or as text, a relation as an OID or by name.

use super::row::{self, Cell};
use super::scope::Scope;
use super::{oids, pg_catalog, relation, types};
use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tidegate_types::{SqlError, SqlState, SqlType};

type Body = fn(&Scope, &[Cell]) -> std::result::Result<Cell, SqlError>;

#[derive(Clone, Copy)]
enum Returns {
    Bool,
    Int,
    BigInt,
    Text,
    Texts,
    Time,
    /// Of an OID its name, of a name its OID.
    TheOther,
}

struct Function {
    name: &'static str,
    returns: Returns,
    /// Whether NULL in any argument makes the answer NULL.
    strict: bool,
    body: Body,
}

const fn strict(name: &'static str, returns: Returns, body: Body) -> Function {
    Function {
        name,
        returns,
        strict: true,
        body,
    }
}

const fn lenient(name: &'static str, returns: Returns, body: Body) -> Function {
    Function {
        name,
        returns,
        strict: false,
        body,
    }
}

use Returns::{BigInt, Bool, Int, Text, Texts, TheOther, Time};

const NULL: Body = |_, _| Ok(Cell::Null);
/// Everyone may do everything until there are users.
const YES: Body = |_, _| Ok(Cell::Bool(true));
const NO: Body = |_, _| Ok(Cell::Bool(false));

const FUNCTIONS: &[Function] = &[
    strict("version", Text, |_, _| {
        Ok(format!(
            "PostgreSQL 15.0 (Tidegate {}) on {}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH
        )
        .into())
    }),
    strict("current_database", Text, |s, _| {
        Ok(s.database_name.as_str().into())
    }),
    strict("current_catalog", Text, |s, _| {
        Ok(s.database_name.as_str().into())
    }),
    strict("current_schema", Text, |s, _| {
        Ok(s.existing_path(false).into_iter().next().into())
    }),
    strict("current_schemas", Texts, |s, a| {
        Ok(s.existing_path(a.first() == Some(&Cell::Bool(true))).into())
    }),
    strict("current_user", Text, |s, _| Ok(s.user.as_str().into())),
    strict("current_role", Text, |s, _| Ok(s.user.as_str().into())),
    strict("session_user", Text, |s, _| Ok(s.user.as_str().into())),
    strict("user", Text, |s, _| Ok(s.user.as_str().into())),
    strict("pg_backend_pid", Int, |s, _| Ok(s.backend_pid.into())),
    strict("pg_is_in_recovery", Bool, NO),
    strict("pg_is_other_temp_schema", Bool, NO),
    strict("pg_my_temp_schema", BigInt, |_, _| Ok(Cell::Int(0))),
    strict("inet_server_addr", Text, NULL),
    strict("inet_server_port", Int, NULL),
    strict("inet_client_addr", Text, NULL),
    strict("inet_client_port", Int, NULL),
    strict("txid_current", BigInt, |s, _| {
        Ok(s.database.runtime()?.read_epoch().0.into())
    }),
    strict("pg_current_xact_id", BigInt, |s, _| {
        Ok(s.database.runtime()?.read_epoch().0.into())
    }),
    strict("pg_postmaster_start_time", Time, |_, _| {
        Ok(Cell::Time(*STARTED))
    }),
    lenient("current_setting", Text, current_setting),
    strict("pg_get_userbyid", Text, |s, a| Ok(role_name(s, a).into())),
    strict("pg_table_is_visible", Bool, |s, a| {
        Ok(is_visible(s, &a[0]).into())
    }),
    strict("pg_type_is_visible", Bool, YES),
    strict("pg_function_is_visible", Bool, YES),
    strict("pg_operator_is_visible", Bool, YES),
    strict("pg_opclass_is_visible", Bool, YES),
    strict("pg_collation_is_visible", Bool, YES),
    strict("pg_conversion_is_visible", Bool, YES),
    strict("pg_ts_config_is_visible", Bool, YES),
    strict("pg_ts_dict_is_visible", Bool, YES),
    strict("pg_ts_parser_is_visible", Bool, YES),
    strict("pg_ts_template_is_visible", Bool, YES),
    strict("pg_opfamily_is_visible", Bool, YES),
    strict("pg_tablespace_location", Text, |_, _| Ok("".into())),
    strict("pg_tablespace_size", BigInt, |s, _| {
        Ok(s.database.store.base().map_or(0, |m| m.bytes()).into())
    }),
    strict("getdatabaseencoding", Text, |_, _| Ok("UTF8".into())),
    strict("array_upper", Int, |_, a| {
        Ok(if let Cell::Texts(list) = &a[0] {
            (!list.is_empty()).then_some(list.len()).into()
        } else {
            Cell::Null
        })
    }),
    strict("array_lower", Int, |_, a| {
        Ok(if let Cell::Texts(list) = &a[0] {
            (!list.is_empty()).then_some(1usize).into()
        } else {
            Cell::Null
        })
    }),
    strict("pg_statistics_obj_is_visible", Bool, YES),
    lenient("format_type", Text, |_, a| {
        Ok(a.first()
            .and_then(Cell::int)
            .map(|oid| types::format(oid, a.get(1).and_then(Cell::int)))
            .into())
    }),
    // Expressions are kept as the text they were written in.
    lenient("pg_get_expr", Text, |_, a| {
        Ok(a.first().cloned().unwrap_or(Cell::Null))
    }),
    strict("pg_get_viewdef", Text, |s, a| {
        Ok(find(s, &a[0])
            .and_then(|r| pg_catalog::view_definition(&r))
            .into())
    }),
    strict("pg_get_indexdef", Text, index_definition),
    strict("pg_get_constraintdef", Text, constraint_definition),
    strict("pg_get_partkeydef", Text, NULL),
    strict("pg_get_ruledef", Text, NULL),
    strict("pg_get_triggerdef", Text, NULL),
    strict("pg_get_statisticsobjdef_columns", Text, NULL),
    strict("pg_get_serial_sequence", Text, NULL),
    strict("pg_get_functiondef", Text, |_, a| {
        let name = a[0].int().and_then(function_name);
        Ok(name
            .map(|name| format!("-- pg_catalog.{name} is built in\n"))
            .into())
    }),
    strict("pg_get_function_result", Text, NULL),
    strict("pg_get_function_arguments", Text, NULL),
    strict("pg_get_function_identity_arguments", Text, NULL),
    strict("pg_get_function_sqlbody", Text, NULL),
    strict("pg_relation_is_publishable", Bool, NO),
    strict("obj_description", Text, |s, a| {
        Ok(find(s, &a[0])
            .and_then(|r| r.comments.get("").cloned())
            .into())
    }),
    strict("col_description", Text, |s, a| {
        let column = a
            .get(1)
            .and_then(Cell::int)
            .and_then(|n| usize::try_from(n - 1).ok());
        Ok(find(s, &a[0])
            .zip(column)
            .and_then(|(r, n)| r.comments.get(&r.columns.get(n)?.name).cloned())
            .into())
    }),
    strict("shobj_description", Text, NULL),
    strict("has_table_privilege", Bool, YES),
    strict("has_any_column_privilege", Bool, YES),
    strict("has_column_privilege", Bool, YES),
    strict("has_schema_privilege", Bool, YES),
    strict("has_database_privilege", Bool, YES),
    strict("has_function_privilege", Bool, YES),
    strict("has_sequence_privilege", Bool, YES),
    strict("has_type_privilege", Bool, YES),
    strict("has_tablespace_privilege", Bool, YES),
    strict("has_language_privilege", Bool, YES),
    strict("has_server_privilege", Bool, YES),
    strict("pg_has_role", Bool, YES),
    strict("pg_encoding_to_char", Text, |_, a| {
        Ok(if a[0].int() == Some(6) { "UTF8" } else { "" }.into())
    }),
    strict("pg_char_to_encoding", Int, |_, a| {
        Ok(Cell::Int(
            if a[0]
                .text()
                .is_some_and(|t| t.to_uppercase().replace('-', "") == "UTF8")
            {
                6
            } else {
                -1
            },
        ))
    }),
    strict("pg_size_pretty", Text, |_, a| {
        Ok(a[0].int().map(size_pretty).into())
    }),
    strict("pg_table_size", BigInt, |s, a| stored_bytes(s, &a[0])),
    strict("pg_relation_size", BigInt, |s, a| stored_bytes(s, &a[0])),
    strict("pg_total_relation_size", BigInt, |s, a| {
        stored_bytes(s, &a[0])
    }),
    strict("pg_indexes_size", BigInt, |_, _| Ok(Cell::Int(0))),
    strict("pg_database_size", BigInt, |s, _| {
        Ok(s.database.store.base().map_or(0, |m| m.bytes()).into())
    }),
    strict("pg_stat_get_numscans", BigInt, |_, _| Ok(Cell::Int(0))),
    strict("quote_ident", Text, |_, a| {
        Ok(a[0].text().map(tidegate_parser::quote_ident).into())
    }),
    strict("quote_literal", Text, |_, a| {
        Ok(a[0]
            .text()
            .map(|t| format!("'{}'", t.replace('\'', "''")))
            .into())
    }),
    strict("pg_options_list", Texts, |_, a| Ok(options_list(&a[0]))),
    strict("to_regclass", Text, |s, a| {
        Ok(relation_oid(s, &a[0])
            .map(|oid| relation_name(s, oid))
            .into())
    }),
    strict("to_regtype", Text, |_, a| {
        Ok(a[0]
            .text()
            .and_then(types::find)
            .map(|oid| types::format(oid, None))
            .into())
    }),
    strict("regclass", TheOther, |s, a| match &a[0] {
        Cell::Text(_) => expect_relation(s, &a[0]).map(Cell::Int),
        other => Ok(other.int().map(|oid| relation_name(s, oid)).into()),
    }),
    strict("regclass_name", Text, |s, a| {
        Ok(relation_name(s, expect_relation(s, &a[0])?).into())
    }),
    strict("regclass_oid", BigInt, |s, a| {
        expect_relation(s, &a[0]).map(Cell::Int)
    }),
    strict("regproc_oid", BigInt, |_, a| match a[0].text() {
        Some(name) => expect_function(name).map(Cell::Int),
        None => Ok(Cell::Null),
    }),
    strict("regtype", TheOther, |_, a| match &a[0] {
        Cell::Text(_) => expect_type(&a[0]).map(Cell::Int),
        other => Ok(other.int().map(|oid| types::format(oid, None)).into()),
    }),
    strict("regtype_name", Text, |_, a| {
        Ok(types::format(expect_type(&a[0])?, None).into())
    }),
    strict("regtype_oid", BigInt, |_, a| {
        expect_type(&a[0]).map(Cell::Int)
    }),
    strict("regnamespace", TheOther, |s, a| match &a[0] {
        Cell::Text(name) => {
            s.catalog().expect_schema(name)?;
            Ok(Cell::Int(oids::schema(name)))
        }
        other => {
            let names = pg_catalog::schema_names(&s.catalog());
            Ok(names
                .into_iter()
                .find(|n| Some(oids::schema(n)) == other.int())
                .into())
        }
    }),
    strict("regrole", TheOther, |s, a| match &a[0] {
        Cell::Text(name) => Ok(s
            .roles()
            .into_iter()
            .find(|(_, n)| n == name)
            .map(|(oid, _)| oid)
            .into()),
        _ => Ok(role_name(s, a).into()),
    }),
];

/// When this process began to answer.
static STARTED: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| d.as_micros() as i64)
});

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|f| f.name)
}

/// The function of a name, for one session.
pub(super) fn udf(name: &str, scope: &Arc<Scope>) -> Option<Arc<ScalarUDF>> {
    let function = FUNCTIONS.iter().find(|f| f.name == name)?;
    let signature = Signature::one_of(
        vec![TypeSignature::Nullary, TypeSignature::VariadicAny],
        Volatility::Stable,
    );
    Some(Arc::new(ScalarUDF::new_from_impl(SystemFunction {
        function,
        scope: scope.clone(),
        signature,
    })))
}

fn current_setting(scope: &Scope, arguments: &[Cell]) -> std::result::Result<Cell, SqlError> {
    let Some(name) = arguments.first().and_then(Cell::text) else {
        return Ok(Cell::Null);
    };
    match scope.setting(name) {
        Some(value) => Ok(value.into()),
        None if arguments.get(1) == Some(&Cell::Bool(true)) => Ok(Cell::Null),
        None => Err(crate::settings::unknown_setting(name)),
    }
}

fn role_name(scope: &Scope, arguments: &[Cell]) -> String {
    let oid = arguments[0].int().unwrap_or(0);
    let known = scope
        .roles()
        .into_iter()
        .find(|(role, _)| *role == oid)
        .map(|(_, name)| name);
    known.unwrap_or_else(|| format!("unknown (OID={oid})"))
}

/// Every function has its own number; those of one name are one here.
fn known_functions() -> impl Iterator<Item = String> {
    let registry = tidegate_planner::registry();
    names()
        .map(str::to_owned)
        .chain(registry.scalar.keys().cloned())
        .chain(registry.window.keys().cloned())
        .chain(registry.aggregate.keys().cloned())
}

fn function_name(oid: i64) -> Option<String> {
    known_functions().find(|name| oids::function(name) == oid)
}

fn expect_function(name: &str) -> std::result::Result<i64, SqlError> {
    let bare = name.strip_prefix("pg_catalog.").unwrap_or(name);
    let bare = bare.split('(').next().unwrap_or(bare);
    match known_functions().find(|known| known == bare) {
        Some(known) => Ok(oids::function(&known)),
        None => Err(SqlError::new(
            SqlState::UNDEFINED_FUNCTION,
            format!("function \"{name}\" does not exist"),
        )),
    }
}

fn find(scope: &Scope, relation: &Cell) -> Option<Arc<tidegate_catalog::Relation>> {
    scope.relation(relation_oid(scope, relation)?)
}

/// The OID of a relation given as one or by name; `None` for a name that means nothing.
fn relation_oid(scope: &Scope, given: &Cell) -> Option<i64> {
    if let Some(oid) = given.int() {
        return Some(oid);
    }
    let parts = identifiers(given.text()?);
    let system = match parts.as_slice() {
        [name] => relation::find("pg_catalog", name),
        [schema, name] => relation::find(schema, name),
        _ => None,
    };
    if let Some(system) = system {
        return Some(oids::system_relation(system.schema, system.name));
    }
    let catalog = scope.catalog();
    if let Ok(found) = catalog.resolve(&parts, &scope.path()) {
        return Some(oids::relation(found.id));
    }
    let (name, schemas) = match parts.as_slice() {
        [name] => (name, scope.path().0),
        [schema, name] => (name, vec![schema.clone()]),
        _ => return None,
    };
    let mut candidates = catalog.relations().filter(|r| schemas.contains(&r.schema));
    candidates
        .find(|r| {
            pg_catalog::keyed(r).is_some_and(|(def, _)| pg_catalog::key_name(r, def) == *name)
        })
        .map(|r| oids::index(r))
}

fn expect_relation(scope: &Scope, given: &Cell) -> std::result::Result<i64, SqlError> {
    relation_oid(scope, given).ok_or_else(|| {
        let name = given.text().unwrap_or_default();
        SqlError::new(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{name}\" does not exist"),
        )
    })
}

fn expect_type(given: &Cell) -> std::result::Result<i64, SqlError> {
    let found = given.int().or_else(|| given.text().and_then(types::find));
    found.ok_or_else(|| {
        let name = given.text().unwrap_or_default();
        SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("type \"{name}\" does not exist"),
        )
    })
}

/// The parts of a dotted name: folded unless quoted.
fn identifiers(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in name.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c => {
                let part = parts.last_mut().expect("it begins with one");
                if quoted {
                    part.push(c)
                } else {
                    part.extend(c.to_lowercase())
                }
            }
        }
    }
    parts
}

/// How a relation is written: with its schema where it would not be found without.
fn relation_name(scope: &Scope, oid: i64) -> String {
    let quote = tidegate_parser::quote_ident;
    let written = |schema: &str, name: &str, visible: bool| {
        if visible {
            quote(name)
        } else {
            format!("{}.{}", quote(schema), quote(name))
        }
    };
    let visible = visible(scope, oid).unwrap_or(false);
    if let Some(relation) = scope.relation(oid) {
        return written(&relation.schema, &relation.name, visible);
    }
    if let Some(relation) = oids::owner_of(oid).and_then(|id| scope.catalog().relation(id).cloned())
        && oids::index(&relation) == oid
        && let Some((def, _)) = pg_catalog::keyed(&relation)
    {
        return written(
            &relation.schema,
            &pg_catalog::key_name(&relation, def),
            visible,
        );
    }
    match relation::all().find(|r| oids::system_relation(r.schema, r.name) == oid) {
        Some(system) => written(system.schema, system.name, visible),
        None if oid == 0 => "-".to_owned(),
        None => oid.to_string(),
    }
}

/// Whether a name alone finds the relation of an OID, or the table of an index.
fn is_visible(scope: &Scope, oid: &Cell) -> Option<bool> {
    visible(scope, oid.int()?)
}

fn visible(scope: &Scope, oid: i64) -> Option<bool> {
    let catalog = scope.catalog();
    let path = scope.path();
    if let Some(relation) = oids::owner_of(oid).and_then(|id| catalog.relation(id)) {
        return Some(
            relation::find("pg_catalog", &relation.name).is_none()
                && catalog.is_visible(relation, &path),
        );
    }
    let system = relation::all().find(|r| oids::system_relation(r.schema, r.name) == oid)?;
    Some(system.schema == "pg_catalog" || path.0.iter().any(|s| s == system.schema))
}

fn index_definition(scope: &Scope, arguments: &[Cell]) -> std::result::Result<Cell, SqlError> {
    let Some(oid) = arguments[0].int() else {
        return Ok(Cell::Null);
    };
    let Some(relation) = oids::owner_of(oid).and_then(|id| scope.catalog().relation(id).cloned())
    else {
        return Ok(Cell::Null);
    };
    let Some((_, key)) = pg_catalog::keyed(&relation).filter(|_| oids::index(&relation) == oid)
    else {
        return Ok(Cell::Null);
    };
    Ok(match arguments.get(1).and_then(Cell::int) {
        Some(column) if column > 0 => {
            let number = key.get(column as usize - 1).copied();
            number
                .map(|n| pg_catalog::key_columns(&relation, &[n]))
                .into()
        }
        _ => pg_catalog::index_definition(&relation).into(),
    })
}

fn constraint_definition(scope: &Scope, arguments: &[Cell]) -> std::result::Result<Cell, SqlError> {
    let Some(oid) = arguments[0].int() else {
        return Ok(Cell::Null);
    };
    for relation in scope.catalog().relations() {
        for (number, check) in pg_catalog::checks(relation).iter().enumerate() {
            if oids::check(relation, number) == oid {
                return Ok(format!("CHECK ({})", check.condition).into());
            }
        }
    }
    let found = oids::owner_of(oid).and_then(|id| scope.catalog().relation(id).cloned());
    let definition = found
        .filter(|r| oids::constraint(r) == oid)
        .and_then(|relation| {
            let (_, key) = pg_catalog::keyed(&relation)?;
            Some(format!(
                "PRIMARY KEY ({})",
                pg_catalog::key_columns(&relation, &key)
            ))
        });
    Ok(definition.into())
}

fn stored_bytes(scope: &Scope, given: &Cell) -> std::result::Result<Cell, SqlError> {
    let Some(relation) = find(scope, given) else {
        return Ok(Cell::Int(0));
    };
    let sizes = scope.database.runtime()?.view_sizes();
    Ok(sizes
        .iter()
        .filter(|s| s.relation == relation.id)
        .map(|s| s.state_bytes)
        .sum::<u64>()
        .into())
}

/// `name 'value'` of each option of a foreign table, as psql shows them.
fn options_list(options: &Cell) -> Cell {
    let Cell::Texts(options) = options else {
        return Cell::Null;
    };
    let shown = options.iter().map(|option| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        format!(
            "{} '{}'",
            tidegate_parser::quote_ident(name),
            value.replace('\'', "''")
        )
    });
    Cell::Texts(shown.collect())
}

/// As Postgres: the unit changes at ten of the next, and halves are rounded up.
fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && size.abs() >= 10.0 * 1024.0 {
        size /= 1024.0;
        unit += 1;
    }
    format!(
        "{} {}",
        (size.abs() + if unit > 0 { 0.5 } else { 0.0 })
            .floor()
            .copysign(size),
        UNITS[unit]
    )
}

struct SystemFunction {
    function: &'static Function,
    scope: Arc<Scope>,
    signature: Signature,
}

impl std::fmt::Debug for SystemFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemFunction")
            .field("name", &self.function.name)
            .finish_non_exhaustive()
    }
}

impl PartialEq for SystemFunction {
    fn eq(&self, other: &Self) -> bool {
        self.function.name == other.function.name && Arc::ptr_eq(&self.scope, &other.scope)
    }
}

impl Eq for SystemFunction {}

impl Hash for SystemFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

impl SystemFunction {
    fn sql_type(&self, first: Option<&DataType>) -> SqlType {
        match self.function.returns {
            Bool => SqlType::Boolean,
            Int => SqlType::Integer,
            BigInt => SqlType::BigInt,
            Text => SqlType::Text,
            Texts => SqlType::Array(Box::new(SqlType::Text)),
            Time => SqlType::TimestampTz,
            TheOther => match first {
                Some(
                    DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null,
                ) => SqlType::BigInt,
                _ => SqlType::Text,
            },
        }
    }
}

impl ScalarUDFImpl for SystemFunction {
    fn name(&self) -> &str {
        self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(self.sql_type(arguments.first()).arrow())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sql_type = self.sql_type(args.arg_fields.first().map(|f| f.data_type()));
        let constant = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let count = if constant { 1 } else { args.number_rows };
        let mut cells = Vec::with_capacity(count);
        for index in 0..count {
            let row = args
                .args
                .iter()
                .map(|a| cell_of(a, index))
                .collect::<Result<Vec<_>>>()?;
            cells.push(
                self.call(&row)
                    .map_err(|e| DataFusionError::External(Box::new(e)))?,
            );
        }
        let array = row::array(&sql_type, &cells.iter().collect::<Vec<_>>());
        Ok(if constant {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
        } else {
            ColumnarValue::Array(array)
        })
    }
}

impl SystemFunction {
    fn call(&self, arguments: &[Cell]) -> std::result::Result<Cell, SqlError> {
        if self.function.strict && arguments.contains(&Cell::Null) {
            return Ok(Cell::Null);
        }
        if let (Some(wanted), []) = (self.wants_argument(), arguments) {
            return Err(SqlError::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {wanted}() does not exist"),
            ));
        }
        (self.function.body)(&self.scope, arguments)
    }

    /// Functions that look at their first argument cannot be called without.
    fn wants_argument(&self) -> Option<&'static str> {
        const NONE: [&str; 22] = [
            "version",
            "current_database",
            "current_catalog",
            "current_schema",
            "current_schemas",
            "current_user",
            "current_role",
            "session_user",
            "user",
            "pg_backend_pid",
            "pg_is_in_recovery",
            "pg_my_temp_schema",
            "inet_server_addr",
            "inet_server_port",
            "inet_client_addr",
            "inet_client_port",
            "txid_current",
            "pg_current_xact_id",
            "pg_postmaster_start_time",
            "pg_database_size",
            "pg_is_other_temp_schema",
            "getdatabaseencoding",
        ];
        (!NONE.contains(&self.function.name)).then_some(self.function.name)
    }
}

fn cell_of(value: &ColumnarValue, index: usize) -> Result<Cell> {
    let scalar = match value {
        ColumnarValue::Scalar(scalar) => scalar.clone(),
        ColumnarValue::Array(array) => ScalarValue::try_from_array(array, index)?,
    };
    if scalar.is_null() {
        return Ok(Cell::Null);
    }
    Ok(match scalar {
        ScalarValue::Boolean(Some(value)) => Cell::Bool(value),
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => Cell::Text(text),
        ScalarValue::List(list) => {
            let elements = list.value(0);
            let texts = (0..elements.len())
                .map(|i| ScalarValue::try_from_array(&elements, i).map(|s| s.to_string()));
            Cell::Texts(texts.collect::<Result<_>>()?)
        }
        other => match other.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(number))) => Cell::Int(number),
            _ => Cell::Text(other.to_string()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected: what Postgres 15's pg_size_pretty answers.
    #[test]
    fn sizes_are_rounded_as_postgres_does() {
        assert_eq!(size_pretty(0), "0 bytes");
        assert_eq!(size_pretty(8192), "8192 bytes");
        assert_eq!(size_pretty(10_240), "10 kB");
        assert_eq!(size_pretty(123_456_789), "118 MB");
    }

    #[test]
    fn names_are_folded_unless_quoted() {
        assert_eq!(identifiers("Public.Orders"), ["public", "orders"]);
        assert_eq!(identifiers("\"Public\".\"a.b\""), ["Public", "a.b"]);
    }

    #[test]
    fn each_function_is_listed_once() {
        let mut names: Vec<&str> = names().collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]));
    }
}
