//! Types as Postgres numbers and names them.

use tidegate_types::SqlType;
use tidegate_types::sql_type::DEFAULT_NUMERIC;

/// A row of `pg_type` for a type and one for its array.
pub(super) struct TypeRow {
    pub oid: i64,
    pub array: i64,
    pub name: &'static str,
    /// As `format_type` writes it.
    pub display: &'static str,
    pub length: i64,
    pub category: &'static str,
    pub collation: i64,
}

const fn row(
    oid: i64,
    array: i64,
    name: &'static str,
    display: &'static str,
    length: i64,
    category: &'static str,
) -> TypeRow {
    TypeRow {
        oid,
        array,
        name,
        display,
        length,
        category,
        collation: 0,
    }
}

const fn text(oid: i64, array: i64, name: &'static str, display: &'static str) -> TypeRow {
    TypeRow {
        oid,
        array,
        name,
        display,
        length: -1,
        category: "S",
        collation: super::oids::DEFAULT_COLLATION,
    }
}

/// From Postgres 15's `pg_type`.
pub(super) const TYPES: &[TypeRow] = &[
    row(16, 1000, "bool", "boolean", 1, "B"),
    row(17, 1001, "bytea", "bytea", -1, "U"),
    row(18, 1002, "char", "\"char\"", 1, "Z"),
    TypeRow {
        oid: 19,
        array: 1003,
        name: "name",
        display: "name",
        length: 64,
        category: "S",
        collation: 950,
    },
    row(20, 1016, "int8", "bigint", 8, "N"),
    row(21, 1005, "int2", "smallint", 2, "N"),
    row(22, 1006, "int2vector", "int2vector", -1, "A"),
    row(23, 1007, "int4", "integer", 4, "N"),
    row(24, 1008, "regproc", "regproc", 4, "N"),
    text(25, 1009, "text", "text"),
    row(26, 1028, "oid", "oid", 4, "N"),
    row(28, 1011, "xid", "xid", 4, "U"),
    row(30, 1013, "oidvector", "oidvector", -1, "A"),
    row(114, 199, "json", "json", -1, "U"),
    row(700, 1021, "float4", "real", 4, "N"),
    row(701, 1022, "float8", "double precision", 8, "N"),
    text(1042, 1014, "bpchar", "character"),
    text(1043, 1015, "varchar", "character varying"),
    row(1082, 1182, "date", "date", 4, "D"),
    row(1083, 1183, "time", "time without time zone", 8, "D"),
    row(
        1114,
        1115,
        "timestamp",
        "timestamp without time zone",
        8,
        "D",
    ),
    row(
        1184,
        1185,
        "timestamptz",
        "timestamp with time zone",
        8,
        "D",
    ),
    row(1186, 1187, "interval", "interval", 16, "T"),
    row(1700, 1231, "numeric", "numeric", -1, "N"),
    row(2205, 2210, "regclass", "regclass", 4, "N"),
    row(2206, 2211, "regtype", "regtype", 4, "N"),
    row(2249, 2287, "record", "record", -1, "P"),
    row(2278, 0, "void", "void", 4, "P"),
    row(2950, 2951, "uuid", "uuid", 16, "U"),
    row(3802, 3807, "jsonb", "jsonb", -1, "U"),
];

fn name_of(sql_type: &SqlType) -> &'static str {
    match sql_type {
        SqlType::Boolean => "bool",
        SqlType::SmallInt => "int2",
        SqlType::Integer => "int4",
        SqlType::BigInt => "int8",
        SqlType::Real => "float4",
        SqlType::Double => "float8",
        SqlType::Numeric { .. } => "numeric",
        SqlType::Text | SqlType::Other(_) => "text",
        SqlType::Varchar { .. } => "varchar",
        SqlType::Char { .. } => "bpchar",
        SqlType::Bytea => "bytea",
        SqlType::Date => "date",
        SqlType::Time => "time",
        SqlType::Timestamp => "timestamp",
        SqlType::TimestampTz => "timestamptz",
        SqlType::Interval => "interval",
        SqlType::Uuid => "uuid",
        SqlType::Jsonb => "jsonb",
        SqlType::Record(_) => "record",
        SqlType::Array(element) => name_of(element),
    }
}

/// The `udt_name` of a type: `_int4` for an array of integers.
pub(super) fn udt_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Array(_) => format!("_{}", name_of(sql_type)),
        _ => name_of(sql_type).to_owned(),
    }
}

