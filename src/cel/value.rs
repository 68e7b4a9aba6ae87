//! What an expression computes with.
//!
//! Owns: values, how JSON is seen as values by its type without copying it, equality, order, size.
//! Called by: the evaluation and the libraries.
//! Never: charges for anything.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use jiff::Timestamp;
use minik_api::quantity::Quantity;
use serde_json::Value as Json;

use crate::failure::Failure;
use crate::library::format::NamedFormat;
use crate::library::network::Cidr;
use crate::library::semver::Semver;
use crate::library::text;
use crate::library::url::Url;
use crate::types::{self, Fields, ListMerge, ListType, ObjectType, Type};

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// In nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    Type(Arc<str>),
    /// Made by the expression itself: `Object.spec{...}`.
    Object(Arc<Object<'a>>),
    Url(Arc<Url>),
    Ip(IpAddr),
    Cidr(Cidr),
    Quantity(Quantity),
    Semver(Arc<Semver>),
    Format(&'static NamedFormat),
    Host(Arc<dyn Host>),
}

/// A value whose functions are not this crate's: the authorizer.
pub trait Host: Send + Sync + fmt::Debug {
    fn type_name(&self) -> &'static str;
    /// Answers `function` called on this value.
    fn call(&self, function: &str, args: &[Value<'_>]) -> Result<Value<'static>, Failure>;
}

#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Text::Shared(text.into()))
    }
}
impl From<&str> for Value<'_> {
    fn from(text: &str) -> Self {
        Self::String(Text::Shared(text.into()))
    }
}
impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(items: Vec<Value<'a>>) -> Self {
        Self::List(List::Owned(Arc::new(items)))
    }
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Json { items: &'a [Json], of: &'a ListType },
    Owned(Arc<Vec<Value<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// All values are of one type.
    Json {
        fields: &'a serde_json::Map<String, Json>,
        of: &'a Type,
    },
    /// The fields that are declared.
    Object {
        fields: &'a serde_json::Map<String, Json>,
        of: &'a ObjectType,
    },
    Owned(Arc<BTreeMap<Key, Value<'a>>>),
}

#[derive(Clone, Debug)]
pub struct Object<'a> {
    pub name: String,
    pub fields: BTreeMap<String, Value<'a>>,
}

/// What a map can be asked for. `1` and `1u` are the same key, and remember what they were.
#[derive(Clone, Debug)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Arc<str>),
}

impl Key {
    pub fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Self::Bool(*b),
            Value::Int(i) => Self::Int(*i),
            Value::Uint(u) => Self::Uint(*u),
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 9e15 => Self::Int(*d as i64),
            Value::String(s) => Self::String((**s).into()),
            _ => return None,
        })
    }
    pub fn value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(i) => Value::Int(*i),
            Self::Uint(u) => Value::Uint(*u),
            Self::String(s) => Value::String(Text::Shared(s.clone())),
        }
    }
    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Self::Bool(b) => (0, i128::from(*b), ""),
            Self::Int(i) => (1, i128::from(*i), ""),
            Self::Uint(u) => (1, i128::from(*u), ""),
            Self::String(s) => (2, 0, s),
        }
    }
}
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}
impl Eq for Key {}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

static DYN: Type = Type::Dyn;
static DYN_LIST: LazyLock<ListType> = LazyLock::new(|| ListType { element: Type::Dyn, merge: ListMerge::Atomic });

