//! What the manager tells through etcd, read from raw values. Pure: how the values got here is
//! `watcher`'s business.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::keys::{
    EVENT_ADDR, FOLDER_PREFIX, IDLE_TIMEOUT, MANAGER, REDIS, REGISTRY, REGISTRY_PASSWORD, REGISTRY_USER,
    VOLUME_MOUNT,
};
use crate::address::{BadHostPort, HostPort};
use crate::secret::Secret;

/// Where virtual folders are mounted if `volumes/_mount` does not say.
const DEFAULT_VOLUME_MOUNT: &str = "/mnt";

/// The keys, in the order of [`RawSettings`].
pub(super) const SETTINGS_KEYS: [&str; 9] = [
    MANAGER,
    EVENT_ADDR,
    REDIS,
    VOLUME_MOUNT,
    FOLDER_PREFIX,
    IDLE_TIMEOUT,
    REGISTRY,
    REGISTRY_USER,
    REGISTRY_PASSWORD,
];

/// The values of [`SETTINGS_KEYS`] as they are in etcd; `None` where the key is absent.
pub(super) type RawSettings = [Option<Vec<u8>>; SETTINGS_KEYS.len()];

/// What the agent needs to know to serve its manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerSettings {
    /// The manager's instance id, from `nodes/manager`.
    pub manager_id: String,
    /// The Redis server for statistics, from `nodes/redis`.
    pub redis: HostPort,
    /// The manager's socket for events, from `nodes/manager/event_addr`.
    pub event_addr: HostPort,
    /// Where virtual folders are mounted on this host: `volumes/_mount`, or `/mnt` where that key is absent.
    pub volume_mount: PathBuf,
    /// Between a folder host's directory there and the folders on it: `volumes/_fsprefix`, mostly nothing.
    pub folder_prefix: PathBuf,
    /// After how long without use a kernel ends, `nodes/idle_timeout`, zero for never; `None` where the cluster does not say.
    pub idle_timeout: Option<Duration>,
    /// Who pulls images, where the cluster says.
    pub registry_login: Option<RegistryLogin>,
}

/// A user of the registry that the cluster's images come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// Which registry that is, from `nodes/docker_registry`: `lablup`, or `host[:port]/path`; `None` where the cluster does not say.
    pub registry: Option<String>,
    /// From `nodes/docker_registry/user`.
    pub user: String,
    /// From `nodes/docker_registry/password`.
    pub password: Secret,
}

/// A key whose value can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadValue {
    /// The key, relative to `/sorna/{namespace}/`.
    pub key: &'static str,
    /// The value, the fault in it, and what would be right.
    pub fault: String,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.fault)
    }
}

/// Why settings are not complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Keys that ought to be there and are not.
    pub missing: Vec<&'static str>,
    /// Keys whose values can't be used; the last good value of each stays in use.
    pub bad: Vec<BadValue>,
}

impl Gaps {
    /// Whether nothing is wanting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.bad.is_empty()
    }
}

impl fmt::Display for Gaps {
    /// One line, for a log: `missing: a, b; bad: c`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.missing.is_empty() {
            write!(f, "missing: {}", self.missing.join(", "))?;
        }
        if !self.bad.is_empty() {
            let bad: Vec<_> = self.bad.iter().map(ToString::to_string).collect();
            let gap = if self.missing.is_empty() { "" } else { "; " };
            write!(f, "{gap}bad: {}", bad.join(", "))?;
        }
        Ok(())
    }
}

