//! Settings and their precedence; addresses. The database behind the wire is tested in [`wire`].
#![allow(clippy::unwrap_used)]

mod wire;

use crate::cli::{Cli, ServerArgs, command};
use crate::listen::bind;
use crate::settings::{OWN, Options, all_settings};
use clap::FromArgMatches;
use std::io::Write;
use tidegate_types::SqlError;

fn args(line: &[&str]) -> ServerArgs {
    let matches = command()
        .try_get_matches_from([&["tidegate"], line].concat())
        .unwrap();
    let cli = Cli::from_arg_matches(&matches).unwrap();
    match cli.command {
        Some(crate::cli::Command::Server(args)) => args,
        None => cli.server,
        other => panic!("not the server: {other:?}"),
    }
}

fn gather(line: &[&str], environment: &[(&str, &str)]) -> Result<Options, SqlError> {
    let environment = environment
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    Options::gather(&args(line), environment)
}

#[test]
fn the_command_line_is_well_formed() {
    command().debug_assert();
    let help = command().render_long_help().to_string();
    for setting in all_settings() {
        assert!(
            help.contains(setting.name),
            "{} is in the help",
            setting.name
        );
    }
    assert!(OWN.iter().all(|s| s.check(s.default).is_ok()));
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let options = gather(&[], &[]).unwrap();
    assert_eq!(options.listen, "127.0.0.1:7432");
    assert_eq!(options.http_listen.as_deref(), Some("127.0.0.1:7480"));
    assert_eq!(
        options.config.data_dir,
        std::path::Path::new("./tidegate-data")
    );
    assert!(options.ignored_environment.is_empty());
}

#[test]
fn command_line_goes_before_environment_before_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "checkpoint_interval = \"7s\"\nrows_per_epoch = 7\nlisten = \"127.0.0.1:7\"\npin_workers = false").unwrap();
    let path = file.path().to_str().unwrap();
    let environment = [
        ("TIDEGATE_CHECKPOINT_INTERVAL", "8s"),
        ("TIDEGATE_LISTEN", "127.0.0.1:8"),
        ("TIDEGATE_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let line = [
        "server",
        "--config",
        path,
        "--listen",
        "127.0.0.1:9",
        "--set",
        "log_format=json",
    ];
    let options = gather(&line, &environment).unwrap();
    assert_eq!(options.listen, "127.0.0.1:9");
    assert_eq!(options.log_format, "json");
    let settings = &options.config.settings;
    assert_eq!(settings.get("checkpoint_interval"), Some("8s"));
    assert_eq!(settings.get("rows_per_epoch"), Some("7"));
    assert_eq!(settings.get("pin_workers"), Some("off"));
    assert_eq!(options.ignored_environment, ["TIDEGATE_SERVICE_HOST"]);
    // The file may be named by the environment too.
    let options = gather(&[], &[("TIDEGATE_CONFIG", path)]).unwrap();
    assert_eq!(options.listen, "127.0.0.1:7");
}

#[test]
fn what_is_wrong_is_named_with_its_origin() {
    let error = gather(&["--set", "no_such=1"], &[]).unwrap_err();
    assert_eq!(
        (error.state.code(), error.message.as_str()),
        ("42704", "unrecognized configuration parameter \"no_such\"")
    );
    let error = gather(&["--set", "workers"], &[]).unwrap_err();
    assert!(error.message.contains("no \"=\""));
    let error = gather(&[], &[("TIDEGATE_STATE_BACKEND", "paper")]).unwrap_err();
    assert_eq!(error.state.code(), "22023");
    assert!(error.detail.unwrap().contains("TIDEGATE_STATE_BACKEND"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "typo = 1").unwrap();
    let error = gather(&["--config", file.path().to_str().unwrap()], &[]).unwrap_err();
    assert!(
        error
            .detail
            .unwrap()
            .contains(file.path().to_str().unwrap())
    );
    let error = gather(&["--config", "/nonexistent/tidegate.toml"], &[]).unwrap_err();
    assert!(error.message.contains("/nonexistent/tidegate.toml"));
    let error = gather(&["--hosts", "a:1,b:2", "--process", "0"], &[]).unwrap_err();
    assert_eq!(error.state.code(), "0A000");
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    for address in ["127.0.0.1:0", "localhost:0"] {
        bind("listen", address).await.unwrap();
    }
    let error = bind("listen", "0.0.0.0:0").await.unwrap_err();
    assert_eq!(error.state.code(), "0A000");
    assert!(
        error.message.contains("no authentication yet"),
        "{}",
        error.message
    );
    assert_eq!(
        bind("listen", "nonsense").await.unwrap_err().state.code(),
        "22023"
    );
    let taken = bind("listen", "127.0.0.1:0").await.unwrap();
    let error = bind("listen", &taken.local_addr().unwrap().to_string())
        .await
        .unwrap_err();
    assert_eq!(error.state.code(), "58030");
    assert!(error.hint.unwrap().contains("another port"));
}
