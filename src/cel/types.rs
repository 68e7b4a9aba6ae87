//! What values can be.
//!
//! Owns: types, how messages spell them, and what makes a list or an object of a schema special.
//! Called by: the checker, the conversion of JSON into values, environments.
//! Never: holds a value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Dyn,
    /// Known at run time only, like `Dyn`, but nothing that a fold goes over.
    Any,
    /// Of an expression whose fault was already told.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    Type(Arc<Type>),
    List(Arc<ListType>),
    /// Of keys and values.
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    Object(Arc<ObjectType>),
    /// A type of a library: `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A placeholder in a declaration, or one that the checker made.
    Param(Arc<str>),
}

#[derive(Clone, Debug)]
pub struct ListType {
    pub element: Type,
    pub merge: ListMerge,
}

/// As `x-kubernetes-list-type` says: decides what `==` and `+` mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ListMerge {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// Two lists have the same type whatever they do when they are merged.
impl PartialEq for ListType {
    fn eq(&self, other: &Self) -> bool {
        self.element == other.element
    }
}

#[derive(Clone, Debug)]
pub struct ObjectType {
    pub name: String,
    pub fields: Fields,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

#[derive(Clone, Debug)]
pub enum Fields {
    /// By the name an expression uses.
    Declared(BTreeMap<String, ObjectField>),
    /// Every field exists, and nobody knows its type.
    Any,
}

#[derive(Clone, Debug)]
pub struct ObjectField {
    /// The name in JSON, which need not be an identifier.
    pub json: String,
    pub of: Type,
}

impl Type {
    pub fn list(element: Type) -> Self {
        Self::List(Arc::new(ListType { element, merge: ListMerge::Atomic }))
    }
    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }
    pub fn optional(of: Type) -> Self {
        Self::Optional(Arc::new(of))
    }
    /// An object of declared fields, whose names are the same in JSON.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Self {
        let fields = fields.into_iter().map(|(name, of)| (name.to_string(), ObjectField { json: name.into(), of }));
        Self::Object(Arc::new(ObjectType { name: name.into(), fields: Fields::Declared(fields.collect()) }))
    }

    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any | Self::Error)
    }

    /// The name `type(x)` has at run time.
    pub fn runtime_name(&self) -> &str {
        match self {
            Self::Dyn | Self::Error | Self::Param(_) => "dyn",
            Self::Any => "any",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Object(object) => &object.name,
            Self::Opaque(name) => name,
        }
    }

    /// The type a name stands for in an expression, as in `type(x) == int`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "dyn" => Self::Dyn,
            "null_type" => Self::Null,
            "list" => Self::list(Self::Dyn),
            "map" => Self::map(Self::Dyn, Self::Dyn),
            "type" => Self::Type(Arc::new(Self::Dyn)),
            "optional_type" => Self::optional(Self::Dyn),
            "google.protobuf.Timestamp" => Self::Timestamp,
            "google.protobuf.Duration" => Self::Duration,
            _ => Self::Opaque(OPAQUE.iter().find(|opaque| **opaque == name)?),
        })
    }
}

pub const URL: &str = "kubernetes.URL";
pub const QUANTITY: &str = "kubernetes.Quantity";
pub const SEMVER: &str = "kubernetes.Semver";
pub const FORMAT: &str = "kubernetes.NamedFormat";
pub const IP: &str = "net.IP";
pub const CIDR: &str = "net.CIDR";
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
pub const DECISION: &str = "kubernetes.authorization.Decision";

const OPAQUE: [&str; 11] =
    [URL, QUANTITY, SEMVER, FORMAT, IP, CIDR, AUTHORIZER, PATH_CHECK, GROUP_CHECK, RESOURCE_CHECK, DECISION];

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Param(name) => f.write_str(name),
            Self::Type(of) => write!(f, "type({of})"),
            Self::List(list) => write!(f, "list({})", list.element),
            Self::Map(map) => write!(f, "map({}, {})", map.0, map.1),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            _ => f.write_str(self.runtime_name()),
        }
    }
}
