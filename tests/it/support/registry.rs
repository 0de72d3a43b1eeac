//! A registry (Debian's `docker-registry`) on loopback, which Docker speaks to without TLS, and images that it has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tempfile::TempDir;

use super::docker::{TestImage, docker, inspect};
use super::ports::Port;
use super::process::Process;
use super::until;

/// How long a registry may take to listen.
const LIMIT: Duration = Duration::from_secs(20);

/// Half of the layer that a newer image has over the older one, in bytes. The layer can't be compressed.
pub(crate) const HALF: u64 = 2 << 20;

/// A registry process; its data stay when it is killed.
pub(crate) struct Registry {
    port: Port,
    dir: TempDir,
    process: Option<Process>,
}

impl Registry {
    pub(crate) async fn start(password: Option<&str>) -> Self {
        let (port, dir) = (Port::lease(), TempDir::new().unwrap());
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:{}'}}\n",
            at("data"),
            port.number()
        );
        if let Some(password) = password {
            let line = run("htpasswd", &["-nbB", "-C", "4", "me", password]);
            std::fs::write(dir.path().join("users"), line).unwrap();
            let users = at("users");
            config.extend(["auth: {htpasswd: {realm: it, path: ", &users, "}}\n"]);
        }
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let mut registry = Self { port, dir, process: None };
        registry.restart().await;
        registry
    }

    async fn restart(&mut self) {
        let config = self.dir.path().join("config.yml").display().to_string();
        let command = ["docker-registry", "serve", &config].map(str::to_owned);
        self.process = Some(Process::spawn("the registry", &command, &[], &self.dir.path().join("log")));
        let address = self.address();
        until("a registry that listens", LIMIT, async || tokio::net::TcpStream::connect(&address).await.ok())
            .await;
    }

    /// A directory with the `config.json` that `docker login` writes for its user `me`, where it has a password.
    pub(crate) fn login(&self, password: &str) -> PathBuf {
        let dir = self.dir.path().join("login");
        std::fs::create_dir_all(&dir).unwrap();
        let entry = json!({ "auth": BASE64_STANDARD.encode(format!("me:{password}")) });
        let config = json!({ "auths": { (self.address()): entry } });
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        dir
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Pushes the image under its own name, and takes the registry's name away from it here.
    pub(crate) async fn has(&self, image: &TestImage, docker_config: Option<&Path>) {
        let name = format!("{}/{}", self.address(), image.reference());
        docker(&["tag", &image.reference(), &name]).await;
        let config = docker_config.map(|path| path.display().to_string());
        let login: Vec<&str> = config.iter().flat_map(|path| ["--config", path.as_str()]).collect();
        docker(&[&login[..], &["push", "-q", &name]].concat()).await;
        docker(&["rmi", &name]).await;
    }
}

/// A name that a pull has given to an image here; taken away at the end of the test.
pub(crate) struct Pulled(pub(crate) String);

impl Drop for Pulled {
    fn drop(&mut self) {
        // It is not there where the test has failed before the pull.
        let _ = std::process::Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let ended = std::process::Command::new(program).args(args).output().unwrap();
    assert!(ended.status.success(), "{program}: {ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// An image in two versions: the newer one is in the registry only, the older one here. With their ids.
pub(crate) async fn old_and_new(
    registry: &Registry,
    docker_config: Option<&Path>,
) -> (TestImage, String, String) {
    let image = TestImage::labelled(&["io.sorna.timeout=10"]).await;
    let old = inspect(&image.reference()).await["Id"].as_str().unwrap().to_owned();
    let keep = format!("{}-kept", image.reference().replace("kernel-", "it-"));
    docker(&["tag", &image.reference(), &keep]).await;
    let new = become_heavy(&image, "io.sorna.timeout=20").await;
    registry.has(&image, docker_config).await;
    docker(&["tag", &keep, &image.reference()]).await;
    // By its id the newer image would still be here, with its layers.
    docker(&["rmi", &keep, &new]).await;
    (image, old, new)
}

/// Makes another image of the same name with a label and a layer of twice [`HALF`]; gives its id.
async fn become_heavy(image: &TestImage, label: &str) -> String {
    let layer = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..2 * HALF).map(|_| rand::random()).collect();
    std::fs::write(layer.path(), bytes).unwrap();
    let base = docker(&["create", &image.reference()]).await;
    docker(&["cp", &layer.path().display().to_string(), &format!("{base}:/layer")]).await;
    let id = docker(&["commit", "--change", &format!("LABEL {label}"), &base, &image.reference()]).await;
    docker(&["rm", "-v", &base]).await;
    id
}
