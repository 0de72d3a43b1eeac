//! Uploads to moto's S3 server, which checks signatures with Amazon's own Python library.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use backendai_agent::ids::KernelId;
use backendai_agent::rooms::scratch::{Acl, OutputFile, OutputStore, S3Config, S3Keys, Scratch, ScratchRoot};
use backendai_agent::rooms::secret::Secret;
use backendai_agent::wire::reply::ResultFile;
use tempfile::TempDir;

use super::support::ports::Port;
use super::support::process::Process;
use super::support::until;

const LIMIT: Duration = Duration::from_secs(60);
const BUCKET: &str = "codeonweb";

/// Makes the bucket and a user who may write to it; prints the user's keys.
const SEED: &str = r#"
import boto3, json, sys
def client(name):
    return boto3.client(name, endpoint_url=sys.argv[1], region_name="us-east-1",
                        aws_access_key_id="seed", aws_secret_access_key="seed")
client("s3").create_bucket(Bucket=sys.argv[2])
iam = client("iam")
iam.create_user(UserName="agent")
allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="agent", PolicyName="s3", PolicyDocument=json.dumps(allow))
key = iam.create_access_key(UserName="agent")["AccessKey"]
print(key["AccessKeyId"], key["SecretAccessKey"])
"#;

/// A program of the test's Python environment.
fn venv(program: &str) -> PathBuf {
    let venv = std::env::var_os("BACKENDAI_TEST_VENV")
        .expect("BACKENDAI_TEST_VENV is not set: run scripts/test, which prepares what the tests need");
    PathBuf::from(venv).join("bin").join(program)
}

/// moto's server, killed at the end.
struct Moto {
    _server: Process,
    _dir: TempDir,
    port: Port,
    access: String,
    secret: String,
}

impl Moto {
    async fn start() -> Self {
        let (port, dir) = (Port::lease(), TempDir::new().unwrap());
        let number = port.number().to_string();
        let words =
            [venv("moto_server").to_str().unwrap(), "-H", "127.0.0.1", "-p", &number].map(str::to_owned);
        let mut server = Process::spawn("moto_server", &words, &[], &dir.path().join("moto.log"));
        until("moto's server", LIMIT, async || {
            assert!(server.ended().is_none(), "moto_server ended: {}", server.output());
            TcpStream::connect(("127.0.0.1", port.number())).ok()
        })
        .await;
        let mut moto =
            Self { _server: server, _dir: dir, port, access: String::new(), secret: String::new() };
        let seeded =
            Command::new(venv("python")).args(["-c", SEED, &moto.endpoint(), BUCKET]).output().unwrap();
        assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));
        let keys = String::from_utf8(seeded.stdout).unwrap();
        let (access, secret) = keys.trim().split_once(' ').unwrap();
        (moto.access, moto.secret) = (access.to_owned(), secret.to_owned());
        moto
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// From now on every request must be signed by a user who may do it; or not.
    fn check_signatures(&self, check: bool) {
        let body = if check { "0" } else { "inf" };
        assert_eq!(request("POST", &format!("{}/moto-api/reset-auth", self.endpoint()), body).status, 200);
    }

    fn config(&self) -> S3Config {
        config(&self.endpoint(), &self.access, &self.secret)
    }
}

fn keys(access: &str, secret: &str) -> S3Keys {
    S3Keys { access_key: Secret::new(access), secret_key: Secret::new(secret), session_token: None }
}

fn config(endpoint: &str, access: &str, secret: &str) -> S3Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    S3Config {
        region: "us-east-1".into(),
        bucket: BUCKET.into(),
        prefix: "bucket".parse().unwrap(),
        keys: keys(access, secret),
        endpoint: Some(endpoint.parse().unwrap()),
        acl: Acl::Private,
        url_expiry: Duration::from_secs(600),
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// One HTTP request without any credentials but the URL's own.
fn request(method: &str, url: &str, body: &str) -> Answer {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    let head = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let split = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..split]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer.split_off(split + 4) }
}

