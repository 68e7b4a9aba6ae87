//! The straight-line work of commands: each step does one thing to Docker and knows nothing of the others.

pub mod image;
pub mod network;
pub mod nodes;
pub mod ready;
