//! The table of all series: name, kind, labels, help. `docs/metrics.md` lists the same, which a test holds it to. Pure.

use crate::wire::request::METHODS;

/// What kind of series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; born at 0 where its labels are known beforehand.
    Counter,
    /// Goes up and down; absent while it is not known.
    Gauge,
    /// Durations in seconds.
    Histogram,
}

/// A label of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// All values that it takes, besides [`OTHER`] for whatever is none of them; empty where the values are those of
    /// things that this machine has, such as kernels.
    pub values: &'static [&'static str],
}

/// Stands for every value that is not in a label's list.
pub const OTHER: &str = "other";

/// One family of series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its whole name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// Its labels, in the order in which values are given.
    pub labels: &'static [Label],
    /// What it tells.
    pub help: &'static str,
}

/// How a call of the manager went.
pub const OUTCOMES: &[&str] = &["answered", "refused", "failed", "late", "unwanted"];

/// How a create or a restart went.
pub const RESULTS: &[&str] = &["done", "refused", "failed", "late", "cancelled"];

/// Why a kernel ended (`EndReason`).
pub const REASONS: &[&str] = &[
    "user-requested",
    "self-terminated",
    "idle-timeout",
    "exec-timeout",
    "agent-reset",
    "agent-termination",
    "already-terminated",
];

/// How far a kernel can be (`kernel::State`).
pub const STATES: &[&str] =
    &["creating", "looking", "running", "restarting", "left-alone", "ending", "undoing"];

/// Calls to Docker (`docker::Docker`).
pub const DOCKER_CALLS: &[&str] = &[
    "ping",
    "info",
    "listen_events",
    "create_container",
    "start_container",
    "inspect_container",
    "remove_container",
    "list_containers",
    "read_log",
    "measure_container",
    "list_images",
    "inspect_image",
    "pull_image",
    "tag_image",
    "remove_image",
    "inspect_volume",
    "inspect_network",
];

