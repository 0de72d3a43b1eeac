//! The clouds that are told apart.

use std::fmt;

/// Whose machine this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Amazon EC2.
    Amazon,
    /// Microsoft Azure.
    Azure,
    /// Google Compute Engine.
    Google,
    /// Anybody else's.
    Local,
}

impl fmt::Display for Provider {
    /// As in the first part of the region's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amazon => "amazon",
            Self::Azure => "azure",
            Self::Google => "google",
            Self::Local => "local",
        })
    }
}
