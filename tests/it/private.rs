//! etcd and Redis that want to know who the agent is, over connections that nobody else can read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use crate::support::ports::Port;
use crate::support::process::Process;
use crate::support::services::output;
use crate::support::{Agent, Bed, secs, until};

/// An etcd with users and a Redis with a password, both with TLS and asking for clients' certificates.
struct Private {
    dir: PathBuf,
    etcd: Port,
    redis: Port,
    _processes: Vec<Process>,
}

impl Private {
    async fn start(dir: &Path) -> Self {
        let (etcd, peer, redis) = (Port::lease(), Port::lease(), Port::lease());
        let dir = dir.join("private");
        fs::create_dir(&dir).unwrap();
        make_certificates(&dir).await;
        let at = dir.display();
        let url = format!("https://127.0.0.1:{}", etcd.number());
        let peer = format!("http://127.0.0.1:{}", peer.number());
        let lines = [
            format!(
                "etcd --name it --data-dir {at}/etcd --listen-client-urls {url} --advertise-client-urls {url} \
                 --listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --initial-cluster it={peer} \
                 --cert-file {at}/leaf.pem --key-file {at}/leaf.key --trusted-ca-file {at}/ca.pem --client-cert-auth \
                 --heartbeat-interval 20 --election-timeout 200 --log-level warn"
            ),
            format!(
                "redis-server --bind 127.0.0.1 --port 0 --tls-port {} --dir {at} --tls-cert-file {at}/leaf.pem \
                 --tls-key-file {at}/leaf.key --tls-ca-cert-file {at}/ca.pem --tls-auth-clients yes \
                 --requirepass hunter-of-redis",
                redis.number()
            ),
        ];
        let start = |line: &String| {
            let command: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Process::spawn(&command[0], &command, &[], &dir.join(format!("{}.log", command[0])))
        };
        let processes = lines.iter().map(start).collect();
        let private = Self { dir: dir.clone(), etcd, redis, _processes: processes };
        until("an etcd with TLS", secs(20), async || {
            private.etcdctl(&["endpoint", "health"]).output().await.unwrap().status.success().then_some(())
        })
        .await;
        private
    }

