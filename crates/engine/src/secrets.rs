//! Options that hold secrets are not shown: not in definitions, and not in system relations.

use std::collections::BTreeMap;
use tidegate_catalog::{Relation, RelationKind};

/// Stands where a secret would.
pub(crate) const MASK: &str = "********";

/// Words in an option's name that say that its value is not for everyone.
const WORDS: &[&str] = &[
    "password",
    "secret",
    "token",
    "credential",
    "private_key",
    "access_key",
    "api_key",
    "sasl.jaas",
];

pub(crate) fn is_secret(option: &str) -> bool {
    let name = option.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// The statement that made a relation, without its secrets.
pub(crate) fn definition(relation: &Relation) -> String {
    let groups: Vec<&BTreeMap<String, String>> = match &relation.kind {
        RelationKind::Source(def) => vec![&def.options, &def.format_options],
        RelationKind::Sink(def) => vec![&def.options, &def.format_options],
        RelationKind::Table(def) => vec![&def.options],
        RelationKind::View(_) | RelationKind::MaterializedView(_) => Vec::new(),
    };
    let secrets = groups
        .into_iter()
        .flatten()
        .filter(|(name, value)| is_secret(name) && !value.is_empty());
    let mut text = relation.definition.clone();
    for (_, value) in secrets {
        let quoted = value.replace('\'', "''");
        text = text.replace(&quoted, MASK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_secrets() {
        for secret in [
            "password",
            "sasl.password",
            "s3.secret_access_key",
            "ssl.private_key",
            "auth_TOKEN",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for open in ["path", "topic", "key_encode", "primary_key"] {
            assert!(!is_secret(open), "{open}");
        }
    }
}