/// The settings after `raw` was read, and what was wrong with it.
///
/// The first settings need every key to be there and good at the same time. From then on each follows its
/// own key, and keeps its last good value while the key is gone or bad: when the manager leaves, it deletes
/// its keys, and what it told stays the best guess until it is back.
pub(super) fn follow(last: Option<&ManagerSettings>, raw: &RawSettings) -> (Option<ManagerSettings>, Gaps) {
    let [manager, event_addr, redis, mount, prefix, idle, registry, user, password] = raw;
    let mut gaps = Gaps::default();

    let manager_id = gaps.sort(MANAGER, manager.as_deref().map(text));
    let event_addr = gaps.sort(EVENT_ADDR, event_addr.as_deref().map(address));
    let redis = gaps.sort(REDIS, redis.as_deref().map(address));
    let mount = mount.as_deref().map_or_else(|| Ok(PathBuf::from(DEFAULT_VOLUME_MOUNT)), directory);
    let volume_mount = gaps.sort(VOLUME_MOUNT, Some(mount));
    let prefix = prefix.as_deref().map_or_else(|| Ok(PathBuf::new()), below);
    let folder_prefix = gaps.sort(FOLDER_PREFIX, Some(prefix));
    let idle_timeout = gaps.sort(IDLE_TIMEOUT, Some(idle.as_deref().map(seconds).transpose()));
    let registry = gaps.sort(REGISTRY, Some(registry.as_deref().map(text).transpose()));
    let user = gaps.sort(REGISTRY_USER, Some(user.as_deref().map(text).transpose()));
    let password = gaps.sort(REGISTRY_PASSWORD, Some(password.as_deref().map(secret).transpose()));
    let registry_login = registry.zip(user).zip(password).map(|((registry, user), password)| {
        let registry = registry.filter(|registry| !registry.is_empty());
        let login = user.filter(|user| !user.is_empty()).zip(password);
        login.map(|(user, password)| RegistryLogin { registry, user, password })
    });

    let settings = match last {
        None => complete(manager_id, redis, event_addr, volume_mount).and_then(|settings| {
            Some(ManagerSettings {
                folder_prefix: folder_prefix?,
                idle_timeout: idle_timeout?,
                registry_login: registry_login?,
                ..settings
            })
        }),
        Some(last) => Some(ManagerSettings {
            manager_id: manager_id.unwrap_or_else(|| last.manager_id.clone()),
            redis: redis.unwrap_or_else(|| last.redis.clone()),
            event_addr: event_addr.unwrap_or_else(|| last.event_addr.clone()),
            volume_mount: volume_mount.unwrap_or_else(|| last.volume_mount.clone()),
            folder_prefix: folder_prefix.unwrap_or_else(|| last.folder_prefix.clone()),
            idle_timeout: idle_timeout.unwrap_or(last.idle_timeout),
            registry_login: registry_login.unwrap_or_else(|| last.registry_login.clone()),
        }),
    };
    (settings, gaps)
}

fn complete(
    manager_id: Option<String>,
    redis: Option<HostPort>,
    event_addr: Option<HostPort>,
    volume_mount: Option<PathBuf>,
) -> Option<ManagerSettings> {
    Some(ManagerSettings {
        manager_id: manager_id?,
        redis: redis?,
        event_addr: event_addr?,
        volume_mount: volume_mount?,
        folder_prefix: PathBuf::new(),
        idle_timeout: None,
        registry_login: None,
    })
}

impl Gaps {
    /// The good value, or `None` and a note of why there is none.
    fn sort<T>(&mut self, key: &'static str, value: Option<Result<T, String>>) -> Option<T> {
        match value {
            Some(Ok(value)) => Some(value),
            Some(Err(fault)) => {
                self.bad.push(BadValue { key, fault });
                None
            }
            None => {
                self.missing.push(key);
                None
            }
        }
    }
}

fn text(raw: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(raw).map_err(|_| {
        let shown: String = String::from_utf8_lossy(raw).chars().take(64).collect();
        format!("{shown:?} is not UTF-8 text; right would be plain text")
    })?;
    Ok(text.trim().to_owned())
}

fn address(raw: &[u8]) -> Result<HostPort, String> {
    text(raw)?.parse().map_err(|error: BadHostPort| error.to_string())
}

/// Without showing it.
fn secret(raw: &[u8]) -> Result<Secret, String> {
    let text = std::str::from_utf8(raw).map_err(|_| "it is not UTF-8 text".to_owned())?;
    Ok(Secret::new(text.trim()))
}

fn seconds(raw: &[u8]) -> Result<Duration, String> {
    let text = text(raw)?;
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let shown: String = text.chars().take(64).collect();
    seconds.ok_or_else(|| format!("{shown:?} is no number of seconds; right would be 600, or 0 for never"))
}

/// Directories below another one, with or without a slash in front.
fn below(raw: &[u8]) -> Result<PathBuf, String> {
    let text = text(raw)?;
    let path = Path::new(text.trim_start_matches('/'));
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if is_plain && !text.contains('\0') {
        return Ok(path.to_owned());
    }
    let shown: String = text.chars().take(64).collect();
    Err(format!("{shown:?} is no way down from a folder host; right would be vfroot, or no key at all"))
}

