//! The log: to stderr, as text or as JSON lines. Panics go there too, with the place where they happened.

use crate::settings::Options;
use std::backtrace::Backtrace;
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use tidegate_types::{SqlError, SqlState};
use tracing_subscriber::EnvFilter;

pub fn start(options: &Options) -> Result<(), SqlError> {
    let filter = EnvFilter::try_new(&options.log_level).map_err(|error| {
        SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!(
                "invalid value for parameter \"log_level\": \"{}\": {error}",
                options.log_level
            ),
        )
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if options.log_format == "json" {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init();
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Where a panic leads is decided by whoever catches it; here it is only written down.
fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let message = info.payload_as_str().unwrap_or("a panic without a message");
    tracing::error!(
        thread = thread.name().unwrap_or("?"),
        location = info.location().map(tracing::field::display),
        backtrace = %Backtrace::capture(),
        "panic: {message}"
    );
}
