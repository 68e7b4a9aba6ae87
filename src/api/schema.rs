//! What fields the objects of every built-in kind have, and how their lists merge.
//!
//! Owns: the facts of `schema.table` (written by `scripts/generate-schema`), parsed once at first use into arrays whose
//! strings stay in the binary: about 200 kB.
//! Called by: decoding, defaulting, merging, server-side apply, protobuf, OpenAPI.
//! Never: holds descriptions, or knows custom resources (they bring a schema of their own).

mod parse;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

/// A struct type such as `core/v1 PodSpec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type(u16);

/// One field of a type, with everything known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Field(u16);

/// What may stand in one place: a scalar, a type, a list or a map of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape(u16);

/// A shape, one level opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    String,
    Bool,
    Int32,
    Int64,
    Float64,
    /// base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
    /// Any object, opaque to the schema (`runtime.RawExtension`).
    RawExtension,
    /// The field set of a managed fields entry.
    FieldsV1,
    /// Any JSON value (`apiextensions.JSON`).
    Json,
    SchemaOrArray,
    SchemaOrBool,
    SchemaOrStrings,
    Object(Type),
    List(Shape),
    /// Keys are strings.
    Map(Shape),
    /// A list in JSON; protobuf wraps it into a message with one repeated field.
    Items(Shape),
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// Elements are told apart by `list_map_keys`.
    Map,
}

struct Package {
    /// `k8s.io/api/core/v1`
    path: &'static str,
}

struct TypeRow {
    name: &'static str,
    package: u16,
    atomic: bool,
    unions: &'static str,
    /// Its own fields in the order of the Go struct.
    fields: Range<u16>,
    /// Own and inlined fields sorted by JSON name.
    by_name: Box<[Field]>,
    /// Its own fields with a protobuf tag, in the order of tags.
    by_tag: Box<[Field]>,
    /// Those of `by_name` that Go writes even when nothing was said about them.
    always: Box<[Field]>,
}

struct FieldRow {
    name: &'static str,
    tag: u16,
    shape: Shape,
    flags: u8,
    extra: u16,
}

/// Of so many fields one is found soonest by looking at each: most names differ in their length already.
const FEW: usize = 16;

const POINTER: u8 = 1;
const OMIT_EMPTY: u8 = 2;
const OMIT_ZERO: u8 = 4;
const REQUIRED: u8 = 8;
const INLINE: u8 = 16;

/// The rarer facts; row 0 is that of fields that have none.
#[derive(Clone, Default, PartialEq)]
struct Extra {
    list_type: Option<ListType>,
    list_map_keys: Box<[&'static str]>,
    atomic: bool,
    granular: bool,
    patch_strategy: &'static str,
    patch_merge_key: &'static str,
    go_name: &'static str,
    enumeration: &'static str,
    format: &'static str,
    default: &'static str,
}

struct ShapeRow {
    form: Form,
    /// What Go calls it, where that does not follow from the form: `v1.Protocol`.
    go_name: &'static str,
}

struct Schema {
    packages: Vec<Package>,
    types: Vec<TypeRow>,
    fields: Vec<FieldRow>,
    extras: Vec<Extra>,
    shapes: Vec<ShapeRow>,
}

fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| parse::parse(include_str!("schema.table")))
}

/// Every built-in type.
pub fn types() -> impl Iterator<Item = Type> {
    (0..schema().types.len() as u16).map(Type)
}

/// The part of a group's name that its Go package has: `rbac` of `rbac.authorization.k8s.io`.
fn package_stem(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) }
}

impl Type {
    /// The type of a kind. `Status`, `DeleteOptions`, ... are known in every group and version.
    pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<Type> {
        let (stem, schema) = (package_stem(group), schema());
        let is_it = |path: &str| {
            let group = path.strip_suffix(version).and_then(|rest| rest.strip_suffix('/'));
            group.and_then(|rest| rest.strip_suffix(stem)).is_some_and(|rest| rest.ends_with('/'))
        };
        let package = schema.packages.iter().position(|p| is_it(p.path));
        // A package whose name matches by its stem alone (`apps.example.com`) must not lend its types to others.
        let known = group.is_empty() || group.ends_with(".k8s.io") || !group.contains('.');
        package.filter(|_| known).and_then(|p| Type::in_package(p as u16, kind)).or_else(|| Type::meta(kind))
    }

    /// As [`Type::of_kind`], from `apiVersion` and `kind` of an object.
    pub fn of(api_version: &str, kind: &str) -> Option<Type> {
        let (group, version) = crate::registry::split_api_version(api_version);
        Type::of_kind(group, version, kind)
    }

