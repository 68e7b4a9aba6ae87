//! Writes tables into the kernel: whole, or as the smallest change from one to the next.
//!
//! Owns: the netlink form of the model in `nft`, and where a large change is cut into transactions.
//! Called by: `masquerade`, `hostport`, `proxy`.
//! Never: decides what a table says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use nlink::netlink::nftables as kernel;
use nlink::netlink::nftables::{
    BaseChain, CmpOp, CtKey, DynsetExpr, DynsetOp, Expr, Family, FibFlags, FibResult, FilterHook, LookupExpr, MetaKey,
    NatHook, NumgenKind, PayloadBase, Priority, RawExpr, RawMessage, Register, SetDataType, SetElement, SetElementData,
    SetKeyType, Transaction,
};
use nlink::{Connection, Nftables};

use crate::nft::{
    Datum, Field, FieldType, Hook, HookKind, HookPoint, Interface, Is, Item, Rule, Set, Side, Table, Value, ValueType,
    Verdict,
};
use crate::nft_change::{Change, ELEMENTS_PER_MESSAGE, changes};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not open a netlink socket for nf_tables")]
    Open(#[source] nlink::Error),
    #[error("could not list nf_tables tables")]
    List(#[source] nlink::Error),
    #[error("the kernel refused a change of nf_tables table {table}")]
    Refused { table: String, source: nlink::Error },
}

/// A transaction is one datagram and must fit the socket's send buffer (208 KiB unless the host says otherwise, and
/// the kernel counts overhead). Larger changes are cut between units, each of which is consistent by itself.
const TRANSACTION_BYTES: usize = 96 * 1024;

/// Makes the kernel's table `name` be exactly `table`, in one transaction, whatever was there before.
pub async fn replace(name: &str, table: &Table) -> Result<(), Error> {
    let kernel = Connection::<Nftables>::new().map_err(Error::Open)?;
    let mut transaction = delete_table_if_there(kernel.transaction(), name).add_table(name, Family::Ip);
    for change in changes(&Table::default(), table).into_iter().flatten() {
        transaction = write_change(&change, name, transaction);
    }
    transaction.commit(&kernel).await.map_err(|source| refused(name, source))
}

/// Deletes the table if it is there.
pub async fn remove(name: &str) -> Result<(), Error> {
    let kernel = Connection::<Nftables>::new().map_err(Error::Open)?;
    let transaction = delete_table_if_there(kernel.transaction(), name);
    transaction.commit(&kernel).await.map_err(|source| refused(name, source))
}

/// Which `ip` tables there are, and whether packets enter them: one whose building was cut off has no base chain yet.
pub async fn tables() -> Result<BTreeMap<String, Liveness>, Error> {
    let kernel = Connection::<Nftables>::new().map_err(Error::Open)?;
    let tables = kernel.list_tables_in(Family::Ip).await.map_err(Error::List)?;
    let chains = kernel.list_chains().await.map_err(Error::List)?;
    let live = |name: &str| chains.iter().any(|c| c.family == Family::Ip && c.table == name && c.hook.is_some());
    let liveness = |name: &str| if live(name) { Liveness::Live } else { Liveness::Unhooked };
    Ok(tables.into_iter().map(|table| (table.name.to_string(), liveness(&table.name))).collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    Live,
    Unhooked,
}

/// Brings table `name`, known to be `old`, to `new`. One transaction when the change is small enough; else several,
/// in an order in which every state between is one that serves: what is new is complete before anything leads to it,
/// and what is old is removed after nothing leads to it any more.
pub async fn update(name: &str, old: &Table, new: &Table) -> Result<Applied, Error> {
    let kernel = Connection::<Nftables>::new().map_err(Error::Open)?;
    write_units(&kernel, name, changes(old, new), |transaction| transaction).await
}

/// Builds table `name` beside the tables `replaced`, and swaps: its base chains come to life in the same transaction
/// that deletes the others. Established connections keep their translation: conntrack holds it, not the table.
pub async fn swap_in(name: &str, table: &Table, replaced: &[String]) -> Result<Applied, Error> {
    let kernel = Connection::<Nftables>::new().map_err(Error::Open)?;
    let fresh = delete_table_if_there(kernel.transaction(), name).add_table(name, Family::Ip);
    fresh.commit(&kernel).await.map_err(|source| refused(name, source))?;
    let delete_replaced = |mut transaction: Transaction| {
        for old in replaced.iter().filter(|old| *old != name) {
            transaction = transaction.del_table(old, Family::Ip);
        }
        transaction
    };
    write_units(&kernel, name, changes(&Table::default(), table), delete_replaced).await
}

/// Deletes the elements of a learned map (source address -> address and port) that lead to none of `targets`. Returns
/// how many.
pub async fn forget_learned(table: &str, map: &str, targets: &BTreeSet<(Ipv4Addr, u16)>) -> Result<usize, Error> {
    let kernel = Connection::<Nftables>::new().map_err(Error::Open)?;
    let elements = kernel.list_set_elements(table, map, Family::Ip).await.map_err(Error::List)?;
    let leads_nowhere = |element: &&SetElement| match element.data() {
        // The address, and the port padded to four bytes, as a concatenation lies in registers.
        Some(SetElementData::Value(value)) if value.len() >= 6 => {
            let address = Ipv4Addr::new(value[0], value[1], value[2], value[3]);
            !targets.contains(&(address, u16::from_be_bytes([value[4], value[5]])))
        }
        _ => false,
    };
    let stale: Vec<SetElement> =
        elements.iter().filter(leads_nowhere).map(|element| SetElement::new(element.key().to_vec())).collect();
    let declared = kernel_set(table, map, &Set::map(&[FieldType::Address], &[FieldType::Address, FieldType::Port]));
    for chunk in stale.chunks(ELEMENTS_PER_MESSAGE) {
        match kernel.transaction().del_set_elements(&declared, chunk).commit(&kernel).await {
            Ok(()) => {}
            // One of them expired in between; the others wait for their own time.
            Err(error) if error.is_not_found() => {}
            Err(source) => return Err(refused(table, source)),
        }
    }
    Ok(stale.len())
}

/// How large an update was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    pub changes: usize,
    pub transactions: usize,
}

async fn write_units(
    kernel: &Connection<Nftables>,
    name: &str,
    units: Vec<Vec<Change>>,
    finish: impl Fn(Transaction) -> Transaction,
) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    let mut transaction = kernel.transaction();
    let mut bytes = 0;
    for unit in units {
        let unit_bytes: usize = unit.iter().map(Change::bytes).sum();
        if bytes > 0 && bytes + unit_bytes > TRANSACTION_BYTES {
            let full = std::mem::replace(&mut transaction, kernel.transaction());
            full.commit(kernel).await.map_err(|source| refused(name, source))?;
            applied.transactions += 1;
            bytes = 0;
        }
        bytes += unit_bytes;
        applied.changes += unit.len();
        for change in &unit {
            transaction = write_change(change, name, transaction);
        }
    }
    applied.transactions += 1;
    finish(transaction).commit(kernel).await.map_err(|source| refused(name, source))?;
    Ok(applied)
}

