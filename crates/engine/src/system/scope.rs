//! What system relations and functions are computed from: the database as one session sees it.

use super::oids;
use crate::api::SessionOptions;
use crate::database::{Database, OWNER};
use crate::settings::{PRESETS, Settings};
use std::fmt;
use std::sync::Arc;
use tidegate_catalog::{Catalog, Relation, SearchPath};

pub(super) struct Scope {
    pub database: Arc<Database>,
    pub user: String,
    /// What the client called the database when it connected. There is one database, and it answers to any name.
    pub database_name: String,
    pub settings: Settings,
    /// As in the key data that the client was given; 0 in the embedded database.
    pub backend_pid: i64,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Scope {
    pub fn new(database: Arc<Database>, options: &SessionOptions, settings: &Settings) -> Self {
        let or_default = |name: &str| {
            if name.is_empty() {
                OWNER.to_owned()
            } else {
                name.to_owned()
            }
        };
        Self {
            database,
            user: or_default(&options.user),
            database_name: or_default(&options.database),
            settings: settings.clone(),
            backend_pid: i64::from(options.backend_pid),
        }
    }

    /// The catalog as it is now, not as it was when a statement was planned.
    pub fn catalog(&self) -> Catalog {
        self.database.catalog.get()
    }

    pub fn path(&self) -> SearchPath {
        let names = self
            .settings
            .text("search_path")
            .split(',')
            .map(|s| s.trim().trim_matches('"'));
        SearchPath(
            names
                .map(|s| {
                    if s == "$user" {
                        self.user.clone()
                    } else {
                        s.to_owned()
                    }
                })
                .collect(),
        )
    }

    /// Schemas of the search path that exist, `pg_catalog` in front as it is searched.
    pub fn existing_path(&self, implicit: bool) -> Vec<String> {
        let catalog = self.catalog();
        let mut found: Vec<String> = self.path().0;
        found.retain(|s| catalog.expect_schema(s).is_ok());
        if implicit && !found.iter().any(|s| s == "pg_catalog") {
            found.insert(0, "pg_catalog".to_owned());
        }
        found
    }

    pub fn setting(&self, name: &str) -> Option<String> {
        let name = name.to_ascii_lowercase();
        let preset = PRESETS
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| (*v).to_owned());
        preset.or_else(|| self.settings.get(&name).map(str::to_owned))
    }

    /// Everyone there is: the owner of everything, and who asks.
    pub fn roles(&self) -> Vec<(i64, String)> {
        let mut roles = vec![(oids::OWNER_ROLE, OWNER.to_owned())];
        if self.user != OWNER {
            roles.push((oids::role(&self.user), self.user.clone()));
        }
        roles
    }

    /// A relation by the OID that it is shown with.
    pub fn relation(&self, oid: i64) -> Option<Arc<Relation>> {
        self.catalog().relation(oids::relation_id(oid)?).cloned()
    }
}
