//! Passes questions on to the node's own resolver, and remembers the answers for a while.
//!
//! Owns: the list of resolvers (from resolv.conf, read again when it changes), the cache, and the limits of both.
//! Called by: `answer`, for names outside the cluster.
//! Never: passes a question to the address this node answers on itself.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

/// One try with one resolver.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Every resolver is tried so often before a question is given up; a client gives up after 5 to 10 seconds itself.
const ROUNDS: usize = 2;

/// How many resolvers of resolv.conf are used; the C library takes as many.
const RESOLVERS_MAX: usize = 3;

/// Answers are kept as long as they say, but no longer than this, as with the usual configuration of CoreDNS.
const KEPT_MAX: Duration = Duration::from_secs(30);

const CACHED_ANSWERS_MAX: usize = 4096;

/// Questions on their way at once. Beyond, a question is refused at once: waiting would only lengthen the queue.
const QUESTIONS_MAX: usize = 512;

/// What we let resolvers send by UDP, see `answer`.
const UDP_PAYLOAD_MAX: u16 = 1232;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no resolver is configured in {0}")]
    NoResolver(PathBuf),
    #[error("too many questions are on their way")]
    Busy,
    #[error("resolver {resolver} did not answer")]
    Unanswered { resolver: SocketAddr, source: io::Error },
}

/// An answer of another resolver.
#[derive(Debug, Clone, PartialEq)]
pub struct Forwarded {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
}

pub struct Forwarder {
    resolv_conf: PathBuf,
    /// The address we answer on: a resolv.conf that names it must not send questions in a circle.
    own_address: Ipv4Addr,
    resolvers: Mutex<(Option<SystemTime>, Vec<SocketAddr>)>,
    cache: Mutex<HashMap<(Name, RecordType), Kept>>,
    permits: tokio::sync::Semaphore,
}

struct Kept {
    answer: Forwarded,
    since: Instant,
    until: Instant,
}

impl Forwarder {
    pub fn new(resolv_conf: PathBuf, own_address: Ipv4Addr) -> Forwarder {
        Forwarder {
            resolv_conf,
            own_address,
            resolvers: Mutex::default(),
            cache: Mutex::default(),
            permits: tokio::sync::Semaphore::new(QUESTIONS_MAX),
        }
    }

    pub async fn resolve(&self, name: &Name, kind: RecordType) -> Result<Forwarded, Error> {
        let key = (name.to_lowercase(), kind);
        if let Some(kept) = self.recall(&key, Instant::now()) {
            return Ok(kept);
        }
        let _permit = self.permits.try_acquire().map_err(|_| Error::Busy)?;
        let resolvers = self.resolvers();
        let mut error = Error::NoResolver(self.resolv_conf.clone());
        for resolver in (0..ROUNDS).flat_map(|_| &resolvers) {
            match ask(*resolver, name, kind).await {
                Ok(message) => {
                    let answer = forwarded(message);
                    self.remember(key, &answer, Instant::now());
                    return Ok(answer);
                }
                Err(source) => error = Error::Unanswered { resolver: *resolver, source },
            }
        }
        Err(error)
    }

    /// A kept answer, its times to live shortened by how long it was kept.
    fn recall(&self, key: &(Name, RecordType), now: Instant) -> Option<Forwarded> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = cache.get(key).filter(|kept| now < kept.until)?;
        let age = u32::try_from((now - kept.since).as_secs()).unwrap_or(u32::MAX);
        let mut answer = kept.answer.clone();
        for record in answer.answers.iter_mut().chain(&mut answer.authorities) {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(answer)
    }

    fn remember(&self, key: (Name, RecordType), answer: &Forwarded, now: Instant) {
        let lifetime = lifetime(answer);
        if lifetime.is_zero() {
            return;
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED_ANSWERS_MAX {
            cache.retain(|_, kept| now < kept.until);
            if cache.len() >= CACHED_ANSWERS_MAX {
                // All fresh: some client asks for ever new names. Starting over is cheap and bounded.
                cache.clear();
            }
        }
        cache.insert(key, Kept { answer: answer.clone(), since: now, until: now + lifetime });
    }

    /// The resolvers of resolv.conf, read again when the file was changed: Docker rewrites it when a network comes.
    fn resolvers(&self) -> Vec<SocketAddr> {
        let changed = std::fs::metadata(&self.resolv_conf).and_then(|file| file.modified()).ok();
        let mut known = self.resolvers.lock().unwrap_or_else(PoisonError::into_inner);
        if known.1.is_empty() || known.0 != changed {
            let text = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
            *known = (changed, parse_resolvers(&text, self.own_address));
        }
        known.1.clone()
    }
}

fn parse_resolvers(text: &str, own_address: Ipv4Addr) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = named.filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok());
    let others = addresses.filter(|address| *address != IpAddr::V4(own_address));
    others.take(RESOLVERS_MAX).map(|address| SocketAddr::new(address, 53)).collect()
}