fn refused(table: &str, source: nlink::Error) -> Error {
    Error::Refused { table: table.to_owned(), source }
}

/// Add (no error when it is there), then delete: deleting what may be missing for kernels before 6.3, which have no
/// NFT_MSG_DESTROYTABLE.
fn delete_table_if_there(transaction: Transaction, name: &str) -> Transaction {
    const NFT_MSG_NEWTABLE: u8 = 0;
    const NLM_F_CREATE: u16 = 0x400;
    const NFTA_TABLE_NAME: u16 = 1;
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    let attribute = netlink_attribute(NFTA_TABLE_NAME, &value);
    let ensure = RawMessage::new(NFT_MSG_NEWTABLE, Family::Ip).flags(NLM_F_CREATE).attrs(attribute);
    transaction.raw(ensure).del_table(name, Family::Ip)
}

fn write_change(change: &Change, table: &str, transaction: Transaction) -> Transaction {
    match change {
        Change::AddSet(name, set) => transaction.add_set(kernel_set(table, name, set)),
        Change::AddChain(name, hook) => transaction.add_chain(kernel_chain(table, name, *hook)),
        Change::FlushChain(name) => transaction.flush_chain(table, name, Family::Ip),
        Change::AddRule(name, rule) => transaction.add_rule(kernel_rule(table, name, rule)),
        Change::AddElements(name, set) => {
            transaction.add_set_elements(&kernel_set(table, name, set), &kernel_elements(set))
        }
        Change::DeleteElements(name, set) => {
            transaction.del_set_elements(&kernel_set(table, name, set), &kernel_elements(set))
        }
        Change::DeleteChain(name) => transaction.del_chain(table, name, Family::Ip),
        Change::DeleteSet(name) => transaction.del_set(table, name, Family::Ip),
    }
}

