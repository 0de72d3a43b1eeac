//! What kernels leave on the machine's disks, and what the machine's other users find there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::docker::image;
use crate::support::{Agent, Bed, Kernel, kernel, secs, until};

/// Runs a shell line as an ordinary user of the machine; gives what it printed.
fn nobody(line: &str) -> String {
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c", line];
    let ran = Command::new("setpriv").args(user).output().unwrap();
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A directory of the bed's in which everybody may look around, as on a machine that nobody prepared.
fn open_up(bed: &Bed) {
    for path in [bed.outside(), &bed.scratch()] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
}

/// A copy of a shell that belongs to root and runs as root made an ordinary user root; environments could be read.
#[tokio::test]
async fn what_a_kernel_leaves_is_of_no_use_to_other_users_of_the_machine() {
    let bed = Bed::start().await;
    open_up(&bed);
    // Also a kernel that is root, as one with folders of root's.
    let agent = bed.agent(&["--kernel-uid", "0"]).await;
    let mut config = kernel::config(&image::python());
    config["environ"] = json!({"TOKEN": "a-secret"});
    let kernel = agent.create_with(config).await.warm().await;
    let plant = "
import os, shutil
shutil.copy(os.path.realpath('/bin/sh'), 'rootsh')
os.chown('rootsh', 0, 0)
os.chmod('rootsh', 0o4755)
open('private', 'w').write('a-secret')
try: os.mknod('disk', 0o60666, os.makedev(254, 0))
except OSError: print('no device')
";
    assert_eq!(kernel.run(plant).await.stdout(), "no device\n");
    let (dir, own) = (bed.home(&kernel.id), bed.scratch().join(&kernel.id));
    assert_eq!(fs::metadata(dir.join("rootsh")).unwrap().mode() & 0o7777, 0o4755, "it was planted");
    let at = dir.display();
    assert_eq!(nobody(&format!("{at}/rootsh -p -c 'id -u' 2>&1 || echo no")).lines().last(), Some("no"));
    assert_eq!(nobody(&format!("cat {at}/private {at}/../config/environ.txt; ls {at} {at}/..")), "");
    assert_eq!(mode(&bed.scratch()), 0o700);
    let config_dir = own.join("config");
    assert_eq!(
        [&own, &dir, &config_dir, &config_dir.join("environ.txt")].map(|path| mode(path)),
        [0o700, 0o700, 0o700, 0o600]
    );
}

/// An upgrade finds roots and kernels that everybody can look into.
#[tokio::test]
async fn an_open_root_is_closed_under_its_running_kernels() {
    let bed = Bed::start().await;
    open_up(&bed);
    let mut agent = bed.agent(&[]).await;
    let kernel = agent.create_python().await.warm().await;
    agent.kill9();
    let (dir, own) = (bed.home(&kernel.id), bed.scratch().join(&kernel.id));
    for path in [bed.scratch(), own.clone(), dir.clone(), own.join("config")] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(own.join("config/environ.txt"), Permissions::from_mode(0o644)).unwrap();
    fs::write(dir.join("readable"), "for all").unwrap();
    let look = format!("cat {}/readable", dir.display());
    assert_eq!(nobody(&look), "for all");

    let mut agent = bed.agent(&[]).await;
    assert_eq!(nobody(&look), "");
    assert!(agent.output().contains("closed the scratch root"));
    let seen = kernel.run("print(open('readable').read()); open('written', 'w').write('x')").await;
    assert_eq!((seen.stdout().as_str(), seen.stderr().as_str()), ("for all\n", ""));
    kernel.call("restart_kernel", json!([kernel.config])).await.unwrap();
    assert_eq!(kernel.run("print(open('written').read())").await.stdout(), "x\n");
    agent.stop().await;
}

/// A root that is also somebody else's directory keeps its mode.
#[tokio::test]
async fn a_root_that_holds_more_than_kernels_is_left_open_and_told() {
    let bed = Bed::start().await;
    open_up(&bed);
    fs::write(bed.scratch().join("somebody's"), "").unwrap();
    let agent = bed.agent(&[]).await;
    assert_eq!(mode(&bed.scratch()), 0o755);
    assert!(agent.output().contains("other users of this machine can look into the scratch root"));
    // Its kernels' own directories are closed all the same.
    let kernel = agent.create_tiny().await;
    assert_eq!(
        nobody(&format!("ls {0}/{1} {0}/{1}/work {0}/{1}/config", bed.scratch().display(), kernel.id)),
        ""
    );
}

async fn with_folders(agent: &Agent, folders: &[&str]) -> Kernel {
    let mut config = kernel::config(&image::python());
    let mounts = folders.iter().map(|folder| {
        let (host, id) = folder.split_once('/').unwrap();
        json!([format!("at-{host}-{id}"), host, id])
    });
    config["mounts"] = json!(mounts.collect::<Vec<_>>());
    agent.create_with(config).await.warm().await
}

/// Whoever could write to a folder can do so after the agent was replaced; a host that is given away has kernels that
/// are not root.
#[tokio::test]
async fn folders_stay_writable_and_those_that_were_given_away_take_root_from_their_kernels() {
    let bed = Bed::start().await;
    let given = bed.folders().join("given");
    for (host, id, owner) in [("roots", "a", 0), ("given", "b", 9001), ("given", "c", 0), ("nfs", "d", 1000)]
    {
        let dir = bed.folders().join(host).join(id);
        fs::create_dir_all(&dir).unwrap();
        chown(&dir, Some(owner), Some(owner)).unwrap();
    }
    chown(&given, Some(9001), Some(9001)).unwrap();
    let agent = bed.agent(&[]).await;
    until("a word about the hosts", secs(5), async || {
        agent.output().contains("run as the agent's user: nfs, roots;").then_some(())
    })
    .await;
    for (folders, uid) in [
        (&[][..], 9001),
        (&["roots/a"], 0),
        (&["nfs/d"], 0),
        (&["given/b"], 9001),
        (&["given/c"], 0),
        (&["given/b", "roots/a"], 0),
    ] {
        let kernel = with_folders(&agent, folders).await;
        let code = "
import glob, os
for folder in glob.glob('at-*'):
    name = os.path.join(folder, 'written by ' + str(os.getpid()))
    open(name, 'w').write('x')
open('mine', 'w').write('x')
print(os.getuid(), os.stat('mine').st_uid, os.stat('.').st_uid)
";
        let run = kernel.run(code).await;
        assert_eq!(
            (run.stdout(), run.stderr()),
            (format!("{uid} {uid} {uid}\n"), String::new()),
            "{folders:?}"
        );
        let told = agent
            .output()
            .lines()
            .filter(|line| line.contains("agent's user") && line.contains(&kernel.id))
            .count();
        assert_eq!(told, usize::from(uid == 0), "{folders:?}");
        kernel.destroy().await;
    }
}

/// The kernel's user follows its files: through uploads, a restart, and kernels that earlier agents made as root.
#[tokio::test]
async fn a_restart_keeps_the_user_to_whom_the_files_belong() {
    let bed = Bed::start().await;
    let mut agent = bed.agent(&["--kernel-uid", "0"]).await;
    let old = agent.create_python().await.warm().await;
    old.run("open('roots', 'w').write('x')").await;
    agent.stop().await;

    let agent = bed.agent(&[]).await;
    let new = agent.create_python().await.warm().await;
    new.run("open('own', 'w').write('x')").await;
    for (kernel, uid, name) in [(&old, 0, "roots"), (&new, 9001, "own")] {
        kernel.upload("dir/up", b"x").await.unwrap();
        kernel.call("restart_kernel", json!([kernel.config])).await.unwrap();
        let code = format!(
            "
import os
for name in ['{name}', 'dir/up', 'dir/new']: open(name, 'w').write('y')
print(os.getuid(), os.stat('dir').st_uid, os.stat('dir/up').st_uid)
"
        );
        let run = kernel.run(&code).await;
        assert_eq!((run.stdout(), run.stderr()), (format!("{uid} {uid} {uid}\n"), String::new()));
    }
}

/// One session's files are not another's: neither below its own directory's parents nor through the process table.
#[tokio::test]
async fn a_kernel_finds_no_way_to_another_s_files() {
    let bed = Bed::start().await;
    let agent = bed.agent(&[]).await;
    let (one, two) = (agent.create_python().await.warm().await, agent.create_python().await.warm().await);
    one.run("open('secret', 'w').write('of one')").await;
    let code = format!("
import os
found = []
for path in ['/home/work/../{one}/secret', '{scratch}/{one}/work/secret', '/proc/1/root/home/work/secret']:
    if os.path.exists(path): found.append(path)
found += [pid for pid in os.listdir('/proc') if pid.isdigit() and b'{one}' in open('/proc/' + pid + '/cmdline', 'rb').read()]
print(found, [line.split()[3] for line in open('/proc/self/mountinfo') if '{one}' in line])
", one = one.id, scratch = bed.scratch().display());
    let run = two.run(&code).await;
    assert_eq!((run.stdout().as_str(), run.stderr().as_str()), ("[] []\n", ""));
}
