//! The API server in process: requests in, answers out, no socket and no cluster.

mod access;
mod aggregation;
mod audit;
mod basics;
mod controllers;
mod conversion;
mod custom;
mod edges;
mod fairness;
mod openapi;
mod policies;
mod replay;
mod server;
mod watch_socket;
mod webhooks;
