//! What code in a kernel can do to the machine from inside of its container.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::support::docker::{self, TestImage, docker, image};
use crate::support::{Agent, Bed, Kernel, kernel, secs, until};

/// Tries what was open before: each line says `open` or `closed`.
const PROBE: &str = r"
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def say(what, is_open): print(what, 'open' if is_open else 'closed')
def tries(what, act):
    try: act()
    except OSError: say(what, False)
    else: say(what, True)
def call(number, *args):
    result = libc.syscall(number, *args)
    # EINVAL and EFAULT come from the call itself: nothing has stopped it.
    return result >= 0 or ctypes.get_errno() not in (1, 38)
child = os.fork()
if child == 0:
    os._exit(0 if libc.unshare(0x10000000) == 0 else 1)
say('userns', os.waitpid(child, 0)[1] == 0)
say('keyctl', call(250, 0, -3, 0))
say('bpf', call(321, 5, ctypes.create_string_buffer(100), 100))
tries('raw socket', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))
tries('raw icmp', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
tries('device', lambda: os.mknod('/home/work/.device', 0o20666, os.makedev(1, 5)))
tries('low port', lambda: socket.socket().bind(('0.0.0.0', 1)) if int(open('/proc/sys/net/ipv4/ip_unprivileged_port_start').read()) > 1 else (_ for _ in ()).throw(OSError()))
tries('chroot', lambda: os.chroot('/tmp'))
tries('sysctl', lambda: open('/proc/sys/kernel/core_pattern', 'w'))
tries('sysrq', lambda: open('/proc/sysrq-trigger', 'w'))
tries('uevent', lambda: open('/sys/kernel/uevent_helper', 'w'))
tries('kcore', lambda: open('/proc/kcore', 'rb').read(1))
tries('mem', lambda: open('/dev/mem', 'rb'))
tries('shadow', lambda: open('/etc/shadow'))
say('root', os.getuid() == 0)
say('cores', __import__('resource').getrlimit(4) != (0, 0))
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
say('privileges', status['NoNewPrivs'].strip() != '1')
say('capabilities', int(status['CapEff'], 16) != 0)
say('other capabilities', int(status['CapBnd'], 16) & ~0xeb != 0)
say('calls', status['Seccomp'].strip() != '2')
";

/// A tracer as the images' jail is one: the child stops under a filter of its own, and the parent sees it.
const JAIL: &str = r"
import ctypes, os, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_long] + [ctypes.c_ulong] * 4
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long] * 4
pid = os.fork()
if pid == 0:
    libc.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    libc.prctl(38, 1, 0, 0, 0)
    # getppid stops at the tracer, all else passes
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, 110), (6, 0, 0, 0x7ff00000), (6, 0, 0, 0x7fff0000)]
    bytes_ = b''.join(struct.pack('HBBI', *line) for line in code)
    held = ctypes.create_string_buffer(bytes_, len(bytes_))
    program = struct.pack('HxxxxxxQ', len(code), ctypes.addressof(held))
    pointer = ctypes.create_string_buffer(program, len(program))
    if libc.prctl(22, 2, ctypes.addressof(pointer), 0, 0):
        os._exit(9)
    libc.syscall(110)
    os._exit(0)
os.waitpid(pid, 0)
libc.ptrace(0x4200, pid, 0, 0x80 | 0x100000)
libc.ptrace(7, pid, 0, 0)
status = os.waitpid(pid, 0)[1]
print('stopped at', status >> 16 if os.WIFSTOPPED(status) else 'nothing')
libc.ptrace(7, pid, 0, 0)
print('ended with', os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
";

async fn probe(kernel: &Kernel) -> Vec<String> {
    let run = kernel.run(PROBE).await;
    assert_eq!(run.stderr(), "");
    let lines = run.stdout();
    assert_eq!(lines.lines().count(), 20, "{lines}");
    lines.lines().filter_map(|line| line.strip_suffix(" open")).map(str::to_owned).collect()
}

async fn jail_works(kernel: &Kernel) {
    let run = kernel.run(JAIL).await;
    assert_eq!((run.stdout().as_str(), run.stderr().as_str()), ("stopped at 7\nended with 0\n", ""));
}

fn lines(agent: &Agent, words: &str) -> usize {
    agent.output().lines().filter(|line| line.contains(words)).count()
}

/// Everything that the real runner does, as the account that is not root: a query, input, batch, files, an interrupt,
/// completions and a restart.
#[tokio::test]
async fn code_in_a_kernel_finds_the_machine_closed_and_its_session_whole() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    assert_eq!(probe(&kernel).await, Vec::<String>::new());
    jail_works(&kernel).await;

    assert_eq!(kernel.run("print(6 * 7)").await.stdout(), "42\n");
    let asked = kernel.run_with("query", "print('hi', input('? '))", json!({}), &["Ada"]).await;
    assert!(asked.stdout().ends_with("hi Ada\n"), "{asked:?}");
    kernel.upload("lib/main.py", b"import os; open('out', 'w').write('x'); print('run')").await.unwrap();
    let steps = json!({"build": "echo built >lib/note", "exec": "cd lib && python main.py"});
    let batch = kernel.run_with("batch", "", steps, &[]).await;
    assert_eq!((batch.stdout().as_str(), &batch.last()["exitCode"]), ("run\n", &json!(0)));
    let again = kernel
        .run("open('lib/main.py', 'w').write('#'); print(sorted(__import__('os').listdir('lib')))")
        .await;
    assert_eq!((again.stdout().as_str(), again.stderr().as_str()), ("['main.py', 'note', 'out']\n", ""));
    let completed = kernel.call("get_completions", json!(["pri", {}])).await.unwrap();
    assert!(completed["completions"].to_string().contains("print"), "{completed}");
    let restarted = kernel.call("restart_kernel", json!([kernel.config])).await.unwrap();
    assert_ne!(restarted["container_id"], kernel.created["container_id"]);
    assert_eq!(kernel.run("print(open('lib/note').read())").await.stdout(), "built\n\n");
    assert_eq!(probe(&kernel).await, Vec::<String>::new(), "also after a restart");
}

