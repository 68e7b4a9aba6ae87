//! The types a document mentions, each written once.
//!
//! Owns: how a type's facts look in OpenAPI v2 and v3.
//! Called by: `openapi`, and by the paths, which mention types.
//! Never: decides which types a document has: those its paths lead to.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Descriptions, Dialect, quoted};
use crate::registry;
use crate::schema::{Field, Form, ListType, Shape, Type};

/// Collects types while paths are written; [`Schemas::finish`] writes them and what they lead to.
pub struct Schemas<'d> {
    dialect: Dialect,
    descriptions: &'d Descriptions,
    wanted: BTreeSet<String>,
    open: Vec<String>,
    /// The group version of the document: options are a kind of it too.
    served: Vec<(String, String)>,
    further: Vec<(String, String)>,
}

impl<'d> Schemas<'d> {
    pub fn new(dialect: Dialect, descriptions: &'d Descriptions) -> Self {
        let (wanted, open, served, further) = Default::default();
        Self { dialect, descriptions, wanted, open, served, further }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }
    pub(super) fn descriptions(&self) -> &Descriptions {
        self.descriptions
    }

    /// The group version of the document.
    pub fn serve(&mut self, group: &str, version: &str) {
        self.served.push((group.into(), version.into()));
    }

    /// Mentions a type by its OpenAPI name; what it refers to comes along.
    pub fn want(&mut self, name: &str) {
        if self.wanted.insert(name.into()) {
            self.open.push(name.into());
        }
    }

    /// Adds a schema made elsewhere (a custom resource's), which may refer to built-in ones it has `want`ed.
    pub fn add(&mut self, name: &str, schema: String) {
        self.further.push((name.into(), schema));
    }

