//! The life of kernels: made, looked at, ended (PROTOCOL sections 3, 4, 6, 7, 9 and 12).

mod create;
mod deaths;
mod destroy;
mod files;
mod managers;
mod patience;
mod refused;
mod resources;
mod services;
mod telling;
mod unheard;

/// The nine statistics of section 6.
const STATISTICS: [&str; 9] = [
    "cpu_used",
    "io_cur_scratch_size",
    "io_max_scratch_size",
    "io_read_bytes",
    "io_write_bytes",
    "mem_cur_bytes",
    "mem_max_bytes",
    "net_rx_bytes",
    "net_tx_bytes",
];
