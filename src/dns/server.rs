//! The sockets of cluster DNS, and the task that follows Services and endpoints.
//!
//! Owns: the address the server listens on (claimed on this node), UDP and TCP, and how many clients at once.
//! Called by: `node`, through `run`.
//! Never: looks into a message.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use minik_api::resources::{ENDPOINTSLICES, SERVICES};
use minik_client::{Cache, Change, Client, Tasks};
use minik_network::node_address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::answer::{Answerer, Transport};
use crate::forward::Forwarder;
use crate::zone::{Zone, owner_of};

pub struct Config {
    pub client: Client,
    /// The kube-dns Service's address, 10.96.0.10: this node will hold it.
    pub listen: SocketAddr,
    /// `cluster.local`
    pub domain: String,
    /// Where the node's own resolvers are named, /etc/resolv.conf.
    pub resolv_conf: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cluster DNS needs an IPv4 address, not {0}")]
    NotIpv4(SocketAddr),
    #[error("could not make {address} an address of this node")]
    Claim { address: Ipv4Addr, source: node_address::Error },
    #[error("could not listen on {address} ({protocol})")]
    Listen { address: SocketAddr, protocol: &'static str, source: std::io::Error },
}

/// Questions being answered at once; beyond, datagrams are dropped and the client asks again.
const QUESTIONS_MAX: usize = 1024;

const CONNECTIONS_MAX: usize = 256;

/// A client that has said nothing for so long is let go (RFC 7766 leaves the time to the server).
const CONNECTION_IDLE: Duration = Duration::from_secs(10);

const DRAIN: Duration = Duration::from_secs(1);

/// Runs until cancelled.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), Error> {
    let SocketAddr::V4(listen) = config.listen else { return Err(Error::NotIpv4(config.listen)) };
    let address = *listen.ip();
    node_address::claim(address).await.map_err(|source| Error::Claim { address, source })?;
    let failed = |protocol| move |source| Error::Listen { address: config.listen, protocol, source };
    let udp = UdpSocket::bind(config.listen).await.map_err(failed("UDP"))?;
    let tcp = TcpListener::bind(config.listen).await.map_err(failed("TCP"))?;

    let tasks = Tasks::new(cancel.child_token());
    let cache = Cache::builder(config.client).watch(SERVICES).watch(ENDPOINTSLICES).start(&tasks);
    let zone = Arc::new(RwLock::new(Zone::new(&config.domain, address)));
    let (synced, is_synced) = watch::channel(false);
    tasks.spawn(follow(cache, zone.clone(), synced));
    let forwarder = Arc::new(Forwarder::new(config.resolv_conf, address));
    let answerer = Answerer { zone, synced: is_synced, forwarder };
    tasks.spawn(serve_udp(Arc::new(udp), answerer.clone()));
    tasks.spawn(serve_tcp(tcp, answerer));
    tracing::info!(address = %config.listen, domain = config.domain, "cluster DNS answers");

    cancel.cancelled().await;
    tasks.drained(DRAIN).await;
    Ok(())
}

/// Keeps the zone in step with the API.
async fn follow(cache: Cache, zone: Arc<RwLock<Zone>>, synced: watch::Sender<bool>) {
    let mut changes = cache.changes();
    cache.synced().await;
    loop {
        {
            let mut zone = zone.write().unwrap_or_else(PoisonError::into_inner);
            while let Some(change) = changes.try_recv() {
                take(&mut zone, &change);
            }
        }
        synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        let change = changes.recv().await;
        take(&mut zone.write().unwrap_or_else(PoisonError::into_inner), &change);
    }
}

fn take(zone: &mut Zone, change: &Change) {
    if change.resource == SERVICES {
        return zone.set_service(&change.key, change.new.as_deref().map(|object| object.value()));
    }
    // The label that names the Service may have changed, so the former owner loses the slice first.
    if let Some(service) = change.old.as_deref().and_then(|slice| owner_of(slice)) {
        zone.set_slice(&service, &change.key.name, None);
    }
    if let Some((slice, service)) = change.new.as_deref().and_then(|slice| Some((slice, owner_of(slice)?))) {
        zone.set_slice(&service, &change.key.name, Some(slice.value()));
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, answerer: Answerer) {
    let permits = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error of an earlier answer comes back here; the next datagram is as good as any.
                tracing::debug!(%error, "a datagram was not received");
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
        let (question, socket, answerer) = (buffer[..length].to_vec(), socket.clone(), answerer.clone());
        tokio::spawn(async move {
            let _permit = permit;
            if let Some(answer) = answerer.answer(&question, Transport::Udp).await
                && let Err(error) = socket.send_to(&answer, client).await
            {
                tracing::debug!(%client, %error, "an answer was not sent");
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, answerer: Answerer) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let answerer = answerer.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(error) = serve_connection(stream, answerer).await {
                        tracing::debug!(%error, "a DNS connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a DNS connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Questions of one connection are answered in turn. Ends with the client, or when it falls silent.
async fn serve_connection(mut stream: TcpStream, answerer: Answerer) -> std::io::Result<()> {
    while let Ok(read) = tokio::time::timeout(CONNECTION_IDLE, read_message(&mut stream)).await {
        let Some(question) = read? else { return Ok(()) };
        let Some(answer) = answerer.answer(&question, Transport::Tcp).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).expect("answers are encoded within 65535 bytes");
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
    Ok(())
}

async fn read_message(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
