//! Which control groups a container's process is in, from `/proc/{pid}/cgroup`; pure.
//!
//! Reading the process's own file works for every cgroup driver and parent, on v1, v2 and hybrid systems, where a
//! list of well-known paths would know only some.

/// The groups of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Membership {
    /// v1: each hierarchy's controllers as the file gives them (`cpu,cpuacct`) and the group's path below its mount.
    pub(super) v1: Vec<(String, String)>,
    /// v2: the group's path below the mount.
    pub(super) v2: Option<String>,
}

impl Membership {
    /// The hierarchy and path of a v1 controller, if it is a v1 controller here.
    pub(super) fn v1_of(&self, controller: &str) -> Option<(&str, &str)> {
        let (names, path) =
            self.v1.iter().find(|(names, _)| names.split(',').any(|name| name == controller))?;
        Some((names, path))
    }

    /// Nothing in it belongs to the container.
    pub(super) fn is_empty(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }
}

/// The groups in which the container's id appears. A process whose groups don't mention the container is another
/// one that got the pid since, or a path that means something else here (an agent in a container): its groups are
/// left out, and an empty result says so.
///
/// Paths end at the container's own group: an init system in the container makes groups below it and moves its
/// processes there, while the figures of the whole container are those of its own group.
pub(super) fn parse_membership(text: &str, container_id: &str) -> Membership {
    let mut found = Membership::default();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let Some(path) = own_group(path, container_id) else { continue };
        if number == "0" && controllers.is_empty() {
            found.v2 = Some(path);
        } else if !controllers.is_empty() {
            found.v1.push((controllers.to_owned(), path));
        }
    }
    found
}

/// The path up to the component that names the container.
fn own_group(path: &str, container_id: &str) -> Option<String> {
    let mut group = String::new();
    for component in path.split('/').filter(|component| !component.is_empty()) {
        // The process is outside this agent's cgroup namespace; such a path leads nowhere from here.
        if component == ".." {
            return None;
        }
        if !group.is_empty() {
            group.push('/');
        }
        group.push_str(component);
        if !container_id.is_empty() && component.contains(container_id) {
            return Some(group);
        }
    }
    None
}

/// Where Docker puts a container's group when nobody configured anything else; tried when `/proc` does not tell.
pub(super) fn well_known(container_id: &str) -> [String; 2] {
    [format!("docker/{container_id}"), format!("system.slice/docker-{container_id}.scope")]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "6ace199109c07e6525422498d6bda5b995e00b85ca062d187077d19da8e9a8a5";

    #[test]
    fn v1_with_cgroupfs_and_a_v2_hierarchy_without_controllers() {
        let text = format!(
            "9:name=systemd:/docker/{ID}\n4:memory:/docker/{ID}\n2:cpuacct:/docker/{ID}\n0::/docker/{ID}\n"
        );
        let found = parse_membership(&text, ID);
        let path = format!("docker/{ID}");
        assert_eq!(found.v1_of("memory"), Some(("memory", path.as_str())));
        assert_eq!(found.v1_of("blkio"), None);
        assert_eq!(found.v2, Some(path));
    }

    #[test]
    fn v1_with_systemd_joins_controllers() {
        let text = format!(
            "11:cpu,cpuacct:/system.slice/docker-{ID}.scope\n10:blkio:/system.slice/docker-{ID}.scope\n"
        );
        let found = parse_membership(&text, ID);
        let path = format!("system.slice/docker-{ID}.scope");
        assert_eq!(found.v1_of("cpuacct"), Some(("cpu,cpuacct", path.as_str())));
        assert_eq!(found.v1_of("cpuac"), None);
        assert_eq!(found.v2, None);
    }

    #[test]
    fn v2_ends_at_the_container_s_own_group() {
        let text = format!("0::/kernels.slice/docker-{ID}.scope/init.scope\n");
        let found = parse_membership(&text, ID);
        assert_eq!(found.v2, Some(format!("kernels.slice/docker-{ID}.scope")));
    }

    #[test]
    fn another_process_is_recognised() {
        for text in [
            "0::/user.slice/user-0.slice\n",
            "4:memory:/docker/0000\n",
            &format!("0::/../{ID}\n"),
            "",
            "garbage\n::\n0:\n",
        ] {
            assert!(parse_membership(text, ID).is_empty(), "{text:?}");
        }
        assert!(parse_membership("0::/docker/x\n", "").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_leads_upwards(text in "([0-2]:[a-z,]{0,4}:(/(\\.\\.|a|b)){0,5}\n){0,4}") {
            let found = parse_membership(&text, "a");
            let paths = found.v1.iter().map(|(_, path)| path).chain(&found.v2);
            for path in paths {
                prop_assert!(path.split('/').all(|component| !component.is_empty() && component != ".."));
            }
        }
    }
}
