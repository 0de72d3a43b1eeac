//! What a look at one thing found, and how that is told. Pure.

use std::fmt::Write;

use serde_json::json;

/// How good it is; a later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// The agent starts, and somebody should look.
    Doubtful,
    /// The agent can't start, or kernels can't.
    Bad,
}

impl Verdict {
    /// For people and programs.
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Doubtful => "warn",
            Self::Bad => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// What was looked at, in few words that stay the same.
    pub(super) what: &'static str,
    /// Where it is, as a path or an address; may be empty.
    pub(super) at: String,
    /// What was found.
    pub(super) found: String,
    /// What to do about it; empty where there is nothing to do.
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn good(what: &'static str, at: impl ToString, found: impl ToString) -> Self {
        Self::new(Verdict::Good, what, at, found, "")
    }

    pub(super) fn doubtful(
        what: &'static str,
        at: impl ToString,
        found: impl ToString,
        remedy: impl ToString,
    ) -> Self {
        Self::new(Verdict::Doubtful, what, at, found, remedy)
    }

    pub(super) fn bad(
        what: &'static str,
        at: impl ToString,
        found: impl ToString,
        remedy: impl ToString,
    ) -> Self {
        Self::new(Verdict::Bad, what, at, found, remedy)
    }

    // Texts come as they are, numbers and addresses, too.
    #[allow(clippy::needless_pass_by_value)]
    fn new(
        verdict: Verdict,
        what: &'static str,
        at: impl ToString,
        found: impl ToString,
        remedy: impl ToString,
    ) -> Self {
        let text = |text: String| text.replace('\n', "; ");
        Self {
            verdict,
            what,
            at: text(at.to_string()),
            found: text(found.to_string()),
            remedy: text(remedy.to_string()),
        }
    }
}

/// A line each, remedies below, and a last line with the sum.
pub(super) fn as_text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { verdict, what, at, found, remedy } in findings {
        let at = if at.is_empty() { String::new() } else { format!("{at}: ") };
        let _ = writeln!(text, "{:<5} {what:<width$}  {at}{found}", verdict.word());
        if !remedy.is_empty() {
            let _ = writeln!(text, "{:<5} {:<width$}  -> {remedy}", "", "");
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let _ = match (count(Verdict::Bad), count(Verdict::Doubtful)) {
        (0, 0) => writeln!(text, "Everything is as it should be."),
        (0, doubtful) => writeln!(text, "The agent can start; {doubtful} of these may surprise."),
        (bad, doubtful) => writeln!(text, "{bad} of these must be mended, {doubtful} may surprise."),
    };
    text
}

/// The same for programs.
pub(super) fn as_json(findings: &[Finding]) -> serde_json::Value {
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good);
    let one = |Finding { verdict, what, at, found, remedy }: &Finding| json!({"what": what, "at": at, "verdict": verdict.word(), "found": found, "remedy": remedy});
    json!({"verdict": worst.word(), "findings": findings.iter().map(one).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_with_their_remedies_and_a_sum() {
        let mut findings = vec![Finding::good("clock", "", "set")];
        assert_eq!(as_text(&findings), "ok    clock  set\nEverything is as it should be.\n");
        findings.push(Finding::doubtful("live-restore", "/run/docker.sock", "off", "set\nit"));
        assert_eq!(
            as_text(&findings),
            "ok    clock         set\n\
             warn  live-restore  /run/docker.sock: off\n                    -> set; it\n\
             The agent can start; 1 of these may surprise.\n"
        );
        findings.push(Finding::bad("etcd", "h:1", "refused", "start it"));
        assert!(as_text(&findings).ends_with("\n1 of these must be mended, 1 may surprise.\n"));
        let json = as_json(&findings);
        assert_eq!(json["verdict"], "fail");
        assert_eq!(
            json["findings"][1],
            json!({"what": "live-restore", "at": "/run/docker.sock", "verdict": "warn", "found": "off", "remedy": "set; it"})
        );
    }
}
