//! The API server in process: requests in, answers out, no socket and no cluster.

mod access;
mod aggregation;
mod audit;
mod basics;
mod controllers;
mod conversion;
mod custom;
mod edges;
mod encodings;
mod fairness;
mod openapi;
mod operator;
mod policies;
mod replay;
mod resource_table;
mod server;
mod watch_socket;
mod webhooks;
