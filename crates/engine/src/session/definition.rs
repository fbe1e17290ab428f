//! The statement that would make a relation as it is now, for relations that are no longer as they were written.

use tidegate_catalog::{Relation, RelationKind};
use tidegate_parser::quote_ident;
use tidegate_types::text::micros_as_interval;

/// As `SHOW CREATE` prints it.
pub(super) fn definition(relation: &Relation) -> String {
    let name = quote_ident(&relation.name);
    match &relation.kind {
        RelationKind::Table(def) => {
            let mut parts: Vec<String> = Vec::new();
            for (_, column) in relation.visible_columns() {
                let mut part = format!("{} {}", quote_ident(&column.name), column.sql_type);
                if let Some(default) = &column.default {
                    part.push_str(&format!(" DEFAULT {default}"));
                }
                if !column.nullable {
                    part.push_str(" NOT NULL");
                }
                parts.push(part);
            }
            if !def.primary_key.is_empty() {
                let key = def.primary_key.iter();
                let names: Vec<String> = key
                    .map(|c| quote_ident(&relation.columns[*c].name))
                    .collect();
                parts.push(format!("PRIMARY KEY ({})", names.join(", ")));
            }
            if let Some(watermark) = &def.watermark {
                let column = quote_ident(&relation.columns[watermark.column].name);
                let delay = micros_as_interval(watermark.delay_us);
                parts.push(format!(
                    "WATERMARK FOR {column} AS {column} - INTERVAL '{delay}'"
                ));
            }
            for check in &def.checks {
                parts.push(format!(
                    "CONSTRAINT {} CHECK ({})",
                    quote_ident(&check.name),
                    check.condition
                ));
            }
            let mut text = format!("CREATE TABLE {name} ({})", parts.join(", "));
            if def.append_only {
                text.push_str(" APPEND ONLY");
            }
            text + &with_options(def.options.iter())
        }
        RelationKind::View(def) => {
            let columns: Vec<String> = relation
                .visible_columns()
                .map(|(_, c)| quote_ident(&c.name))
                .collect();
            format!(
                "CREATE VIEW {name} ({}) AS {}",
                columns.join(", "),
                def.query
            )
        }
        RelationKind::MaterializedView(def) => {
            let columns: Vec<String> = relation
                .visible_columns()
                .map(|(_, c)| quote_ident(&c.name))
                .collect();
            let options = def.options.iter().filter(|(n, _)| *n == "state_backend");
            let emit = match def.emit_on_window_close {
                true => " EMIT ON WINDOW CLOSE",
                false => "",
            };
            format!(
                "CREATE MATERIALIZED VIEW {name} ({}){} AS {}{emit}",
                columns.join(", "),
                with_options(options),
                def.query
            )
        }
        // What stands behind their names stays as it was written.
        RelationKind::Source(_) | RelationKind::Sink(_) => renamed(&relation.definition, &name),
    }
}

fn with_options<'a>(options: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let list: Vec<String> = options
        .map(|(name, value)| format!("{name} = '{}'", value.replace('\'', "''")))
        .collect();
    match list.as_slice() {
        [] => String::new(),
        list => format!(" WITH ({})", list.join(", ")),
    }
}

/// `CREATE SOURCE|SINK [IF NOT EXISTS] old …` with another name.
fn renamed(text: &str, name: &str) -> String {
    let mut rest = text.trim_start();
    let mut head = Vec::new();
    loop {
        let word = rest.split_whitespace().next().unwrap_or_default();
        let skipped = ["CREATE", "SOURCE", "SINK", "IF", "NOT", "EXISTS"]
            .iter()
            .any(|w| word.eq_ignore_ascii_case(w));
        if !skipped {
            break;
        }
        head.push(word);
        rest = rest[word.len()..].trim_start();
    }
    let mut in_quotes = false;
    let end = rest
        .find(|c: char| {
            in_quotes ^= c == '"';
            !in_quotes && (c.is_whitespace() || c == '(')
        })
        .unwrap_or(rest.len());
    format!("{} {name}{}", head.join(" "), &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::renamed;

    #[test]
    fn only_the_name_of_a_source_changes() {
        assert_eq!(
            renamed("create source if not exists s(a int) with (x = 's')", "t"),
            "create source if not exists t(a int) with (x = 's')"
        );
        assert_eq!(
            renamed("CREATE SINK public.\"a b\" FROM v WITH (x = 'y')", "k"),
            "CREATE SINK k FROM v WITH (x = 'y')"
        );
    }
}