    fn etcdctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        let file = |name: &str| self.dir.join(name).display().to_string();
        command.env("ETCDCTL_API", "3").args(["--endpoints", &format!("127.0.0.1:{}", self.etcd.number())]);
        command.args(["--cacert", &file("ca.pem"), "--cert", &file("leaf.pem"), "--key", &file("leaf.key")]);
        command.args(args).kill_on_drop(true);
        command
    }

    /// The manager's keys, and users of whom the agent's may do what an agent has to and nothing else.
    async fn fill(&self, bed: &Bed) {
        let redis = format!("127.0.0.1:{}", self.redis.number());
        for (key, value) in [
            ("nodes/redis", redis),
            ("nodes/manager/event_addr", bed.manager.address()),
            ("nodes/manager", "i-the-manager".to_owned()),
            ("volumes/_mount", bed.folders().display().to_string()),
        ] {
            output(self.etcdctl(&["put", &bed.key(key), &value])).await;
        }
        let prefix = bed.key("");
        let presence = bed.key("nodes/agents/");
        for line in [
            "user add root:root",
            "user grant-role root root",
            "role add agent",
            &format!("role grant-permission agent --prefix=true read {prefix}"),
            &format!("role grant-permission agent --prefix=true readwrite {presence}"),
            "user add node:hunter-of-etcd",
            "user grant-role node agent",
            "auth enable",
        ] {
            output(self.etcdctl(&line.split(' ').collect::<Vec<_>>())).await;
        }
    }

    fn redis_cli(&self, args: &[&str]) -> Command {
        let mut command = Command::new("redis-cli");
        let file = |name: &str| self.dir.join(name).display().to_string();
        command.args(["-p", &self.redis.number().to_string(), "--tls", "--cacert", &file("ca.pem")]);
        command.args(["--cert", &file("leaf.pem"), "--key", &file("leaf.key"), "--no-auth-warning"]);
        command.args(["-a", "hunter-of-redis"]).args(args);
        command
    }

    /// What `check` says with these files.
    async fn check(&self, bed: &Bed, files: &[&str]) -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backendai-agent"));
        command.env_clear().args([
            "check",
            "--json",
            "--config",
            "/dev/null",
            "--agent-host-override",
            "127.0.0.1",
        ]);
        command.args(["--namespace", &bed.namespace, "--scratch-root"]).arg(bed.scratch());
        command.args(self.options(files)).kill_on_drop(true);
        let said = tokio::time::timeout(secs(60), command.output()).await.expect("it hangs").unwrap();
        serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
    }

    /// A server with the certificates of the others, which wants to see a client's.
    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let file = |name: &str| fs::read(self.dir.join(name)).unwrap();
        let mut vouching = rustls::RootCertStore::empty();
        vouching.add(CertificateDer::from_pem_slice(&file("ca.pem")).unwrap()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(vouching), provider.clone())
            .build()
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(&file("leaf.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&file("leaf.key")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![leaf], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// The agent's options, with what stands behind these names given in files of that name.
    fn options(&self, files: &[&str]) -> Vec<String> {
        let name = |file: &&str| {
            let path = self.dir.join(match file.rsplit('-').next() {
                Some("ca") => "ca.pem",
                Some("cert") => "leaf.pem",
                Some("key") => "leaf.key",
                _ => file,
            });
            format!("--{file}={}", path.display())
        };
        let mut options: Vec<String> = files.iter().map(name).collect();
        options.extend(["--etcd-user=node".to_owned(), "--etcd-addr".to_owned()]);
        options.push(format!("localhost:{}", self.etcd.number()));
        options
    }

    /// An agent that signs in at both with passwords out of files, and measures each second.
    async fn agent(&self, bed: &Bed) -> Agent {
        fs::write(self.dir.join("etcd-password-file"), "hunter-of-etcd\n").unwrap();
        fs::write(self.dir.join("redis-password-file"), "hunter-of-redis\n").unwrap();
        let options = self.options(&FILES);
        let options: Vec<&str> =
            options.iter().map(String::as_str).chain(["--stats-interval", "1"]).collect();
        bed.agent(&options).await
    }
}

/// An authority, and one certificate that it signed, for the servers of this machine and their clients.
async fn make_certificates(dir: &Path) {
    let names = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n";
    fs::write(dir.join("names"), names).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for line in [
        format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
        format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=node"),
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out leaf.pem".to_owned(),
    ] {
        let mut command = Command::new("openssl");
        command.current_dir(dir).args(line.split_whitespace());
        output(command).await;
    }
}

const FILES: [&str; 8] = [
    "etcd-ca",
    "etcd-cert",
    "etcd-key",
    "etcd-password-file",
    "redis-ca",
    "redis-cert",
    "redis-key",
    "redis-password-file",
];

#[tokio::test]
async fn an_agent_signs_in_at_etcd_and_redis_over_tls() {
    let bed = Bed::without_manager().await;
    let private = Private::start(bed.outside()).await;
    private.fill(&bed).await;
    let mut agent = private.agent(&bed).await;
    let kernel = agent.create_tiny().await;
    until("statistics in a Redis with TLS", secs(10), async || {
        let used = output(private.redis_cli(&["hget", &kernel.id, "cpu_used"])).await;
        (!used.trim().is_empty()).then_some(())
    })
    .await;
    let presence =
        private.etcdctl(&["--user", "root:root", "get", &bed.presence_key(), "--print-value-only"]);
    assert_eq!(output(presence).await.trim(), "running");
    kernel.destroy().await;
    assert!(agent.stop().await.success());
    let log = agent.output();
    assert!(!log.contains("hunter"), "{log}");
    let left = private.etcdctl(&["--user", "root:root", "get", "--prefix", &bed.presence_key()]);
    assert_eq!(output(left).await, "");
}

/// What a Redis says is as bounded over TLS as it is without.
#[tokio::test]
async fn a_redis_that_answers_without_end_over_tls_takes_no_memory() {
    let bed = Bed::without_manager().await;
    let private = Private::start(bed.outside()).await;
    private.fill(&bed).await;
    let agent = private.agent(&bed).await;
    let _kernel = agent.create_tiny().await;
    let (listener, acceptor) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), private.acceptor());
    let at = listener.local_addr().unwrap().to_string();
    let before = agent.memory_kib();
    output(private.etcdctl(&["--user", "root:root", "put", &bed.key("nodes/redis"), &at])).await;
    let attack = async {
        let text = vec![b'x'; 1 << 16];
        for _ in 0..3 {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.expect("a client with the agent's certificate");
            let _ = stream.write_all(b"$400000000\r\n").await;
            let mut sent = 0;
            while stream.write_all(&text).await.is_ok() {
                sent += text.len();
            }
            // What the two sockets' buffers took.
            assert!(sent < 32 << 20, "{sent} bytes were taken");
        }
    };
    tokio::time::timeout(secs(30), attack).await.expect("the agent reads on");
    let grown = agent.memory_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
}

