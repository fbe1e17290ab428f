//! Tests of the whole crate. Messages, details, hints and their order were asked of Postgres 15.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use expect_test::expect;
use tidegate_types::{RelationId, SqlError, SqlType};

use super::*;

fn path() -> SearchPath {
    SearchPath::default()
}

fn name(dotted: &str) -> Vec<String> {
    dotted.split('.').map(str::to_string).collect()
}

fn table() -> RelationKind {
    RelationKind::Table(TableDef {
        primary_key: vec![0],
        ..TableDef::default()
    })
}

fn view() -> RelationKind {
    RelationKind::View(ViewDef {
        query: "SELECT 1".to_string(),
    })
}

fn materialized_view() -> RelationKind {
    RelationKind::MaterializedView(MaterializedViewDef {
        query: "SELECT 1".to_string(),
        options: BTreeMap::from([("state_backend".to_string(), "rocksdb".to_string())]),
        plan_json: r#"{"nodes":[]}"#.to_string(),
        key: vec![0],
        emit_on_window_close: false,
    })
}

fn column(name: &str, sql_type: SqlType) -> Column {
    Column {
        name: name.to_string(),
        sql_type,
        nullable: true,
        default: None,
        generated: None,
        hidden: false,
    }
}

/// A relation `schema.name` with the next id.
fn relation(catalog: &Catalog, dotted: &str, kind: RelationKind, reads: &[&str]) -> Relation {
    let (schema, last) = dotted.split_once('.').unwrap_or(("public", dotted));
    let mut depends_on: Vec<RelationId> = reads
        .iter()
        .map(|read| catalog.resolve(&name(read), &path()).unwrap().id)
        .collect();
    depends_on.sort_unstable();
    Relation {
        id: catalog.next_id(),
        schema: schema.to_string(),
        name: last.to_string(),
        kind,
        columns: vec![column("a", SqlType::Integer), column("b", SqlType::Text)],
        definition: format!("CREATE … {last}"),
        depends_on,
        created_at_ms: 1_700_000_000_000,
        owner: "ann".to_string(),
        comments: std::collections::BTreeMap::new(),
    }
}

fn create(catalog: &mut Catalog, dotted: &str, kind: RelationKind, reads: &[&str]) -> RelationId {
    let relation = relation(catalog, dotted, kind, reads);
    let id = relation.id;
    catalog
        .apply(&CatalogChange::CreateRelation(Box::new(relation)))
        .unwrap();
    id
}

fn schema(name: &str) -> CatalogChange {
    CatalogChange::CreateSchema(Schema {
        name: name.to_string(),
        owner: "ann".to_string(),
    })
}

/// The database on which Postgres was asked:
///
/// ```sql
/// create schema s; create table t(a int); create view v as select * from t;
/// create materialized view m as select * from v; create view s.w as select * from t; create table t2(a int);
/// create view j as select t.a from t, t2;
/// ```
fn sample() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(&schema("s")).unwrap();
    create(&mut catalog, "t", table(), &[]);
    create(&mut catalog, "v", view(), &["t"]);
    create(&mut catalog, "m", materialized_view(), &["v"]);
    create(&mut catalog, "s.w", view(), &["t"]);
    create(&mut catalog, "t2", table(), &[]);
    create(&mut catalog, "j", view(), &["t", "t2"]);
    catalog
}

fn ids(catalog: &Catalog, names: &[&str]) -> Vec<RelationId> {
    names
        .iter()
        .map(|n| catalog.resolve(&name(n), &path()).unwrap().id)
        .collect()
}

fn names(catalog: &Catalog, ids: &[RelationId]) -> Vec<String> {
    ids.iter()
        .map(|id| catalog.relation(*id).unwrap().name.clone())
        .collect()
}

/// As psql prints an error with `\set VERBOSITY verbose`.
fn shown(error: CatalogError) -> String {
    let error = SqlError::from(error);
    let mut text = format!("{}: {}\n", error.state, error.message);
    if let Some(detail) = error.detail {
        text += &format!("DETAIL:  {detail}\n");
    }
    if let Some(hint) = error.hint {
        text += &format!("HINT:  {hint}\n");
    }
    text
}