impl<'a> Value<'a> {
    /// A view of `json` as a value of type `of`.
    pub fn typed(json: &'a Json, of: &'a Type) -> Self {
        match (json, of) {
            (Json::Null, _) => Self::Null,
            (Json::Number(n), Type::Double) => Self::Double(n.as_f64().unwrap_or(f64::NAN)),
            (Json::Number(n), Type::Int) if n.is_f64() => Self::Int(n.as_f64().unwrap_or(0.0) as i64),
            (Json::String(s), Type::Timestamp) => text::timestamp(s).map_or_else(|| Self::borrowed(s), Self::Timestamp),
            (Json::String(s), Type::Duration) => text::duration(s).map_or_else(|| Self::borrowed(s), Self::Duration),
            (Json::String(s), Type::Bytes) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(s);
                bytes.map_or_else(|_| Self::borrowed(s), |b| Self::Bytes(b.into()))
            }
            (Json::Array(items), Type::List(of)) => Self::List(List::Json { items, of }),
            (Json::Object(fields), Type::Map(of)) => Self::Map(Map::Json { fields, of: &of.1 }),
            (Json::Object(fields), Type::Object(of)) => Self::Map(Map::Object { fields, of }),
            _ => Self::plain(json),
        }
    }

    /// A view of `json` by nothing but its own shape. Whole numbers are ints, as literals in expressions are.
    pub fn plain(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => n.as_i64().map_or_else(|| Self::Double(n.as_f64().unwrap_or(f64::NAN)), Self::Int),
            Json::String(s) => Self::borrowed(s),
            Json::Array(items) => Self::List(List::Json { items, of: &DYN_LIST }),
            Json::Object(fields) => Self::Map(Map::Json { fields, of: &DYN }),
        }
    }

    pub fn borrowed(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }

    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(Map::Object { of, .. }) => &of.name,
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Object(object) => &object.name,
            Self::Url(_) => types::URL,
            Self::Ip(_) => types::IP,
            Self::Cidr(_) => types::CIDR,
            Self::Quantity(_) => types::QUANTITY,
            Self::Semver(_) => types::SEMVER,
            Self::Format(_) => types::FORMAT,
            Self::Host(host) => host.type_name(),
        }
    }

    /// How much there is of it: characters, bytes, elements; one for what has no parts.
    pub fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Cidr(cidr) => cidr.bytes(),
            Self::Ip(ip) => {
                if ip.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            Self::Url(url) => url.text.len(),
            Self::Optional(Some(value)) => return value.size(),
            _ => 1,
        };
        size as u64
    }

    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(b) => !b,
            Self::Int(i) => *i == 0,
            Self::Uint(u) => *u == 0,
            Self::Double(d) => *d == 0.0,
            Self::Duration(d) => *d == 0,
            Self::String(_) | Self::Bytes(_) | Self::List(_) | Self::Map(_) => self.size() == 0,
            Self::Optional(held) => held.is_none(),
            Self::Object(object) => object.fields.is_empty(),
            _ => false,
        }
    }

    pub fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::String(a), Value::String(b)) => **a == **b,
            (Self::Bytes(a), Value::Bytes(b)) => a == b,
            (Self::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Self::Duration(a), Value::Duration(b)) => a == b,
            (Self::List(a), Value::List(b)) => a.equals(b),
            (Self::Map(a), Value::Map(b)) => a.equals(b),
            (Self::Optional(None), Value::Optional(None)) => true,
            (Self::Optional(Some(a)), Value::Optional(Some(b))) => a.equals(b),
            (Self::Type(a), Value::Type(b)) => a == b,
            (Self::Object(a), Value::Object(b)) => a.equals(b),
            (Self::Url(a), Value::Url(b)) => a.text == b.text,
            (Self::Ip(a), Value::Ip(b)) => a == b,
            (Self::Cidr(a), Value::Cidr(b)) => a == b,
            (Self::Quantity(a), Value::Quantity(b)) => a == b,
            (Self::Semver(a), Value::Semver(b)) => a.cmp(b) == Ordering::Equal,
            (Self::Format(a), Value::Format(b)) => a.name == b.name,
            _ => self.compare_numbers(other) == Some(Ordering::Equal),
        }
    }

    fn compare_numbers(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Double(a), Value::Uint(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Int(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Uint(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
            _ => None,
        }
    }

    /// The order of two values, when they have one.
    pub fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Value::String(b)) => Some((**a).cmp(&**b)),
            (Self::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            _ => self.compare_numbers(other),
        }
    }

    /// The JSON of a value that an expression made.
    pub fn to_json(&self) -> Result<Json, String> {
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(b) => Json::Bool(*b),
            Self::Int(i) => Json::from(*i),
            Self::Uint(u) => Json::from(*u),
            Self::Double(d) => Json::from(*d),
            Self::String(s) => Json::String(s.to_string()),
            Self::Bytes(b) => Json::String(base64::engine::general_purpose::STANDARD.encode(b)),
            Self::Duration(d) => Json::String(text::duration_text(*d)),
            Self::Timestamp(t) => Json::String(text::timestamp_text(t)),
            Self::List(list) => list.iter().map(|item| item.to_json()).collect::<Result<Vec<_>, _>>()?.into(),
            Self::Map(map) => {
                let pairs = map.iter().map(|(key, value)| match key {
                    Key::String(key) => Ok((key.to_string(), value.to_json()?)),
                    other => Err(format!("map key {:?} is of type {}, not string", other, other.value().type_name())),
                });
                Json::Object(pairs.collect::<Result<_, _>>()?)
            }
            Self::Object(object) => {
                let pairs = object.fields.iter().map(|(key, value)| Ok((key.clone(), value.to_json()?)));
                Json::Object(pairs.collect::<Result<_, String>>()?)
            }
            other => return Err(format!("unsupported type conversion of {}", other.type_name())),
        })
    }
}

