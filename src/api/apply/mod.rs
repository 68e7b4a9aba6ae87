//! Server-side apply, and who owns which field.
//!
//! Owns: `metadata.managedFields`: what a write by a manager does to it, and the conflicts of an apply.
//! Called by: the API server for every write.
//! Never: reads the clock (`now` is given), fills defaults, or validates the result.

mod last_applied;
mod managers;
mod scale;
mod set;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::registry::StatusWrites;
use crate::schema::Form;
use crate::status::{Cause, Details};
use crate::structure::Structure;
use crate::{Status, decode, object, registry};
use managers::Entry;
pub use scale::{managers_of_scale, take_managers_of_scale};
use set::Set;

/// What a write was, as a managed fields entry says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One write to an object, as far as ownership cares.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    pub manager: &'a str,
    pub api_version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// RFC 3339.
    pub now: &'a str,
    /// Top-level fields such a write cannot change (`status`, or `spec` when it is about the status); nobody comes to
    /// own them by it.
    pub ignored: &'a [&'a str],
}

impl<'a> Write<'a> {
    fn manager_name(&self) -> &'a str {
        if self.manager.is_empty() { "unknown" } else { self.manager }
    }
}

/// The manager that what was there before the first apply belongs to.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const KUBECTL: &str = "kubectl";

/// Lays `said` over `live` without any ownership: what admission policies do.
pub fn merge(structure: Structure<'_>, live: &Value, said: &Value) -> Value {
    walk::merge(structure, live, said, true)
}

/// Merges what `manager` wants to say about the object into the live one. A field that another manager owns with
/// another value is a conflict (409) unless `force`. `type_name` is that of OpenAPI: `io.k8s.api.core.v1.Pod`;
/// `now` is RFC 3339. The result still wants decoding and defaults.
pub fn apply(
    live: Option<&Value>,
    applied: &Value,
    manager: &str,
    force: bool,
    type_name: &str,
    subresource: &str,
    now: &str,
) -> Result<Value, Status> {
    let api_version = applied["apiVersion"].as_str().unwrap_or_default();
    let ignored = ignored_fields(applied, subresource);
    let write = Write { manager, api_version, subresource, now, ignored };
    apply_to(live, applied, force, Structure::named(type_name), &write)
}

/// As `apply`, for any schema.
pub fn apply_to(
    live: Option<&Value>,
    applied: &Value,
    force: bool,
    structure: Structure<'_>,
    write: &Write<'_>,
) -> Result<Value, Status> {
    if !applied["metadata"]["managedFields"].is_null() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let known = live.map(managers::decode);
    let Some(mut entries) = known.unwrap_or(Some(Vec::new())) else {
        return Err(Status::internal("failed to decode managed fields"));
    };
    let empty = empty_object(structure);
    let bare = live.map_or_else(|| empty.clone(), without_managed_fields);
    if entries.is_empty() && live.is_some() {
        let before = Write { manager: BEFORE_FIRST_APPLY, ..*write };
        entries = record(walk::compare(structure, &empty, &bare), entries, &before);
        entries.iter_mut().for_each(|e| e.time = Some(write.now.into()));
    }
    let applier = Applier { structure, write, live: &bare };
    let outcome = match applier.run(applied, entries.clone(), force) {
        Err(Refusal::Conflicts(conflicts)) if write.manager == KUBECTL => {
            applier.take_over(applied, entries, conflicts)?
        }
        Err(refusal) => return Err(refusal.into_status(applied)),
        Ok(outcome) => outcome,
    };
    Ok(applier.finish(applied, live, outcome))
}

/// What apply itself would say of a configuration that is no object of its type; nothing when it would not notice.
pub fn check(applied: &Value, structure: Structure<'_>) -> Result<(), Status> {
    walk::said(structure, applied).map(drop).map_err(|fault| Refusal::Schema(fault).into_status(applied))
}

/// Fields of a built-in kind that a write to this subresource (empty: the object itself) cannot change.
pub fn ignored_fields(object: &Value, subresource: &str) -> &'static [&'static str] {
    let (group, version) = registry::split_api_version(object["apiVersion"].as_str().unwrap_or_default());
    let kind = object["kind"].as_str().unwrap_or_default();
    let resource = registry::by_kind(group, version, kind);
    match (subresource, resource.map(|r| r.status)) {
        // What was asked for is what is approved: nobody changes it, and so nobody owns it.
        ("", _) if kind == "CertificateSigningRequest" && group == "certificates.k8s.io" => &["spec", "status"],
        ("status", _) => &["spec"],
        ("", Some(StatusWrites::Separate | StatusWrites::SeparateAfterCreate)) => &["status"],
        _ => &[],
    }
}

/// What Go holds before anything was said: the fields it always writes.
fn empty_object(structure: Structure<'_>) -> Value {
    match structure {
        Structure::Builtin(Form::Object(of), _) => decode::zero_object(of),
        _ => json!({}),
    }
}

