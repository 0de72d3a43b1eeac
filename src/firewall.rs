//! What the containers of one bridge may not reach, as rules of the machine's packet filter.
//!
//! [`rules`] says which (pure), [`tables`] puts them up with `iptables`, which Docker needs as well, and keeps them there:
//! whoever owns a [`Tables`] calls [`Tables::put_up`] again and again, since other programs may flush what they find.
//!
//! The rules are in the table `mangle`, at its first hook, in a chain of the agent's own: before any address is
//! translated, so that ports which Docker publishes are seen as the machine's own, and where neither Docker nor the
//! usual firewalls have rules whose order would matter.

mod rules;
mod tables;

pub use rules::{Fence, Service};
pub use tables::{FirewallError, Tables};
