//! The one binary: CLI on the host, node and shim inside the node containers.
fn main() {}
