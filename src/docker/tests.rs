//! The calls against a real engine (`real.rs`) and against engines that misbehave (`faulty.rs`).

mod faulty;
mod real;