macro_rules! table {
    ($($id:ident = $kind:ident $name:literal { $($label:literal: $values:expr),* } $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: concat!("backendai_agent_", $name),
                kind: Kind::$kind,
                labels: &[$(Label { name: $label, values: $values }),*],
                help: $help,
            };
        )*

        /// The whole table.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

table! {
    BUILD_INFO = Gauge "build_info" { "version": &[] } "Always 1; tells the agent's version.";
    READY = Gauge "ready" {} "1 when the agent can take sessions, else 0.";
    CONDITION = Gauge "condition" { "name": &[] } "1 while a need of the agent is met, else 0.";
    CONDITION_SINCE = Gauge "condition_since_timestamp_seconds" { "name": &[] } "Since when it is so, as a Unix time.";
    LAST_HEARTBEAT = Gauge "last_heartbeat_timestamp_seconds" {} "When the last heartbeat arrived at the manager, as a Unix time.";
    EVENTS_WAITING = Gauge "events_waiting" {} "Events that wait for the manager.";
    EVENTS_SENT = Counter "events_arrived_total" {} "Events that have arrived at the manager, heartbeats not counted.";
    LOG_LINES = Counter "log_lines_total" { "level": &["warn", "error"] } "Log lines that tell of something wrong.";
    TASKS = Gauge "tasks" {} "Tasks of the runtime, idle connections among them; a figure that only grows is a leak.";

    RPC_CALLS = Counter "rpc_calls_total" { "method": METHODS, "outcome": OUTCOMES } "Calls of the manager by how they went.";
    RPC_SECONDS = Histogram "rpc_call_duration_seconds" { "method": METHODS } "Time from the receipt of a call to its answer.";
    RPC_DROPPED = Counter "rpc_dropped_messages_total" {} "Messages to the RPC port that were no call.";
    RPC_NOT_LET_IN = Counter "rpc_refused_callers_total" { "why": &["stranger", "container", "too-many"] } "Callers that were not let in, by their address.";
    RPC_REFUSED = Counter "rpc_refused_connections_total" {} "Connections to the RPC port that were closed because the peer spoke something else.";

    KERNELS = Gauge "kernels" { "state": STATES } "Kernels by how far they are.";
    KERNEL_CREATES = Counter "kernel_creates_total" { "result": RESULTS } "Creates of kernels by how they went.";
    KERNEL_CREATE_SECONDS = Histogram "kernel_create_duration_seconds" {} "Time that the creates took which were done.";
    KERNEL_RESTARTS = Counter "kernel_restarts_total" { "result": RESULTS } "Restarts of kernels by how they went.";
    KERNEL_RESTART_SECONDS = Histogram "kernel_restart_duration_seconds" {} "Time that the restarts took which were done.";
    KERNEL_ENDS = Counter "kernel_ends_total" { "reason": REASONS } "Ends of kernels by reason.";
    KERNEL_END_SECONDS = Histogram "kernel_end_duration_seconds" {} "Time from the wish or notice of an end until its containers are removed.";
    KERNELS_TAKEN_BACK = Counter "kernels_taken_back_total" {} "Running kernels of an earlier life of the agent that were taken back.";
    RUNS = Gauge "runs" {} "Kernels with a run that goes on.";
    RUNS_BEGUN = Counter "runs_begun_total" {} "Runs of code that were begun.";
    ENDINGS_WAITING = Gauge "endings_waiting" {} "Ends of kernels that are not finished yet.";

    CPU_CORES = Gauge "cpu_cores" {} "Cores that can be given to kernels.";
    CPU_SHARES = Gauge "cpu_shares" {} "Cores given to kernels, each counted once per kernel that has it: above the cores that there are when overbooked.";
    MEMORY_BYTES = Gauge "memory_bytes" {} "Memory that can be given to kernels.";
    MEMORY_GIVEN = Gauge "memory_given_bytes" {} "Memory limits of all kernels together.";
    HOST_LOAD = Gauge "host_load1" {} "Tasks of the whole machine that ran or waited, on average over the last minute.";
    HOST_MEMORY = Gauge "host_memory_bytes" {} "Memory of the machine.";
    HOST_AVAILABLE = Gauge "host_memory_available_bytes" {} "What of the machine's memory new processes can have without swapping.";
    GPUS = Gauge "gpus" {} "GPUs that can be given to kernels.";
    GPUS_USED = Gauge "gpus_used" {} "GPUs given to kernels.";
    SCRATCH_BYTES = Gauge "scratch_size_bytes" {} "Size of the file system of the scratch directories; absent while it does not answer.";
    SCRATCH_FREE = Gauge "scratch_free_bytes" {} "What is free there for ordinary users.";
    SCRATCH_INODES_FREE = Gauge "scratch_free_inodes" {} "Files that can still be made there; absent where there is no such limit.";

    IMAGES = Gauge "images" {} "Kernel images that the manager is told of.";
    IMAGE_UPDATES = Counter "image_updates_total" { "result": &["done", "failed"] } "Updates of kernel images by how they went.";
    IMAGE_PULL_BYTES = Gauge "image_pull_bytes" { "image": &[] } "Bytes of the image that is being pulled, as far as its size is known.";
    IMAGE_PULLED_BYTES = Gauge "image_pulled_bytes" { "image": &[] } "Bytes of it that are here.";

    DOCKER_REQUESTS = Counter "docker_calls_total" { "call": DOCKER_CALLS, "outcome": &["answered", "refused", "failed", "late"] } "Calls to Docker by how they went.";
    DOCKER_SECONDS = Histogram "docker_call_duration_seconds" { "call": DOCKER_CALLS } "Time that calls to Docker took.";

    KERNEL_INFO = Gauge "kernel_info" { "kernel": &[], "image": &[] } "Always 1; tells the image of a running kernel.";
    KERNEL_CREATED = Gauge "kernel_created_timestamp_seconds" { "kernel": &[] } "When the kernel was created, as a Unix time.";
    KERNEL_RUNNING = Gauge "kernel_running" { "kernel": &[] } "1 while a run goes on in the kernel, else 0.";
    KERNEL_CORES = Gauge "kernel_cpu_cores" { "kernel": &[] } "Cores of the kernel.";
    KERNEL_MEMORY_LIMIT = Gauge "kernel_memory_limit_bytes" { "kernel": &[] } "Memory limit of the kernel.";
    KERNEL_MEMORY = Gauge "kernel_memory_bytes" { "kernel": &[] } "Memory that the kernel uses, page cache included.";
    KERNEL_CPU = Counter "kernel_cpu_seconds_total" { "kernel": &[] } "Processor time of the kernel's container.";
    KERNEL_NET_RX = Counter "kernel_network_receive_bytes_total" { "kernel": &[] } "Bytes that the kernel has received.";
    KERNEL_NET_TX = Counter "kernel_network_transmit_bytes_total" { "kernel": &[] } "Bytes that the kernel has sent.";
    KERNEL_IO_READ = Counter "kernel_disk_read_bytes_total" { "kernel": &[] } "Bytes that the kernel has read from disks.";
    KERNEL_IO_WRITE = Counter "kernel_disk_written_bytes_total" { "kernel": &[] } "Bytes that the kernel has written to disks.";
    KERNEL_SCRATCH = Gauge "kernel_scratch_bytes" { "kernel": &[] } "Size of the kernel's scratch directory.";

    GPU_KERNELS = Gauge "gpu_kernels" { "gpu": &[], "uuid": &[] } "Kernels that have a part of the GPU.";
    GPU_MEMORY = Gauge "gpu_memory_bytes" { "gpu": &[], "uuid": &[] } "Memory of the GPU.";
    GPU_MEMORY_USED = Gauge "gpu_memory_used_bytes" { "gpu": &[], "uuid": &[] } "Memory of the GPU in use.";
    GPU_BUSY = Gauge "gpu_busy_ratio" { "gpu": &[], "uuid": &[] } "Part of the time in which the GPU computes, from 0 to 1.";
    GPU_CELSIUS = Gauge "gpu_temperature_celsius" { "gpu": &[], "uuid": &[] } "Temperature of the GPU.";
    GPU_WATTS = Gauge "gpu_power_watts" { "gpu": &[], "uuid": &[] } "Power of the GPU.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_fit_their_kinds() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for Metric { name, kind, help, .. } in ALL {
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert_eq!(*kind == Kind::Histogram, name.ends_with("_duration_seconds"), "{name}");
            assert!(help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn every_reason_is_in_the_list() {
        let reasons: Vec<_> =
            crate::wire::event::EndReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(reasons, REASONS);
    }

    /// Every series that the alerts and the dashboard ask for is there, with the labels that they choose by.
    #[test]
    fn alerts_and_dashboard_ask_for_what_there_is() {
        let texts = [include_str!("../../config/alerts.yml"), include_str!("../../config/grafana.json")];
        let mut asked = 0;
        for part in texts.iter().flat_map(|text| text.split("backendai_agent_").skip(1)) {
            let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let is = |metric: &&Metric| {
                let own = metric.name.trim_start_matches("backendai_agent_");
                let parts = ["_bucket", "_sum", "_count"];
                own == name
                    || (metric.kind == Kind::Histogram
                        && parts.iter().any(|part| name.strip_suffix(part) == Some(own)))
            };
            let found = ALL.iter().find(is).unwrap_or_else(|| panic!("there is no {name}"));
            let chosen = part[name.len()..].strip_prefix('{').and_then(|rest| rest.split('}').next());
            for choice in chosen.unwrap_or_default().split(',').filter(|choice| !choice.is_empty()) {
                let label: String = choice.trim().chars().take_while(char::is_ascii_alphanumeric).collect();
                let is_own = found.labels.iter().any(|own| own.name == label);
                assert!(is_own || label == "instance", "{name} has no label {label}");
            }
            asked += 1;
        }
        assert!(asked > 30, "only {asked} were found");
    }

    /// The documents tell of every series and of no other, with its kind, labels and help.
    #[test]
    fn the_document_has_this_table() {
        let document = include_str!("../../docs/metrics.md");
        let labels = |metric: &Metric| {
            let names: Vec<_> = metric.labels.iter().map(|label| format!("`{}`", label.name)).collect();
            names.join(", ")
        };
        let row = |m: &Metric| {
            let kind = format!("{:?}", m.kind).to_lowercase();
            format!("| `{}` | {kind} | {} | {} |", m.name, labels(m), m.help)
        };
        let rows: Vec<String> = ALL.iter().map(row).collect();
        let found: Vec<&str> =
            document.lines().filter(|line| line.starts_with("| `backendai_agent_")).collect();
        assert_eq!(found, rows, "the table of docs/metrics.md should be:\n{}\n", rows.join("\n"));
    }
}
