//! Which resources this server serves at this moment: the built-in ones and those that were defined at run time.
//!
//! Owns: the table that every request looks its resource up in. A new table replaces the old one as a whole, so a
//! request sees one state of it and readers never wait.
//! Called by: routing, discovery, OpenAPI, admission.
//! Never: reads the store.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use minik_api::registry::{self, Resource};
use minik_api::schema::Type;
use minik_api::structure::Structure;
use minik_api::{ResourceId, Verb};

use crate::custom::Custom;

/// Where the fields of a resource are known from.
#[derive(Debug)]
pub enum Source {
    /// `None` for a kind that has no schema of its own; there is none at present.
    BuiltIn(Option<Type>),
    Custom(Box<Custom>),
}

/// One resource in one version.
#[derive(Debug)]
pub struct Served {
    pub row: Resource,
    pub source: Source,
    /// `{"kind":"Pod","apiVersion":"v1",`: how its stored objects begin.
    type_prefix: Vec<u8>,
    /// Where all its objects live; ends in a slash.
    folder: String,
}

impl Served {
    pub fn new(row: Resource, source: Source) -> Self {
        let type_prefix = format!(r#"{{"kind":"{}","apiVersion":"{}","#, row.kind, row.api_version()).into_bytes();
        let folder = format!("{}/", row.storage_name());
        Self { row, source, type_prefix, folder }
    }

    /// Where all its objects live.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Where an object lives; the same for all versions of a resource.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.row.is_namespaced() && !namespace.is_empty() {
            [&self.folder, namespace, "/", name].concat()
        } else {
            [&self.folder, name].concat()
        }
    }

    /// Where the objects of a namespace live, or all when `namespace` is empty.
    pub fn prefix(&self, namespace: &str) -> String {
        self.key(namespace, "")
    }

    /// Objects of this version are stored in it.
    pub fn is_stored_version(&self) -> bool {
        self.row.group == self.row.stored_group && self.row.version == self.row.stored_version
    }

    /// These stored bytes can be served as they are. Custom resources never are: their schema may have changed since
    /// they were written.
    pub fn can_copy(&self, value: &[u8]) -> bool {
        self.custom().is_none() && self.is_of_version(value)
    }

    /// The object is in this version, whatever else it is.
    pub fn is_of_version(&self, value: &[u8]) -> bool {
        value.starts_with(&self.type_prefix)
    }

    pub fn stored_api_version(&self) -> String {
        registry::api_version(&self.row.stored_group, &self.row.stored_version)
    }

    /// The stored bytes of an object of this version after its type, with which they begin.
    pub fn without_type<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        value.strip_prefix(self.type_prefix.as_slice())
    }

    pub fn structure(&self) -> Structure<'_> {
        match &self.source {
            Source::BuiltIn(_) => Structure::named(self.type_name()),
            Source::Custom(custom) => custom.structure(),
        }
    }

    /// As OpenAPI names it; empty for a custom resource.
    pub fn type_name(&self) -> &str {
        match &self.source {
            Source::BuiltIn(Some(of)) => openapi_name(*of),
            _ => "",
        }
    }

    /// The schema of a built-in kind.
    pub fn built_in(&self) -> Option<Type> {
        match self.source {
            Source::BuiltIn(of) => of,
            Source::Custom(_) => None,
        }
    }

    pub fn custom(&self) -> Option<&Custom> {
        match &self.source {
            Source::Custom(custom) => Some(custom),
            Source::BuiltIn(_) => None,
        }
    }
}

/// `Type::openapi_name` builds a string; requests need it often and there are few types.
fn openapi_name(of: Type) -> &'static str {
    use std::sync::OnceLock;
    static NAMES: OnceLock<HashMap<Type, String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let served = registry::resources().iter().filter_map(|r| Type::of_kind(&r.group, &r.version, &r.kind));
        served.map(|t| (t, t.openapi_name())).collect()
    });
    names.get(&of).map_or("", String::as_str)
}

/// A group with its versions, the preferred one first.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: String,
    pub versions: Vec<String>,
}

/// One state of the table.
pub struct Table {
    served: Vec<Arc<Served>>,
    /// By plural, which few share; of two for the same path the later counts.
    by_plural: HashMap<String, Vec<Arc<Served>>>,
    groups: Vec<Group>,
}

impl Table {
    fn new(served: Vec<Arc<Served>>) -> Self {
        let mut groups: Vec<Group> = registry::groups()
            .iter()
            .map(|g| Group { name: g.name.into(), versions: g.versions.iter().map(ToString::to_string).collect() })
            .collect();
        let mut by_plural: HashMap<String, Vec<Arc<Served>>> = HashMap::new();
        for one in &served {
            let (group, version) = (one.row.group.to_string(), one.row.version.to_string());
            match groups.iter_mut().find(|g| g.name == group) {
                Some(known) if !known.versions.contains(&version) => known.versions.push(version),
                Some(_) => {}
                None => groups.push(Group { name: group, versions: vec![version] }),
            }
            by_plural.entry(one.row.plural.to_string()).or_default().push(one.clone());
        }
        Self { served, by_plural, groups }
    }

    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.by_plural.get(plural)?.iter().rev().find(|s| s.row.group == group && s.row.version == version)
    }
    pub fn by_id(&self, id: ResourceId) -> Option<&Arc<Served>> {
        self.lookup(id.group, id.version, id.plural)
    }
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Served>> {
        self.served.iter().find(|s| s.row.kind == kind && s.row.group == group && s.row.version == version)
    }
    pub fn served(&self) -> &[Arc<Served>] {
        &self.served
    }
    /// Core first, then as discovery orders them.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == name)
    }
    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Served>> {
        self.served.iter().filter(move |s| s.row.group == group && s.row.version == version)
    }
}

pub struct Catalog {
    table: ArcSwap<Table>,
    built_in: Vec<Arc<Served>>,
}

impl Catalog {
    pub fn built_in() -> Self {
        let served = |row: &Resource| {
            let of = Type::of_kind(&row.group, &row.version, &row.kind);
            Arc::new(Served::new(row.clone(), Source::BuiltIn(of)))
        };
        let built_in: Vec<Arc<Served>> = registry::resources().iter().map(served).collect();
        Self { table: ArcSwap::from_pointee(Table::new(built_in.clone())), built_in }
    }

    pub fn now(&self) -> Arc<Table> {
        self.table.load_full()
    }

    pub fn lookup(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.table.load().lookup(group, version, plural).cloned()
    }

    /// Replaces all custom resources.
    pub fn set_custom(&self, custom: Vec<Arc<Served>>) {
        let all = self.built_in.iter().cloned().chain(custom).collect();
        self.table.store(Arc::new(Table::new(all)));
    }
}

/// `get`, `list`, ... as the registry's verb, when it is one of them.
pub fn verb(text: &str) -> Option<Verb> {
    text.parse().ok()
}