/// The row of a type, of its innermost element for an array.
pub(super) fn row_of(sql_type: &SqlType) -> &'static TypeRow {
    let name = name_of(sql_type);
    TYPES
        .iter()
        .find(|t| t.name == name)
        .expect("every type of ours is listed")
}

pub(super) fn oid_of(sql_type: &SqlType) -> i64 {
    let row = row_of(sql_type);
    if matches!(sql_type, SqlType::Array(_)) {
        row.array
    } else {
        row.oid
    }
}

/// `atttypmod`.
pub(super) fn modifier_of(sql_type: &SqlType) -> i64 {
    match sql_type {
        SqlType::Varchar { length } | SqlType::Char { length } => i64::from(*length) + 4,
        SqlType::Numeric { precision, scale } if (*precision, *scale) != DEFAULT_NUMERIC => {
            ((i64::from(*precision) << 16) | (i64::from(*scale) & 0x7ff)) + 4
        }
        SqlType::Array(element) => modifier_of(element),
        _ => -1,
    }
}

/// `format_type(oid, modifier)`.
pub(super) fn format(oid: i64, modifier: Option<i64>) -> String {
    if oid == 0 {
        return "-".to_owned();
    }
    if let Some(row) = TYPES.iter().find(|t| t.array == oid) {
        return format!("{}[]", format(row.oid, modifier));
    }
    let Some(row) = TYPES.iter().find(|t| t.oid == oid) else {
        return "???".to_owned();
    };
    match modifier {
        Some(modifier) if modifier >= 4 => match row.name {
            "varchar" | "bpchar" => format!("{}({})", row.display, modifier - 4),
            "numeric" => {
                let packed = modifier - 4;
                format!("numeric({},{})", (packed >> 16) & 0xffff, packed & 0x7ff)
            }
            _ => row.display.to_owned(),
        },
        // Without a length, `character` would mean `character(1)`.
        Some(_) if row.name == "bpchar" => "bpchar".to_owned(),
        _ => row.display.to_owned(),
    }
}

/// The type of a name in SQL: `int4`, `integer`, `text[]`, `pg_catalog.int4`.
pub(super) fn find(name: &str) -> Option<i64> {
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    if let Some(element) = name.strip_suffix("[]") {
        return TYPES
            .iter()
            .find(|t| t.oid == find(element).unwrap_or(-1))
            .map(|t| t.array);
    }
    if let Some(element) = name.strip_prefix('_') {
        return TYPES.iter().find(|t| t.name == element).map(|t| t.array);
    }
    let name = match name {
        "int" => "integer",
        "decimal" => "numeric",
        "timestamp" => "timestamp without time zone",
        "time" => "time without time zone",
        other => other,
    };
    TYPES
        .iter()
        .find(|t| t.name == name || t.display == name)
        .map(|t| t.oid)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected: what Postgres 15's format_type answers.
    #[test]
    fn types_are_written_as_postgres_writes_them() {
        assert_eq!(format(1043, Some(16)), "character varying(12)");
        assert_eq!(format(1700, Some(458_758)), "numeric(7,2)");
        assert_eq!(format(1042, Some(-1)), "bpchar");
        assert_eq!(format(1042, None), "character");
        assert_eq!(format(1015, Some(16)), "character varying(12)[]");
        assert_eq!(format(1184, Some(-1)), "timestamp with time zone");
        assert_eq!(format(0, None), "-");
    }

    #[test]
    fn names_of_types_are_found() {
        assert_eq!(find("pg_catalog.int4"), Some(23));
        assert_eq!(find("integer"), Some(23));
        assert_eq!(find("text[]"), Some(1009));
        assert_eq!(find("_text"), Some(1009));
        assert_eq!(find("nothing"), None);
    }

    #[test]
    fn the_text_of_a_type_is_what_its_numbers_say() {
        for sql_type in [
            SqlType::Boolean,
            SqlType::Numeric {
                precision: 12,
                scale: 2,
            },
            SqlType::Varchar { length: 9 },
            SqlType::Array(Box::new(SqlType::TimestampTz)),
        ] {
            assert_eq!(
                format(oid_of(&sql_type), Some(modifier_of(&sql_type))),
                sql_type.to_string()
            );
        }
    }
}