fn kernel_chain(table: &str, name: &str, hook: Option<Hook>) -> kernel::Chain {
    let chain = kernel::Chain::new(table, name).expect("names are made of Kubernetes names and below 255 bytes");
    let chain = chain.family(Family::Ip);
    let Some(hook) = hook else { return chain };
    let priority = Priority::Custom(hook.priority);
    chain.base(match (hook.kind, hook.at) {
        (HookKind::Filter, at) => BaseChain::filter(
            match at {
                HookPoint::Prerouting => FilterHook::Prerouting,
                HookPoint::Input => FilterHook::Input,
                HookPoint::Forward => FilterHook::Forward,
                HookPoint::Output => FilterHook::Output,
                HookPoint::Postrouting => FilterHook::Postrouting,
            },
            priority,
        ),
        (HookKind::Nat, at) => BaseChain::nat(
            match at {
                HookPoint::Prerouting => NatHook::Prerouting,
                HookPoint::Input => NatHook::Input,
                HookPoint::Output => NatHook::Output,
                HookPoint::Postrouting => NatHook::Postrouting,
                HookPoint::Forward => unreachable!("no table here translates at forward; netfilter has no such hook"),
            },
            priority,
        ),
    })
}

fn kernel_set(table: &str, name: &str, set: &Set) -> kernel::Set {
    let made = kernel::Set::new(table, name).family(Family::Ip).key_type(key_type(&set.key));
    let made = match &set.value {
        ValueType::None => made,
        ValueType::Verdict => made.vmap(),
        ValueType::Data(types) => made.map(SetDataType::Value(key_type(types))),
    };
    match set.learned {
        // A bound for what a flood of made-up source addresses can cost; when it is full, affinity is not learned.
        Some(timeout) => made.dynamic().timeout(timeout).size(LEARNED_ELEMENTS),
        None => made,
    }
}

const LEARNED_ELEMENTS: u32 = 65_536;

fn key_type(types: &[FieldType]) -> SetKeyType {
    let one = |field: &FieldType| match field {
        FieldType::Address => SetKeyType::Ipv4Addr,
        FieldType::Protocol => SetKeyType::InetProto,
        FieldType::Port => SetKeyType::InetService,
        FieldType::Number => SetKeyType::Mark,
    };
    match types {
        [single] => one(single),
        several => SetKeyType::Concat(several.iter().map(one).collect()),
    }
}

fn kernel_elements(set: &Set) -> Vec<SetElement> {
    let element = |data: &[Datum]| match data {
        [single] => kernel_datum(*single),
        several => SetElement::concat(several.iter().map(|datum| kernel_datum(*datum))),
    };
    let with_value = |(key, value): (&Vec<Datum>, &Value)| match value {
        Value::None => element(key),
        Value::Verdict(verdict) => element(key).verdict(kernel_verdict(verdict)),
        Value::Data(data) => element(key).value(element(data)),
    };
    set.elements.iter().map(with_value).collect()
}

fn kernel_datum(datum: Datum) -> SetElement {
    match datum {
        Datum::Address(address) => SetElement::ipv4(address),
        Datum::Protocol(protocol) => SetElement::inet_proto(protocol.number()),
        Datum::Port(port) => SetElement::port(port),
        Datum::Number(number) => SetElement::mark(number),
    }
}

fn kernel_verdict(verdict: &Verdict) -> kernel::Verdict {
    let chain = |name: &String| {
        kernel::ChainName::new(name.clone()).expect("names are made of Kubernetes names and below 255 bytes")
    };
    match verdict {
        Verdict::Accept => kernel::Verdict::Accept,
        Verdict::Drop => kernel::Verdict::Drop,
        Verdict::Return => kernel::Verdict::Return,
        Verdict::Jump(name) => kernel::Verdict::JumpTo(chain(name)),
        Verdict::Goto(name) => kernel::Verdict::GotoTo(chain(name)),
    }
}

fn kernel_rule(table: &str, chain: &str, rule: &Rule) -> kernel::Rule {
    let expressions = rule.0.iter().flat_map(expressions).collect();
    kernel::Rule::new(table, chain).family(Family::Ip).expressions(expressions)
}

