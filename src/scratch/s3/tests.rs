//! Uploads to servers that fail on purpose; `tests/rooms/s3.rs` has one that checks signatures.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::ids::KernelId;
use crate::scratch::{OutputFile, Scratch, ScratchRoot};
use crate::secret::Secret;
use crate::wire::reply::ResultFile;

const LIMIT: Duration = Duration::from_secs(60);

fn keys(access: &str, secret: &str) -> S3Keys {
    S3Keys { access_key: Secret::new(access), secret_key: Secret::new(secret), session_token: None }
}

fn config(endpoint: &str, access: &str, secret: &str) -> S3Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    S3Config {
        region: "us-east-1".into(),
        bucket: "codeonweb".into(),
        prefix: "bucket".parse().unwrap(),
        keys: keys(access, secret),
        endpoint: Some(endpoint.parse().unwrap()),
        acl: Acl::Private,
        url_expiry: Duration::from_secs(600),
    }
}

/// A kernel's directory with these output files.
async fn scratch(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Scratch, Vec<OutputFile>) {
    let dir = tempfile::tempdir().unwrap();
    let root = ScratchRoot::open(dir.path()).unwrap();
    let scratch = root.create(KernelId::random(), &BTreeMap::default(), None).await.unwrap();
    let before = scratch.output_snapshot().await;
    for (name, content) in files {
        let path = scratch.home().join(".output").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let changes = scratch.output_changes(&before).await;
    (dir, scratch, changes)
}

fn names(published: &[ResultFile]) -> Vec<&str> {
    published.iter().map(|file| file.name.as_str()).collect()
}

#[tokio::test]
async fn without_keys_nothing_is_uploaded() {
    let (_dir, scratch, files) = scratch(&[("a.txt", b"a"), ("sub/b", b"b")]).await;
    let published = OutputStore::new(None).unwrap().publish(&scratch, files, LIMIT, LIMIT).await;
    assert_eq!(names(&published), ["a.txt", "sub/b"]);
    assert!(published.iter().all(|file| file.url == "#dummy-upload"));
}

/// Answers the start of an upload in parts, takes the parts and never answers them; reports each request's head.
fn stalling_server() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (heads, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let heads = heads.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).unwrap_or(0) == 0 {
                        return;
                    }
                }
                let body = if head.starts_with("POST") {
                    "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
                } else {
                    ""
                };
                let stall = head.starts_with("PUT");
                let _ = heads.send(head);
                if stall {
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                    return;
                }
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
                let _ = stream.get_mut().write_all(answer.as_bytes());
            });
        }
    });
    (endpoint, seen)
}

#[tokio::test]
async fn a_stalled_upload_ends_in_time_and_is_aborted() {
    let (endpoint, seen) = stalling_server();
    let large = vec![7; 12 << 20];
    let (_dir, scratch, files) = scratch(&[("large.bin", &large)]).await;
    let public = S3Config { acl: Acl::PublicRead, ..config(&endpoint, "key", "secret") };
    let store = OutputStore::new(Some(public)).unwrap();
    for (per_file, total) in [(Duration::from_secs(1), LIMIT), (LIMIT, Duration::from_secs(1))] {
        let began = Instant::now();
        let published = store.publish(&scratch, files.clone(), per_file, total).await;
        assert!(published.is_empty() && began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let mut methods = Vec::new();
        loop {
            // The abort runs on this very runtime.
            tokio::time::sleep(Duration::from_millis(10)).await;
            methods.extend(seen.try_iter().map(|head| {
                let method = head.split(' ').next().unwrap().to_owned();
                assert_eq!(head.contains("x-amz-acl: public-read"), method == "POST", "{head}");
                method
            }));
            if methods.last().is_some_and(|method| method == "DELETE") {
                break;
            }
            assert!(began.elapsed() < LIMIT, "not aborted: {methods:?}");
        }
        assert_eq!(methods[0], "POST");
        assert!(methods.iter().any(|method| method == "PUT"), "{methods:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_away_costs_no_more_than_the_limit() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let many: Vec<_> = (0..50).map(|n| format!("f{n}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), b"x".as_slice())).collect();
    let (_dir, scratch, files) = scratch(&many).await;
    assert_eq!(files.len(), 50);
    let store = OutputStore::new(Some(config(&format!("http://127.0.0.1:{port}"), "key", "secret"))).unwrap();
    let began = Instant::now();
    let published = store.publish(&scratch, files, LIMIT, Duration::from_secs(2)).await;
    assert!(published.is_empty());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
