//! From a question to an answer.
//!
//! Owns: which questions are answered here and which are passed on, response codes, aliases, and the size of answers.
//! Called by: the server, with the bytes of one message.
//! Never: touches a socket of a client.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use tokio::sync::watch;

use crate::forward::{Forwarded, Forwarder};
use crate::zone::{Found, Zone};

/// How long a question about the cluster waits for the first list of Services. A pod that starts with its node is
/// better served late than wrongly: "no such name" would be remembered.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);

/// An ExternalName may lead to another; a circle of them ends here.
const ALIASES_MAX: usize = 8;

/// The largest answer over UDP, whatever the client would take: larger ones may be cut on the way (DNS flag day 2020).
const UDP_PAYLOAD_MAX: u16 = 1232;

/// Without EDNS (RFC 1035, 4.2.1).
const UDP_PAYLOAD_PLAIN: u16 = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Answers messages. Cheap to clone.
#[derive(Clone)]
pub struct Answerer {
    pub zone: Arc<RwLock<Zone>>,
    pub synced: watch::Receiver<bool>,
    pub forwarder: Arc<Forwarder>,
}

/// What goes into an answer besides the question.
#[derive(Debug, Default)]
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additional: Vec<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Reply {
        Reply { code, ..Reply::default() }
    }
}

impl Answerer {
    /// The answer to a message, or nothing for what is no question.
    pub async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = match Message::from_vec(bytes) {
            Ok(message) if message.metadata.message_type == MessageType::Query => message,
            Ok(_) => return None,
            Err(_) => return malformed(bytes),
        };
        let reply = self.reply(&question).await;
        encode(&question, reply, transport)
    }

    async fn reply(&self, question: &Message) -> Reply {
        if question.metadata.op_code != OpCode::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        if question.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Reply::code(ResponseCode::BADVERS);
        }
        let [query] = question.queries.as_slice() else { return Reply::code(ResponseCode::FormErr) };
        if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return Reply::code(ResponseCode::Refused);
        }
        let mut reply = self.resolve(query).await;
        // Clients tend to use the first address: each question begins elsewhere.
        let addresses = reply.answers.iter().filter(|r| r.record_type() == RecordType::A).count();
        if addresses == reply.answers.len() && addresses > 1 {
            reply.answers.rotate_left(usize::from(question.metadata.id) % addresses);
        }
        reply
    }

    async fn resolve(&self, query: &Query) -> Reply {
        let mut aliases = Vec::new();
        let mut name = query.name().clone();
        let kind = query.query_type();
        while aliases.len() < ALIASES_MAX {
            let Some(labels) = self.read(|zone| zone.relative(&name)) else {
                return self.outside(&name, kind, aliases).await;
            };
            if !self.is_synced().await {
                return Reply::code(ResponseCode::ServFail);
            }
            match self.read(|zone| zone.find(&name, &labels, kind)) {
                Found::Records { answers, additional } => {
                    aliases.extend(answers);
                    return Reply { authoritative: true, answers: aliases, additional, ..Reply::default() };
                }
                Found::Alias(record, target) => {
                    aliases.push(*record);
                    if kind == RecordType::CNAME {
                        return Reply { authoritative: true, answers: aliases, ..Reply::default() };
                    }
                    name = target;
                }
                Found::NoData => return self.nothing(ResponseCode::NoError, aliases),
                Found::NoName => return self.nothing(ResponseCode::NXDomain, aliases),
            }
        }
        Reply::code(ResponseCode::ServFail)
    }

    /// Names outside the cluster's domain: addresses of the cluster have names too, the rest is passed on.
    async fn outside(&self, name: &Name, kind: RecordType, aliases: Vec<Record>) -> Reply {
        if kind == RecordType::PTR
            && *self.synced.borrow()
            && let Some(answers) = self.read(|zone| zone.reverse(name))
        {
            return Reply { authoritative: true, answers, ..Reply::default() };
        }
        match self.forwarder.resolve(name, kind).await {
            Ok(Forwarded { code, answers, authorities }) => {
                let mut all = aliases;
                all.extend(answers);
                Reply { code, answers: all, authorities, ..Reply::default() }
            }
            Err(error) => {
                tracing::debug!(%name, error = &error as &dyn std::error::Error, "a question could not be passed on");
                // The alias itself is sure, and some clients can do with it.
                let code = if aliases.is_empty() { ResponseCode::ServFail } else { ResponseCode::NoError };
                Reply { code, answers: aliases, ..Reply::default() }
            }
        }
    }

    fn nothing(&self, code: ResponseCode, answers: Vec<Record>) -> Reply {
        let authorities = vec![self.read(Zone::authority)];
        Reply { code, authoritative: true, answers, authorities, ..Reply::default() }
    }

    async fn is_synced(&self) -> bool {
        let mut synced = self.synced.clone();
        tokio::time::timeout(SYNC_PATIENCE, synced.wait_for(|synced| *synced)).await.is_ok_and(|waited| waited.is_ok())
    }

    fn read<T>(&self, look: impl FnOnce(&Zone) -> T) -> T {
        look(&self.zone.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A header alone is enough to say that the rest makes no sense.
fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let [id_high, id_low, flags, ..] = *bytes else { return None };
    const RESPONSE: u8 = 0x80;
    if bytes.len() < 12 || flags & RESPONSE != 0 {
        return None;
    }
    let id = u16::from_be_bytes([id_high, id_low]);
    Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok()
}

fn encode(question: &Message, reply: Reply, transport: Transport) -> Option<Vec<u8>> {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata.response_code = reply.code;
    message.metadata.authoritative = reply.authoritative;
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.checking_disabled = question.metadata.checking_disabled;
    message.add_queries(question.queries.iter().cloned());
    message.insert_answers(reply.answers);
    message.insert_authorities(reply.authorities);
    message.insert_additionals(reply.additional);
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_MAX).set_version(0);
        message.set_edns(edns);
    }
    let limit = match (transport, &question.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => UDP_PAYLOAD_PLAIN,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_PAYLOAD_PLAIN, UDP_PAYLOAD_MAX),
    };
    encode_within(&message, limit)
}

