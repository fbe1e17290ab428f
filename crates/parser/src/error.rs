//! The one error of this crate, in the shape a Postgres client shows.

/// A text that is not a statement of ours, or uses a clause that is not built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// Lower-case, as Postgres words it: `syntax error at or near "x"`.
    pub message: String,
    /// Where, as a 1-based offset in characters into the text given to [`crate::parse`].
    pub position: usize,
    /// Five characters: 42601 for syntax, 54001 for nesting, 0A000 for what is not built.
    pub sqlstate: &'static str,
    /// What was expected, when that can be said shortly.
    pub hint: Option<String>,
}

impl ParseError {
    const SYNTAX: &'static str = "42601";
    const TOO_COMPLEX: &'static str = "54001";
    const NOT_BUILT: &'static str = "0A000";

    pub(crate) fn syntax(message: impl Into<String>, position: usize) -> Self {
        Self {
            message: message.into(),
            position,
            sqlstate: Self::SYNTAX,
            hint: None,
        }
    }

    pub(crate) fn too_complex(position: usize) -> Self {
        Self {
            sqlstate: Self::TOO_COMPLEX,
            ..Self::syntax("stack depth limit exceeded", position)
        }
    }

    pub(crate) fn not_built(feature: &str, position: usize) -> Self {
        Self {
            message: format!("{feature} is not supported"),
            position,
            sqlstate: Self::NOT_BUILT,
            hint: None,
        }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
