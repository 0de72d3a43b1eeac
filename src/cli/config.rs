//! From the settings as they were typed to what they mean for each part of the agent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::time::Duration;

use super::options::{AgentOpts, ClusterOpts, KernelOpts, OWN_NETWORK, ObservingOpts, S3Opts};
use super::sockets;
use crate::agent::config::{Changeable, Config, RpcConfig, SocketPlace};
use crate::cluster::ClusterConfig;
use crate::docker::DockerConfig;
use crate::identity::IdentityConfig;
use crate::images::{Registry, Updates};
use crate::kernel::{CreateDeadline, KernelsConfig};
use crate::resources::{CoreChoice, NodeLimits};
use crate::scratch::{Quota, S3Config, S3Keys};
use crate::telemetry::{LogFile, Rotation, TelemetryConfig, Verbosity};

/// The port of the Datadog agent, which the reference's client also expects on this machine.
const STATSD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8125);

/// What `opts` mean.
pub(super) fn config(opts: AgentOpts) -> Config {
    let AgentOpts { file: _, cluster, access, kernels, resources, mut s3, mut observing, tuning } = opts;
    fill(&mut s3.aws_access_key_id, access.aws_access_key_id_file.as_ref());
    fill(&mut s3.aws_secret_access_key, access.aws_secret_access_key_file.as_ref());
    fill(&mut s3.aws_session_token, access.aws_session_token_file.as_ref());
    fill(&mut observing.raven_uri, access.raven_uri_file.as_ref());
    let is_half_a_user = access.is_half();
    let (etcd, redis) = access.access();
    let mut warnings = warnings(&kernels, &s3, &observing);
    if is_half_a_user {
        warnings.push(
            "the agent signs in at etcd only when both --etcd-user and its password are given".to_owned(),
        );
    }
    let ClusterOpts {
        namespace,
        etcd_addr,
        agent_host_override,
        kernel_host_override,
        agent_port,
        rpc_listen,
        trusted_peers,
        instance_id,
        region,
    } = cluster;
    Config {
        identity: IdentityConfig {
            cluster: etcd_addr.clone(),
            instance_id_override: instance_id,
            region_override: region,
            ..IdentityConfig::default()
        },
        cluster: ClusterConfig { access: etcd, ..ClusterConfig::new(etcd_addr, namespace) },
        redis,
        agent_host: agent_host_override,
        kernel_host: kernel_host_override,
        agent_port,
        rpc_listen,
        docker: DockerConfig::new(kernels.docker_host),
        kernel_network: Some(kernels.kernel_network).filter(|name| name != OWN_NETWORK),
        scratch_root: kernels.scratch_root,
        min_free: kernels.min_free,
        scratch_quota: Quota::new(kernels.scratch_quota),
        limits: NodeLimits {
            cores: CoreChoice { reserved: resources.reserved_cpus, only: resources.limit_cpus },
            reserved_memory: resources.reserved_memory,
            gpus: resources.limit_gpus,
            shm: resources.shm_size,
        },
        kernels: KernelsConfig {
            creates: kernels.creates,
            create_deadline: match kernels.create_deadline {
                None => CreateDeadline::AsAsked,
                Some(given) => limit(given).map_or(CreateDeadline::Never, CreateDeadline::After),
            },
            enforce_exec_timeout: kernels.enforce_exec_timeout,
            debug_kernel: kernels.debug_kernel,
            pids_limit: Some(kernels.kernel_pids_limit).filter(|limit| *limit > 0),
            hardening: kernels.container_hardening,
            uid: kernels.kernel_uid,
            adopt: kernels.adopt,
            sweep_scratch: kernels.sweep_scratch,
            reconcile_every: tuning.reconcile_interval,
            files_wait: tuning.scratch_wait,
        },
        stop_kernels_on_exit: kernels.stop_kernels_on_exit,
        changeable: Changeable {
            trusted_peers,
            idle_timeout: kernels.idle_timeout,
            updates: Updates {
                are_on: kernels.auto_update_images,
                registry: Registry { address: kernels.docker_registry, docker_config: kernels.docker_config },
                remove_old: kernels.remove_old_images,
            },
        },
        s3: s3_config(s3),
        metrics_addr: observing.metrics_addr,
        socket: observing.socket.clone().unwrap_or_else(|| SocketPlace::In(sockets::SYSTEM.into())),
        socket_group: observing.socket_group.clone(),
        telemetry: telemetry(observing),
        rpc: RpcConfig {
            calls: tuning.rpc_calls,
            calls_of_one: tuning.rpc_calls_of_one,
            memory: tuning.rpc_memory,
        },
        heartbeat_interval: tuning.heartbeat_interval,
        stats_interval: tuning.stats_interval,
        warnings,
    }
}

/// What a file holds stands behind what is given.
fn fill<T: Clone>(secret: &mut Option<T>, file: Option<&T>) {
    if secret.is_none() {
        *secret = file.cloned();
    }
}

/// Zero is no limit.
fn limit(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

fn s3_config(opts: S3Opts) -> Option<S3Config> {
    Some(S3Config {
        keys: S3Keys {
            access_key: opts.aws_access_key_id?,
            secret_key: opts.aws_secret_access_key?,
            session_token: opts.aws_session_token,
        },
        region: opts.s3_region,
        bucket: opts.s3_bucket,
        prefix: opts.s3_prefix,
        endpoint: opts.s3_endpoint,
        acl: opts.s3_acl,
        url_expiry: opts.s3_url_expiry,
    })
}

fn telemetry(opts: ObservingOpts) -> TelemetryConfig {
    let rotation = match (NonZeroU64::new(opts.log_file_size.bytes()), opts.log_file_count) {
        (Some(max_bytes), keep @ 1..) => Some(Rotation { max_bytes, keep }),
        _ => None,
    };
    TelemetryConfig {
        verbosity: match (opts.verbose, opts.debug) {
            (true, _) => Verbosity::Verbose,
            (false, true) => Verbosity::Debug,
            (false, false) => Verbosity::Normal,
        },
        filter: opts.log_filter,
        format: opts.log_format,
        log_file: opts.log_file.map(|path| LogFile { path, rotation }),
        journal_stream: std::env::var("JOURNAL_STREAM").ok(),
        no_colour: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        sentry: opts.raven_uri,
        statsd: opts.datadog_api_key.and(opts.datadog_app_key).map(|_| STATSD),
    }
}

fn warnings(kernels: &KernelOpts, s3: &S3Opts, observing: &ObservingOpts) -> Vec<String> {
    let is_half = |first: bool, second: bool| first != second;
    let warnings = [
        (kernels.kernel_aliases.is_some(), "--kernel-aliases has no effect, as it never had any"),
        (
            is_half(observing.datadog_api_key.is_some(), observing.datadog_app_key.is_some()),
            "figures go to Datadog only when both --datadog-api-key and --datadog-app-key are given",
        ),
        (
            is_half(s3.aws_access_key_id.is_some(), s3.aws_secret_access_key.is_some()),
            "output files are uploaded only when both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set",
        ),
        (
            kernels.debug_kernel.is_some(),
            "--debug-kernel replaces the kernel runner in every container: for development only",
        ),
    ];
    warnings.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text.to_owned()).collect()
}

#[cfg(test)]
mod tests;
