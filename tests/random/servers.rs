//! The two servers of a round: Tidegate under test, which may be killed and started again, and a Postgres that knows the answers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Rows in text form; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// SQLSTATE and message of a refusal; the code is empty when the connection broke.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: String,
    pub message: String,
}

/// Runs one statement by the simple protocol and returns its rows.
pub async fn run(client: &Client, sql: &str) -> Result<Rows, Refusal> {
    let reply = tokio::time::timeout(Duration::from_secs(30), client.simple_query(sql)).await;
    let messages = match reply {
        Err(_) => {
            return Err(Refusal {
                code: "hung".into(),
                message: "no answer within 30 s".into(),
            });
        }
        Ok(Err(error)) => {
            let code = error
                .code()
                .map(|c| c.code().to_owned())
                .unwrap_or_default();
            let message = error
                .as_db_error()
                .map_or_else(|| error.to_string(), |e| e.message().to_owned());
            return Err(Refusal { code, message });
        }
        Ok(Ok(messages)) => messages,
    };
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push(
                (0..row.len())
                    .map(|i| row.get(i).map(str::to_owned))
                    .collect(),
            );
        }
    }
    Ok(rows)
}

async fn connect(config: &str, patience: Duration) -> Result<Client, String> {
    let start = Instant::now();
    loop {
        match tokio_postgres::connect(config, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(async move {
                    // A killed server ends its connections with an error: that is the test's doing.
                    let _ = connection.await;
                });
                return Ok(client);
            }
            Err(error) if start.elapsed() > patience => {
                return Err(format!(
                    "no connection to {config} within {patience:?}: {error}"
                ));
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The server that cargo built, or the one that `TIDEGATE_SERVER` names: long runs are not disturbed by the next build.
fn binary() -> PathBuf {
    let named = std::env::var_os("TIDEGATE_SERVER").map(PathBuf::from);
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into())
}

/// The server under test, on a directory of its own.
pub struct Tidegate {
    directory: tempfile::TempDir,
    backend: &'static str,
    workers: usize,
    child: Child,
    pub client: Client,
}

impl Tidegate {
    pub async fn start(backend: &'static str, workers: usize) -> Tidegate {
        let directory = tempfile::tempdir().unwrap();
        let (child, client) = Self::spawn(directory.path(), backend, workers).await;
        Tidegate {
            directory,
            backend,
            workers,
            child,
            client,
        }
    }

    async fn spawn(directory: &Path, backend: &str, workers: usize) -> (Child, Client) {
        let port = free_port();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join("server.log"))
            .unwrap();
        let child = Command::new(binary())
            .env_remove("TIDEGATE_SEED")
            .env_remove("TIDEGATE_RANDOM_SECONDS")
            .env_remove("TIDEGATE_SERVER")
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--http-listen", &format!("127.0.0.1:{}", free_port())])
            .args(["--workers", &workers.to_string()])
            .args(["--set", &format!("state_backend={backend}")])
            .args(["--set", "checkpoint_interval=200ms"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let config = format!("host=127.0.0.1 port={port} user=test dbname=tidegate");
        match connect(&config, Duration::from_secs(30)).await {
            Ok(client) => (child, client),
            Err(error) => {
                let log = std::fs::read_to_string(directory.join("server.log"));
                panic!("{error}\n{}", log.unwrap_or_default());
            }
        }
    }

    /// kill -9, then a new process on the same directory.
    pub async fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.client) =
            Self::spawn(self.directory.path(), self.backend, self.workers).await;
    }

    /// A stop as an administrator does it, then a new process with other settings.
    pub async fn restart(&mut self, backend: &'static str, workers: usize) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: the process is our child and has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        self.child.wait().unwrap();
        (self.backend, self.workers) = (backend, workers);
        (self.child, self.client) = Self::spawn(self.directory.path(), backend, workers).await;
    }

    pub fn settings(&self) -> (&'static str, usize) {
        (self.backend, self.workers)
    }

    /// Where the test may put files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The last lines the server wrote.
    pub fn log_tail(&self) -> String {
        let text =
            std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary Postgres on a Unix socket.
pub struct Postgres {
    directory: tempfile::TempDir,
    child: Child,
    pub client: Client,
}

impl Postgres {
    /// None, with the reason, when there is no Postgres here that can be started.
    pub async fn start() -> Result<Postgres, String> {
        let bin = binaries().ok_or("no initdb of Postgres is installed")?;
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        // SAFETY: geteuid has no preconditions.
        let root = unsafe { libc::geteuid() } == 0;
        if root {
            let owned = Command::new("chown")
                .arg("postgres")
                .arg(directory.path())
                .status();
            if !owned.is_ok_and(|s| s.success()) {
                return Err("running as root and there is no user postgres".into());
            }
        }
        let data = directory.path().join("data");
        let output = as_postgres(root, &bin.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args([
                "-A",
                "trust",
                "-U",
                "test",
                "-E",
                "UTF8",
                "--lc-collate=C",
                "--lc-ctype=C.UTF-8",
                "-N",
            ])
            .current_dir(directory.path())
            .output()
            .map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!(
                "initdb failed: {}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        let child = as_postgres(root, &bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "timezone=UTC",
            ])
            .arg("-k")
            .arg(directory.path())
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let config = format!(
            "host={} user=test dbname=postgres",
            directory.path().display()
        );
        let client = connect(&config, Duration::from_secs(30)).await?;
        run(&client, "SET statement_timeout = '10s'")
            .await
            .map_err(|refusal| refusal.message)?;
        Ok(Postgres {
            directory,
            child,
            client,
        })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGQUIT: the postmaster ends its children at once.
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: the process is our child and has not been waited for.
        unsafe { libc::kill(pid, libc::SIGQUIT) };
        let _ = self.child.wait();
        let _ = self.directory.path();
    }
}

fn binaries() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = installed
        .filter_map(|e| Some(e.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

/// Postgres refuses to run as root, so root lends it the account made for it.
fn as_postgres(root: bool, program: &Path) -> Command {
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}
