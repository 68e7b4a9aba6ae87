//! A vocabulary for nf_tables: tables as plain data that can be compared, and read as `nft` would print them.
//!
//! Owns: the model of a table (`Table`, `Chain`, `Rule`, `Set`) and its text. All tables are of family `ip`.
//! Called by: `masquerade`, `hostport`, and `proxy`, which build tables; `nft_apply`, which writes them.
//! Never: speaks netlink.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::address::{Ipv4Cidr, Protocol};

/// A whole table. Two tables that are equal behave alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, Set>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// `Some` for a base chain, which packets enter by themselves.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    pub kind: HookKind,
    pub at: HookPoint,
    /// Lower runs earlier; netfilter's own: raw -300, conntrack -200, dstnat -100, filter 0, srcnat 100.
    pub priority: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    Filter,
    Nat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Matches and statements, from left to right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule(pub Vec<Item>);

/// A named set, or a map when `value` is not `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub key: Vec<FieldType>,
    pub value: ValueType,
    /// `Some`: rules add elements, which expire after this long. The elements are then the kernel's own business.
    pub learned: Option<Duration>,
    pub elements: BTreeMap<Vec<Datum>, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueType {
    None,
    Verdict,
    Data(Vec<FieldType>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    None,
    Verdict(Verdict),
    Data(Vec<Datum>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Address,
    Protocol,
    Port,
    /// A number in host byte order, such as `numgen` yields.
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Datum {
    Address(Ipv4Addr),
    Protocol(Protocol),
    Port(u16),
    Number(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

/// A field of the packet, as part of a lookup's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Saddr,
    Daddr,
    Protocol,
    Sport,
    Dport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    In,
    NotIn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Saddr(Is, Ipv4Cidr),
    Daddr(Is, Ipv4Cidr),
    Protocol(Protocol),
    /// The fields, concatenated, are an element of the set.
    InSet(Vec<Field>, Is, String),
    /// The connection's first packet.
    CtNew,
    /// The connection's destination was rewritten.
    CtDnat,
    /// The address belongs to this node.
    Local(Side),
    /// Name of the link a packet came by, or a prefix of it.
    InInterface(Is, Interface),
    OutInterface(Is, Interface),
    /// Sets the bit of the packet's mark, and keeps the others.
    MarkSet(u32),
    MarkClear(u32),
    MarkHas(u32),
    Verdict(Verdict),
    /// Looks the fields up in a verdict map.
    Vmap(Vec<Field>, String),
    RejectTcpReset,
    RejectPortUnreachable,
    Masquerade,
    /// Rewrites the destination to the address and port a map has for the fields; goes on when it has none.
    DnatMap(Vec<Field>, String),
    /// Rewrites the destination to element 0..count of a map, drawn at random.
    DnatRandom {
        map: String,
        count: u32,
    },
    /// `DnatMap` keyed by source address, and the learned element lives anew.
    DnatLearned {
        learned: String,
    },
    /// `DnatRandom`, and remembers for the source address what was drawn.
    DnatRandomLearn {
        map: String,
        count: u32,
        learned: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    Name(String),
    Prefix(String),
}

impl Table {
    pub fn chain(&mut self, name: &str, hook: Option<Hook>, rules: Vec<Rule>) {
        self.chains.insert(name.to_owned(), Chain { hook, rules });
    }

    /// The table as `nft` prints it, but for `dnat` through a map, which `nft` spells longer.
    pub fn text(&self, name: &str) -> String {
        let mut out = format!("table ip {name} {{\n");
        for (set_name, set) in &self.sets {
            set.write(set_name, &mut out);
        }
        for (chain_name, chain) in &self.chains {
            let _ = writeln!(out, "  chain {chain_name} {{");
            if let Some(hook) = chain.hook {
                let _ = writeln!(out, "    {hook}");
            }
            for rule in &chain.rules {
                let _ = writeln!(out, "    {rule}");
            }
            out.push_str("  }\n");
        }
        out.push_str("}\n");
        out
    }
}

impl Set {
    pub fn of(key: &[FieldType]) -> Set {
        Set { key: key.to_vec(), value: ValueType::None, learned: None, elements: BTreeMap::new() }
    }

    pub fn verdict_map(key: &[FieldType]) -> Set {
        Set { value: ValueType::Verdict, ..Set::of(key) }
    }

    pub fn map(key: &[FieldType], value: &[FieldType]) -> Set {
        Set { value: ValueType::Data(value.to_vec()), ..Set::of(key) }
    }

    fn write(&self, name: &str, out: &mut String) {
        let (word, arrow) = match &self.value {
            ValueType::None => ("set", String::new()),
            ValueType::Verdict => ("map", " : verdict".to_owned()),
            ValueType::Data(types) => ("map", format!(" : {}", joined(types))),
        };
        let _ = writeln!(out, "  {word} {name} {{\n    type {}{arrow}", joined(&self.key));
        if let Some(timeout) = self.learned {
            let _ = writeln!(out, "    flags dynamic,timeout\n    timeout {}s", timeout.as_secs());
        }
        for (key, value) in &self.elements {
            let _ = match value {
                Value::None => writeln!(out, "    {}", joined(key)),
                Value::Verdict(verdict) => writeln!(out, "    {} : {verdict}", joined(key)),
                Value::Data(data) => writeln!(out, "    {} : {}", joined(key), joined(data)),
            };
        }
        out.push_str("  }\n");
    }
}

fn joined<T: fmt::Display>(parts: &[T]) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(" . ")
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            HookKind::Filter => "filter",
            HookKind::Nat => "nat",
        };
        let at = match self.at {
            HookPoint::Prerouting => "prerouting",
            HookPoint::Input => "input",
            HookPoint::Forward => "forward",
            HookPoint::Output => "output",
            HookPoint::Postrouting => "postrouting",
        };
        write!(f, "type {kind} hook {at} priority {}; policy accept;", self.priority)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, item) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(" ")?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FieldType::Address => "ipv4_addr",
            FieldType::Protocol => "inet_proto",
            FieldType::Port => "inet_service",
            FieldType::Number => "mark",
        })
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Datum::Address(address) => address.fmt(f),
            Datum::Protocol(protocol) => protocol.fmt(f),
            Datum::Port(port) => port.fmt(f),
            Datum::Number(number) => number.fmt(f),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Saddr => "ip saddr",
            Field::Daddr => "ip daddr",
            Field::Protocol => "meta l4proto",
            Field::Sport => "th sport",
            Field::Dport => "th dport",
        })
    }
}

