//! Variables that look like the agent's and are not.

use std::ffi::OsString;

use crate::nearest::nearest;

/// What all of the agent's own variables begin with; others belong to other programs as well.
const PREFIX: &str = "BACKEND_";

/// A line for each of the `set` variables that is named like the `known` ones and that no setting reads: a misspelt
/// `BACKEND_NAMESPACE` would make the agent join another cluster without a word. Holds no value; an empty one counts as not set.
pub(super) fn unread(set: impl IntoIterator<Item = (OsString, OsString)>, known: &[String]) -> Vec<String> {
    let names = set.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name);
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut unread: Vec<String> =
        names.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect();
    unread.sort();
    unread.iter().map(|name| warning(name, known)).collect()
}

fn warning(name: &str, known: &[String]) -> String {
    let ours = known.iter().map(String::as_str).filter(|known| known.starts_with(PREFIX));
    let nearest = nearest(name, ours).unwrap_or("none");
    format!("no setting reads {name:?} of the environment; the name that is nearest to it is {nearest}")
}

#[cfg(test)]
mod tests {
    use super::super::options;

    fn unread(set: &[(&str, &str)]) -> Vec<String> {
        let set = set.iter().map(|(name, value)| (name.into(), value.into()));
        super::unread(set, &options::variables())
    }

    #[test]
    fn a_misspelt_name_is_told_with_the_right_one() {
        for (misspelt, right) in [
            ("BACKEND_NAMESPAEC", "BACKEND_NAMESPACE"),
            ("BACKEND_NAMESPACES", "BACKEND_NAMESPACE"),
            ("BACKEND_NAME_SPACE", "BACKEND_NAMESPACE"),
            ("BACKEND_ETCD_ADR", "BACKEND_ETCD_ADDR"),
            ("BACKEND_AGENTPORT", "BACKEND_AGENT_PORT"),
        ] {
            let told = unread(&[(misspelt, "secretkey")]);
            assert_eq!(told.len(), 1);
            assert!(told[0].contains(&format!("{misspelt:?}")) && told[0].ends_with(right), "{told:?}");
        }
    }

    #[test]
    fn whatever_is_read_empty_or_another_s_is_not_told() {
        let known = options::variables();
        assert!(known.contains(&"BACKEND_NAMESPACE".to_owned()) && known.contains(&"RUST_LOG".to_owned()));
        let set: Vec<_> = known.iter().map(|name| (name.as_str(), "x")).collect();
        assert_eq!(unread(&set), Vec::<String>::new());
        let others =
            [("BACKEND_NAMESPAEC", ""), ("BACKENDAI_AGENT", "x"), ("PATH", "x"), ("AWS_PROFILE", "x")];
        assert_eq!(unread(&others), Vec::<String>::new());
    }
}