/// Records that do not fit are left out, and the answer says that it was cut.
fn encode_within(message: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::from(UDP_PAYLOAD_PLAIN));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    match message.emit(&mut encoder) {
        Ok(()) => Some(bytes),
        Err(error) => {
            tracing::warn!(%error, "an answer could not be encoded");
            let code = ResponseCode::ServFail;
            Message::error_msg(message.metadata.id, message.metadata.op_code, code).to_vec().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use minik_api::ObjectKey;
    use serde_json::{Value, json};

    fn answerer(synced: bool) -> (Answerer, watch::Sender<bool>) {
        let mut zone = Zone::new("cluster.local", Ipv4Addr::new(10, 96, 0, 10));
        let mut service = |name: &str, spec: Value| {
            zone.set_service(&ObjectKey::new("a", name), Some(&json!({"spec": spec})));
        };
        service("web", json!({"clusterIP": "10.96.0.7"}));
        service("many", json!({"clusterIP": "None"}));
        service("alias", json!({"type": "ExternalName", "externalName": "web.a.svc.cluster.local"}));
        service("circle", json!({"type": "ExternalName", "externalName": "circle.a.svc.cluster.local"}));
        let endpoints: Vec<Value> = (1..=100).map(|n| json!({"addresses": [format!("10.244.1.{n}")]})).collect();
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": []});
        zone.set_slice(&ObjectKey::new("a", "many"), "many-x", Some(&slice));
        let (sender, synced) = watch::channel(synced);
        let forwarder = Arc::new(Forwarder::new("/nonexistent/resolv.conf".into(), Ipv4Addr::LOCALHOST));
        (Answerer { zone: Arc::new(RwLock::new(zone)), synced, forwarder }, sender)
    }

    fn question(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    async fn ask(answerer: &Answerer, question: &Message, transport: Transport) -> Message {
        let bytes = answerer.answer(&question.to_vec().unwrap(), transport).await.unwrap();
        if transport == Transport::Udp {
            let limit = if question.edns.is_some() { UDP_PAYLOAD_MAX } else { UDP_PAYLOAD_PLAIN };
            assert!(bytes.len() <= usize::from(limit), "{} bytes", bytes.len());
        }
        Message::from_vec(&bytes).unwrap()
    }

    #[tokio::test]
    async fn a_missing_name_comes_with_the_authority_that_says_so() {
        let (answerer, _sender) = answerer(true);
        let reply = ask(&answerer, &question("no.a.svc.cluster.local.", RecordType::A), Transport::Udp).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert!(reply.metadata.authoritative);
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
        let reply = ask(&answerer, &question("web.a.svc.cluster.local.", RecordType::AAAA), Transport::Udp).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!((reply.answers.len(), reply.authorities.len()), (0, 1));
    }

    #[tokio::test]
    async fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
        let (answerer, _sender) = answerer(true);
        let mut many = question("many.a.svc.cluster.local.", RecordType::A);
        let plain = ask(&answerer, &many, Transport::Udp).await;
        assert!(plain.metadata.truncation && plain.answers.len() < 40, "{}", plain.answers.len());
        many.set_edns(Edns::new().set_max_payload(4096).clone());
        let extended = ask(&answerer, &many, Transport::Udp).await;
        assert!(extended.metadata.truncation && extended.answers.len() > plain.answers.len());
        let whole = ask(&answerer, &many, Transport::Tcp).await;
        assert!(!whole.metadata.truncation && whole.edns.is_some());
        assert_eq!(whole.answers.len(), 100);
    }

    #[tokio::test]
    async fn an_alias_is_followed_and_a_circle_ends() {
        let (answerer, _sender) = answerer(true);
        let reply = ask(&answerer, &question("alias.a.svc.cluster.local.", RecordType::A), Transport::Udp).await;
        let kinds: Vec<RecordType> = reply.answers.iter().map(Record::record_type).collect();
        assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
        let reply = ask(&answerer, &question("circle.a.svc.cluster.local.", RecordType::A), Transport::Udp).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }

    #[tokio::test]
    async fn nothing_is_said_of_the_cluster_before_it_is_known() {
        let (answerer, sender) = answerer(false);
        let web = question("web.a.svc.cluster.local.", RecordType::A);
        let waiting = tokio::spawn({
            let (answerer, web) = (answerer.clone(), web.clone());
            async move { ask(&answerer, &web, Transport::Udp).await }
        });
        tokio::task::yield_now().await;
        sender.send_replace(true);
        assert_eq!(waiting.await.unwrap().answers.len(), 1);
    }

    #[tokio::test]
    async fn a_server_that_will_never_know_the_cluster_fails_instead_of_denying_names() {
        let (answerer, sender) = answerer(false);
        drop(sender);
        let web = question("web.a.svc.cluster.local.", RecordType::A);
        let reply = ask(&answerer, &web, Transport::Udp).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }

    #[tokio::test]
    async fn nonsense_is_named_or_ignored() {
        let (answerer, _sender) = answerer(true);
        assert_eq!(answerer.answer(b"short", Transport::Udp).await, None);
        let mut response = question("web.a.svc.cluster.local.", RecordType::A);
        response.metadata.message_type = MessageType::Response;
        assert_eq!(answerer.answer(&response.to_vec().unwrap(), Transport::Udp).await, None);
        let broken = [0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63];
        let reply = Message::from_vec(&answerer.answer(&broken, Transport::Udp).await.unwrap()).unwrap();
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (9, ResponseCode::FormErr));
        let mut update = question("web.a.svc.cluster.local.", RecordType::A);
        update.metadata.op_code = OpCode::Notify;
        let reply = ask(&answerer, &update, Transport::Udp).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
    }
}
