//! Kernels as earlier versions of this agent and the Python agents have made them: what is mounted where, and which labels.

use std::path::PathBuf;

use super::docker::{docker, image, inspect};
use super::{Bed, Kernel, new_id};

/// Which Python agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PythonAgent {
    V1_3,
    V1_4,
    V18_12,
}

impl PythonAgent {
    /// The user's files below the kernel's directory.
    pub(crate) fn home(self) -> &'static str {
        match self {
            Self::V1_3 => "",
            Self::V1_4 => ".work",
            Self::V18_12 => "work",
        }
    }

    /// The runner's settings there.
    fn config(self) -> &'static str {
        match self {
            Self::V1_3 | Self::V1_4 => ".config",
            Self::V18_12 => "config",
        }
    }

    /// Where the settings are mounted, where they are.
    fn mounted_at(self) -> Option<&'static str> {
        match self {
            Self::V1_3 => None,
            Self::V1_4 => Some("/home/work/.config:ro"),
            Self::V18_12 => Some("/home/config:ro"),
        }
    }
}

/// A container as a Python agent makes it: a name, a scratch directory, ports on all addresses, no labels. Its id and the
/// container's; the folder `local/0a1b` is at `data`.
pub(crate) async fn python_agents_kernel(bed: &Bed, agent: PythonAgent) -> (String, String) {
    let id = new_id();
    let scratch = bed.scratch().join(&id);
    let folder = bed.folders().join("local/0a1b");
    for dir in [scratch.join(agent.home()), scratch.join(agent.config()), folder.clone()] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::write(scratch.join(agent.config()).join("environ.txt"), "GREETING=hello\n").unwrap();
    let (name, image) = (format!("kernel.python.{id}"), format!("lablup/kernel-{}", image::python()));
    let home = match agent {
        PythonAgent::V1_3 => format!("{}:/home/work", scratch.display()),
        // That of 18.12 writes a slash at the end.
        _ => format!("{}:/home/work/", scratch.join(agent.home()).display()),
    };
    let folder = format!("{}:/home/work/data", folder.display());
    let mut args = vec!["run", "-d", "-t", "-i", "--name", &name, "-v", &home, "-v", &folder];
    let settings = agent.mounted_at().map(|at| format!("{}:{at}", scratch.join(agent.config()).display()));
    if let Some(settings) = &settings {
        args.extend(["-v", settings]);
    }
    if agent == PythonAgent::V1_4 {
        // Among its volumes are the names of its directories.
        args.extend(["-v", "/home/work/.work"]);
    }
    args.extend(["-m", "256m", "--cpuset-cpus", "0", "-e", "LOCAL_USER_ID=0", "-e", "GREETING=hello"]);
    let ports: &[&str] =
        if agent == PythonAgent::V18_12 { &["2000", "2001"] } else { &["2000", "2001", "2002", "2003"] };
    for port in ports {
        args.extend(["-p", port]);
    }
    args.push(&image);
    (id.clone(), docker(&args).await)
}

/// Makes a kernel, whose agent is away, one that an earlier version has made: the same labels and the same note, and the
/// settings among its user's files. Its new container, and its files.
pub(crate) async fn made_by_an_earlier_version(bed: &Bed, kernel: &Kernel) -> (String, PathBuf) {
    let made = inspect(kernel.container()).await;
    docker(&["rm", "-f", kernel.container()]).await;
    let (own, aside) = (bed.scratch().join(&kernel.id), bed.outside().join(format!("{}.aside", kernel.id)));
    std::fs::rename(&own, &aside).unwrap();
    std::fs::rename(aside.join("work"), &own).unwrap();
    std::fs::remove_dir(own.join(".config")).unwrap();
    std::fs::rename(aside.join("config"), own.join(".config")).unwrap();

    let pairs = |values: &serde_json::Value| -> Vec<String> {
        let labels = values.as_object().unwrap().iter();
        labels.map(|(name, value)| format!("--label={name}={}", value.as_str().unwrap())).collect()
    };
    let labels = pairs(&made["Config"]["Labels"]);
    let env = made["Config"]["Env"].as_array().unwrap().iter();
    let env: Vec<String> = env.map(|pair| format!("--env={}", pair.as_str().unwrap())).collect();
    let (name, bind) =
        (made["Name"].as_str().unwrap().trim_start_matches('/'), format!("{}:/home/work", own.display()));
    let memory = made["HostConfig"]["Memory"].to_string();
    let cores = made["HostConfig"]["CpusetCpus"].as_str().unwrap();
    let mut args =
        vec!["run", "-d", "-t", "-i", "--name", name, "-v", &bind, "-m", &memory, "--cpuset-cpus", cores];
    args.extend(labels.iter().chain(&env).map(String::as_str));
    for port in ["127.0.0.1::2000", "127.0.0.1::2001", "127.0.0.1::2002", "127.0.0.1::2003"] {
        args.extend(["-p", port]);
    }
    args.push(made["Config"]["Image"].as_str().unwrap());
    (docker(&args).await, own)
}