/// How long an answer holds: the shortest of its records; for "there is none" what the authority says (RFC 2308).
fn lifetime(answer: &Forwarded) -> Duration {
    let certain = matches!(answer.code, ResponseCode::NoError | ResponseCode::NXDomain);
    let seconds = if answer.answers.is_empty() {
        answer.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        })
    } else {
        answer.answers.iter().map(|record| record.ttl).min()
    };
    match seconds {
        Some(seconds) if certain => Duration::from_secs(u64::from(seconds)).min(KEPT_MAX),
        _ => Duration::ZERO,
    }
}

fn forwarded(message: Message) -> Forwarded {
    Forwarded { code: message.metadata.response_code, answers: message.answers, authorities: message.authorities }
}

/// Asks by UDP, and by TCP when the answer did not fit.
async fn ask(resolver: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Message> {
    let mut question = Message::new(random_id(), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_MAX).set_version(0);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    let answer = tokio::time::timeout(TRY_TIMEOUT, by_udp(resolver, &question, &bytes)).await.map_err(timed_out)??;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    tokio::time::timeout(TRY_TIMEOUT, by_tcp(resolver, &question, &bytes)).await.map_err(timed_out)?
}

/// A socket of its own for each question: a random source port is what makes forging an answer hard.
async fn by_udp(resolver: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    // Bounded by the caller's timeout.
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = matching(question, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(resolver: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    matching(question, &buffer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn matching(question: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let is_answer = answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        // Some resolvers leave the question out of an error.
        && (answer.queries.is_empty() || answer.queries == question.queries);
    is_answer.then_some(answer)
}

/// Not predictable from outside: the standard library seeds each `RandomState` from the system's random numbers.
fn random_id() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    let hash = std::hash::RandomState::new().build_hasher().finish();
    u16::try_from(hash & 0xffff).expect("masked to sixteen bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::A;

    fn answer(ttl: u32) -> Forwarded {
        let name = Name::from_ascii("example.org.").unwrap();
        let record = Record::from_rdata(name, ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, 1))));
        Forwarded { code: ResponseCode::NoError, answers: vec![record], authorities: vec![] }
    }

    #[test]
    fn resolvers_come_from_resolv_conf_without_ourselves() {
        let text = "# made by Docker\nnameserver 127.0.0.11\nsearch a b\n nameserver 10.96.0.10 \nnameserver nonsense\noptions ndots:0\nnameserver fd00::1";
        let found = parse_resolvers(text, Ipv4Addr::new(10, 96, 0, 10));
        assert_eq!(found, ["127.0.0.11:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()]);
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_ages() {
        let forwarder = Forwarder::new("/nonexistent".into(), Ipv4Addr::LOCALHOST);
        let key = (Name::from_ascii("example.org.").unwrap(), RecordType::A);
        let now = Instant::now();
        forwarder.remember(key.clone(), &answer(20), now);
        let kept = forwarder.recall(&key, now + Duration::from_secs(15)).unwrap();
        assert_eq!(kept.answers[0].ttl, 5);
        assert_eq!(forwarder.recall(&key, now + Duration::from_secs(20)), None);
    }

    #[test]
    fn failures_and_answers_without_time_are_not_kept() {
        assert_eq!(lifetime(&answer(0)), Duration::ZERO);
        assert_eq!(lifetime(&answer(3600)), KEPT_MAX);
        assert_eq!(lifetime(&Forwarded { code: ResponseCode::ServFail, ..answer(20) }), Duration::ZERO);
        let silent = Forwarded { code: ResponseCode::NXDomain, answers: vec![], authorities: vec![] };
        assert_eq!(lifetime(&silent), Duration::ZERO);
    }

    #[tokio::test]
    async fn without_a_resolver_the_error_names_the_file() {
        let forwarder = Forwarder::new("/nonexistent/resolv.conf".into(), Ipv4Addr::LOCALHOST);
        let error = forwarder.resolve(&Name::from_ascii("example.org.").unwrap(), RecordType::A).await.unwrap_err();
        assert_eq!(error.to_string(), "no resolver is configured in /nonexistent/resolv.conf");
    }
}