fn without_managed_fields(object: &Value) -> Value {
    let mut bare = object.clone();
    if let Some(metadata) = bare["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    bare
}

fn top_level(fields: &[&str]) -> Set {
    let mut set = Set::default();
    for field in fields {
        set.insert(&[set::field_edge(field)]);
    }
    set
}

/// Identity and what the server sets: never owned by anybody.
const NOBODYS: [&str; 2] = ["apiVersion", "kind"];
const NOBODYS_METADATA: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// The same, and `metadata` itself.
fn stripped() -> &'static Set {
    static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
        let mut set = top_level(&NOBODYS);
        set.insert(&[set::field_edge("metadata")]);
        for field in NOBODYS_METADATA {
            set.insert(&[set::field_edge("metadata"), set::field_edge(field)]);
        }
        set
    });
    &STRIPPED
}

struct Applier<'a> {
    structure: Structure<'a>,
    write: &'a Write<'a>,
    live: &'a Value,
}

struct Outcome {
    object: Value,
    entries: Vec<Entry>,
    changed: bool,
}

struct Conflict {
    owner: Entry,
    fields: Set,
}

enum Refusal {
    Conflicts(Vec<Conflict>),
    Schema(walk::SchemaFault),
}

impl Applier<'_> {
    fn entry(&self, fields: Set) -> Entry {
        Entry {
            manager: self.write.manager_name().into(),
            operation: Operation::Apply,
            api_version: self.write.api_version.into(),
            subresource: self.write.subresource.into(),
            time: None,
            fields,
        }
    }

    fn run(&self, applied: &Value, mut entries: Vec<Entry>, force: bool) -> Result<Outcome, Refusal> {
        let ignored = top_level(self.write.ignored);
        let said = walk::said(self.structure, applied).map_err(Refusal::Schema)?.without_trees(&ignored);
        let mine = self.entry(said);
        let last = entries.iter().position(|e| e.is_same_manager(&mine)).map(|i| entries.remove(i));
        let merged = walk::merge(self.structure, self.live, applied, true);
        let mut object = match &last {
            Some(last) => self.prune(&merged, &entries, &mine, &last.fields),
            None => merged.clone(),
        };
        let comparison = walk::compare(self.structure, self.live, &object).without(self.write.ignored);
        let taken = comparison.modified.union(&comparison.added);
        let conflicts: Vec<Conflict> = entries
            .iter()
            .map(|owner| Conflict { owner: owner.clone(), fields: owner.fields.intersection(&taken) })
            .filter(|c| !c.fields.is_empty())
            .collect();
        if !force && !conflicts.is_empty() {
            return Err(Refusal::Conflicts(conflicts));
        }
        for entry in &mut entries {
            entry.fields.subtract(&taken);
            entry.fields.subtract(&comparison.removed);
        }
        let changed = !comparison.is_same();
        walk::drop_removed(&mut object, &merged);
        let fields = mine.fields.difference(stripped());
        // The time says when the manager last changed the object. One that only said what was there has none.
        let time = if changed { Some(self.write.now.into()) } else { last.and_then(|l| l.time) };
        entries.push(Entry { fields, time, ..mine });
        Ok(Outcome { object, entries, changed })
    }

    /// Removes what this applier said last time, says no more, and nobody else owns.
    fn prune(&self, merged: &Value, others: &[Entry], mine: &Entry, last: &Set) -> Value {
        let structure = self.structure;
        let named = |set: &Set| set.with_named_fields(structure);
        let last = named(last);
        let bare = walk::remove(structure, merged, &last);
        let owned = others.iter().fold(mine.fields.clone(), |all, e| all.union(&e.fields));
        let all = named(&walk::present(structure, merged));
        // What others own stays, with everything around it that was not the applier's.
        let kept = named(&walk::present(structure, &bare)).union(&named(&owned));
        let kept = walk::remove(structure, merged, &all.difference(&kept));
        let gone = all.difference(&named(&walk::present(structure, &kept))).intersection(&last);
        walk::remove(structure, merged, &gone)
    }

    /// Conflicts about fields that kubectl's own client-side apply had set, and nobody else since, are no conflicts.
    fn take_over(&self, applied: &Value, entries: Vec<Entry>, conflicts: Vec<Conflict>) -> Result<Outcome, Status> {
        let allowed = last_applied::unchanged(self.structure, self.live, self.write.api_version);
        let left: Vec<Conflict> = conflicts
            .into_iter()
            .map(|c| Conflict { fields: c.fields.difference(&allowed), owner: c.owner })
            .filter(|c| !c.fields.is_empty())
            .collect();
        if !left.is_empty() {
            return Err(Refusal::Conflicts(left).into_status(applied));
        }
        self.run(applied, entries, true).map_err(|refusal| refusal.into_status(applied))
    }

    fn finish(&self, applied: &Value, live: Option<&Value>, outcome: Outcome) -> Value {
        let Outcome { mut object, entries, changed } = outcome;
        let former = live.and_then(managers::decode).unwrap_or_default();
        match live {
            Some(live) if !changed && former == entries => object = live.clone(),
            _ => managers::write(&mut object, entries),
        }
        if self.write.manager == KUBECTL {
            last_applied::follow(&mut object, applied);
        }
        object
    }
}

