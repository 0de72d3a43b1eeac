//! Strangers: code in kernels, and callers, that try what they must not be able to do.
//!
//! What is tried is what was seen to work before it was stopped. A test of this part ends with the attack refused, and with what
//! an honest session needs still there.

mod container;
mod files;
mod floods;
mod neighbours;
mod quota;
mod runners;
mod strangers;