    /// By the name OpenAPI uses: `io.k8s.api.core.v1.Pod`.
    pub fn named(openapi_name: &str) -> Option<Type> {
        let (package, name) = openapi_name.strip_prefix("io.k8s.")?.rsplit_once('.')?;
        let matches =
            |path: &str| path["k8s.io/".len()..].bytes().map(|b| if b == b'/' { b'.' } else { b }).eq(package.bytes());
        let package = schema().packages.iter().position(|p| matches(p.path))?;
        Type::in_package(package as u16, name)
    }
    /// A type of the API itself, which is known to be there: `apps.v1`, `DaemonSetUpdateStrategy`.
    pub fn api(package: &str, name: &str) -> Type {
        Type::named(&format!("io.k8s.api.{package}.{name}")).expect("a built-in type")
    }

    /// A type of `meta/v1`, such as `ObjectMeta`.
    pub fn meta(name: &str) -> Option<Type> {
        let package = schema().packages.iter().position(|p| p.path == "k8s.io/apimachinery/pkg/apis/meta/v1")?;
        Type::in_package(package as u16, name)
    }

    fn in_package(package: u16, name: &str) -> Option<Type> {
        let types = &schema().types;
        let row = types.binary_search_by(|t| (t.package, t.name).cmp(&(package, name))).ok()?;
        Some(Type(row as u16))
    }

    fn row(self) -> &'static TypeRow {
        &schema().types[self.0 as usize]
    }

    /// `PodSpec`
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// `k8s.io/api/core/v1`
    pub fn package(self) -> &'static str {
        schema().packages[self.row().package as usize].path
    }
    /// `v1.PodSpec`, as Go names it in errors.
    pub fn go_name(self) -> String {
        format!("{}.{}", self.package().rsplit('/').next().unwrap_or_default(), self.name())
    }
    /// `io.k8s.api.core.v1.PodSpec`
    pub fn openapi_name(self) -> String {
        format!("io.k8s.{}.{}", self.package()["k8s.io/".len()..].replace('/', "."), self.name())
    }
    /// Replaced as a whole by server-side apply (`x-kubernetes-map-type: atomic`).
    pub fn is_atomic(self) -> bool {
        self.row().atomic
    }
    /// `x-kubernetes-unions` as JSON text, usually empty.
    pub fn unions(self) -> &'static str {
        self.row().unions
    }
    /// Whether objects of this type stand alone: they have `apiVersion` and `kind`.
    pub fn is_kind(self) -> bool {
        self.field("kind").is_some()
            && self.field("apiVersion").is_some()
            && self.own_fields().any(|f| f.is_inline() && f.tag() == 0)
    }
    /// The field of that JSON name, inlined ones included.
    pub fn field(self, name: &str) -> Option<Field> {
        self.position(name).map(|i| self.row().by_name[i])
    }
    /// Where in [`Type::fields`] that field is.
    pub fn position(self, name: &str) -> Option<usize> {
        let fields = &self.row().by_name;
        if fields.len() > FEW {
            return fields.binary_search_by(|f| f.name().cmp(name)).ok();
        }
        fields.iter().position(|f| f.name() == name)
    }
    /// The names of the inlined types through which a field of that name came to be one of this type.
    pub fn embedding(self, field: &str) -> Vec<&'static str> {
        if self.own_fields().any(|f| !f.is_inline() && f.name() == field) {
            return Vec::new();
        }
        let mut inlined = self.own_fields().filter(|f| f.is_inline()).filter_map(|f| f.shape().object());
        let Some(through) = inlined.find(|of| of.field(field).is_some()) else { return Vec::new() };
        [vec![through.name()], through.embedding(field)].concat()
    }
    /// All fields as JSON has them, inlined ones included, sorted by name.
    pub fn fields(self) -> &'static [Field] {
        &self.row().by_name
    }
    /// The fields of the Go struct (and of the protobuf message) in its order; inlined types are one field.
    pub fn own_fields(self) -> impl DoubleEndedIterator<Item = Field> {
        self.row().fields.clone().map(Field)
    }
    /// The fields of the protobuf message in the order of their tags; inlined types are one field.
    pub fn by_tag(self) -> &'static [Field] {
        &self.row().by_tag
    }
    /// `apiextensions.JSONSchemaProps`, which refers to itself through types with a wire form of their own.
    pub(crate) fn json_schema() -> Type {
        static SCHEMA: OnceLock<Type> = OnceLock::new();
        *SCHEMA.get_or_init(|| {
            Type::named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
                .expect("a built-in type")
        })
    }
    /// The fields that are written even when empty.
    pub fn always(self) -> &'static [Field] {
        &self.row().always
    }
    /// Follows JSON names through objects, list elements and map values: `["spec", "containers", "ports"]`.
    /// A map is passed by any key.
    pub fn at(self, path: &[&str]) -> Option<Field> {
        let (mut at, mut last) = (self.shape_of_elements(), None);
        for name in path {
            match at {
                Form::Object(object) => {
                    let field = object.field(name)?;
                    last = Some(field);
                    at = field.shape().innermost_object_or_map();
                }
                Form::Map(value) => at = value.innermost_object_or_map(),
                _ => return None,
            }
        }
        last
    }
    fn shape_of_elements(self) -> Form {
        Form::Object(self)
    }
}

