//! The API server in process: requests in, answers out, no socket and no cluster.

mod basics;
mod server;