fn directory(raw: &[u8]) -> Result<PathBuf, String> {
    let text = text(raw)?;
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PathBuf::from(text));
    }
    let shown: String = text.chars().take(64).collect();
    Err(format!("{shown:?} is not an absolute path; right would be /mnt, or no key at all for /mnt"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The keys that managers of 1.3 know, and none of the later ones.
    fn raw(values: [Option<&str>; 4]) -> RawSettings {
        raw_with(values, [None; 5])
    }

    fn raw_with(values: [Option<&str>; 4], later: [Option<&str>; 5]) -> RawSettings {
        let mut all = values.into_iter().chain(later).map(|value| value.map(|text| text.as_bytes().to_vec()));
        std::array::from_fn(|_| all.next().flatten())
    }

    const GOOD: [Option<&str>; 4] = [Some("i-manager"), Some("10.0.0.1:5002"), Some("[::1]:6379"), None];

    #[test]
    fn complete_keys_give_settings_and_the_mount_has_a_default() {
        let (settings, gaps) = follow(None, &raw(GOOD));
        assert!(gaps.is_empty());
        assert_eq!(
            settings.unwrap(),
            ManagerSettings {
                manager_id: "i-manager".into(),
                redis: HostPort { host: "::1".into(), port: 6379 },
                event_addr: HostPort { host: "10.0.0.1".into(), port: 5002 },
                volume_mount: "/mnt".into(),
                folder_prefix: PathBuf::new(),
                idle_timeout: None,
                registry_login: None,
            }
        );
        let (settings, _) = follow(None, &raw([GOOD[0], GOOD[1], GOOD[2], Some("/srv/folders")]));
        assert_eq!(settings.unwrap().volume_mount, PathBuf::from("/srv/folders"));
    }

    #[test]
    fn each_key_alone_holds_up_the_first_settings_and_is_named() {
        for (index, key) in SETTINGS_KEYS.iter().enumerate().take(3) {
            let mut values = GOOD;
            values[index] = None;
            let (settings, gaps) = follow(None, &raw(values));
            assert_eq!((settings, &gaps.missing[..]), (None, &[*key][..]));
        }
        for (index, key) in SETTINGS_KEYS.iter().enumerate().take(4).skip(1) {
            let mut values = GOOD;
            values[index] = Some("nonsense");
            let (settings, gaps) = follow(None, &raw(values));
            assert_eq!(settings, None);
            let shown = gaps.to_string();
            assert!(
                shown.contains(key) && shown.contains("nonsense") && shown.contains("right would be"),
                "{shown}"
            );
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_a_bad_value() {
        let mut values = raw(GOOD);
        values[0] = Some(vec![0xff, 0xfe]);
        let (settings, gaps) = follow(None, &values);
        assert_eq!(settings, None);
        assert_eq!(gaps.bad[0].key, MANAGER);
    }

    #[test]
    fn what_a_manager_that_left_has_told_stays() {
        let (first, _) = follow(None, &raw(GOOD));
        let (after, gaps) = follow(first.as_ref(), &raw([None, None, None, None]));
        assert_eq!(after, first);
        assert_eq!(gaps.missing, [MANAGER, EVENT_ADDR, REDIS]);
    }

    #[test]
    fn each_setting_follows_its_own_key() {
        let (first, _) = follow(None, &raw(GOOD));
        let values = [Some("i-other"), Some("nonsense"), Some("redis.lan:7000"), None];
        let (after, gaps) = follow(first.as_ref(), &raw(values));
        let (first, after) = (first.unwrap(), after.unwrap());
        assert_eq!(after.manager_id, "i-other");
        assert_eq!(after.redis.to_string(), "redis.lan:7000");
        assert_eq!(after.event_addr, first.event_addr);
        assert_eq!(gaps.bad.len(), 1);
    }

    #[test]
    fn the_keys_of_later_managers_are_read_and_may_go() {
        let later =
            [Some("/vf/root"), Some("900"), Some("reg.lan:5000/lablup"), Some("puller"), Some(" hunter2\n")];
        let (first, gaps) = follow(None, &raw_with(GOOD, later));
        let first = first.unwrap();
        assert!(gaps.is_empty(), "{gaps}");
        assert_eq!(first.folder_prefix, PathBuf::from("vf/root"));
        assert_eq!(first.idle_timeout, Some(Duration::from_secs(900)));
        let login = first.registry_login.clone().unwrap();
        assert_eq!((login.user.as_str(), login.password.expose().as_str()), ("puller", "hunter2"));
        assert_eq!(login.registry.as_deref(), Some("reg.lan:5000/lablup"));
        let bad = raw_with(GOOD, [Some("a/../../etc"), Some("soon"), Some("lablup"), Some("puller"), None]);
        let (after, gaps) = follow(Some(&first), &bad);
        assert_eq!(after, Some(ManagerSettings { registry_login: None, ..first.clone() }));
        assert_eq!(gaps.bad.len(), 2, "{gaps}");
        let (after, _) = follow(Some(&first), &raw(GOOD));
        let after = after.unwrap();
        assert_eq!((after.folder_prefix, after.idle_timeout), (PathBuf::new(), None));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(
            values in proptest::array::uniform9(proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))),
        ) {
            let (none, gaps) = follow(None, &values);
            prop_assert_eq!(none.is_some(), gaps.is_empty());
            let (first, _) = follow(None, &raw(GOOD));
            let (after, _) = follow(first.as_ref(), &values);
            prop_assert!(after.is_some());
        }
    }
}
