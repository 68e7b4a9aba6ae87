//! Connects a client to ports of a pod's loopback address.
//!
//! Owns: dialling inside a network namespace, and the words of a failure.
//! Called by: the streaming server.
//! Never: moves a thread that others use into another namespace.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use minik_streaming::{Forward, ForwardSession};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::AsyncWriteExt;

const DIAL_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn serve(mut session: ForwardSession, sandbox: &str, namespace: Option<PathBuf>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Some(forward) = session.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(one(forward, sandbox.to_owned(), namespace.clone()));
    }
    // The client has gone, and with it the connections it forwarded.
    connections.shutdown().await;
}

async fn one(forward: Forward, sandbox: String, namespace: Option<PathBuf>) {
    let Forward { port, mut data, mut error } = forward;
    let failed = |why: String| format!("error forwarding port {port} to pod {sandbox}, uid : {why}");
    match connect(port, namespace, &sandbox).await {
        Ok(mut stream) => {
            if let Err(e) = tokio::io::copy_bidirectional(&mut data, &mut stream).await {
                tracing::debug!(port, error = %e, "forwarded connection ended");
            }
        }
        Err(why) => {
            let _ = error.write_all(failed(why).as_bytes()).await;
        }
    }
    let _ = error.shutdown().await;
}

async fn connect(port: u16, namespace: Option<PathBuf>, sandbox: &str) -> Result<tokio::net::TcpStream, String> {
    let inside = namespace.is_some();
    // A thread of its own, because a thread that entered a namespace must not go back to the pool.
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || send.send(dial(port, namespace.as_deref())));
    let dialled = receive.await.map_err(|_| "the dialling thread ended early".to_owned())?;
    let stream = dialled.map_err(|why| match inside {
        true => format!("failed to execute portforward in network namespace {sandbox:?}: {why}"),
        false => format!("failed to execute portforward in network namespace \"host\": {why}"),
    })?;
    stream.set_nonblocking(true).map_err(|e| e.to_string())?;
    let _ = stream.set_nodelay(true);
    tokio::net::TcpStream::from_std(stream).map_err(|e| e.to_string())
}

fn dial(port: u16, namespace: Option<&Path>) -> Result<TcpStream, String> {
    if let Some(path) = namespace {
        let file =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| e.to_string())?;
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
            .map_err(|e| e.to_string())?;
    }
    let dial = |address: SocketAddr| TcpStream::connect_timeout(&address, DIAL_WITHIN);
    dial((Ipv4Addr::LOCALHOST, port).into()).or_else(|v4| {
        dial((Ipv6Addr::LOCALHOST, port).into()).map_err(|v6| {
            let words =
                |e: &std::io::Error| e.to_string().split(" (os error").next().unwrap_or_default().to_lowercase();
            format!(
                "failed to connect to localhost:{port} inside namespace, IPv4: dial tcp4 127.0.0.1:{port}: connect: {} \
                 IPv6: dial tcp6 [::1]:{port}: connect: {}",
                words(&v4),
                words(&v6)
            )
        })
    })
}