/// A kernel's directory with these output files.
async fn scratch(files: &[(&str, &[u8])]) -> (TempDir, Scratch, Vec<OutputFile>) {
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
async fn private_objects_are_fetched_by_their_presigned_urls_only() {
    let moto = Moto::start().await;
    let contents: [(&str, &[u8]); 4] =
        [("a b+c&é.txt", b"odd"), ("empty", b""), ("plot.png", b"\x89PNG"), ("sub/deep/x", b"deep")];
    let (_dir, scratch, mut files) = scratch(&contents).await;
    files.push(OutputFile { relative: "vanished".into(), size: 1 });
    let store = OutputStore::new(Some(moto.config())).unwrap();
    let published = store.publish(&scratch, files, LIMIT, LIMIT).await;
    assert_eq!(names(&published), contents.map(|(name, _)| name), "the one that vanished is left out");
    for (file, (name, content)) in published.iter().zip(contents) {
        let answer = request("GET", &file.url, "");
        assert_eq!((answer.status, answer.body.as_slice()), (200, content), "{name}: {}", answer.head);
        assert!(file.url.contains("X-Amz-Expires=600"), "{}", file.url);
        let (plain, _) = file.url.split_once('?').unwrap();
        assert_eq!(request("GET", plain, "").status, 403, "{name} is public");
    }
    let key = format!("{}/{BUCKET}/bucket/{}/sub/deep/x?", moto.endpoint(), scratch.kernel());
    assert!(published[3].url.starts_with(&key), "{}", published[3].url);
    assert!(request("GET", &published[2].url, "").head.to_lowercase().contains("content-type: image/png"));
}

#[tokio::test]
async fn public_objects_are_accepted_by_a_server_that_checks_signatures() {
    let moto = Moto::start().await;
    moto.check_signatures(true);
    let large = vec![7; 6 << 20];
    let (_dir, scratch, files) = scratch(&[("large.bin", &large), ("small.txt", b"small")]).await;
    let wrong = S3Config { keys: keys(&moto.access, "wrong"), ..moto.config() };
    for acl in [Acl::Private, Acl::PublicRead] {
        let store = OutputStore::new(Some(S3Config { acl, ..wrong.clone() })).unwrap();
        let refused = store.publish(&scratch, files.clone(), LIMIT, LIMIT).await;
        assert!(refused.is_empty(), "the server does not check signatures: {refused:?}");
    }
    let store = OutputStore::new(Some(S3Config { acl: Acl::PublicRead, ..moto.config() })).unwrap();
    let published = store.publish(&scratch, files, LIMIT, LIMIT).await;
    let url = |name| format!("{}/{BUCKET}/bucket/{}/{name}", moto.endpoint(), scratch.kernel());
    let expected = ["large.bin", "small.txt"].map(|name| ResultFile { name: name.into(), url: url(name) });
    assert_eq!(published, expected);
    moto.check_signatures(false);
    for (file, content) in published.iter().zip([large.as_slice(), b"small"]) {
        let answer = request("GET", &file.url, "");
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.body == content, "{} came back different", file.name);
    }
}

#[tokio::test]
async fn a_large_file_goes_in_parts_and_never_whole_through_memory() {
    let moto = Moto::start().await;
    // In a process of its own: other tests' memory would be counted here.
    let probe = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "s3::probe_memory_of_a_large_upload", "--ignored", "--nocapture"])
        .env("PROBE_ENDPOINT", moto.endpoint())
        .env("PROBE_KEYS", format!("{} {}", moto.access, moto.secret))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&probe.stdout);
    assert!(probe.status.success(), "{said}{}", String::from_utf8_lossy(&probe.stderr));
    let line = |word: &str| {
        let found =
            said.lines().find_map(|line| line.split_once(word)).map(|(_, rest)| rest.trim().to_owned());
        found.unwrap_or_else(|| panic!("no {word} in {said}"))
    };
    let grown: u64 = line("PROBE grown KiB:").parse().unwrap();
    println!("60 MiB upload: resident memory grew by {grown} KiB at most");
    assert!(grown < 40 * 1024, "{grown} KiB");
    let answer = request("GET", &line("PROBE url:"), "");
    assert_eq!((answer.status, answer.body.len()), (200, 60 << 20));
    let right = answer.body.chunks(8).enumerate().all(|(n, bytes)| bytes == (n as u64).to_le_bytes());
    assert!(right, "the bytes differ");
    assert!(answer.head.to_lowercase().contains("-12\""), "not sent in 12 parts: {}", answer.head);
}

#[tokio::test]
#[ignore = "run by a_large_file_goes_in_parts_and_never_whole_through_memory in a process of its own"]
async fn probe_memory_of_a_large_upload() {
    let keys = std::env::var("PROBE_KEYS").unwrap();
    let (access, secret) = keys.split_once(' ').unwrap();
    let store =
        OutputStore::new(Some(config(&std::env::var("PROBE_ENDPOINT").unwrap(), access, secret))).unwrap();
    let (_dir, scratch, _) = scratch(&[]).await;
    fs::create_dir(scratch.home().join(".output")).unwrap();
    let mut file = std::io::BufWriter::new(fs::File::create(scratch.home().join(".output/large")).unwrap());
    for number in 0..(60_u64 << 20) / 8 {
        file.write_all(&number.to_le_bytes()).unwrap();
    }
    file.into_inner().unwrap();
    let status = |field: &str| -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // Forgets the peak so far.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let files = vec![OutputFile { relative: "large".into(), size: 60 << 20 }];
    let published = store.publish(&scratch, files, LIMIT, LIMIT).await;
    println!("PROBE grown KiB: {}", status("VmHWM:").saturating_sub(before));
    println!("PROBE url: {}", published[0].url);
}