impl Field {
    fn row(self) -> &'static FieldRow {
        &schema().fields[self.0 as usize]
    }
    fn extra(self) -> &'static Extra {
        &schema().extras[self.row().extra as usize]
    }
    /// The name in JSON; empty for an inlined type.
    pub fn name(self) -> &'static str {
        self.row().name
    }
    /// The number in protobuf; 0 where protobuf leaves it out.
    pub fn tag(self) -> u32 {
        self.row().tag.into()
    }
    pub fn shape(self) -> Shape {
        self.row().shape
    }
    pub fn form(self) -> Form {
        self.shape().form()
    }
    fn has(self, flag: u8) -> bool {
        self.row().flags & flag != 0
    }
    /// Absent and zero are different.
    pub fn is_pointer(self) -> bool {
        self.has(POINTER)
    }
    /// Left out of JSON when empty.
    pub fn omits_empty(self) -> bool {
        self.has(OMIT_EMPTY)
    }
    /// Left out of JSON when zero, which for a struct goes further than `omits_empty`.
    pub fn omits_zero(self) -> bool {
        self.has(OMIT_ZERO)
    }
    pub fn is_required(self) -> bool {
        self.has(REQUIRED)
    }
    /// Stands for the fields of another type, which JSON has in its place.
    pub fn is_inline(self) -> bool {
        self.has(INLINE)
    }
    /// How server-side apply merges this list; `None` when the field is no list or says nothing (which means atomic).
    pub fn list_type(self) -> Option<ListType> {
        self.extra().list_type
    }
    pub fn list_map_keys(self) -> &'static [&'static str] {
        &self.extra().list_map_keys
    }
    /// A map or struct that server-side apply replaces as a whole, said here or by its type.
    pub fn is_atomic(self) -> bool {
        self.extra().atomic || matches!(self.form(), Form::Object(t) if t.is_atomic())
    }
    /// `x-kubernetes-map-type` as the field says it itself; empty when it leaves that to its type.
    pub fn map_type(self) -> &'static str {
        match (self.extra().atomic, self.extra().granular) {
            (true, _) => "atomic",
            (_, true) => "granular",
            _ => "",
        }
    }
    /// `merge`, `replace`, `retainKeys` or `merge,retainKeys`; empty means replace.
    pub fn patch_strategy(self) -> &'static str {
        self.extra().patch_strategy
    }
    /// The key by which a strategic merge patch tells list elements apart; empty for lists of scalars.
    pub fn patch_merge_key(self) -> &'static str {
        self.extra().patch_merge_key
    }
    /// `APIVersion`
    pub fn go_name(self) -> Cow<'static, str> {
        let (said, name) = (self.extra().go_name, self.name());
        if !said.is_empty() {
            return said.into();
        }
        let (first, rest) = name.split_at(name.len().min(1));
        (first.to_ascii_uppercase() + rest).into()
    }
    /// The values allowed (in OpenAPI; validation has messages of its own).
    pub fn enumeration(self) -> impl Iterator<Item = &'static str> {
        let values = self.extra().enumeration;
        values.split(',').filter(move |_| !values.is_empty())
    }
    pub fn format(self) -> &'static str {
        self.extra().format
    }
    /// The default as JSON text, where it is a part of the schema: zero only where the field may be left out.
    pub fn default(self) -> Option<&'static str> {
        Some(self.extra().default).filter(|d| !d.is_empty())
    }
}

