//! Servers for tests: Tidegate on a free port and a directory of its own, and a temporary Postgres as the oracle.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

const START_LIMIT: Duration = Duration::from_secs(60);

/// A running server; dropped, it is killed. Its directory outlives [`Server::kill`].
pub struct Server {
    child: Child,
    port: u16,
    backend: String,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Server {
    pub async fn start(backend: &str) -> Server {
        Self::start_with(backend, &[]).await
    }

    pub async fn start_with(backend: &str, arguments: &[&str]) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let (child, port) = Self::spawn(directory.path(), backend, &arguments);
        let mut server = Server {
            child,
            port,
            backend: backend.to_owned(),
            arguments,
            directory,
        };
        server.wait().await;
        server
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a server that is expected to end by itself, on the same data unless the arguments say otherwise: its status and
    /// what it said.
    pub fn another(&self, arguments: &[&str]) -> (std::process::ExitStatus, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        if !arguments.contains(&"--data-dir") {
            command
                .arg("--data-dir")
                .arg(self.directory.path().join("data"));
        }
        command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
        command.args(&self.arguments).args(arguments);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while child.try_wait().unwrap().is_none() && begin.elapsed() < START_LIMIT {
            std::thread::sleep(Duration::from_millis(20));
        }
        // It has ended, or does not end.
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&said).into_owned())
    }

    /// kill -9, as a crash does it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again on the directory that the killed server left.
    pub async fn restart(&mut self) {
        (self.child, self.port) =
            Self::spawn(self.directory.path(), &self.backend, &self.arguments);
        self.wait().await;
    }

    pub async fn connect(&self) -> Client {
        connect(self.port, "tidegate", "tidegate").await.unwrap()
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn spawn(directory: &Path, backend: &str, arguments: &[String]) -> (Child, u16) {
        let port = free_port();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .current_dir(directory)
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--http-listen", &format!("127.0.0.1:{}", free_port())])
            .args(["--set", &format!("state_backend={backend}")])
            .args(["--set", "workers=2"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        (child, port)
    }

    async fn wait(&mut self) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            let answer = connect(self.port, "tidegate", "tidegate");
            if let Ok(Ok(_)) = tokio::time::timeout(START_LIMIT, answer).await {
                return;
            }
            assert!(
                begin.elapsed() < START_LIMIT,
                "the server does not answer:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn connect(port: u16, user: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
    let parameters = format!("host=127.0.0.1 port={port} user={user} dbname={database}");
    let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
    tokio::spawn(async move {
        // The client sees the error of its own request.
        let _ = connection.await;
    });
    Ok(client)
}

/// A temporary Postgres with one database for each suite.
pub struct Postgres {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Postgres {
    /// None where Postgres is not installed.
    pub async fn start() -> Option<Postgres> {
        let bin = Self::binaries()?;
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let user = Self::unprivileged();
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let command = |name: &str| {
            let mut command = Command::new(bin.join(name));
            command.current_dir(directory.path()).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            if let Some((uid, gid)) = user {
                command.gid(gid).uid(uid);
            }
            command
        };
        let status = command("initdb")
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "--locale=C.UTF-8",
                "-E",
                "UTF8",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .status()
            .unwrap();
        assert!(status.success(), "initdb: {status}");
        let port = free_port();
        let child = command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-F"])
            .args(["-c", "timezone=UTC", "-c", "unix_socket_directories="])
            .spawn()
            .unwrap();
        let postgres = Postgres {
            child,
            port,
            _directory: directory,
        };
        let begin = Instant::now();
        while let Err(error) = connect(port, "postgres", "postgres").await {
            assert!(
                begin.elapsed() < START_LIMIT,
                "Postgres does not answer: {error}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(postgres)
    }

    /// A connection to a new database.
    pub async fn database(&self, name: &str) -> Client {
        let client = connect(self.port, "postgres", "postgres").await.unwrap();
        client
            .batch_execute(&format!("CREATE DATABASE \"{name}\""))
            .await
            .unwrap();
        connect(self.port, "postgres", name).await.unwrap()
    }

    fn binaries() -> Option<PathBuf> {
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .ok()?
            .map(|entry| entry.unwrap().path().join("bin"))
            .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
            .collect();
        versions.sort();
        versions.pop()
    }

    /// Postgres refuses to run as root: then it runs as its own user.
    fn unprivileged() -> Option<(u32, u32)> {
        use std::os::unix::fs::MetadataExt;
        if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let line = users.lines().find(|line| line.starts_with("postgres:"));
        let fields: Vec<&str> = line.expect("the user postgres exists").split(':').collect();
        Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