#[tokio::test]
async fn the_jail_works_for_a_kernel_that_is_root() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--kernel-uid", "0"]).await;
    let kernel = agent.create_python().await.warm().await;
    jail_works(&kernel).await;
    let open = probe(&kernel).await;
    // Its own container's files and names, and not the machine's.
    assert_eq!(open, ["shadow", "root", "capabilities"]);
}

/// What Docker was asked for, also where the tiny image runs as root.
#[tokio::test]
async fn an_image_or_the_operator_can_have_a_kernel_as_it_was_before_and_the_log_says_so() {
    let soft = TestImage::labelled(&["ai.backend.hardening=off"]).await;
    let bed = Bed::start().await;
    let mut agent = bed.agent(&[]).await;
    let host = async |kernel: &Kernel| docker::inspect(kernel.container()).await["HostConfig"].clone();

    let hard = agent.create_tiny().await;
    let asked = host(&hard).await;
    assert_eq!(asked["SecurityOpt"], json!(["no-new-privileges"]));
    assert_eq!(asked["CapDrop"], json!(["ALL"]));
    assert_eq!(asked["CapAdd"].as_array().unwrap().len(), 6);
    assert_eq!((&asked["IpcMode"], &asked["CgroupnsMode"]), (&json!("private"), &json!("private")));
    assert_eq!(lines(&agent, "this kernel is not hardened"), 0);

    let mut config = kernel::config(soft.lang());
    config["limits"]["mem_slot"] = json!(64);
    let labelled = agent.create_with(config).await;
    assert_eq!(host(&labelled).await["SecurityOpt"], json!(["seccomp=unconfined"]));
    let said = agent.output();
    let line = said.lines().find(|line| line.contains("this kernel is not hardened")).expect("a line");
    assert!(line.contains(&labelled.id) && line.contains("label"), "{line}");
    labelled.destroy().await;
    agent.stop().await;

    let agent = bed.agent(&["--container-hardening", "off"]).await;
    let kernel = agent.create_tiny().await;
    let asked = host(&kernel).await;
    assert_eq!((&asked["SecurityOpt"], &asked["CapDrop"]), (&json!(["seccomp=unconfined"]), &json!(null)));
    let uid = docker(&["exec", kernel.container(), "/bin/busybox", "sh", "-c", "echo $LOCAL_USER_ID"]).await;
    assert_eq!(uid, "0");
    assert!(agent.output().contains("--container-hardening off"));
}

/// It prints without end, and Docker keeps 20 MiB.
#[tokio::test]
async fn what_a_kernel_prints_does_not_fill_the_disk() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create_tiny().await;
    let flood = "yes $(printf %1000d 0) >/proc/1/fd/1";
    docker(&["exec", "-d", kernel.container(), "/bin/busybox", "sh", "-c", flood]).await;
    let log = docker::inspect(kernel.container()).await["LogPath"].as_str().unwrap().to_owned();
    let full = async || {
        let inode = || std::fs::metadata(format!("{log}.1")).map(|file| file.ino()).ok();
        let first = until("the first full file", secs(60), async || inode()).await;
        until("the next", secs(60), async || inode().filter(|inode| *inode != first)).await;
    };
    full().await;
    let dir = std::path::Path::new(&log).parent().unwrap();
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    // One that is deleted just now has no size any more.
    let kept: u64 = files
        .filter(|entry| entry.file_name().to_string_lossy().contains("-json.log"))
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum();
    assert!(kept <= 21 << 20, "{kept} bytes are kept");
    let logs = kernel.call("get_logs", json!([])).await.unwrap();
    // While it goes on only some of the newest can be read in time.
    assert!(!logs["logs"].as_str().unwrap().is_empty());
}

/// A kernel that forks without end has its limit of processes, and ends when it is told.
#[tokio::test]
async fn a_fork_bomb_stays_in_its_kernel() {
    let bed = Bed::start().await;
    let agent = bed.agent(&["--kernel-pids-limit", "100"]).await;
    let kernel = agent.create_python().await.warm().await;
    let bomb = "
import os, signal, time
made = []
try:
    while len(made) < 1000:
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
            os._exit(0)
        made.append(pid)
except OSError as error:
    code = error.errno
# What tells of it needs a place, too.
for pid in made[:20]:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(code, len(made) < 100)
";
    assert_eq!(kernel.run(bomb).await.stdout(), "11 True\n");
    let other = agent.create_tiny().await;
    other.destroy().await;
    kernel.destroy().await;
    docker::gone(&kernel.id).await;
}

#[tokio::test]
async fn the_images_of_before_run_hardened() {
    // The image that brings the entry point, the jail's command line and the preloaded library of 2018, where it is.
    let listed = docker(&["images", "-q", "lablup/kernel-python:latest"]).await;
    let lang = if listed.is_empty() { image::python() } else { "python:latest".to_owned() };
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let kernel = agent.create(&lang).await.warm().await;
    assert_eq!(kernel.run("import os; print(os.getuid())").await.stdout(), "9001\n");
    jail_works(&kernel).await;
}
