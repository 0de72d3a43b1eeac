//! Every setting of the agent by name: its flag, its environment variable, and what a good value looks like.
//! The flags themselves, with their help, are in `options`. Pure data.

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    /// With its dashes; empty where there is none, because a command line is public on its machine.
    pub(super) flag: &'static str,
    /// Read when the flag isn't given; empty counts as not set.
    pub(super) env: Option<&'static str>,
    /// Never shown.
    pub(super) secret: bool,
    /// What would be right, as a demand: "a port from 1 to 65535".
    pub(super) wants: &'static str,
}

impl Setting {
    /// How a report calls it.
    pub(super) fn name(&self) -> &'static str {
        if self.flag.is_empty() { self.env.unwrap_or_default() } else { self.flag }
    }
}

/// `settings! { NAME: "--flag" ENV | - , "wants" [secret]; … }`, and [`ALL`] of them for the tests.
macro_rules! settings {
    ($($name:ident: $flag:literal $env:tt, $wants:literal $($secret:ident)?;)*) => {
        $(pub(super) const $name: Setting = Setting {
            flag: $flag,
            env: settings!(@env $env),
            secret: settings!(@secret $($secret)?),
            wants: $wants,
        };)*
        /// Every setting, in the order of `--help`.
        #[cfg(test)]
        pub(super) const ALL: &[Setting] = &[$($name),*];
    };
    (@env -) => { None };
    (@env $env:literal) => { Some($env) };
    (@secret) => { false };
    (@secret secret) => { true };
}

/// The one setting of the client commands.
pub(super) const AGENT: Setting =
    Setting { flag: "--agent", env: Some("BACKENDAI_AGENT"), secret: false, wants: "tcp://HOST:PORT" };

settings! {
    NAMESPACE: "--namespace" "BACKEND_NAMESPACE", "a name without / and white space";
    ETCD_ADDR: "--etcd-addr" "BACKEND_ETCD_ADDR", "HOST:PORT of etcd, several with commas between them";
    AGENT_HOST: "--agent-host-override" "BACKEND_AGENT_HOST_OVERRIDE", "a host name or an address, without a port";
    KERNEL_HOST: "--kernel-host-override" "BACKEND_KERNEL_HOST_OVERRIDE", "a host name or an address, without a port";
    AGENT_PORT: "--agent-port" "BACKEND_AGENT_PORT", "a port from 1 to 65535";
    INSTANCE_ID: "--instance-id" "BACKEND_INSTANCE_ID", "a name without / and white space";
    REGION: "--region" "BACKEND_REGION", "a text on one line";

    SCRATCH_ROOT: "--scratch-root" "BACKEND_SCRATCH_ROOT", "a directory that exists and can be written to";
    DOCKER_HOST: "--docker-host" "DOCKER_HOST", "unix:///PATH or tcp://HOST:PORT";
    IDLE_TIMEOUT: "--idle-timeout" -, "a time such as 600, 10m or 1h; 0 switches it off";
    KERNEL_PIDS_LIMIT: "--kernel-pids-limit" "BACKEND_KERNEL_PIDS_LIMIT", "a number such as 16384; 0 sets no limit";
    CREATE_DEADLINE: "--create-deadline" "BACKEND_CREATE_DEADLINE", "a time such as 3 or 500ms; 0 switches it off";
    ENFORCE_EXEC_TIMEOUT: "--enforce-exec-timeout" "BACKEND_ENFORCE_EXEC_TIMEOUT", "true or false";
    ADOPT: "--adopt" "BACKEND_ADOPT", "true or false";
    STOP_KERNELS: "--stop-kernels-on-exit" "BACKEND_STOP_KERNELS_ON_EXIT", "true or false";
    AUTO_UPDATE_IMAGES: "--auto-update-images" "BACKEND_AUTO_UPDATE_IMAGES", "true or false";
    DEBUG_KERNEL: "--debug-kernel" "DEBUG_KERNEL", "a directory that exists and ends in ai/backend/kernel";
    KERNEL_ALIASES: "--kernel-aliases" -, "a path";

    S3_REGION: "--s3-region" "AWS_REGION", "a region such as ap-northeast-1";
    S3_BUCKET: "--s3-bucket" "AWS_S3_BUCKET", "the name of a bucket";
    S3_PREFIX: "--s3-prefix" "AWS_S3_BUCKET_PATH", "a path within the bucket";
    S3_ENDPOINT: "--s3-endpoint" "AWS_ENDPOINT_URL", "an http or https URL without user and query";
    S3_ACL: "--s3-acl" "BACKEND_S3_ACL", "private or public-read";
    S3_URL_EXPIRY: "--s3-url-expiry" "BACKEND_S3_URL_EXPIRY", "a time from 1s to 7d, the longest that S3 allows";
    AWS_ACCESS_KEY_ID: "" "AWS_ACCESS_KEY_ID", "a text on one line" secret;
    AWS_SECRET_ACCESS_KEY: "" "AWS_SECRET_ACCESS_KEY", "a text on one line" secret;
    AWS_SESSION_TOKEN: "" "AWS_SESSION_TOKEN", "a text on one line" secret;

    DEBUG: "--debug" "BACKEND_DEBUG", "true or false";
    VERBOSE: "--verbose" "BACKEND_VERBOSE", "true or false";
    LOG_FILTER: "--log-filter" "RUST_LOG", "levels by target, such as warn,backendai_agent=debug";
    LOG_FILE: "--log-file" "BACKEND_LOG_FILE", "a file in an existing directory that can be written to";
    LOG_FILE_COUNT: "--log-file-count" "BACKEND_LOG_FILE_COUNT", "a number of files from 0 to 1000; 0 never starts a new file";
    LOG_FILE_SIZE: "--log-file-size" "BACKEND_LOG_FILE_SIZE", "MiB such as 10.0; 0 never starts a new file";
    METRICS_ADDR: "--metrics-addr" "BACKEND_METRICS_ADDR", "an IP address and a port, such as 127.0.0.1:9100";
    RAVEN_URI: "--raven-uri" "RAVEN_URI", "a Sentry DSN: https://KEY@HOST/PROJECT" secret;
    DATADOG_API_KEY: "--datadog-api-key" "DATADOG_API_KEY", "a text on one line" secret;
    DATADOG_APP_KEY: "--datadog-app-key" "DATADOG_APP_KEY", "a text on one line" secret;

    HEARTBEAT_INTERVAL: "--heartbeat-interval" "BACKEND_HEARTBEAT_INTERVAL", "a time from 100ms to 4s: the manager gives up after 5 s";
    STATS_INTERVAL: "--stats-interval" "BACKEND_STATS_INTERVAL", "a time from 100ms to 20s: statistics expire after 30 s";
    RECONCILE_INTERVAL: "--reconcile-interval" "BACKEND_RECONCILE_INTERVAL", "a time from 100ms to 1h";
}