/// Where things lie in nf_tables' sixteen 32-bit registers: keys from word 0 on, what a map yields in words 4 and 5
/// (address, port), a drawn number in word 8.
const KEY: usize = 0;
const TARGET_ADDRESS: Register = Register::R1;
const TARGET_PORT: Register = Register::Reg32_05;
const DRAWN: Register = Register::R2;

fn word(number: usize) -> Register {
    Register::word(number).expect("no key has more fields than there are registers")
}

fn expressions(item: &Item) -> Vec<Expr> {
    match item {
        Item::Saddr(is, cidr) => address_match(12, *is, cidr.network().octets(), cidr.mask().octets()),
        Item::Daddr(is, cidr) => address_match(16, *is, cidr.network().octets(), cidr.mask().octets()),
        Item::Protocol(protocol) => {
            vec![Expr::Meta { dreg: word(KEY), key: MetaKey::L4Proto }, equal(Is::In, vec![protocol.number()])]
        }
        Item::InSet(fields, is, set) => {
            let lookup = LookupExpr::new(set, word(KEY));
            with_key(fields, [if *is == Is::In { lookup } else { lookup.invert() }.into()])
        }
        Item::CtNew => ct_bit(CtKey::State, 8),
        // IPS_DST_NAT (include/uapi/linux/netfilter/nf_conntrack_common.h).
        Item::CtDnat => ct_bit(CtKey::Status, 1 << 5),
        Item::Local(side) => local(*side),
        Item::InInterface(is, interface) => interface_match(MetaKey::IifName, *is, interface),
        Item::OutInterface(is, interface) => interface_match(MetaKey::OifName, *is, interface),
        Item::MarkSet(bit) => mark_write(!bit, *bit),
        Item::MarkClear(bit) => mark_write(!bit, 0),
        Item::MarkHas(bit) => {
            let mut found = vec![Expr::Meta { dreg: word(KEY), key: MetaKey::Mark }];
            found.extend(any_bit(*bit));
            found
        }
        Item::Verdict(verdict) => vec![Expr::Verdict(kernel_verdict(verdict))],
        Item::Vmap(fields, map) => with_key(fields, [LookupExpr::new(map, word(KEY)).dreg(Register::Verdict).into()]),
        // NFT_REJECT_ICMP_UNREACH 0 with code 3 (port unreachable), NFT_REJECT_TCP_RST 1.
        Item::RejectTcpReset => vec![Expr::Reject { reject_type: 1, icmp_code: 0 }],
        Item::RejectPortUnreachable => vec![Expr::Reject { reject_type: 0, icmp_code: 3 }],
        Item::Masquerade => vec![masquerade_fully_random()],
        Item::DnatMap(fields, map) => with_key(fields, [target_from(map, word(KEY)), dnat()]),
        Item::DnatRandom { map, count } => vec![draw(*count), target_from(map, DRAWN), dnat()],
        Item::DnatLearned { learned } => {
            with_key(&[Field::Saddr], [target_from(learned, word(KEY)), learn(learned), dnat()])
        }
        Item::DnatRandomLearn { map, count, learned } => {
            with_key(&[Field::Saddr], [draw(*count), target_from(map, DRAWN), learn(learned), dnat()])
        }
    }
}

fn with_key<const N: usize>(fields: &[Field], then: [Expr; N]) -> Vec<Expr> {
    let mut all: Vec<Expr> = fields.iter().enumerate().map(|(n, field)| load(*field, word(KEY + n))).collect();
    all.extend(then);
    all
}

/// Offsets are those of the IPv4 header (RFC 791) and of the ports that TCP, UDP and SCTP all begin with.
fn load(field: Field, dreg: Register) -> Expr {
    let payload = |base, offset, len| Expr::Payload { dreg, base, offset, len };
    match field {
        Field::Saddr => payload(PayloadBase::Network, 12, 4),
        Field::Daddr => payload(PayloadBase::Network, 16, 4),
        Field::Protocol => Expr::Meta { dreg, key: MetaKey::L4Proto },
        Field::Sport => payload(PayloadBase::Transport, 0, 2),
        Field::Dport => payload(PayloadBase::Transport, 2, 2),
    }
}

fn equal(is: Is, data: Vec<u8>) -> Expr {
    Expr::Cmp { sreg: word(KEY), op: if is == Is::In { CmpOp::Eq } else { CmpOp::Neq }, data }
}