impl Object<'_> {
    fn equals(&self, other: &Object<'_>) -> bool {
        let same =
            |(key, value): (&String, &Value<'_>)| other.fields.get(key).is_some_and(|theirs| value.equals(theirs));
        self.name == other.name && self.fields.len() == other.fields.len() && self.fields.iter().all(same)
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json { items, .. } => items.len(),
            Self::Owned(items) => items.len(),
        }
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json { items, of } => items.get(index).map(|item| Value::typed(item, &of.element)),
            Self::Owned(items) => items.get(index).cloned(),
        }
    }
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
    pub fn merge(&self) -> &ListMerge {
        match self {
            Self::Json { of, .. } => &of.merge,
            Self::Owned(_) => &ListMerge::Atomic,
        }
    }

    fn equals(&self, other: &List<'_>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        match self.merge() {
            ListMerge::Atomic => self.iter().zip(other.iter()).all(|(a, b)| a.equals(&b)),
            ListMerge::Set => self.iter().all(|a| other.iter().any(|b| a.equals(&b))),
            ListMerge::Map(keys) => self.iter().all(|a| other.iter().any(|b| same_keys(keys, &a, &b) && a.equals(&b))),
        }
    }
}

/// Whether two elements of a map-like list are the same entry.
pub fn same_keys(keys: &[String], one: &Value<'_>, other: &Value<'_>) -> bool {
    let (Value::Map(one), Value::Map(other)) = (one, other) else { return false };
    keys.iter().all(|key| match (one.json(key), other.json(key)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => true,
        _ => false,
    })
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json { fields, .. } => fields.len(),
            Self::Object { .. } => self.iter().count(),
            Self::Owned(pairs) => pairs.len(),
        }
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn json(&self, key: &str) -> Option<&'a Json> {
        match self {
            Self::Json { fields, .. } | Self::Object { fields, .. } => fields.get(key),
            Self::Owned(_) => None,
        }
    }

    pub fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Owned(pairs), _) => pairs.get(&Key::of(key)?).cloned(),
            (_, Value::String(key)) => self.field(key),
            _ => None,
        }
    }

    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Json { fields, of } => fields.get(name).map(|value| Value::typed(value, of)),
            Self::Object { fields, of } => match &of.fields {
                Fields::Any => fields.get(name).map(Value::plain),
                Fields::Declared(declared) => {
                    let field = declared.get(name)?;
                    fields.get(&field.json).map(|value| Value::typed(value, &field.of))
                }
            },
            Self::Owned(pairs) => pairs.get(&Key::String(name.into())).cloned(),
        }
    }

    pub fn iter(&self) -> Box<dyn Iterator<Item = (Key, Value<'a>)> + '_> {
        match self {
            Self::Json { fields, of } => {
                Box::new(fields.iter().map(|(key, value)| (Key::String(key.as_str().into()), Value::typed(value, of))))
            }
            Self::Object { fields, of } => match &of.fields {
                Fields::Any => {
                    Box::new(fields.iter().map(|(key, value)| (Key::String(key.as_str().into()), Value::plain(value))))
                }
                Fields::Declared(declared) => Box::new(declared.iter().filter_map(|(name, field)| {
                    let value = fields.get(&field.json)?;
                    Some((Key::String(name.as_str().into()), Value::typed(value, &field.of)))
                })),
            },
            Self::Owned(pairs) => Box::new(pairs.iter().map(|(key, value)| (key.clone(), value.clone()))),
        }
    }

    fn equals(&self, other: &Map<'_>) -> bool {
        self.len() == other.len()
            && self.iter().all(|(key, value)| other.get(&key.value()).is_some_and(|theirs| value.equals(&theirs)))
    }
}