impl Refusal {
    fn into_status(self, applied: &Value) -> Status {
        match self {
            Refusal::Conflicts(conflicts) => conflict_status(&conflicts),
            Refusal::Schema(fault) => {
                let (namespace, name) = (object::namespace(applied), object::name(applied));
                let version = applied["apiVersion"].as_str().unwrap_or_default();
                // Go prints the core group as an empty one before the slash.
                let version = if version.contains('/') { version.to_string() } else { format!("/{version}") };
                let kind = applied["kind"].as_str().unwrap_or_default();
                let about = format!("{namespace}/{name}; {version}, Kind={kind}");
                Status::new(500, "", format!("failed to create typed patch object ({about}): {fault}"))
            }
        }
    }
}

fn conflict_status(conflicts: &[Conflict]) -> Status {
    let mut causes = Vec::new();
    let mut sections = Vec::new();
    for conflict in conflicts {
        let (title, paths) = (conflict.owner.title(), conflict.fields.paths());
        sections.push(format!("conflicts with {title}:"));
        for path in paths {
            sections.push(format!("- {path}"));
            let message = format!("conflict with {title}");
            causes.push(Cause { reason: "FieldManagerConflict".into(), message, field: path });
        }
    }
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), sections.join("\n")),
    };
    let details = Details { causes, ..Details::default() };
    Status { details: Some(details), ..Status::new(409, "Conflict", message) }
}

/// Entries after such a change: the writer owns what changed, and who owned it before does not any more.
fn record(change: walk::Comparison, mut entries: Vec<Entry>, write: &Write<'_>) -> Vec<Entry> {
    let walk::Comparison { added, modified, removed, .. } = change.without(write.ignored);
    let mut fields = modified;
    fields.absorb_all(added);
    for entry in &mut entries {
        entry.fields.subtract(&fields);
        entry.fields.subtract(&removed);
    }
    fields.subtract(stripped());
    if fields.is_empty() {
        return entries;
    }
    let mine = Entry::of_update(write, fields);
    match entries.iter_mut().find(|e| e.is_same_manager(&mine)) {
        Some(entry) => {
            entry.fields.absorb_all(mine.fields);
            entry.time = mine.time;
        }
        None => entries.push(mine),
    }
    entries
}

/// Records in `new` that `manager` wrote what differs from `old`. Called after decoding and defaults and before
/// `strategy::prepare_*` and admission: what the server adds belongs to nobody.
#[expect(clippy::too_many_arguments, reason = "each is one fact of the managed fields entry")]
pub fn track_update(
    old: Option<&Value>,
    new: &mut Value,
    manager: &str,
    operation: Operation,
    type_name: &str,
    api_version: &str,
    subresource: &str,
    now: &str,
) {
    let ignored = ignored_fields(new, subresource);
    let write = Write { manager, api_version, subresource, now, ignored };
    if operation == Operation::Update {
        track_update_of(old, new, Structure::named(type_name), &write);
    }
}

/// As `track_update`, for any schema.
pub fn track_update_of(old: Option<&Value>, new: &mut Value, structure: Structure<'_>, write: &Write<'_>) {
    let former = || old.and_then(managers::decode).unwrap_or_default();
    // A client may edit the entries themselves, though not by way of a subresource; one that does not know them must
    // not delete them by leaving them out.
    let entries = if !write.subresource.is_empty() {
        former()
    } else if managers::is_reset(new) {
        Vec::new()
    } else {
        managers::decode(new).filter(|e| !e.is_empty()).unwrap_or_else(former)
    };
    if let Some(metadata) = new["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    if entries.is_empty() && old.is_some() {
        // Once nobody is known nobody is remembered, until the first apply.
        return;
    }
    let empty = empty_object(structure);
    if entries.is_empty() {
        let mut creation = walk::Creation { ignored: write.ignored, keyless: false };
        let fields = creation.fields(structure, &empty, new);
        if !creation.keyless && !fields.is_empty() {
            managers::write_first(new, write, fields);
        }
        return;
    }
    let change = walk::compare(structure, old.unwrap_or(&empty), new);
    if change.keyless {
        // Nobody can own what has no name, so that such a write leaves everybody as they were.
        return managers::keep(new, old);
    }
    managers::write(new, managers::fold(record(change, entries, write)));
}
