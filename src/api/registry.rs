//! What resources exist: one row a resource, from which routes, discovery, storage and RBAC verbs follow.
//!
//! Owns: the table of everything v1.37 serves by default (`registry.table`) and the shape of a row, which
//! custom resources use too.
//! Called by: the API server for every request, discovery, OpenAPI, the garbage collector, the CLI.
//! Never: knows fields (that is `schema`) or which custom resources exist.

use std::borrow::Cow;
use std::sync::OnceLock;

use crate::ResourceId;

/// Borrowed from the table for built-in resources, owned for custom ones.
pub type Text = Cow<'static, str>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// What a client may do to a resource, as RBAC and discovery spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// In the alphabetical order of discovery.
    pub const ALL: [Verb; 8] = [
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }
}

impl std::str::FromStr for Verb {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Verb::ALL.into_iter().find(|v| v.as_str() == s).ok_or(())
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verbs(u8);

impl Verbs {
    pub const EVERYTHING: Verbs = Verbs(0xff);

    pub const fn of(verbs: &[Verb]) -> Verbs {
        let mut bits = 0;
        let mut i = 0;
        while i < verbs.len() {
            bits |= 1 << verbs[i] as u8;
            i += 1;
        }
        Verbs(bits)
    }
    pub const fn has(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |v| self.has(*v))
    }
}

/// Group, version and kind of a body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupVersionKind {
    pub group: Text,
    pub version: Text,
    pub kind: Text,
}

/// `pods/eviction`: an endpoint below an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Subresource {
    pub name: Text,
    /// The kind that is read or written there: `policy/v1 Eviction` below pods, often that of the resource itself.
    pub kind: GroupVersionKind,
    pub verbs: Verbs,
}

/// What a deletion does to dependents when the request does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    Delete,
    Orphan,
    /// Nothing, and nothing either when the request does say: it has none.
    Ignore,
}

/// When `metadata.generation` starts and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    pub starts_at_one: bool,
    /// Counts writes that change something besides metadata and status.
    pub counts_changes: bool,
}

/// Who may write `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusWrites {
    /// It is a field like any other, or there is none.
    WithTheObject,
    /// Through `/status` alone: create drops it, update keeps the old one.
    Separate,
    /// As `Separate`, but a create may bring one (a kubelet registers its Node with a status).
    SeparateAfterCreate,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    pub group: Text,
    pub version: Text,
    pub plural: Text,
    pub singular: Text,
    pub kind: Text,
    pub list_kind: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub scope: Scope,
    pub verbs: Verbs,
    pub subresources: Vec<Subresource>,
    /// Group and version its objects are stored in; plural and group there name the place in the store.
    pub stored_group: Text,
    pub stored_version: Text,
    /// The version that discovery's fingerprint of the storage is made of.
    pub hashed_version: Text,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<Text>,
    pub status: StatusWrites,
    pub generation: Generation,
    pub create_on_update: bool,
    /// An update without `resourceVersion` overwrites what is there.
    pub unconditional_update: bool,
    pub dependents: Dependents,
    /// A write to `/status` leaves labels, annotations, finalizers and owners as they are.
    pub status_keeps_metadata: bool,
    /// `/status` is never shown as a table.
    pub status_has_no_table: bool,
    /// A deletion answers with the object, not with a `Status`.
    pub returns_deleted: bool,
}

impl Resource {
    /// `apps/v1` or `v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
    /// `pods` or `deployments.apps`, as messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }
    /// `pods` or `deployments.apps` of the group its objects are stored in: the same for all versions.
    pub fn storage_name(&self) -> String {
        if self.stored_group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.stored_group)
        }
    }
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
    /// Whether objects exist, as opposed to a review that is answered and forgotten.
    pub fn is_stored(&self) -> bool {
        self.verbs.has(Verb::Watch)
    }
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
    pub fn kind(&self) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: self.kind.clone() }
    }
    /// The constant-like name, for built-in resources.
    pub fn id(&self) -> Option<ResourceId> {
        match (&self.group, &self.version, &self.plural) {
            (Cow::Borrowed(group), Cow::Borrowed(version), Cow::Borrowed(plural)) => {
                Some(ResourceId::new(group, version, plural))
            }
            _ => None,
        }
    }
}

