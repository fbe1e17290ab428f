//! `SET`, `RESET`, `SHOW name`, `ALTER SYSTEM`.

use super::{Session, command};
use crate::api::Response;
use crate::rescale;
use crate::settings::{PRESETS, Scope, setting, unknown_setting};
use tidegate_parser::AlterSystem;
use tidegate_parser::sqlparser::ast;
use tidegate_types::{SqlError, SqlState};

impl Session {
    pub(super) fn set(&mut self, set: &ast::Set) -> Result<Response, SqlError> {
        match set {
            ast::Set::SingleAssignment {
                variable,
                values,
                scope,
                ..
            } => {
                let name = tidegate_parser::name_parts(variable).join(".");
                let local = matches!(scope, Some(ast::ContextModifier::Local));
                if !self.remember_settings(local.then_some(name.as_str())) {
                    let message = "SET LOCAL can only be used in transaction blocks";
                    self.notices.push(crate::api::Notice::warning(
                        SqlState::NO_ACTIVE_TRANSACTION,
                        message,
                    ));
                    return Ok(command("SET"));
                }
                self.assign(&name, &values.iter().map(value_text).collect::<Vec<_>>())?;
            }
            ast::Set::MultipleAssignments { assignments } => {
                for assignment in assignments {
                    let name = tidegate_parser::name_parts(&assignment.name).join(".");
                    self.assign(&name, &[value_text(&assignment.value)])?;
                }
            }
            ast::Set::SetTimeZone { local, value } => {
                self.remember_settings(local.then_some("timezone"));
                self.assign("timezone", &[value_text(value)])?;
            }
            ast::Set::SetNames { charset_name, .. } => {
                self.assign("client_encoding", std::slice::from_ref(&charset_name.value))?;
            }
            // The levels that can be asked for are all served by snapshots.
            ast::Set::SetTransaction { .. } => {}
            ast::Set::SetRole { .. } | ast::Set::SetSessionAuthorization(_) => {
                return Err(SqlError::not_supported("SET ROLE"));
            }
            other => return Err(SqlError::not_supported(other)),
        }
        Ok(command("SET"))
    }

    pub(super) fn assign(&mut self, name: &str, values: &[String]) -> Result<(), SqlError> {
        let name = name.to_ascii_lowercase();
        if PRESETS.iter().any(|(n, _)| *n == name) {
            return Err(SqlError::new(
                SqlState::CANT_CHANGE_RUNTIME_PARAM,
                format!("parameter \"{name}\" cannot be changed"),
            ));
        }
        let found = setting(&name);
        if found.is_some_and(|s| s.scope == Scope::Server) {
            return Err(SqlError::new(
                SqlState::CANT_CHANGE_RUNTIME_PARAM,
                format!("parameter \"{name}\" cannot be changed for one session"),
            )
            .with_hint("ALTER SYSTEM SET changes it for the whole server."));
        }
        match values {
            [value] if value.eq_ignore_ascii_case("default") => {
                self.settings.reset(&name)?;
                if let Some(value) = self.database.config.settings.get(&name).map(str::to_owned) {
                    self.settings.set(&name, &value)?;
                }
                Ok(())
            }
            values => self.settings.set(&name, &values.join(", ")),
        }
    }

    pub(super) fn reset(&mut self, reset: &ast::ResetStatement) -> Result<Response, SqlError> {
        match &reset.reset {
            ast::Reset::ALL => self.settings = self.database.config.settings.clone(),
            ast::Reset::ConfigurationParameter(name) => {
                let name = tidegate_parser::name_parts(name).join(".");
                self.assign(&name, &["default".to_owned()])?;
            }
        }
        Ok(command("RESET"))
    }

    /// Of any setting; the value of a preset cannot change.
    pub(super) fn setting_value(&self, name: &str) -> Result<String, SqlError> {
        let name = name.to_ascii_lowercase();
        if let Some((_, value)) = PRESETS.iter().find(|(n, _)| *n == name) {
            return Ok((*value).to_owned());
        }
        let process = &self.database.config.process;
        if let Some((_, value, _)) = process.iter().find(|(n, ..)| *n == name) {
            return Ok(value.clone());
        }
        self.database
            .live_setting(&name)
            .or_else(|| self.settings.get(&name).map(str::to_owned))
            .ok_or_else(|| unknown_setting(&name))
    }

    pub(super) async fn alter_system(&mut self, alter: &AlterSystem) -> Result<Response, SqlError> {
        self.outside_transaction("ALTER SYSTEM")?;
        let mut changes: Vec<(String, Option<String>)> = match alter {
            AlterSystem::Set { name, value, .. } => vec![(name.clone(), value.clone())],
            AlterSystem::Reset { name, .. } => vec![(name.clone(), None)],
            AlterSystem::ResetAll => {
                let all = crate::settings::SETTINGS.iter();
                all.map(|s| (s.name.to_owned(), None)).collect()
            }
        };
        let is_workers = |c: &mut (String, _)| c.0.eq_ignore_ascii_case(rescale::SETTING);
        let workers: Vec<_> = changes.extract_if(.., is_workers).collect();
        if !changes.is_empty() && !self.database.change_settings(&changes)? {
            self.notice("the setting takes effect at the next start of the server");
        }
        for (_, value) in workers {
            self.rescale(value.as_deref()).await?;
        }
        Ok(command("ALTER SYSTEM"))
    }

    async fn rescale(&mut self, value: Option<&str>) -> Result<(), SqlError> {
        let before = self.database.workers()?;
        let rescaled = self.database.set_workers(value).await?;
        let (workers, pause) = (rescaled.workers, rescaled.pause.as_millis());
        self.notice(match workers == before {
            true => format!("the number of workers is {workers} as before"),
            false => format!("the number of workers is {workers}, it was {before}; statements waited for {pause} ms"),
        });
        let given = self.database.config.given_at_start(rescale::SETTING);
        if let Some(given) = given
            .filter(|given| Some(*given) != value)
            .map(str::to_owned)
        {
            self.notice(format!(
                "the server was started with workers = {given}, which holds again when it is started like that"
            ));
        }
        Ok(())
    }
}

/// A value as it was meant: text without quotes, everything else as written.
fn value_text(value: &ast::Expr) -> String {
    match value {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) | ast::Value::DoubleQuotedString(text) => {
                text.clone()
            }
            other => other.to_string(),
        },
        ast::Expr::Identifier(ident) => ident.value.clone(),
        ast::Expr::Interval(interval) => interval.value.to_string(),
        other => other.to_string(),
    }
}