#[test]
fn names_are_found_along_the_search_path() {
    let mut catalog = sample();
    create(&mut catalog, "s.t", table(), &[]);
    let s_first = SearchPath(name("absent.s.public"));
    let found = |dotted: &str, path: &SearchPath| {
        let relation = catalog.resolve(&name(dotted), path).unwrap();
        format!("{}.{}", relation.schema, relation.name)
    };
    assert_eq!(found("t", &path()), "public.t");
    assert_eq!(found("t", &s_first), "s.t");
    assert_eq!(found("v", &s_first), "public.v");
    assert_eq!(found("public.t", &s_first), "public.t");
    assert_eq!(
        catalog.describe(catalog.get("public", "t").unwrap(), &s_first),
        "table public.t"
    );
    assert_eq!(
        catalog.describe(catalog.get("s", "t").unwrap(), &s_first),
        "table t"
    );
}

#[test]
fn unknown_names_fail_as_in_postgres() {
    let catalog = sample();
    let fails = |dotted: &str| shown(catalog.resolve(&name(dotted), &path()).unwrap_err());
    expect![[r#"
        42P01: relation "nosuch" does not exist
    "#]]
    .assert_eq(&fails("nosuch"));
    expect![[r#"
        42P01: relation "nosuch.t" does not exist
        HINT:  Perhaps you meant "public.t".
    "#]]
    .assert_eq(&fails("nosuch.t"));
    expect![[r#"
        42P01: relation "w" does not exist
        HINT:  Perhaps you meant "s.w".
    "#]]
    .assert_eq(&fails("w"));
    expect![[r#"
        42P01: relation "tt2" does not exist
        HINT:  Perhaps you meant "t2".
    "#]]
    .assert_eq(&fails("tt2"));
    expect![[r#"
        0A000: cross-database references are not implemented: "a.b.c"
    "#]]
    .assert_eq(&fails("a.b.c"));
    expect![[r#"
        42601: improper qualified name (too many dotted names): a.b.c.d
    "#]]
    .assert_eq(&fails("a.b.c.d"));
}

#[test]
fn a_name_of_another_kind_fails_as_in_postgres() {
    let catalog = sample();
    let fails = |dotted: &str, class| {
        shown(
            catalog
                .resolve_class(&name(dotted), &path(), class)
                .unwrap_err(),
        )
    };
    expect![[r#"
        42809: "v" is not a table
        HINT:  Use DROP VIEW to remove a view.
    "#]]
    .assert_eq(&fails("v", RelationClass::Table));
    expect![[r#"
        42809: "m" is not a view
        HINT:  Use DROP MATERIALIZED VIEW to remove a materialized view.
    "#]]
    .assert_eq(&fails("m", RelationClass::View));
    expect![[r#"
        42809: "t" is not a materialized view
        HINT:  Use DROP TABLE to remove a table.
    "#]]
    .assert_eq(&fails("t", RelationClass::MaterializedView));
    expect![[r#"
        42P01: materialized view "nosuch" does not exist
    "#]]
    .assert_eq(&fails("nosuch", RelationClass::MaterializedView));
    expect![[r#"
        3F000: schema "nosuch" does not exist
    "#]]
    .assert_eq(&fails("nosuch.t", RelationClass::Table));
    expect![[r#"
        42P01: materialized view "mm" does not exist
        HINT:  Perhaps you meant "m".
    "#]]
    .assert_eq(&fails("mm", RelationClass::MaterializedView));
    assert_eq!(
        catalog
            .resolve_class(&name("m"), &path(), RelationClass::MaterializedView)
            .unwrap()
            .name,
        "m"
    );
    assert!(
        catalog
            .resolve_class(&name("nosuch.t"), &path(), RelationClass::Table)
            .unwrap_err()
            .is_undefined()
    );
}

#[test]
fn new_names_go_into_the_first_schema_that_exists() {
    let catalog = sample();
    let new = |dotted: &str, path: &SearchPath| catalog.name_for_new(&name(dotted), path);
    let pair = |schema: &str, name: &str| Ok((schema.to_string(), name.to_string()));
    assert_eq!(new("x", &path()), pair("public", "x"));
    assert_eq!(
        new("x", &SearchPath(name("absent.s.public"))),
        pair("s", "x")
    );
    assert_eq!(new("s.t", &path()), pair("s", "t"));
    let fails = |dotted: &str, path: &SearchPath| shown(new(dotted, path).unwrap_err());
    expect![[r#"
        42P07: relation "v" already exists
    "#]]
    .assert_eq(&fails("v", &path()));
    expect![[r#"
        3F000: schema "nosuch" does not exist
    "#]]
    .assert_eq(&fails("nosuch.t", &path()));
    expect![[r#"
        3F000: schema "pblic" does not exist
        HINT:  Perhaps you meant the schema "public".
    "#]]
    .assert_eq(&fails("pblic.t", &path()));
    expect![[r#"
        3F000: no schema has been selected to create in
    "#]]
    .assert_eq(&fails("t", &SearchPath(name("absent"))));
    expect![[r#"
        42501: permission denied to create "pg_catalog.t"
        DETAIL:  System catalog modifications are currently disallowed.
    "#]]
    .assert_eq(&fails("pg_catalog.t", &path()));
}

#[test]
fn schemas_cannot_be_made_twice_or_under_reserved_names() {
    let mut catalog = sample();
    let mut fails = |name: &str| shown(catalog.apply(&schema(name)).unwrap_err());
    expect![[r#"
        42P06: schema "s" already exists
    "#]]
    .assert_eq(&fails("s"));
    expect![[r#"
        42939: unacceptable schema name "pg_foo"
        DETAIL:  The prefix "pg_" is reserved for system schemas.
    "#]]
    .assert_eq(&fails("pg_foo"));
    expect![[r#"
        42939: unacceptable schema name "tidegate"
        DETAIL:  The name is reserved for a system schema.
    "#]]
    .assert_eq(&fails("tidegate"));
}

#[test]
fn restrict_lists_dependents_as_postgres_does() {
    let catalog = sample();
    let fails = |names: &[&str]| {
        shown(
            catalog
                .drop_plan(&ids(&catalog, names), false, &path())
                .unwrap_err(),
        )
    };
    expect![[r#"
        2BP01: cannot drop table t because other objects depend on it
        DETAIL:  view v depends on table t
        materialized view m depends on view v
        view s.w depends on table t
        view j depends on table t
        HINT:  Use DROP ... CASCADE to drop the dependent objects too.
    "#]]
    .assert_eq(&fails(&["t"]));
    expect![[r#"
        2BP01: cannot drop desired object(s) because other objects depend on them
        DETAIL:  view v depends on table t
        materialized view m depends on view v
        view s.w depends on table t
        view j depends on table t
        HINT:  Use DROP ... CASCADE to drop the dependent objects too.
    "#]]
    .assert_eq(&fails(&["t", "t2"]));
    expect![[r#"
        2BP01: cannot drop table t2 because other objects depend on it
        DETAIL:  view j depends on table t2
        HINT:  Use DROP ... CASCADE to drop the dependent objects too.
    "#]]
    .assert_eq(&fails(&["t2"]));
}

#[test]
fn restrict_allows_what_nothing_outside_the_list_reads() {
    let catalog = sample();
    let plan = |names: &[&str]| catalog.drop_plan(&ids(&catalog, names), false, &path());
    let dropped = plan(&["v", "m"]).unwrap();
    assert_eq!(names(&catalog, &dropped.ids), ["m", "v"]);
    assert_eq!(dropped.notice(), None);
    assert!(plan(&["v"]).is_err());
    assert!(plan(&["t2", "j"]).is_ok());
}

#[test]
fn cascade_drops_readers_first_and_says_so() {
    let mut catalog = sample();
    let plan = catalog
        .drop_plan(&ids(&catalog, &["t"]), true, &path())
        .unwrap();
    assert_eq!(names(&catalog, &plan.ids), ["j", "w", "m", "v", "t"]);
    let (message, detail) = plan.notice().unwrap();
    assert_eq!(message, "drop cascades to 4 other objects");
    assert_eq!(
        detail.unwrap(),
        "drop cascades to view v\ndrop cascades to materialized view m\n\
         drop cascades to view s.w\ndrop cascades to view j"
    );
    let one = catalog
        .drop_plan(&ids(&catalog, &["t2"]), true, &path())
        .unwrap();
    assert_eq!(
        one.notice(),
        Some(("drop cascades to view j".to_string(), None))
    );
    catalog
        .apply(&CatalogChange::DropRelations(plan.ids))
        .unwrap();
    let left: Vec<_> = catalog.relations().map(|r| r.name.as_str()).collect();
    assert_eq!(left, ["t2"]);
    assert_eq!(catalog.readers(ids(&catalog, &["t2"])[0]).count(), 0);
}

#[test]
fn a_chain_of_views_may_be_long() {
    let mut catalog = Catalog::default();
    create(&mut catalog, "v0", table(), &[]);
    for n in 1..2_000 {
        create(
            &mut catalog,
            &format!("v{n}"),
            view(),
            &[&format!("v{}", n - 1)],
        );
    }
    let plan = catalog
        .drop_plan(&ids(&catalog, &["v0"]), true, &path())
        .unwrap();
    assert_eq!(plan.ids.len(), 2_000);
    assert!(plan.ids.is_sorted_by(|a, b| a > b));
}

#[test]
fn schemas_are_dropped_with_what_they_hold() {
    let mut catalog = sample();
    let restrict = catalog.drop_schema_plan("s", false, &path()).unwrap_err();
    expect![[r#"
        2BP01: cannot drop schema s because other objects depend on it
        DETAIL:  view s.w depends on schema s
        HINT:  Use DROP ... CASCADE to drop the dependent objects too.
    "#]]
    .assert_eq(&shown(restrict));
    let public = catalog
        .drop_schema_plan("public", false, &path())
        .unwrap_err();
    expect![[r#"
        2BP01: cannot drop schema public because other objects depend on it
        DETAIL:  table t depends on schema public
        view s.w depends on table t
        view v depends on schema public
        materialized view m depends on schema public
        table t2 depends on schema public
        view j depends on schema public
        HINT:  Use DROP ... CASCADE to drop the dependent objects too.
    "#]]
    .assert_eq(&shown(public));
    let system = catalog
        .drop_schema_plan("pg_catalog", true, &path())
        .unwrap_err();
    expect![[r#"
        2BP01: cannot drop schema pg_catalog because it is required by the database system
    "#]]
    .assert_eq(&shown(system));

    let drop = CatalogChange::DropSchema {
        name: "s".to_string(),
    };
    assert!(matches!(
        catalog.apply(&drop),
        Err(CatalogError::Inconsistent(_))
    ));
    let plan = catalog.drop_schema_plan("s", true, &path()).unwrap();
    assert_eq!(plan.notice().unwrap().0, "drop cascades to view s.w");
    catalog
        .apply(&CatalogChange::DropRelations(plan.ids))
        .unwrap();
    catalog.apply(&drop).unwrap();
    assert!(catalog.schema("s").is_none());
}

#[test]
fn ids_are_never_given_out_twice() {
    let mut catalog = Catalog::default();
    let first = create(&mut catalog, "t", table(), &[]);
    let again = relation(&catalog, "t", table(), &[]);
    catalog
        .apply(&CatalogChange::DropRelations(vec![first]))
        .unwrap();
    assert_eq!(catalog.next_id(), again.id);
    let second = create(&mut catalog, "t", table(), &[]);
    assert!(second > first);
    let stale = Relation {
        id: first,
        name: "u".to_string(),
        ..relation(&catalog, "u", table(), &[])
    };
    assert!(matches!(
        catalog.apply(&CatalogChange::CreateRelation(Box::new(stale))),
        Err(CatalogError::Inconsistent(_))
    ));
    let restored = Catalog::from_json(&catalog.to_json()).unwrap();
    assert_eq!(restored.next_id(), catalog.next_id());
}

#[test]
fn a_change_that_does_not_fit_changes_nothing() {
    let mut catalog = sample();
    let before = catalog.clone();
    let base = relation(&catalog, "n", table(), &[]);
    let broken = [
        Relation {
            depends_on: vec![RelationId(99)],
            ..base.clone()
        },
        Relation {
            depends_on: vec![RelationId(2), RelationId(1)],
            ..base.clone()
        },
        Relation {
            kind: RelationKind::Table(TableDef {
                primary_key: vec![2],
                ..TableDef::default()
            }),
            ..base.clone()
        },
        Relation {
            columns: vec![column("a", SqlType::Text), column("a", SqlType::Text)],
            ..base.clone()
        },
        Relation {
            schema: "nosuch".to_string(),
            ..base.clone()
        },
        Relation {
            name: "v".to_string(),
            ..base
        },
    ];
    for relation in broken {
        let change = CatalogChange::CreateRelation(Box::new(relation));
        assert!(catalog.apply(&change).is_err(), "{change:?}");
        assert_eq!(catalog, before);
    }
    let read = ids(&catalog, &["t"]);
    for ids in [read, vec![RelationId(99)]] {
        assert!(catalog.apply(&CatalogChange::DropRelations(ids)).is_err());
        assert_eq!(catalog, before);
    }
}

#[test]
fn a_column_twice_fails_as_in_postgres() {
    let mut catalog = Catalog::default();
    let relation = Relation {
        columns: vec![column("a", SqlType::Text), column("a", SqlType::Text)],
        ..relation(&catalog, "x", table(), &[])
    };
    let error = catalog
        .apply(&CatalogChange::CreateRelation(Box::new(relation)))
        .unwrap_err();
    assert_eq!(
        shown(error),
        "42701: column \"a\" specified more than once\n"
    );
}

#[test]
fn relations_are_renamed_and_moved_unless_something_reads_them() {
    let mut catalog = sample();
    let [j, t2, t] = ids(&catalog, &["j", "t2", "t"])[..] else {
        panic!("three names")
    };
    let rename = |id, name: &str| CatalogChange::RenameRelation {
        id,
        name: name.to_string(),
        definition: format!("CREATE VIEW {name} …"),
    };
    catalog.apply(&rename(j, "k")).unwrap();
    assert!(catalog.get("public", "j").is_none());
    assert_eq!(catalog.get("public", "k").unwrap().id, j);
    assert_eq!(
        catalog.get("public", "k").unwrap().definition,
        "CREATE VIEW k …"
    );
    assert_eq!(catalog.readers(t2).next().unwrap().id, j);
    assert_eq!(
        shown(catalog.apply(&rename(j, "v")).unwrap_err()),
        "42P07: relation \"v\" already exists\n"
    );
    expect![[r#"
        2BP01: cannot rename table t because other objects depend on it
        DETAIL:  view v depends on table t
        view s.w depends on table t
        view k depends on table t
        HINT:  Drop the dependent objects, rename it, and create them again.
    "#]]
    .assert_eq(&shown(catalog.apply(&rename(t, "x")).unwrap_err()));
    catalog
        .apply(&CatalogChange::MoveRelation {
            id: j,
            schema: "s".to_string(),
            definition: "CREATE VIEW s.k …".to_string(),
        })
        .unwrap();
    assert_eq!(catalog.get("s", "k").unwrap().id, j);
}

#[test]
fn a_replacement_keeps_readers_and_may_read_newer_relations() {
    let mut catalog = sample();
    let newer = create(&mut catalog, "newer", table(), &[]);
    let [v, m] = ids(&catalog, &["v", "m"])[..] else {
        panic!("two names")
    };
    let replaced = Relation {
        depends_on: vec![newer],
        ..Relation::clone(catalog.relation(v).unwrap())
    };
    catalog
        .apply(&CatalogChange::ReplaceRelation(Box::new(replaced.clone())))
        .unwrap();
    assert_eq!(catalog.readers(v).next().unwrap().id, m);
    assert_eq!(catalog.readers(newer).next().unwrap().id, v);
    let order: Vec<_> = catalog
        .in_dependency_order()
        .iter()
        .map(|r| r.name.as_str())
        .collect();
    assert_eq!(order, ["t", "w", "t2", "j", "newer", "v", "m"]);
    assert_eq!(
        Catalog::from_json(&catalog.to_json()).unwrap(),
        catalog,
        "a relation may come before what it reads in the durable form"
    );

    let circle = Relation {
        depends_on: vec![m],
        ..replaced.clone()
    };
    let renamed = Relation {
        name: "other".to_string(),
        ..replaced
    };
    for relation in [circle, renamed] {
        let change = CatalogChange::ReplaceRelation(Box::new(relation));
        assert!(matches!(
            catalog.apply(&change),
            Err(CatalogError::Inconsistent(_))
        ));
    }
}

#[test]
fn replaying_the_changes_gives_the_same_catalog() {
    let mut live = Catalog::new("ann");
    let mut log: Vec<String> = Vec::new();
    let mut apply = |catalog: &mut Catalog, change: CatalogChange| {
        log.push(serde_json::to_string(&change).unwrap());
        catalog.apply(&change).unwrap();
    };
    apply(&mut live, schema("s"));
    for (dotted, kind, reads) in [
        ("t", table(), vec![]),
        ("s.m", materialized_view(), vec!["t"]),
        ("k", view(), vec!["s.m"]),
    ] {
        let relation = relation(&live, dotted, kind, &reads);
        apply(&mut live, CatalogChange::CreateRelation(Box::new(relation)));
    }
    let id = ids(&live, &["k"])[0];
    apply(
        &mut live,
        CatalogChange::RenameRelation {
            id,
            name: "l".to_string(),
            definition: String::new(),
        },
    );
    apply(&mut live, CatalogChange::DropRelations(vec![id]));

    let mut replayed = Catalog::new("ann");
    for line in &log {
        replayed
            .apply(&serde_json::from_str(line).unwrap())
            .unwrap();
    }
    assert_eq!(replayed, live);
    assert_eq!(live.version(), log.len() as u64);
}

#[test]
fn versions_are_independent_values() {
    let old = sample();
    let mut new = old.clone();
    let j = ids(&new, &["j"]);
    new.apply(&CatalogChange::DropRelations(j)).unwrap();
    assert!(old.get("public", "j").is_some());
    assert!(new.get("public", "j").is_none());
    assert_eq!(new.version(), old.version() + 1);
}

#[test]
fn the_durable_form_says_everything() {
    let mut catalog = sample();
    let source = RelationKind::Source(SourceDef {
        connector: "file".to_string(),
        options: BTreeMap::from([("path".to_string(), "/in".to_string())]),
        format: Some("plain".to_string()),
        encode: Some("csv".to_string()),
        format_options: BTreeMap::from([("delimiter".to_string(), ";".to_string())]),
        watermark: None,
    });
    create(&mut catalog, "src", source, &[]);
    let sink = RelationKind::Sink(SinkDef {
        query: "SELECT * FROM m".to_string(),
        connector: "blackhole".to_string(),
        plan_json: "{}".to_string(),
        ..SinkDef::default()
    });
    create(&mut catalog, "k", sink, &["m"]);
    let mut with_columns = relation(&catalog, "c", table(), &[]);
    with_columns.columns = vec![
        Column {
            nullable: false,
            ..column("id", SqlType::BigInt)
        },
        Column {
            default: Some("now()".to_string()),
            ..column("at", SqlType::TimestampTz)
        },
        Column {
            generated: Some("id + 1".to_string()),
            ..column(
                "next",
                SqlType::Numeric {
                    precision: 12,
                    scale: 2,
                },
            )
        },
        Column {
            hidden: true,
            ..column("_row_id", SqlType::Array(Box::new(SqlType::Uuid)))
        },
    ];
    catalog
        .apply(&CatalogChange::CreateRelation(Box::new(with_columns)))
        .unwrap();
    let restored = Catalog::from_json(&catalog.to_json()).unwrap();
    assert_eq!(restored, catalog);
    let c = restored.get("public", "c").unwrap();
    assert_eq!(c.visible_columns().count(), 3);
    assert_eq!(c.arrow_schema().fields().len(), 4);
    assert!(!c.arrow_schema().field(0).is_nullable());
}

#[test]
fn the_durable_form_does_not_change_unnoticed() {
    let mut catalog = Catalog::new("ann");
    create(&mut catalog, "t", table(), &[]);
    create(&mut catalog, "m", materialized_view(), &["t"]);
    let pretty = serde_json::to_string_pretty(&catalog).unwrap();
    expect![[r#"
        {
          "format": 1,
          "version": 2,
          "next_id": 3,
          "schemas": [
            {
              "name": "public",
              "owner": "ann"
            }
          ],
          "relations": [
            {
              "id": 1,
              "schema": "public",
              "name": "t",
              "kind": {
                "table": {
                  "primary_key": [
                    0
                  ],
                  "append_only": false,
                  "options": {}
                }
              },
              "columns": [
                {
                  "name": "a",
                  "sql_type": "Integer",
                  "nullable": true
                },
                {
                  "name": "b",
                  "sql_type": "Text",
                  "nullable": true
                }
              ],
              "definition": "CREATE … t",
              "depends_on": [],
              "created_at_ms": 1700000000000,
              "owner": "ann"
            },
            {
              "id": 2,
              "schema": "public",
              "name": "m",
              "kind": {
                "materialized_view": {
                  "query": "SELECT 1",
                  "options": {
                    "state_backend": "rocksdb"
                  },
                  "plan_json": "{\"nodes\":[]}",
                  "key": [
                    0
                  ]
                }
              },
              "columns": [
                {
                  "name": "a",
                  "sql_type": "Integer",
                  "nullable": true
                },
                {
                  "name": "b",
                  "sql_type": "Text",
                  "nullable": true
                }
              ],
              "definition": "CREATE … m",
              "depends_on": [
                1
              ],
              "created_at_ms": 1700000000000,
              "owner": "ann"
            }
          ]
        }"#]]
    .assert_eq(&pretty);
}

#[test]
fn a_durable_form_that_cannot_be_right_is_refused() {
    let good = sample().to_json();
    let damaged = [
        good.replace("\"format\":1", "\"format\":2"),
        good.replace("\"next_id\":7", "\"next_id\":3"),
        good.replace("\"name\":\"t2\"", "\"name\":\"t\""),
        good.replace("\"schema\":\"s\"", "\"schema\":\"x\""),
        good.replace("\"depends_on\":[2]", "\"depends_on\":[9]"),
        good.replace("\"depends_on\":[]", "\"depends_on\":[6]"),
        good[..good.len() - 1].to_string(),
    ];
    for json in damaged {
        assert_ne!(json, good);
        assert!(
            matches!(Catalog::from_json(&json), Err(CatalogError::Unreadable(_))),
            "{json}"
        );
    }
    let newer = r#"{"format":7,"all":"else"}"#;
    assert_eq!(
        shown(Catalog::from_json(newer).unwrap_err()),
        "XX001: cannot read the catalog: it has format 7, this version reads format 1\n"
    );
}

#[test]
fn lists_are_in_order_of_names_and_kinds_apart() {
    let catalog = sample();
    let list = |class| -> Vec<String> {
        catalog
            .relations_of(class)
            .map(|r| format!("{}.{}", r.schema, r.name))
            .collect()
    };
    assert_eq!(list(RelationClass::View), ["public.j", "public.v", "s.w"]);
    assert_eq!(list(RelationClass::MaterializedView), ["public.m"]);
    assert!(list(RelationClass::Sink).is_empty());
    let schemas: Vec<_> = catalog.schemas().map(|s| s.name.as_str()).collect();
    assert_eq!(schemas, ["public", "s"]);
}