/// `apps/v1`, or `v1` in the core group.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// `apps/v1` -> (`apps`, `v1`); `v1` -> (``, `v1`).
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// An API group in the order of discovery; the first version is the preferred one.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: &'static str,
    pub versions: Vec<&'static str>,
}

struct Registry {
    groups: Vec<Group>,
    resources: Vec<Resource>,
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| parse(include_str!("registry.table")))
}

/// All built-in resources, in the order of discovery.
pub fn resources() -> &'static [Resource] {
    &registry().resources
}

/// All built-in groups, core (named ``) first.
pub fn groups() -> &'static [Group] {
    &registry().groups
}

pub fn lookup(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

pub fn by_id(id: ResourceId) -> Option<&'static Resource> {
    lookup(id.group, id.version, id.plural)
}

pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// The resources of one version of a group, in the order of discovery.
pub fn of_version(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    resources().iter().filter(move |r| r.group == group && r.version == version)
}

fn parse(table: &'static str) -> Registry {
    let mut registry = Registry { groups: Vec::new(), resources: Vec::new() };
    for line in table.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let mut words = line.split(' ');
        let (Some(first), Some(second)) = (words.next(), words.next()) else {
            continue;
        };
        match first {
            "group" => {
                let name = if second == "-" { "" } else { second };
                registry.groups.push(Group { name, versions: Vec::new() });
            }
            "version" => last_group(&mut registry.groups).versions.push(second),
            plural => {
                let group = last_group(&mut registry.groups);
                let version = group.versions.last().expect("a version line precedes resources");
                registry.resources.push(parse_row(group.name, version, plural, second, words));
            }
        }
    }
    registry
}

fn last_group(groups: &mut [Group]) -> &mut Group {
    groups.last_mut().expect("a group line precedes all others")
}

fn list(words: &'static str) -> Vec<Text> {
    words.split(',').map(Cow::Borrowed).collect()
}

fn parse_row(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    mut words: std::str::Split<'static, char>,
) -> Resource {
    let scope = if words.next() == Some("N") { Scope::Namespaced } else { Scope::Cluster };
    let flags = words.next().unwrap_or("-");
    let mut row = Resource {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: kind.to_lowercase().into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope,
        verbs: Verbs::EVERYTHING,
        subresources: Vec::new(),
        stored_group: group.into(),
        stored_version: version.into(),
        hashed_version: version.into(),
        selectable_fields: Vec::new(),
        status: match flags {
            f if f.contains('S') => StatusWrites::Separate,
            f if f.contains('s') => StatusWrites::SeparateAfterCreate,
            _ => StatusWrites::WithTheObject,
        },
        generation: Generation { starts_at_one: flags.contains('1'), counts_changes: flags.contains('+') },
        create_on_update: flags.contains('c'),
        unconditional_update: !flags.contains('u'),
        status_keeps_metadata: flags.contains('m'),
        status_has_no_table: flags.contains('t'),
        dependents: match flags {
            f if f.contains('o') => Dependents::Orphan,
            f if f.contains('i') => Dependents::Ignore,
            _ => Dependents::Delete,
        },
        returns_deleted: flags.contains('d'),
    };
    for word in words {
        let (key, value) = word.split_once('=').expect("columns after the flags are key=value");
        match key {
            "verbs" => row.verbs = Verbs(value.split(',').map(bit).fold(0, |all, one| all | one)),
            "short" => row.short_names = list(value),
            "category" => row.categories = list(value),
            "sub" => row.subresources = value.split(',').map(|name| subresource(&row, name)).collect(),
            "fields" => row.selectable_fields = list(value),
            "store" => {
                let (group, version) = value.split_once('/').expect("store=GROUP/VERSION");
                row.stored_group = if group == "-" { "".into() } else { group.into() };
                row.stored_version = version.into();
                row.hashed_version = version.into();
            }
            "hashed" => row.hashed_version = value.into(),
            other => panic!("registry.table has no column {other}"),
        }
    }
    row
}

