//! The same over S3's protocol, against `moto_server` where it is installed (`pip install 'moto[server]'`).

use super::{changes, checkpoint, contents, expected, open};
use crate::{CheckpointError, Storage};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Moto {
    process: Child,
    port: u16,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Moto {
    /// `None` when it is not installed.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut moto = Self { process, port };
        let deadline = Instant::now() + Duration::from_secs(60);
        while moto.request("GET", "/").is_none() {
            if moto.process.try_wait().unwrap().is_some() || Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(moto)
    }

    fn request(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\n\r\n",
            self.port
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_in_a_bucket() {
    let Some(moto) = tokio::task::spawn_blocking(Moto::start).await.unwrap() else {
        eprintln!(
            "SKIPPED checkpoints_in_a_bucket: moto_server does not run here; install it with: pip install 'moto[server]'"
        );
        return;
    };
    let created = moto.request("PUT", "/tides").unwrap();
    assert!(created.contains("200"), "{created}");
    let url = format!(
        "s3://tides/some/prefix?endpoint=http://127.0.0.1:{}&region=us-east-1&access_key_id=test&secret_access_key=test",
        moto.port
    );
    let storage = Storage::open(&url).unwrap();
    assert_eq!(storage.location(), "s3://tides/some/prefix");
    let first = open(&storage).await.unwrap();
    first.newest().unwrap();
    let mut epoch = first.start_epoch();
    for i in 0..12 {
        let value = i.to_string();
        checkpoint(
            &first,
            epoch,
            &changes(&[("a", Some(&value)), ("b", Some(&value))]),
        )
        .await
        .unwrap();
        first.merge_once(&Default::default()).await.unwrap();
        first.clean_up().await.unwrap();
        epoch = epoch.next();
    }
    first
        .savepoint("kept", &first.base().unwrap())
        .await
        .unwrap();
    assert!(matches!(
        storage.create("savepoints/kept.json", "other".into()).await,
        Err(crate::StorageError::Conflict { .. })
    ));

    let second = open(&storage).await.unwrap();
    let manifest = second.newest().unwrap().manifest.unwrap();
    assert_eq!(
        contents(&second, &manifest, 3).await.unwrap(),
        expected(&[("a", "11"), ("b", "11")])
    );
    assert_eq!(second.savepoints().len(), 1);
    let late = checkpoint(&first, epoch, &changes(&[("a", Some("late"))]))
        .await
        .unwrap_err();
    assert!(matches!(late, CheckpointError::TakenOver { .. }), "{late}");
    checkpoint(&second, second.start_epoch(), &changes(&[("a", None)]))
        .await
        .unwrap();
    second.clean_up().await.unwrap();

    let mut writer = storage.writer("runs/0000000001/large.run");
    for _ in 0..5 {
        writer.write(vec![7; 8 << 20].into()).await.unwrap();
    }
    writer.finish().await.unwrap();
    assert_eq!(
        storage
            .get_range("runs/0000000001/large.run", 40 << 20, 0)
            .await
            .map(|b| b.len())
            .unwrap_or(0),
        0
    );
    assert_eq!(
        storage
            .get("runs/0000000001/large.run")
            .await
            .unwrap()
            .len(),
        40 << 20
    );
    storage
        .delete(&[
            "runs/0000000001/large.run".to_owned(),
            "runs/none".to_owned(),
        ])
        .await
        .unwrap();
}
