//! Every kind in JSON, YAML and protobuf: what is read from one is written in the others, and nothing gets lost.
//!
//! Owns: filled objects made from the schema, and reading the ones upstream publishes, where they can be had.
//! Called by: the test harness. `API_TESTDATA` names a folder like `testdata` of the module k8s.io/api; Go's module
//! cache is looked at without it. Upstream's objects are never kept here.
//! Never: compares the order of fields or the quotes of YAML, which mean nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use minik_api::schema::{Form, Shape, Type};
use minik_api::wire::protobuf;
use minik_api::{Resource, decode, registry};
use serde_json::{Map, Value, json};

const RELEASE: &str = "k8s.io/api@v0.37.2";
/// The folder of the present release; the others are named for older ones.
const HEAD: &str = "HEAD";
/// Served kinds whose types are not in that module.
const ELSEWHERE: [&str; 2] = ["CustomResourceDefinition", "APIService"];

/// An object, and what strict decoding would say about it.
type Read = Result<(Value, Vec<String>), String>;

fn read_json(of: Type, text: &[u8]) -> Read {
    decode::from_json(of, text).map(|d| (d.object, d.strict)).map_err(|e| format!("{e:?}"))
}

fn read_yaml(of: Type, text: &[u8]) -> Read {
    let tree: Value = serde_yaml::from_slice(text).map_err(|e| e.to_string())?;
    decode::from_value(of, tree).map(|d| (d.object, d.strict)).map_err(|e| format!("{e:?}"))
}

fn read_protobuf(bytes: &[u8]) -> Read {
    protobuf::decode(bytes).map(|o| (o, Vec::new())).map_err(|e| e.to_string())
}

/// What differs first, with its surroundings.
fn check<T: PartialEq + std::fmt::Debug>(faults: &mut Vec<String>, name: &str, way: &str, got: &T, want: &T) {
    if got != want {
        let (got, want) = (format!("{got:?}"), format!("{want:?}"));
        let at = got.chars().zip(want.chars()).take_while(|(a, b)| a == b).count().saturating_sub(60);
        let cut = |text: &str| text.chars().skip(at).take(200).collect::<String>();
        faults.push(format!("{name} {way}\n  got  {}\n  want {}", cut(&got), cut(&want)));
    }
}

/// From each encoding to each, through the object it means.
fn travels(faults: &mut Vec<String>, name: &str, of: Type, object: &Value) {
    let whole = Ok((object.clone(), Vec::new()));
    check(faults, name, "JSON", &read_json(of, object.to_string().as_bytes()), &whole);
    let yaml = serde_yaml::to_string(object).expect("a tree has string keys");
    check(faults, name, "YAML", &read_yaml(of, yaml.as_bytes()), &whole);
    let bytes = protobuf::encode(object).map_err(|e| e.to_string());
    check(faults, name, "protobuf", &bytes.and_then(|b| read_protobuf(&b)), &whole);
}

/// `within`: the types this place lies in.
fn fill_shape(shape: Shape, within: &[Type]) -> Value {
    match shape.form() {
        Form::String => json!("\"Ω\" and: # 1\nmore"),
        Form::Bool => json!(true),
        Form::Int32 => json!(i32::MIN),
        Form::Int64 => json!(i64::MAX),
        Form::Float64 => json!(0.1),
        Form::Bytes => json!("AP/+"),
        Form::Quantity => json!("1500m"),
        Form::IntOrString => json!("80%"),
        Form::Time => json!("2024-02-29T23:59:59Z"),
        Form::MicroTime => json!("2024-02-29T23:59:59.000001Z"),
        Form::RawExtension => json!({"apiVersion": "example.com/v1", "kind": "Any", "yes": ["no", null, 1.5, {}]}),
        Form::FieldsV1 => json!({"f:metadata": {"f:labels": {".": {}, "k:{\"a\":1}": {}}}}),
        Form::Json => json!({"any": [1, "two", null, {"three": 3.5}]}),
        Form::SchemaOrArray => json!({"type": "string"}),
        Form::SchemaOrBool => json!(false),
        Form::SchemaOrStrings => json!(["a", "b"]),
        Form::Object(of) => fill(of, within),
        Form::List(of) | Form::Items(of) => json!([fill_shape(of, within), fill_shape(of, within)]),
        Form::Map(of) => json!({"": fill_shape(of, within), "a/b.c": fill_shape(of, within)}),
    }
}

fn holds(shape: Shape, of: Type) -> bool {
    match shape.form() {
        Form::Object(inner) => inner == of,
        Form::List(inner) | Form::Items(inner) | Form::Map(inner) => holds(inner, of),
        _ => false,
    }
}