impl fmt::Display for Is {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Is::In => "",
            Is::NotIn => "!= ",
        })
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Interface::Name(name) => write!(f, "\"{name}\""),
            Interface::Prefix(prefix) => write!(f, "\"{prefix}*\""),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Saddr(is, cidr) => write!(f, "ip saddr {is}{}", without_full_prefix(*cidr)),
            Item::Daddr(is, cidr) => write!(f, "ip daddr {is}{}", without_full_prefix(*cidr)),
            Item::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Item::InSet(fields, is, set) => write!(f, "{} {is}@{set}", joined(fields)),
            Item::CtNew => f.write_str("ct state new"),
            Item::CtDnat => f.write_str("ct status dnat"),
            Item::Local(Side::Source) => f.write_str("fib saddr type local"),
            Item::Local(Side::Destination) => f.write_str("fib daddr type local"),
            Item::InInterface(is, interface) => write!(f, "iifname {is}{interface}"),
            Item::OutInterface(is, interface) => write!(f, "oifname {is}{interface}"),
            Item::MarkSet(bit) => write!(f, "meta mark set meta mark | {bit:#x}"),
            Item::MarkClear(bit) => write!(f, "meta mark set meta mark & {:#x}", !bit),
            Item::MarkHas(bit) => write!(f, "meta mark & {bit:#x} != 0"),
            Item::Verdict(verdict) => verdict.fmt(f),
            Item::Vmap(fields, map) => write!(f, "{} vmap @{map}", joined(fields)),
            Item::RejectTcpReset => f.write_str("reject with tcp reset"),
            Item::RejectPortUnreachable => f.write_str("reject"),
            Item::Masquerade => f.write_str("masquerade fully-random"),
            Item::DnatMap(fields, map) => write!(f, "dnat to {} map @{map}", joined(fields)),
            Item::DnatRandom { map, count } => write!(f, "dnat to numgen random mod {count} map @{map}"),
            Item::DnatLearned { learned } => write!(f, "update @{learned} dnat to ip saddr map @{learned}"),
            Item::DnatRandomLearn { map, count, learned } => {
                write!(f, "update @{learned} dnat to numgen random mod {count} map @{map}")
            }
        }
    }
}

fn without_full_prefix(cidr: Ipv4Cidr) -> String {
    if cidr.prefix() == 32 { cidr.network().to_string() } else { cidr.to_string() }
}
