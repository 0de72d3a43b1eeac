//! The Backend.AI agent.
pub mod ids;
pub mod wire;
