//! From what the operator typed and the environment to a [`Config`], with every bad value reported at once. Pure:
//! the environment is a function, the current directory a value; what the file system says is asked in `paths`.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::options::AgentOpts;
use super::report::{ConfigErrors, Origin, Problem};
use super::settings as s;
use super::settings::Setting;
use super::values;
use crate::address::{self, HostPort};
use crate::agent::config::{Config, Datadog, S3};
use crate::ids::InstanceId;
use crate::scratch::Acl;
use crate::secret::Secret;
use crate::telemetry::{LogFile, Rotation, TelemetryConfig, Verbosity};

/// The port of the Datadog agent, which the reference's client also expects on this machine.
const STATSD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8125);

const DAY: Duration = Duration::from_secs(24 * 3600);
const TENTH: Duration = Duration::from_millis(100);

/// What came out of the settings.
#[derive(Debug)]
pub(super) struct Reading {
    /// The configuration, or all that is wrong in the values themselves.
    pub(super) config: Result<Config, ConfigErrors>,
    /// The paths among them, good or not yet known to be, so that one report can tell of both.
    pub(super) paths: Vec<PathSetting>,
}

/// A path that the file system has to agree to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathSetting {
    /// Which one.
    pub(super) setting: Setting,
    /// Where it came from.
    pub(super) origin: Origin,
    /// Absolute.
    pub(super) path: PathBuf,
}

/// Reads every setting. A relative path counts from `cwd`.
pub(super) fn read(opts: &AgentOpts, env: &dyn Fn(&str) -> Option<String>, cwd: &Path) -> Reading {
    let mut r = Reader { env, cwd, problems: Vec::new(), paths: Vec::new() };
    // In the order of `--help`, which is the order of the report. Where a value is bad its default stands in,
    // and the whole is thrown away at the end.
    let namespace = r.value(&s::NAMESPACE, opts.namespace.as_ref(), values::name);
    let etcd = r.value(&s::ETCD_ADDR, opts.etcd_addr.as_ref(), values::host_ports);
    let agent_host_override = r.value(&s::AGENT_HOST, opts.agent_host_override.as_ref(), address::host);
    let kernel_host_override = r.value(&s::KERNEL_HOST, opts.kernel_host_override.as_ref(), address::host);
    let agent_port = r.value(&s::AGENT_PORT, opts.agent_port.as_ref(), values::port);
    let instance_id = r.value(&s::INSTANCE_ID, opts.instance_id.as_ref(), values::name);
    let region = r.value(&s::REGION, opts.region.as_ref(), values::text);

    let scratch_root = r.path_or(&s::SCRATCH_ROOT, opts.scratch_root.as_ref(), "/var/cache/scratches");
    let docker_host = r.value(&s::DOCKER_HOST, opts.docker_host.as_ref(), values::docker_host);
    let idle_timeout = r.value(&s::IDLE_TIMEOUT, opts.idle_timeout.as_ref(), values::duration_or_off);
    let pids_limit = r.value(&s::KERNEL_PIDS_LIMIT, opts.kernel_pids_limit.as_ref(), values::count);
    let create_deadline =
        r.value(&s::CREATE_DEADLINE, opts.create_deadline.as_ref(), values::duration_or_off);
    let enforce_exec_timeout = r.switch(&s::ENFORCE_EXEC_TIMEOUT, opts.enforce_exec_timeout);
    let adopt = r.switch(&s::ADOPT, opts.adopt);
    let stop_kernels_on_exit = r.switch(&s::STOP_KERNELS, opts.stop_kernels_on_exit);
    let auto_update_images = r.switch(&s::AUTO_UPDATE_IMAGES, opts.auto_update_images);
    let debug_kernel = r.path(&s::DEBUG_KERNEL, opts.debug_kernel.as_ref());
    let kernel_aliases = r.value(&s::KERNEL_ALIASES, opts.kernel_aliases.as_ref(), values::text);

    let s3 = r.s3(opts);
    let (telemetry, metrics_addr, datadog) = r.observing(opts);

    let heartbeat = values::duration_in(TENTH..=Duration::from_secs(4));
    let heartbeat_interval = r.value(&s::HEARTBEAT_INTERVAL, opts.heartbeat_interval.as_ref(), heartbeat);
    let stats = values::duration_in(TENTH..=Duration::from_secs(20));
    let stats_interval = r.value(&s::STATS_INTERVAL, opts.stats_interval.as_ref(), stats);
    let reconcile = values::duration_in(TENTH..=Duration::from_secs(3600));
    let reconcile_interval = r.value(&s::RECONCILE_INTERVAL, opts.reconcile_interval.as_ref(), reconcile);

    let config = Config {
        namespace: namespace.unwrap_or_else(|| "local".to_owned()),
        etcd: etcd.unwrap_or_else(|| vec![HostPort { host: "127.0.0.1".to_owned(), port: 2379 }]),
        instance_id: instance_id.map(InstanceId::new),
        region,
        agent_host_override,
        kernel_host_override,
        agent_port: agent_port.unwrap_or(6001),
        docker_host: docker_host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()),
        scratch_root,
        idle_timeout: limit(idle_timeout.unwrap_or(Duration::from_secs(600))),
        kernel_pids_limit: Some(pids_limit.unwrap_or(16384)).filter(|n| *n > 0),
        create_deadline: limit(create_deadline.unwrap_or(Duration::from_secs(3))),
        enforce_exec_timeout,
        adopt,
        stop_kernels_on_exit,
        auto_update_images,
        debug_kernel,
        kernel_aliases: kernel_aliases.map(PathBuf::from),
        datadog,
        s3,
        metrics_addr,
        telemetry,
        heartbeat_interval: heartbeat_interval.unwrap_or(Duration::from_secs(3)),
        stats_interval: stats_interval.unwrap_or(Duration::from_secs(5)),
        reconcile_interval: reconcile_interval.unwrap_or(Duration::from_secs(10)),
    };
    let Reader { problems, paths, .. } = r;
    let config = if problems.is_empty() { Ok(config) } else { Err(ConfigErrors { problems }) };
    Reading { config, paths }
}