/// `check` comes to etcd and Redis as the agent would, and says what is wrong where it may not.
#[tokio::test]
async fn check_signs_in_where_the_agent_would() {
    let bed = Bed::without_manager().await;
    let private = Private::start(bed.outside()).await;
    private.fill(&bed).await;
    fs::write(private.dir.join("etcd-password-file"), "hunter-of-etcd\n").unwrap();
    let found = async |files: &[&str]| {
        let json = private.check(&bed, files).await;
        let finding = |what: &str| {
            let findings = json["findings"].as_array().unwrap();
            findings
                .iter()
                .find(|finding| finding["what"] == what)
                .unwrap_or_else(|| panic!("{json:#}"))
                .to_string()
        };
        (finding("etcd"), finding("Redis"))
    };
    for (password, verdict, text) in
        [("hunter-of-redis", "ok", "answers"), ("hunter-of-others", "warn", "correct --redis-user")]
    {
        fs::write(private.dir.join("redis-password-file"), password).unwrap();
        let (etcd, redis) = found(&FILES).await;
        assert!(etcd.contains("\"ok\""), "{etcd}");
        assert!(redis.contains(&format!("\"{verdict}\"")) && redis.contains(text), "{redis}");
        assert!(!redis.contains("hunter"), "{redis}");
    }
    let (_, redis) = found(&FILES[..7]).await;
    assert!(redis.contains("\"warn\"") && redis.contains("--redis-password-file"), "{redis}");
    let (_, redis) = found(&FILES[..4]).await;
    assert!(redis.contains("\"warn\""), "a Redis with TLS was spoken to without: {redis}");
}

/// systemd hands files over; a refusal is told, and over once etcd knows the user's password.
#[tokio::test]
async fn credentials_of_systemd_are_taken_and_a_refusal_ends_without_a_restart() {
    let bed = Bed::without_manager().await;
    let private = Private::start(bed.outside()).await;
    private.fill(&bed).await;
    let handed = bed.outside().join("credentials");
    fs::create_dir(&handed).unwrap();
    for (name, from) in [("ca", "ca.pem"), ("cert", "leaf.pem"), ("key", "leaf.key")] {
        for server in ["etcd", "redis"] {
            fs::copy(private.dir.join(from), handed.join(format!("{server}-{name}"))).unwrap();
        }
    }
    fs::write(handed.join("etcd-password"), "hunter-to-come").unwrap();
    fs::write(handed.join("redis-password"), "hunter-of-redis").unwrap();
    let env = [("CREDENTIALS_DIRECTORY", handed.to_str().unwrap())];
    let options = private.options(&[]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let agent = bed.spawn_agent_in(&env, &options);
    until("a word about the refusal", secs(10), async || {
        let log = agent.output();
        (log.contains("signing in") && log.contains("authentication failed")).then_some(())
    })
    .await;
    for line in ["user delete node", "user add node:hunter-to-come", "user grant-role node agent"] {
        let words: Vec<&str> = ["--user", "root:root"].into_iter().chain(line.split(' ')).collect();
        output(private.etcdctl(&words)).await;
    }
    bed.wait_event("instance_started", |_| true, secs(30)).await;
    assert!(!agent.output().contains("hunter"));
}
