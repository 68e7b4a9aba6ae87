//! One file per verb.

pub mod alone;
pub mod delete;
pub mod image;
pub mod kubectl;
pub mod logs;
pub mod node;
pub mod profile;
pub mod start;
pub mod status;
pub mod stop;