fn bit(verb: &str) -> u8 {
    1 << verb.parse::<Verb>().expect("registry.table names known verbs") as u8
}

const GET_PATCH_UPDATE: Verbs = Verbs::of(&[Verb::Get, Verb::Patch, Verb::Update]);
const CREATE: Verbs = Verbs::of(&[Verb::Create]);
const CREATE_GET: Verbs = Verbs::of(&[Verb::Create, Verb::Get]);
const PROXY: Verbs = Verbs::of(&[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update]);

/// A subresource means the same wherever it appears, so its name decides its kind and verbs.
fn subresource(parent: &Resource, name: &'static str) -> Subresource {
    let core = |kind: &'static str| ("", "v1", kind);
    let (verbs, foreign) = match name {
        "scale" => (GET_PATCH_UPDATE, Some(("autoscaling", "v1", "Scale"))),
        "eviction" => (CREATE, Some(("policy", "v1", "Eviction"))),
        "token" => (CREATE, Some(("authentication.k8s.io", "v1", "TokenRequest"))),
        "binding" => (CREATE, Some(core("Binding"))),
        "attach" => (CREATE_GET, Some(core("PodAttachOptions"))),
        "exec" => (CREATE_GET, Some(core("PodExecOptions"))),
        "portforward" => (CREATE_GET, Some(core("PodPortForwardOptions"))),
        "log" => (Verbs::of(&[Verb::Get]), None),
        "finalize" => (Verbs::of(&[Verb::Update]), None),
        "proxy" if parent.kind == "Pod" => (PROXY, Some(core("PodProxyOptions"))),
        "proxy" if parent.kind == "Service" => (PROXY, Some(core("ServiceProxyOptions"))),
        "proxy" => (PROXY, Some(core("NodeProxyOptions"))),
        _ => (GET_PATCH_UPDATE, None),
    };
    let kind = match foreign {
        Some((group, version, kind)) => {
            GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() }
        }
        None => parent.kind(),
    };
    Subresource { name: name.into(), kind, verbs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_of_the_release_is_served_core_first() {
        let names: Vec<String> =
            groups().iter().flat_map(|g| g.versions.iter().map(|v| api_version(g.name, v))).collect();
        assert_eq!(names[..3], ["v1", "apiregistration.k8s.io/v1", "apps/v1"]);
        assert_eq!(names.len(), 23);
        assert_eq!(groups().iter().find(|g| g.name == "autoscaling").map(|g| g.versions[0]), Some("v2"));
    }

    #[test]
    fn two_versions_of_one_kind_live_in_one_place() {
        let old = lookup("", "v1", "events").expect("core events");
        let new = lookup("events.k8s.io", "v1", "events").expect("events.k8s.io events");
        assert_eq!(old.storage_name(), new.storage_name());
        let v1 = lookup("autoscaling", "v1", "horizontalpodautoscalers").expect("v1");
        assert_eq!(v1.stored_version, "v2");
    }

    #[test]
    fn subresources_know_the_kind_they_take() {
        let pods = by_kind("", "v1", "Pod").expect("pods");
        let eviction = pods.subresource("eviction").expect("eviction");
        assert_eq!((eviction.kind.group.as_ref(), eviction.kind.kind.as_ref()), ("policy", "Eviction"));
        assert_eq!(eviction.verbs.iter().map(Verb::as_str).collect::<Vec<_>>(), ["create"]);
        assert_eq!(pods.subresource("status").expect("status").kind.kind, "Pod");
    }

    #[test]
    fn a_review_is_answered_and_not_stored() {
        let review = lookup("authorization.k8s.io", "v1", "subjectaccessreviews").expect("reviews");
        assert!(!review.is_stored() && review.verbs.has(Verb::Create) && !review.verbs.has(Verb::Get));
    }

    #[test]
    fn every_constant_names_a_row() {
        for id in [crate::resources::PODS, crate::resources::LEASES, crate::resources::EVENTS_K8S_IO] {
            assert_eq!(by_id(id).and_then(Resource::id), Some(id));
        }
    }
}
