//! The real server as a child process: started, listened to, killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Steps of a checkpoint as the server's log names them.
pub const PHASES: [&str; 5] = ["sealing", "sealed", "uploading", "committing", "committed"];

/// What the thread that reads the server's log shares with the test.
struct Watched {
    child: Mutex<Child>,
    lines: Mutex<Vec<String>>,
    /// The phase at whose line the server is killed.
    aim: Mutex<Option<&'static str>>,
}

pub struct Server {
    watched: Arc<Watched>,
    reader: Option<JoinHandle<()>>,
    pub port: u16,
    pub http_port: u16,
}

/// A command line that leaves ports to the system and logs the phases of checkpoints. Two workers unless the settings say
/// otherwise.
pub fn command(data_dir: &Path, settings: &[(&str, &str)]) -> Command {
    let mut all = vec![("workers", "2")];
    all.extend(settings);
    bare_command(data_dir, &all)
}

/// The same without a number of workers.
pub fn bare_command(data_dir: &Path, settings: &[(&str, &str)]) -> Command {
    let binary = std::env::var_os("TIDEGATE_BINARY");
    let mut command = Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_tidegate").into()));
    command.arg("--data-dir").arg(data_dir);
    command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    command.args([
        "--set",
        "pin_workers=off",
        "--set",
        "log_level=info,tidegate_runtime=debug",
    ]);
    for (name, value) in settings {
        command.arg("--set").arg(format!("{name}={value}"));
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Server {
    pub fn start(data_dir: &Path, settings: &[(&str, &str)]) -> Self {
        Self::spawn(command(data_dir, settings))
    }

    /// Returns when the server says that it is ready.
    pub fn spawn(command: Command) -> Self {
        Self::try_spawn(command).unwrap_or_else(|log| panic!("the server did not start: {log}"))
    }

    /// As `spawn`; a server that ends before it is ready is given as its log.
    pub fn try_spawn(mut command: Command) -> Result<Self, String> {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let watched = Arc::new(Watched {
            child: Mutex::new(child),
            lines: Mutex::default(),
            aim: Mutex::default(),
        });
        let reader = std::thread::spawn({
            let watched = watched.clone();
            move || read_log(&watched, stderr)
        });
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let mut server = Self {
            watched,
            reader: Some(reader),
            port: 0,
            http_port: 0,
        };
        if !line.contains("is ready") {
            let status = server.wait();
            return Err(format!("{status}\n{}", server.log()));
        }
        let number_behind = |mark: &str| {
            let digits = line.split_once(mark).unwrap().1;
            digits
                .split(|c: char| !c.is_ascii_digit())
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        server.port = number_behind("-p ");
        server.http_port = number_behind("http://127.0.0.1:");
        Ok(server)
    }

    pub async fn connect(&self) -> Client {
        self.try_connect().await.unwrap()
    }

    /// `None`: nobody is there.
    pub async fn try_connect(&self) -> Option<Client> {
        let address = format!("host=127.0.0.1 port={} user=ann dbname=tidegate", self.port);
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.watched.lines.lock().unwrap().join("\n")
    }

    /// Kill -9, as soon as a checkpoint enters this phase.
    pub fn kill_at(&self, phase: &'static str) {
        *self.watched.aim.lock().unwrap() = Some(phase);
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.watched.child.lock().unwrap().id()
    }

    /// Kill -9 now.
    pub fn kill(&self) {
        self.watched.child.lock().unwrap().kill().unwrap();
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn has_ended(&self) -> bool {
        let mut child = self.watched.child.lock().unwrap();
        child.try_wait().unwrap().is_some()
    }

    /// Waits for the end of the process and of its log.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = self.watched.child.lock().unwrap().try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "the server does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    /// The phase that the newest checkpoint was in; `committed` is where there is none under way.
    pub fn last_phase(&self) -> Option<&'static str> {
        let lines = self.watched.lines.lock().unwrap();
        lines.iter().rev().find_map(|line| phase_of(line))
    }

    /// Rows of the command log that were replayed at the start. Its line is written before the server says that it is
    /// ready, and may be read a little after.
    pub fn replayed_rows(&self) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|l| l.contains("replayed the command log")) {
                let rows = line.split_once(" rows=").unwrap().1;
                return rows.split_whitespace().next().unwrap().parse().unwrap();
            }
            assert!(
                Instant::now() < deadline,
                "the server does not say what it replayed: {log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What a `GET` answers, with its head.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    pub fn http_status(&self, path: &str) -> u16 {
        let answer = self.get(path);
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// A figure of `/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let line = text.lines().find(|l| l.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.watched.child.lock().unwrap_or_else(|e| e.into_inner());
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn phase_of(line: &str) -> Option<&'static str> {
    let found = line.split_once("phase=")?.1.split_whitespace().next()?;
    PHASES.into_iter().find(|p| *p == found)
}

fn read_log(watched: &Watched, mut stderr: BufReader<impl Read>) {
    let mut bytes = Vec::new();
    while stderr.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        bytes.clear();
        if let Some(phase) = phase_of(&line)
            && watched.aim.lock().unwrap().is_some_and(|aim| aim == phase)
        {
            watched.aim.lock().unwrap().take();
            watched.child.lock().unwrap().kill().unwrap();
        }
        watched.lines.lock().unwrap().push(line);
    }
}

/// The rows of an answer, their columns joined by `|`, sorted. An error is a failure of the test: a view that could be read
/// before a crash can be read after it, at once.
pub async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let mut rows: Vec<String> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|c| row.get(c).unwrap_or("∅"));
                Some(cells.collect::<Vec<_>>().join("|"))
            }
            _ => None,
        })
        .collect();
    rows.sort();
    rows
}

pub async fn run(client: &Client, sql: &str) {
    client
        .simple_query(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
}

/// Asks again until the answer is what is waited for.
pub async fn until_rows(client: &Client, sql: &str, reached: impl Fn(&[String]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = rows(client, sql).await;
        if reached(&found) {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: still {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The error with which the server answers.
pub async fn refused(client: &Client, sql: &str) -> DbError {
    match client.simple_query(sql).await {
        Ok(_) => panic!("{sql} was not refused"),
        Err(error) => error
            .as_db_error()
            .unwrap_or_else(|| panic!("{sql}: {error:?}"))
            .clone(),
    }
}