    pub fn finish(mut self) -> String {
        let mut written: Vec<(String, String)> = std::mem::take(&mut self.further);
        while let Some(name) = self.open.pop() {
            let text = match Type::named(&name) {
                Some(of) => self.object(of),
                None => self.special(&name),
            };
            written.push((name, text));
        }
        written.sort();
        let mut out = String::with_capacity(written.iter().map(|(n, t)| n.len() + t.len() + 4).sum());
        for (index, (name, text)) in written.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}\"{name}\":{text}").expect("writing to a String cannot fail");
        }
        out
    }

    fn describe(&self, out: &mut String, description: Option<&str>) {
        if let Some(text) = description {
            push(out, &format!("\"description\":\"{text}\""));
        }
    }

    fn object(&mut self, of: Type) -> String {
        let name = of.openapi_name();
        let mut out = String::new();
        match self.descriptions.of_type(&name) {
            None if is_list(of) => {
                let text = format!("{} is a collection of {} objects.", of.name(), of.name().trim_end_matches("List"));
                self.describe(&mut out, Some(&text));
            }
            text => self.describe(&mut out, text),
        }
        push(&mut out, r#""type":"object""#);
        let required: Vec<String> = required(of).map(|f| quoted(f.name())).collect();
        if !required.is_empty() {
            push(&mut out, &format!("\"required\":[{}]", required.join(",")));
        }
        if !of.fields().is_empty() {
            let fields: Vec<String> =
                of.fields().iter().map(|f| format!("{}:{}", quoted(f.name()), self.field(&name, *f))).collect();
            push(&mut out, &format!("\"properties\":{{{}}}", fields.join(",")));
        }
        if let Some(kinds) = self.kinds(of) {
            push(&mut out, &format!("\"x-kubernetes-group-version-kind\":[{kinds}]"));
        }
        if of.is_atomic() {
            push(&mut out, r#""x-kubernetes-map-type":"atomic""#);
        }
        if !of.unions().is_empty() {
            push(&mut out, &format!("\"x-kubernetes-unions\":{}", of.unions()));
        }
        format!("{{{out}}}")
    }

    fn field(&mut self, owner: &str, field: Field) -> String {
        let mut out = String::new();
        let mut values = field.enumeration().peekable();
        let is_enum = values.peek().is_some();
        // Lists are generic where the descriptions come from; their envelope means what it means everywhere.
        let typical = match field.name() {
            "apiVersion" | "kind" => self.descriptions.of_field("io.k8s.api.core.v1.Pod", field.name()),
            "metadata" => Some("Standard list metadata."),
            _ => None,
        };
        let is_list = owner.ends_with("List");
        match self.descriptions.of_field(owner, field.name()).or(typical.filter(|_| is_list)) {
            Some(text) if is_enum && matches!(field.form(), Form::String) => {
                // Upstream lists the values below the text, with a word about each that is not published with it.
                let list: String = values.map(|v| format!("\\n - `\\\"{v}\\\"`")).collect();
                push(&mut out, &format!("\"description\":\"{text}\\n\\nPossible enum values:{list}\""));
            }
            text => self.describe(&mut out, text),
        }
        let described = !out.is_empty();
        let default = default_of(field).filter(|_| self.dialect == Dialect::V3);
        match self.reference(field.shape()) {
            Some(reference) if self.dialect == Dialect::V3 && (described || default.is_some()) => {
                if let Some(default) = &default {
                    push(&mut out, &format!("\"default\":{default}"));
                }
                push(&mut out, &format!("\"allOf\":[{reference}]"));
            }
            Some(reference) => push(&mut out, &reference[1..reference.len() - 1]),
            None => {
                push(&mut out, &self.inline(field.shape(), field));
                if let Some(default) = &default {
                    push(&mut out, &format!("\"default\":{default}"));
                }
                if is_enum && field.form() == Form::String {
                    push(&mut out, &format!("\"enum\":[{}]", list(field.enumeration())));
                }
            }
        }
        self.extensions(&mut out, field);
        format!("{{{out}}}")
    }

    fn extensions(&self, out: &mut String, field: Field) {
        if !field.list_map_keys().is_empty() {
            let keys = list(field.list_map_keys().iter().copied());
            push(out, &format!("\"x-kubernetes-list-map-keys\":[{keys}]"));
        }
        if let Some(kind) = field.list_type() {
            let kind = match kind {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            push(out, &format!("\"x-kubernetes-list-type\":\"{kind}\""));
        }
        if !field.map_type().is_empty() {
            push(out, &format!("\"x-kubernetes-map-type\":\"{}\"", field.map_type()));
        }
        if !field.patch_merge_key().is_empty() {
            push(out, &format!("\"x-kubernetes-patch-merge-key\":\"{}\"", field.patch_merge_key()));
        }
        if !field.patch_strategy().is_empty() {
            push(out, &format!("\"x-kubernetes-patch-strategy\":\"{}\"", field.patch_strategy()));
        }
    }

    /// `{"$ref": ...}` of a shape that is a definition of its own.
    fn reference(&mut self, shape: Shape) -> Option<String> {
        let name = match shape.form() {
            Form::Object(of) => of.openapi_name(),
            form => special_name(form)?.into(),
        };
        self.want(&name);
        Some(format!("{{\"$ref\":\"{}{name}\"}}", self.dialect.reference()))
    }

    /// What stands in place: scalars, lists and maps, without the braces.
    fn inline(&mut self, shape: Shape, field: Field) -> String {
        match shape.form() {
            Form::String => match field.format() {
                "" => r#""type":"string""#.into(),
                format => format!(r#""type":"string","format":"{format}""#),
            },
            Form::Bool => r#""type":"boolean""#.into(),
            Form::Int32 => r#""type":"integer","format":"int32""#.into(),
            Form::Int64 => r#""type":"integer","format":"int64""#.into(),
            Form::Float64 => r#""type":"number","format":"double""#.into(),
            Form::Bytes => r#""type":"string","format":"byte""#.into(),
            Form::List(element) | Form::Items(element) => {
                format!(r#""type":"array","items":{}"#, self.element(element, field))
            }
            Form::Map(value) => format!(r#""type":"object","additionalProperties":{}"#, self.element(value, field)),
            _ => String::new(),
        }
    }

    fn element(&mut self, shape: Shape, field: Field) -> String {
        if let Some(reference) = self.reference(shape) {
            return reference;
        }
        let mut out = self.inline(shape, field);
        if shape.form() == Form::String && field.enumeration().next().is_some() {
            push(&mut out, &format!("\"enum\":[{}]", list(field.enumeration())));
        }
        format!("{{{out}}}")
    }

    /// Definitions that are no struct.
    fn special(&self, name: &str) -> String {
        let shape = match (name.rsplit('.').next().unwrap_or(name), self.dialect) {
            ("Quantity", Dialect::V3) => r#""oneOf":[{"type":"string"},{"type":"number"}]"#,
            ("IntOrString", Dialect::V3) => {
                r#""format":"int-or-string","oneOf":[{"type":"integer"},{"type":"string"}]"#
            }
            ("Quantity", Dialect::V2) => r#""type":"string""#,
            ("IntOrString", Dialect::V2) => r#""type":"string","format":"int-or-string""#,
            ("Time" | "MicroTime", _) => r#""type":"string","format":"date-time""#,
            ("RawExtension" | "FieldsV1" | "Patch", _) => r#""type":"object""#,
            _ => "",
        };
        let mut out = String::new();
        self.describe(&mut out, self.descriptions.of_type(name));
        if !shape.is_empty() {
            push(&mut out, shape);
        }
        format!("{{{out}}}")
    }

    /// The kinds that objects of this type are, as `x-kubernetes-group-version-kind` lists them.
    fn kinds(&self, of: Type) -> Option<String> {
        if !of.is_kind() && Type::meta("WatchEvent") != Some(of) {
            return None;
        }
        let entry = |group: &str, version: &str| {
            format!(r#"{{"group":"{group}","kind":"{}","version":"{version}"}}"#, of.name())
        };
        if matches!(of.name(), "DeleteOptions" | "WatchEvent") {
            let mut served = vec![("".to_string(), "v1".to_string())];
            served.extend(self.served.iter().filter(|s| !s.0.is_empty()).cloned());
            served.sort();
            return Some(served.iter().map(|(g, v)| entry(g, v)).collect::<Vec<_>>().join(","));
        }
        let (group, version) = group_version_of(of)?;
        Some(entry(group, version))
    }
}

fn is_list(of: Type) -> bool {
    of.name().ends_with("List") && of.field("items").is_some()
}

/// Which group and version a Go package stands for.
fn group_version_of(of: Type) -> Option<(&'static str, &'static str)> {
    if Type::meta(of.name()) == Some(of) {
        return Some(("", "v1"));
    }
    registry::groups().iter().find_map(|group| {
        let version = group.versions.iter().find(|v| Type::of_kind(group.name, v, of.name()) == Some(of))?;
        Some((group.name, *version))
    })
}

/// Required fields in the order of the Go struct.
fn required(of: Type) -> impl Iterator<Item = Field> {
    of.own_fields().flat_map(|f| match f.form() {
        Form::Object(inlined) if f.is_inline() => inlined.own_fields().filter(|f| f.is_required()).collect::<Vec<_>>(),
        _ if f.is_required() => vec![f],
        _ => Vec::new(),
    })
}

/// The default of a field: its own, or the zero value where Go cannot leave the field out.
fn default_of(field: Field) -> Option<String> {
    if let Some(default) = field.default() {
        return Some(default.into());
    }
    if field.is_pointer() {
        return None;
    }
    let always = !field.omits_empty() && !field.omits_zero();
    match field.form() {
        Form::Object(_) => Some("{}".into()),
        Form::String if always => Some("\"\"".into()),
        Form::Int32 | Form::Int64 | Form::Float64 if always => Some("0".into()),
        Form::Bool if always => Some("false".into()),
        _ => None,
    }
}

fn special_name(form: Form) -> Option<&'static str> {
    Some(match form {
        Form::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity",
        Form::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        Form::Time => "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
        Form::MicroTime => "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        Form::RawExtension => "io.k8s.apimachinery.pkg.runtime.RawExtension",
        Form::FieldsV1 => "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
        Form::Json => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
        Form::SchemaOrArray => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
        Form::SchemaOrBool => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
        Form::SchemaOrStrings => {
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray"
        }
        _ => return None,
    })
}

fn list<'v>(values: impl Iterator<Item = &'v str>) -> String {
    values.map(quoted).collect::<Vec<_>>().join(",")
}

/// Appends a member to the inside of a JSON object.
pub(super) fn push(out: &mut String, member: &str) {
    if !out.is_empty() && !member.is_empty() {
        out.push(',');
    }
    out.push_str(member);
}
