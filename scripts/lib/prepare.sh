# shellcheck shell=bash
# What the scripts share: messages, root, packages, Rust, Docker, private servers, cleaning up.
#
# Sourced, never run. The script that sources it has said `set -euo pipefail`.
# shellcheck disable=SC2034 # the colours and the variables that functions set are for the scripts
# Rules kept by everything in here:
#   - whatever is started is stopped again, by its pid; whatever ran before is used as it is or left alone;
#   - every wait asks for the state it waits for, has a limit, and shows the server's log when the limit is reached;
#   - nothing is written outside of the run directory, the cache directory and Debian's package system.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${BACKENDAI_CACHE:-$HOME/.cache/backendai-agent}

# -- messages ---------------------------------------------------------------

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' blue=$'\e[34m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' yellow='' blue='' plain=''
fi

# One line of progress with the seconds since the script began.
say() { printf '%s[%4ds]%s %s\n' "$dim" "$SECONDS" "$plain" "$*"; }
warn() { printf '%s[%4ds] %s%s\n' "$yellow" "$SECONDS" "$*" "$plain"; }
die() {
    printf '%s[%4ds] error: %s%s\n' "$red" "$SECONDS" "$*" "$plain" >&2
    exit 1
}

# The end of a log file, indented, for an error message.
show_log() {
    [ -s "$1" ] || return 0
    printf '%s\n' "  last lines of $1:" >&2
    tail -n "${2:-15}" "$1" | sed 's/^/  | /' >&2
}

# -- cleaning up ------------------------------------------------------------

cleanups=()

# Run this function or command, with these words, when the script ends; the last registered comes first.
at_exit() {
    local quoted
    printf -v quoted '%q ' "$@"
    cleanups=("$quoted" "${cleanups[@]}")
}

run_cleanups() {
    local status=$?
    trap '' INT TERM HUP # a second Ctrl-C must not leave half of it behind
    trap - EXIT
    set +e
    local cleanup
    for cleanup in "${cleanups[@]}"; do
        eval "$cleanup"
    done
    exit "$status"
}
trap run_cleanups EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# A private directory that goes when the script ends. Sets run_dir.
make_run_dir() {
    run_dir=$(mktemp -d "${TMPDIR:-/tmp}/backendai-$1-XXXXXX")
    at_exit rm -rf --one-file-system "$run_dir"
}

# True while the process runs; a zombie has ended.
is_alive() {
    local stat
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    stat=${stat##*) }
    [ "${stat%% *}" != Z ]
}

# stop PID NAME SECONDS: SIGTERM, and SIGKILL when it is still there after the limit.
stop() {
    local pid=$1 name=$2 deadline=$((SECONDS + $3))
    is_alive "$pid" || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    while is_alive "$pid"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            warn "$name (pid $pid) did not stop within $3 s: killed"
            kill -KILL "$pid" 2>/dev/null
            return 0
        fi
        sleep 0.05
    done
}

# -- waiting ----------------------------------------------------------------

# wait_for SECONDS PID LOG WHAT COMMAND…: until the command succeeds. Fails when the process ends first
# or the limit is reached, and shows the end of the log then.
wait_for() {
    local limit=$1 pid=$2 log=$3 what=$4 deadline=$((SECONDS + $1))
    shift 4
    until "$@" >/dev/null 2>&1; do
        if ! is_alive "$pid"; then
            show_log "$log"
            warn "$what: the process ended"
            return 1
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            show_log "$log"
            warn "$what: not within $limit s"
            return 1
        fi
        sleep 0.1
    done
}

handed_out=' '

# A loopback port that nobody listens on, below the range that the system hands out by itself. Sets free_port.
find_port() {
    local _
    for _ in {1..100}; do
        free_port=$((20000 + RANDOM % 10000))
        [[ $handed_out != *" $free_port "* ]] || continue
        (exec 3<>"/dev/tcp/127.0.0.1/$free_port") 2>/dev/null && continue
        handed_out+="$free_port "
        return 0
    done
    die "no free port between 20000 and 29999 on 127.0.0.1"
}

# -- root and the one who called --------------------------------------------

# need_root SCRIPT ARGUMENTS…: starts the script again through sudo unless it runs as root.
# Docker, debootstrap and apt need it, and the agent itself runs as root.
need_root() {
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null || die "run this as root (there is no sudo here): it installs packages and uses Docker"
    echo "This installs missing Debian packages and uses Docker: continuing with sudo."
    # PATH and HOME stay the caller's, so that root uses the same Rust toolchain and cache.
    exec sudo -E env "PATH=$PATH" "HOME=$HOME" "$@"
}

# Runs a command as the one who called sudo, so that target/ and ~/.cargo stay theirs; as root where nobody did.
as_caller() {
    if [ -n "${SUDO_UID:-}" ] && [ "$SUDO_UID" -ne 0 ]; then
        setpriv --reuid="$SUDO_UID" --regid="${SUDO_GID:-$SUDO_UID}" --init-groups -- "$@"
    else
        "$@"
    fi
}

# Gives files that root made in these directories to the one who called sudo.
give_back() {
    [ -n "${SUDO_UID:-}" ] && [ "$SUDO_UID" -ne 0 ] || return 0
    chown -R --from=root "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$@" 2>/dev/null || true
}

# -- Debian packages --------------------------------------------------------

has_systemd() { [ -d /run/systemd/system ]; }

# Keeps the packages' own scripts from starting servers; Docker may start where systemd will look after it.
# Not touched where the machine has such a policy already.
hold_services() {
    local policy=/usr/sbin/policy-rc.d
    [ -e $policy ] && return 0
    printf '#!/bin/sh\n# Made by backendai-agent scripts for the time of one apt-get; may be deleted.\n' >$policy
    if has_systemd; then
        # shellcheck disable=SC2016 # the policy's own $1
        printf 'case "$1" in docker|docker.service|docker.socket|containerd|containerd.service) exit 0 ;; esac\n' >>$policy
    fi
    printf 'exit 101\n' >>$policy
    chmod 755 $policy
    held_policy=$policy
}
held_policy=
release_services() {
    [ -z "$held_policy" ] || rm -f "$held_policy"
    held_policy=
}

# need_packages COMMAND:PACKAGE…: installs the package of every command (or path) that is not there.
need_packages() {
    local pair missing=()
    for pair in "$@"; do
        case $pair in
            /*) [ -e "${pair%%:*}" ] || missing+=("${pair#*:}") ;;
            *) command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}") ;;
        esac
    done
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

install_packages() {
    command -v apt-get >/dev/null || die "missing here, and no apt-get to install them: $*"
    say "apt: installing $*"
    mkdir -p "$cache"
    local log=$cache/apt.log
    export DEBIAN_FRONTEND=noninteractive
    hold_services
    at_exit release_services
    apt-get update -qq >"$log" 2>&1 || { show_log "$log"; warn "apt-get update failed; trying with the lists that are here"; }
    apt-get install -y -qq --no-install-recommends "$@" >>"$log" 2>&1 \
        || { show_log "$log"; die "apt-get install $* failed"; }
    release_services

    # Enabled units would start at the next boot; nobody asked for a server on this machine.
    if has_systemd; then
        case " $* " in *" etcd-server "*) systemctl disable -q etcd || true ;; esac
        case " $* " in *" redis-server "*) systemctl disable -q redis-server || true ;; esac
        case " $* " in *" prometheus "*) systemctl disable -q prometheus || true ;; esac
    fi
}

# -- Rust -------------------------------------------------------------------

# A cargo that is new enough, and what the crates' build scripts need: C for ring, protoc for etcd's protocol.
# protoc is of no use without the files in libprotobuf-dev, which its package only recommends.
need_rust() {
    local wanted found
    export PATH="$PATH:$HOME/.cargo/bin"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repo/Cargo.toml")
    command -v cargo >/dev/null \
        || die "Rust $wanted or newer is needed and there is no cargo on PATH: install it with rustup (https://rustup.rs), then run this again"
    found=$(as_caller rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] \
        || die "Rust $wanted or newer is needed, this is $found: run 'rustup update'"
    need_packages cc:gcc /usr/include/stdio.h:libc6-dev protoc:protobuf-compiler /usr/include/google/protobuf/descriptor.proto:libprotobuf-dev
    say "Rust $found"
}

# cargo, with its own progress bar on a terminal and a line for every 50 crates elsewhere.
build() {
    if [ -t 2 ]; then
        as_caller cargo "$@"
    else
        as_caller cargo "$@" 2>&1 | awk '
            /^ *(Compiling|Checking) / { if (++crates % 50 == 0) print "         " crates " crates compiled"; fflush(); next }
            /^ *(Downloaded|Downloading|Updating|Locking|Blocking|Adding) / { next }
            { print; fflush() }'
    fi
}

# cargo-deny from crates.io, once; it stays in ~/.cargo/bin.
build_cargo_deny() {
    mkdir -p "$cache"
    local log=$cache/cargo-deny.log from=$SECONDS
    say "cargo-deny: building it once for ~/.cargo/bin (2 to 5 minutes on 2 cores)"
    as_caller cargo install --locked --quiet cargo-deny >"$log" 2>&1 \
        || { show_log "$log"; die "cargo install cargo-deny failed"; }
    say "cargo-deny: installed in $((SECONDS - from)) s"
}

# -- Python -----------------------------------------------------------------

# need_venv NAME REQUIREMENTS: a virtual environment in the cache, made again when the list changes. Sets venv.
need_venv() {
    local name=$1 list=$2 key log=$cache/venv-$1.log
    venv=$cache/venv-$name
    key=$(cat "$list" <(/usr/bin/python3 --version 2>&1) | sha256sum | cut -c1-16)
    [ "$(cat "$venv/made-from" 2>/dev/null)" != "$key" ] || return 0
    /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
    say "python: packages of $(realpath --relative-to="$repo" "$list") into $venv"
    rm -rf "$venv"
    mkdir -p "$cache"
    { /usr/bin/python3 -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$list"; } \
        >"$log" 2>&1 || { show_log "$log"; die "making the Python environment $venv failed"; }
    echo "$key" >"$venv/made-from"
}

# The libzmq of old managers and kernel images, by version, out of the wheels that brought them; there are none for other
# machines. Needs venv. Sets old_zmq.
need_old_zmq() {
    local version release python wheel log=$cache/old-zmq.log
    old_zmq=$cache/old-zmq
    [ "$(uname -m)" = x86_64 ] || return 0
    while read -r version release python; do
        [ ! -d "$old_zmq/$version" ] || continue
        say "python: libzmq $version, from pyzmq $release"
        wheel=$(mktemp -d "$run_dir/wheel-XXXXXX")
        { "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
            --implementation cp --python-version "$python" --abi "cp${python}m" --platform manylinux1_x86_64 \
            --dest "$wheel" "pyzmq==$release" && "$venv/bin/python" -m zipfile -e "$wheel"/*.whl "$wheel"; } \
            >"$log" 2>&1 || { show_log "$log"; die "downloading pyzmq $release failed"; }
        mkdir -p "$old_zmq"
        mv "$wheel/zmq/.libs" "$old_zmq/$version"
    done <<<'4.1 16.0.4 36
4.2 17.1.3 36'
}

# -- Docker -----------------------------------------------------------------

docker_answers() { timeout 10 docker version --format '{{.Server.Version}}'; }

# The pid file of a dockerd that ended hard keeps the next one from starting, even when the pid is a zombie's.
drop_stale_pid_file() {
    local file=$1 pid
    [ -e "$file" ] || return 0
    pid=$(tr -dc 0-9 <"$file")
    if [ -n "$pid" ] && is_alive "$pid" && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
        die "dockerd runs (pid $pid) but does not answer on its socket: look at its log, or end it, then run this again"
    fi
    say "docker: removing $file, left by a dockerd that is gone"
    rm -f "$file"
}

# try_dockerd OPTIONS…: starts one and waits until it answers.
try_dockerd() {
    local log=$run_dir/dockerd.log
    : >"$log"
    setsid dockerd "$@" >"$log" 2>&1 &
    local pid=$!
    at_exit stop_dockerd "$pid"
    wait_for 60 "$pid" "$log" "dockerd $*" docker_answers && return 0
    stop_dockerd "$pid"
    return 1
}

stop_dockerd() {
    is_alive "$1" || return 0
    say "docker: stopping the dockerd that was started for this"
    stop "$1" dockerd 60
}

# A Docker engine that answers: the one that runs, systemd's, or one of our own until the script ends. Needs run_dir.
need_docker() {
    need_packages docker:docker.io
    # From Debian 13 on the client is a package of its own.
    need_packages docker:docker-cli
    if ! docker_answers >/dev/null 2>&1; then
        need_packages dockerd:docker.io iptables:iptables
        start_docker
    fi
    say "docker: $(docker_answers) answers, storage driver $(docker info --format '{{.Driver}}' 2>/dev/null)"
}

start_docker() {
    if has_systemd; then
        docker_answers >/dev/null 2>&1 && return 0 # the package has just started it
        say "docker: starting docker.service"
        systemctl start docker || die "systemctl start docker failed: see 'journalctl -u docker'"
        at_exit systemctl stop docker.socket docker
        docker_answers >/dev/null || die "docker.service runs but does not answer"
        return 0
    fi
    if ! grep -q ' /sys/fs/cgroup' /proc/mounts; then
        need_packages cgroupfs-mount:cgroupfs-mount
        say "docker: mounting the cgroup file systems"
        cgroupfs-mount
    fi
    drop_stale_pid_file /var/run/docker.pid
    say "docker: starting dockerd"
    # First as it chooses itself (it keeps to the storage that has its images), then the two usual drivers;
    # vfs is slow but works on every file system.
    try_dockerd || try_dockerd --storage-driver overlay2 || try_dockerd --storage-driver vfs \
        || die "dockerd does not start here"
}

# -- private servers --------------------------------------------------------

# Both listen on loopback, keep their data in the run directory, and end with the script. setsid keeps the
# terminal's Ctrl-C from them: the agent still needs etcd while it stops.

etcd_pid=''
redis_pid=''

# Sets etcd_addr.
start_etcd() {
    need_packages etcd:etcd-server etcdctl:etcd-client
    find_port && etcd_addr=127.0.0.1:$free_port
    find_port && etcd_peer=127.0.0.1:$free_port
    at_exit stop_etcd
    run_etcd
    say "etcd: answers on $etcd_addr (private, data in $run_dir/etcd)"
}

# Starts it, or starts it again with its data. Sets etcd_pid.
run_etcd() {
    local log=$run_dir/etcd.log
    # The Debian package reads ETCD_* from the environment; the options here are complete.
    env -u ETCD_DATA_DIR ETCD_UNSUPPORTED_ARCH="$(uname -m | sed 's/aarch64/arm64/')" \
        setsid etcd --name demo --data-dir "$run_dir/etcd" --logger zap \
        --listen-client-urls "http://$etcd_addr" --advertise-client-urls "http://$etcd_addr" \
        --listen-peer-urls "http://$etcd_peer" --initial-advertise-peer-urls "http://$etcd_peer" \
        --initial-cluster "demo=http://$etcd_peer" >>"$log" 2>&1 &
    etcd_pid=$!
    wait_for 30 "$etcd_pid" "$log" "etcd on $etcd_addr" etcdctl_private endpoint health || die "etcd does not start"
}
stop_etcd() { [ -z "$etcd_pid" ] || stop "$etcd_pid" etcd 10; etcd_pid=; }

etcdctl_private() { ETCDCTL_API=3 timeout 10 etcdctl --endpoints "http://$etcd_addr" "$@"; }

# Sets redis_addr.
start_redis() {
    need_packages redis-server:redis-server redis-cli:redis-tools
    find_port && redis_addr=127.0.0.1:$free_port
    mkdir -p "$run_dir/redis"
    at_exit stop_redis
    run_redis
    say "redis: answers on $redis_addr (private)"
}

# Starts it, or starts it again, empty. Sets redis_pid.
run_redis() {
    local log=$run_dir/redis.log
    setsid redis-server --bind 127.0.0.1 --port "${redis_addr##*:}" --dir "$run_dir/redis" --save '' --appendonly no \
        >>"$log" 2>&1 &
    redis_pid=$!
    wait_for 30 "$redis_pid" "$log" "redis on $redis_addr" redis_private ping || die "redis-server does not start"
}
stop_redis() { [ -z "$redis_pid" ] || stop "$redis_pid" redis-server 10; redis_pid=; }

redis_private() { timeout 10 redis-cli -h 127.0.0.1 -p "${redis_addr##*:}" "$@"; }

# -- what agents leave --------------------------------------------------------

# An agent's kernels have a network, which stays for its next start, with rules of the packet filter for its bridge.
kernel_networks() {
    docker network ls --quiet --filter "label=ai.backend.namespace=$1" --filter "label=ai.backend.instance-id=$2"
}

# kernel_bridges NAMESPACE INSTANCE
kernel_bridges() {
    kernel_networks "$@" | xargs --no-run-if-empty docker network inspect --format '{{index .Options "com.docker.network.bridge.name"}}'
}

# remove_kernel_networks NAMESPACE INSTANCE
remove_kernel_networks() {
    local bridges bridge
    bridges=$(kernel_bridges "$@")
    kernel_networks "$@" | xargs --no-run-if-empty docker network rm >/dev/null
    for bridge in $bridges; do
        {
            iptables -w -t mangle -D PREROUTING -i "$bridge" -j "$bridge"
            iptables -w -t mangle -F "$bridge"
            iptables -w -t mangle -X "$bridge"
        } 2>/dev/null || true # there may be none
    done
}
