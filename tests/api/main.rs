//! The API server in process: requests in, answers out, no socket and no cluster.

mod access;
mod aggregation;
mod basics;
mod controllers;
mod conversion;
mod custom;
mod edges;
mod server;
mod webhooks;