fn address_match(offset: u32, is: Is, network: [u8; 4], mask: [u8; 4]) -> Vec<Expr> {
    let mut all = vec![Expr::Payload { dreg: word(KEY), base: PayloadBase::Network, offset, len: 4 }];
    if mask != [255; 4] {
        all.push(Expr::Bitwise { sreg: word(KEY), dreg: word(KEY), len: 4, mask: mask.to_vec(), xor: vec![0; 4] });
    }
    all.push(equal(is, network.to_vec()));
    all
}

/// A name is compared with its terminating zero, a prefix without.
fn interface_match(key: MetaKey, is: Is, interface: &Interface) -> Vec<Expr> {
    let data = match interface {
        Interface::Name(name) => {
            let mut padded = name.as_bytes().to_vec();
            padded.resize(16, 0);
            padded
        }
        Interface::Prefix(prefix) => prefix.as_bytes().to_vec(),
    };
    vec![Expr::Meta { dreg: word(KEY), key }, equal(is, data)]
}

fn ct_bit(key: CtKey, bit: u32) -> Vec<Expr> {
    let mut all = vec![Expr::Ct { dreg: word(KEY), key }];
    all.extend(any_bit(bit));
    all
}

fn any_bit(bit: u32) -> [Expr; 2] {
    let mask = bit.to_ne_bytes().to_vec();
    let masked = Expr::Bitwise { sreg: word(KEY), dreg: word(KEY), len: 4, mask, xor: vec![0; 4] };
    [masked, Expr::Cmp { sreg: word(KEY), op: CmpOp::Neq, data: vec![0; 4] }]
}

fn local(side: Side) -> Vec<Expr> {
    const RTN_LOCAL: u32 = 2;
    let flags = if side == Side::Source { FibFlags::SADDR } else { FibFlags::DADDR };
    let found = Expr::Fib { dreg: word(KEY), result: FibResult::AddrType, flags };
    vec![found, equal(Is::In, RTN_LOCAL.to_ne_bytes().to_vec())]
}

fn mark_write(keep: u32, set: u32) -> Vec<Expr> {
    let (mask, xor) = (keep.to_ne_bytes().to_vec(), set.to_ne_bytes().to_vec());
    vec![
        Expr::Meta { dreg: word(KEY), key: MetaKey::Mark },
        Expr::Bitwise { sreg: word(KEY), dreg: word(KEY), len: 4, mask, xor },
        Expr::MetaSet { key: MetaKey::Mark, sreg: word(KEY) },
    ]
}

fn draw(count: u32) -> Expr {
    Expr::Numgen { dreg: DRAWN, kind: NumgenKind::Random, modulus: count, offset: 0 }
}

fn target_from(map: &str, key: Register) -> Expr {
    LookupExpr::new(map, key).dreg(TARGET_ADDRESS).into()
}

fn learn(map: &str) -> Expr {
    DynsetExpr::new(DynsetOp::Update, map, word(KEY)).sreg_data(TARGET_ADDRESS).into()
}

/// `dnat to <register>:<register>`; the crate can only name constants.
fn dnat() -> Expr {
    const TYPE_DNAT: u32 = 1;
    const FAMILY_IPV4: u32 = 2;
    // NFTA_NAT_TYPE 1, FAMILY 2, REG_ADDR_MIN 3, REG_PROTO_MIN 5 (include/uapi/linux/netfilter/nf_tables.h).
    let numbers = [(1, TYPE_DNAT), (2, FAMILY_IPV4), (3, TARGET_ADDRESS.wire()), (5, TARGET_PORT.wire())];
    let data = numbers.iter().flat_map(|(kind, value)| netlink_attribute(*kind, &value.to_be_bytes())).collect();
    RawExpr::new("nat", data).into()
}

/// Source ports drawn at random, so that two nodes' or two clients' connections do not race for the same one.
fn masquerade_fully_random() -> Expr {
    const NFTA_MASQ_FLAGS: u16 = 1;
    const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
    let flags = netlink_attribute(NFTA_MASQ_FLAGS, &NF_NAT_RANGE_PROTO_RANDOM_FULLY.to_be_bytes());
    RawExpr::new("masq", flags).into()
}

/// Length, type, value, padded to four bytes (netlink(7)).
fn netlink_attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).expect("attributes written here are short");
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
