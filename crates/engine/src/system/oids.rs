//! Numbers under which clients know things. Those of Postgres's own types and catalogs are Postgres's; relations have theirs
//! from their id, so that they stay as long as the relation; what has only a name gets one from its hash.

use tidegate_catalog::Relation;
use tidegate_types::RelationId;

pub(super) const OWNER_ROLE: i64 = 10;
pub(super) const DATABASE: i64 = 5;
pub(super) const TABLESPACE: i64 = 1663;
pub(super) const BTREE: i64 = 403;
pub(super) const MEMORY: i64 = 16_001;
pub(super) const ROCKSDB: i64 = 16_002;
pub(super) const DEFAULT_COLLATION: i64 = 100;

const FIRST_RELATION: i64 = 16_384;
/// A relation, its index, its key's constraint, and one to spare.
const PER_RELATION: i64 = 4;

pub(super) fn relation(id: RelationId) -> i64 {
    FIRST_RELATION + id.0 as i64 * PER_RELATION
}

pub(super) fn index(relation: &Relation) -> i64 {
    self::relation(relation.id) + 1
}

pub(super) fn constraint(relation: &Relation) -> i64 {
    self::relation(relation.id) + 2
}

/// Of a table's nth `CHECK` constraint.
pub(super) fn check(relation: &Relation, number: usize) -> i64 {
    hashed(6, &format!("{}.{number}", relation.id))
}

/// The relation that an OID, or its index's or constraint's, belongs to.
pub(super) fn owner_of(oid: i64) -> Option<RelationId> {
    (FIRST_RELATION..FIRST_HASHED)
        .contains(&oid)
        .then(|| RelationId(((oid - FIRST_RELATION) / PER_RELATION) as u64))
}

pub(super) fn relation_id(oid: i64) -> Option<RelationId> {
    owner_of(oid).filter(|id| relation(*id) == oid)
}

/// Where hashed numbers begin; each kind has 2^28 of them.
const FIRST_HASHED: i64 = 0x4000_0000;

fn hashed(kind: i64, name: &str) -> i64 {
    FIRST_HASHED + (kind << 28) + i64::from(crc32c::crc32c(name.as_bytes()) & 0x0fff_ffff)
}

pub(super) fn schema(name: &str) -> i64 {
    match name {
        "pg_catalog" => 11,
        "public" => 2200,
        "information_schema" => 13_000,
        "tidegate" => 13_001,
        other => hashed(0, other),
    }
}

pub(super) fn role(name: &str) -> i64 {
    hashed(1, name)
}

pub(super) fn function(name: &str) -> i64 {
    hashed(2, name)
}

/// Connectors are shown as foreign-data wrappers and servers.
pub(super) fn connector(name: &str) -> i64 {
    hashed(3, name)
}

pub(super) fn column_default(relation: RelationId, number: usize) -> i64 {
    hashed(4, &format!("{relation}.{number}"))
}

pub(super) fn system_relation(schema: &str, name: &str) -> i64 {
    match (schema, name) {
        ("pg_catalog", "pg_type") => 1247,
        ("pg_catalog", "pg_attribute") => 1249,
        ("pg_catalog", "pg_proc") => 1255,
        ("pg_catalog", "pg_class") => 1259,
        ("pg_catalog", "pg_database") => 1262,
        ("pg_catalog", "pg_namespace") => 2615,
        ("pg_catalog", "pg_constraint") => 2606,
        ("pg_catalog", "pg_extension") => 3079,
        _ => hashed(5, &format!("{schema}.{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relation_is_found_by_its_number_and_by_no_other() {
        let id = RelationId(7);
        assert_eq!(relation_id(relation(id)), Some(id));
        assert_eq!(relation_id(relation(id) + 1), None);
        assert_eq!(owner_of(relation(id) + 2), Some(id));
        assert_eq!(owner_of(1259), None);
        assert_eq!(owner_of(schema("mine")), None);
    }
}