/// Zero is no limit.
fn limit(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// The agent that a client command talks to.
pub(super) fn target(
    flag: Option<&String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<HostPort, ConfigErrors> {
    let mut r = Reader { env, cwd: Path::new("/"), problems: Vec::new(), paths: Vec::new() };
    let addr = r.value(&s::AGENT, flag, HostPort::from_endpoint);
    if r.problems.is_empty() {
        Ok(addr.unwrap_or_else(|| HostPort { host: "127.0.0.1".to_owned(), port: 6001 }))
    } else {
        Err(ConfigErrors { problems: r.problems })
    }
}

/// Takes settings one by one and remembers what was wrong.
struct Reader<'a> {
    /// The environment.
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Where relative paths begin.
    cwd: &'a Path,
    /// So far.
    problems: Vec<Problem>,
    /// So far.
    paths: Vec<PathSetting>,
}

impl Reader<'_> {
    /// What was given: the flag, else the environment variable unless it is empty.
    fn given(&self, setting: &Setting, flag: Option<&String>) -> Option<(String, Origin)> {
        if let Some(text) = flag {
            return Some((text.clone(), Origin::Flag));
        }
        let variable = setting.env?;
        let text = (self.env)(variable).filter(|text| !text.is_empty())?;
        Some((text, Origin::Env(variable)))
    }

    /// The value; `None` when none was given, or a bad one.
    fn value<T>(
        &mut self,
        setting: &Setting,
        flag: Option<&String>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let (text, origin) = self.given(setting, flag)?;
        let value = parse(&text);
        if value.is_none() {
            self.wrong(setting, origin, &text);
        }
        value
    }

    fn wrong(&mut self, setting: &Setting, origin: Origin, text: &str) {
        self.problems.push(Problem::new(setting, origin, text, format!("give {}", setting.wants)));
    }

    /// On if the flag is there or the environment says so.
    fn switch(&mut self, setting: &Setting, flag: bool) -> bool {
        flag || self.value(setting, None, values::boolean).unwrap_or(false)
    }

    /// Something that must not be seen.
    fn secret(&mut self, setting: &Setting, flag: Option<&String>) -> Option<Secret> {
        self.value(setting, flag, values::text).map(Secret::new)
    }

    /// A path, to be looked at later.
    fn path(&mut self, setting: &Setting, flag: Option<&String>) -> Option<PathBuf> {
        let (text, origin) = self.given(setting, flag)?;
        if values::text(&text).is_none() {
            self.wrong(setting, origin, &text);
            return None;
        }
        Some(self.note_path(setting, origin, &text))
    }

    /// A path that there is always one of.
    fn path_or(&mut self, setting: &Setting, flag: Option<&String>, default: &str) -> PathBuf {
        match self.given(setting, flag) {
            Some(_) => self.path(setting, flag).unwrap_or_else(|| default.into()),
            None => self.note_path(setting, Origin::Default, default),
        }
    }

    fn note_path(&mut self, setting: &Setting, origin: Origin, text: &str) -> PathBuf {
        let path = self.cwd.join(text);
        self.paths.push(PathSetting { setting: *setting, origin, path: path.clone() });
        path
    }

    fn s3(&mut self, opts: &AgentOpts) -> S3 {
        let region = self.value(&s::S3_REGION, opts.s3_region.as_ref(), values::name);
        let bucket = self.value(&s::S3_BUCKET, opts.s3_bucket.as_ref(), values::name);
        let prefix = self.value(&s::S3_PREFIX, opts.s3_prefix.as_ref(), values::prefix);
        let endpoint = self.value(&s::S3_ENDPOINT, opts.s3_endpoint.as_ref(), values::url);
        let acl = self.value(&s::S3_ACL, opts.s3_acl.as_ref(), values::acl);
        let expiry = values::duration_in(Duration::from_secs(1)..=7 * DAY);
        let url_expiry = self.value(&s::S3_URL_EXPIRY, opts.s3_url_expiry.as_ref(), expiry);
        S3 {
            region: region.unwrap_or_else(|| "ap-northeast-1".to_owned()),
            bucket: bucket.unwrap_or_else(|| "codeonweb".to_owned()),
            prefix: prefix.unwrap_or_else(|| "bucket".to_owned()),
            endpoint,
            acl: acl.unwrap_or(Acl::Private),
            url_expiry: url_expiry.unwrap_or(7 * DAY),
            access_key_id: self.secret(&s::AWS_ACCESS_KEY_ID, None),
            secret_access_key: self.secret(&s::AWS_SECRET_ACCESS_KEY, None),
            session_token: self.secret(&s::AWS_SESSION_TOKEN, None),
        }
    }

    fn observing(&mut self, opts: &AgentOpts) -> (TelemetryConfig, Option<SocketAddr>, Datadog) {
        let debug = self.switch(&s::DEBUG, opts.debug);
        let verbose = self.switch(&s::VERBOSE, opts.verbose);
        let filter = self.value(&s::LOG_FILTER, opts.log_filter.as_ref(), |text| text.parse().ok());
        let path = self.path(&s::LOG_FILE, opts.log_file.as_ref());
        let keep = self.value(&s::LOG_FILE_COUNT, opts.log_file_count.as_ref(), values::file_count);
        let max_bytes = self.value(&s::LOG_FILE_SIZE, opts.log_file_size.as_ref(), values::mebibytes);
        let metrics_addr = self.value(&s::METRICS_ADDR, opts.metrics_addr.as_ref(), |text| text.parse().ok());
        let sentry = self.value(&s::RAVEN_URI, opts.raven_uri.as_ref(), |text| text.parse().ok());
        let datadog = Datadog {
            api_key: self.secret(&s::DATADOG_API_KEY, opts.datadog_api_key.as_ref()),
            app_key: self.secret(&s::DATADOG_APP_KEY, opts.datadog_app_key.as_ref()),
        };
        let rotation = match (NonZeroU64::new(max_bytes.unwrap_or(10 << 20)), keep.unwrap_or(10)) {
            (Some(max_bytes), keep @ 1..) => Some(Rotation { max_bytes, keep }),
            _ => None,
        };
        let telemetry = TelemetryConfig {
            verbosity: match (verbose, debug) {
                (true, _) => Verbosity::Verbose,
                (false, true) => Verbosity::Debug,
                (false, false) => Verbosity::Normal,
            },
            filter,
            log_file: path.map(|path| LogFile { path, rotation }),
            journal_stream: (self.env)("JOURNAL_STREAM"),
            no_colour: (self.env)("NO_COLOR").is_some_and(|value| !value.is_empty()),
            sentry,
            statsd: (datadog.api_key.is_some() && datadog.app_key.is_some()).then_some(STATSD),
        };
        (telemetry, metrics_addr, datadog)
    }
}

#[cfg(test)]
mod tests;