/// An object whose every field says something, but for those that would begin the same type within itself.
fn fill(of: Type, within: &[Type]) -> Value {
    // Protobuf has no place for the kind of an object that lies within another.
    let unsaid = |name: &str| !within.is_empty() && of.is_kind() && ["apiVersion", "kind"].contains(&name);
    let types = [within, &[of]].concat();
    let whole = of.fields().iter().filter(|f| !unsaid(f.name()) && !types.iter().any(|t| holds(f.shape(), *t)));
    Value::Object(whole.map(|f| (f.name().to_string(), fill_shape(f.shape(), &types))).collect::<Map<_, _>>())
}

/// An object of the resource's kind that says something in every field, sensible to the encodings alone.
pub fn filled(resource: &Resource) -> Value {
    let of = Type::of_kind(&resource.group, &resource.version, &resource.kind).expect("a kind of the schema");
    let mut object = fill(of, &[]);
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.as_ref().into();
    object
}

#[test]
fn every_field_of_every_kind_survives_each_encoding() {
    let (mut faults, resources) = (Vec::new(), registry::resources());
    for resource in resources {
        let of = Type::of_kind(&resource.group, &resource.version, &resource.kind).expect("a kind of the schema");
        travels(&mut faults, &resource.qualified(), of, &filled(resource));
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), resources.len(), faults.join("\n"));
}

fn published() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("API_TESTDATA") {
        return Some(folder.into());
    }
    let cache = std::env::var_os("GOMODCACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join("go/pkg/mod")))?;
    Some(cache.join(RELEASE).join("testdata")).filter(|f| f.is_dir())
}

/// One of upstream's objects in its encodings, and what it is after it was read and written again.
struct Published {
    name: String,
    folder: PathBuf,
}

impl Published {
    fn file(&self, extension: &str) -> Vec<u8> {
        let path = self.folder.join(format!("{}.{extension}", self.name));
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn after(&self, extension: &str) -> Vec<u8> {
        let path = self.folder.join(format!("{}.after_roundtrip.{extension}", self.name));
        std::fs::read(path).unwrap_or_else(|_| self.file(extension))
    }

    fn object(&self) -> Value {
        serde_json::from_slice(&self.after("json")).expect("upstream's JSON")
    }

    fn compare(&self, faults: &mut Vec<String>, of: Type) {
        let release = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{release} {}", self.name);
        // What an older release had and this one has not is unknown here, and was lost upstream too.
        let strictly = |read: Read| read.map(|(o, strict)| (o, if release == HEAD { strict } else { Vec::new() }));
        let (want, binary) = (self.object(), self.file("pb"));
        let whole = Ok((want.clone(), Vec::new()));
        check(faults, &name, "JSON -> object", &strictly(read_json(of, &self.file("json"))), &whole);
        check(faults, &name, "YAML -> object", &strictly(read_yaml(of, &self.file("yaml"))), &whole);
        check(faults, &name, "protobuf -> object", &read_protobuf(&binary), &whole);
        let written = protobuf::encode(&want).map_err(|e| e.to_string());
        check(faults, &name, "object -> protobuf", &written, &Ok(self.after("pb")));
        travels(faults, &name, of, &want);
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|e| e.expect("an entry").path()).collect()
}

fn objects(folder: &Path) -> Vec<Published> {
    let names =
        entries(folder).into_iter().filter_map(|p| Some(p.file_name()?.to_str()?.strip_suffix(".json")?.to_string()));
    let names = names.filter(|n| !n.ends_with(".after_roundtrip"));
    names.map(|name| Published { name, folder: folder.to_path_buf() }).collect()
}

#[test]
fn upstreams_published_objects_are_the_same_in_all_directions() {
    let Some(root) = published() else {
        eprintln!("skipped: neither API_TESTDATA nor Go's module cache has the testdata of {RELEASE}");
        return;
    };
    let (mut faults, mut now, mut compared) = (Vec::new(), BTreeSet::new(), 0);
    for folder in entries(&root).into_iter().filter(|p| p.is_dir()) {
        for one in objects(&folder) {
            let object = one.object();
            let said = |field: &str| object[field].as_str().unwrap_or_default().to_string();
            let (api_version, kind) = (said("apiVersion"), said("kind"));
            let Some(of) = Type::of(&api_version, &kind) else { continue };
            compared += 1;
            one.compare(&mut faults, of);
            if folder.ends_with(HEAD) {
                now.insert((api_version, kind));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults in {compared} objects:\n{}", faults.len(), faults.join("\n"));
    let served = registry::resources().iter().filter(|r| !ELSEWHERE.contains(&r.kind.as_ref()));
    let missing: Vec<_> = served.filter(|r| !now.contains(&(r.api_version(), r.kind.to_string()))).collect();
    let missing: Vec<String> = missing.iter().map(|r| r.qualified()).collect();
    assert!(missing.is_empty(), "served, but not among what was compared: {missing:?}");
}