impl Shape {
    fn row(self) -> &'static ShapeRow {
        &schema().shapes[self.0 as usize]
    }
    pub fn form(self) -> Form {
        self.row().form
    }
    /// What Go calls it: `int32`, `v1.Protocol`, `[]v1.Container`, `map[string]string`.
    pub fn go_name(self) -> String {
        let row = self.row();
        if !row.go_name.is_empty() {
            return row.go_name.into();
        }
        match row.form {
            Form::String => "string".into(),
            Form::Bool => "bool".into(),
            Form::Int32 => "int32".into(),
            Form::Int64 => "int64".into(),
            Form::Float64 => "float64".into(),
            Form::Bytes => "[]uint8".into(),
            Form::Quantity => "resource.Quantity".into(),
            Form::IntOrString => "intstr.IntOrString".into(),
            Form::Time => "v1.Time".into(),
            Form::MicroTime => "v1.MicroTime".into(),
            Form::RawExtension => "runtime.RawExtension".into(),
            Form::FieldsV1 => "v1.FieldsV1".into(),
            Form::Json => "v1.JSON".into(),
            Form::SchemaOrArray => "v1.JSONSchemaPropsOrArray".into(),
            Form::SchemaOrBool => "v1.JSONSchemaPropsOrBool".into(),
            Form::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray".into(),
            Form::Object(object) => object.go_name(),
            Form::List(element) | Form::Items(element) => format!("[]{}", element.go_name()),
            Form::Map(value) => format!("map[string]{}", value.go_name()),
        }
    }
    /// The shape of list elements or map values.
    pub fn element(self) -> Option<Shape> {
        match self.form() {
            Form::List(element) | Form::Items(element) | Form::Map(element) => Some(element),
            _ => None,
        }
    }
    /// The type of this shape, or of the elements of this list or the values of this map.
    pub fn object(self) -> Option<Type> {
        match self.form() {
            Form::Object(object) => Some(object),
            _ => self.element().and_then(Shape::object),
        }
    }
    fn innermost_object_or_map(self) -> Form {
        match self.form() {
            Form::List(element) | Form::Items(element) => element.innermost_object_or_map(),
            form => form,
        }
    }
    /// Go's struct kinds: never empty for `omitempty`.
    pub(crate) fn is_struct(self) -> bool {
        !matches!(
            self.form(),
            Form::String
                | Form::Bool
                | Form::Int32
                | Form::Int64
                | Form::Float64
                | Form::Bytes
                | Form::List(_)
                | Form::Map(_)
                | Form::Items(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Type {
        Type::of("v1", "Pod").expect("Pod")
    }

    #[test]
    fn every_resource_and_its_list_has_a_type() {
        for r in crate::registry::resources() {
            let kind = Type::of_kind(&r.group, &r.version, &r.kind);
            assert!(kind.is_some_and(Type::is_kind), "{}", r.kind);
            if r.is_stored() {
                assert!(Type::of_kind(&r.group, &r.version, &r.list_kind).is_some(), "{}", r.list_kind);
            }
        }
    }

    #[test]
    fn a_path_leads_through_lists_and_inlined_types() {
        let ports = pod().at(&["spec", "containers", "ports"]).expect("ports");
        assert_eq!(ports.list_type(), Some(ListType::Map));
        assert_eq!(ports.list_map_keys(), ["containerPort", "protocol"]);
        assert_eq!(ports.patch_merge_key(), "containerPort");
        let config = pod().at(&["spec", "volumes", "configMap", "name"]).expect("two inlined types on the way");
        assert_eq!(config.shape().go_name(), "string");
    }

    #[test]
    fn options_are_known_in_every_group_and_strangers_in_none() {
        assert!(Type::of("apps/v1", "DeleteOptions").is_some());
        assert!(Type::of("apps.example.com/v1", "Deployment").is_none());
    }

    #[test]
    fn names_are_those_of_go_and_openapi() {
        let protocol = pod().at(&["spec", "containers", "ports", "protocol"]).expect("protocol");
        assert_eq!(protocol.shape().go_name(), "v1.Protocol");
        assert_eq!(protocol.default(), Some("\"TCP\""));
        let limits = pod().at(&["spec", "containers", "resources", "limits"]).expect("limits");
        assert_eq!(limits.shape().go_name(), "v1.ResourceList");
        assert_eq!(pod().openapi_name(), "io.k8s.api.core.v1.Pod");
        assert_eq!(Type::named("io.k8s.api.core.v1.Pod"), Some(pod()));
    }

    #[test]
    fn a_selector_is_replaced_as_a_whole() {
        let selector = Type::of("apps/v1", "Deployment").and_then(|t| t.at(&["spec", "selector"])).expect("selector");
        assert!(selector.is_atomic());
    }

    #[test]
    fn tables_stay_small() {
        let s = schema();
        let bytes = s.types.len() * size_of::<TypeRow>()
            + s.fields.len() * size_of::<FieldRow>()
            + s.extras.len() * size_of::<Extra>()
            + s.shapes.len() * size_of::<ShapeRow>()
            + s.types.iter().map(|t| (t.by_name.len() + t.always.len()) * 2).sum::<usize>();
        assert!(bytes < 250_000, "{bytes}");
    }
}
