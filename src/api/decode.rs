//! Reads a body into an object of a known type, exactly as Kubernetes' Go structs would.
//!
//! Owns: what becomes of unknown, duplicate, null, empty and ill-typed fields, and how each is reported. The result
//! is what reading into the struct and writing it out again gives: unknown fields are gone, empty ones too where the
//! struct omits them, quantities and times are in their one spelling, and fields the struct always has are there.
//! Called by: the API server for every body of a built-in kind, and after every patch.
//! Never: fills in defaults that need more than the Go zero value, or validates.

mod leaf;
mod syntax;

pub use syntax::summary;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::schema::{Field, Form, Shape, Type};
use crate::status::Status;

/// Upstream stops collecting strict errors at this many.
const STRICT_ERRORS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub object: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`, in the order of the body. `fieldValidation` decides
    /// whether they are an error ([`strict_error`]), warnings or nothing.
    pub strict: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The body is no JSON (or YAML): `unexpected end of JSON input`.
    #[error("{0}")]
    Syntax(String),
    /// A field holds what its type cannot: `json: cannot unmarshal string into Go struct field ...`.
    #[error("{0}")]
    Type(String),
}

impl DecodeError {
    /// What the client is told: `body` is quoted when it is no JSON at all.
    pub fn status(&self, of: Type, version: &str, body: &[u8]) -> Status {
        let kind = of.name();
        Status::bad_request(match self {
            DecodeError::Syntax(why) => format!(
                "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; \
                 json parse error: {why} ({})",
                syntax::summary(body)
            ),
            DecodeError::Type(why) => format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"),
        })
    }
}

/// What the client is told when `fieldValidation=Strict` finds something.
pub fn strict_status(of: Type, version: &str, strict: &[String]) -> Status {
    DecodeError::Type(strict_error(strict)).status(of, version, &[])
}

/// The message of a request refused by `fieldValidation=Strict`.
pub fn strict_error(strict: &[String]) -> String {
    format!("strict decoding error: {}", strict.join(", "))
}

pub fn from_json(of: Type, body: &[u8]) -> Result<Decoded, DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let syntax = |_| DecodeError::Syntax(syntax::explain(body));
    let read = from_deserializer(of, &mut reader);
    match read {
        Err(DecodeError::Syntax(message)) if message.ends_with(KIND_READER) => Err(DecodeError::Syntax(message)),
        // Go reads what is no UTF-8 as replacement characters.
        Err(DecodeError::Syntax(_)) if std::str::from_utf8(body).is_err() => {
            from_json(of, String::from_utf8_lossy(body).as_bytes())
        }
        Err(DecodeError::Syntax(_)) => match syntax::without_lone_surrogates(body) {
            Some(mended) => from_json(of, &mended),
            None => Err(DecodeError::Syntax(syntax::explain(body))),
        },
        // A body that is no JSON behind a sound start is no JSON, whatever its start says.
        read => reader.end().map_err(syntax).and(read),
    }
}

/// The same for a tree, such as the outcome of a patch or a YAML body.
pub fn from_value(of: Type, object: Value) -> Result<Decoded, DecodeError> {
    from_deserializer(of, object)
}

pub fn from_deserializer<'de, D: Deserializer<'de>>(of: Type, body: D) -> Result<Decoded, DecodeError> {
    let mut state = State::new(of);
    let seed = Place { state: &mut state, shape: None };
    let object = seed.deserialize(body).map_err(|e| DecodeError::Syntax(e.to_string()))?;
    match state.refused.or(state.mismatch) {
        Some(message) if message.ends_with(KIND_READER) => Err(DecodeError::Syntax(message)),
        Some(message) => Err(DecodeError::Type(message)),
        None => Ok(Decoded { object, strict: state.strict }),
    }
}

/// Any JSON, with duplicate fields found: for custom resources.
pub fn untyped_json(body: &[u8]) -> Result<Decoded, DecodeError> {
    let mut state = State::new(Type::meta("ObjectMeta").expect("a built-in type"));
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seed = leaf::Anything { state: &mut state };
    let syntax = |_| DecodeError::Syntax(syntax::explain(body));
    let object = seed.deserialize(&mut reader).map_err(syntax)?;
    reader.end().map_err(syntax)?;
    Ok(Decoded { object, strict: state.strict })
}

/// What Go holds where nothing was said, as it writes it: `""`, `0`, `{}` with what that always has, `null`.
pub fn zero(shape: Shape) -> Value {
    match shape.form() {
        Form::String => Value::String(String::new()),
        Form::Bool => Value::Bool(false),
        Form::Int32 | Form::Int64 | Form::Float64 | Form::IntOrString => Value::from(0),
        Form::Quantity => Value::from("0"),
        Form::Object(object) => zero_object(object),
        _ => Value::Null,
    }
}

pub fn zero_object(object: Type) -> Value {
    Value::Object(object.always().iter().map(|f| (f.name().to_string(), zero_field(*f))).collect())
}

/// In the form in which upstream stores objects an empty list is no list, so one comes back as `null` where Go always
/// writes the field.
pub fn without_empty_lists(of: Type, object: &mut Value) {
    let Value::Object(fields) = object else { return };
    for (name, value) in fields {
        let Some(index) = of.position(name) else { continue };
        let field = of.fields()[index];
        if matches!(field.form(), Form::List(_) | Form::Map(_)) && !field.is_pointer() && is_empty(value) {
            *value = Value::Null;
            continue;
        }
        let Some(inner) = field.shape().object() else { continue };
        match (value, field.form()) {
            (value, Form::Object(_)) => without_empty_lists(inner, value),
            (Value::Array(items), _) => items.iter_mut().for_each(|item| without_empty_lists(inner, item)),
            (Value::Object(map), _) => map.values_mut().for_each(|value| without_empty_lists(inner, value)),
            _ => {}
        }
    }
}

pub(crate) fn zero_field(field: Field) -> Value {
    if field.is_pointer() { Value::Null } else { zero(field.shape()) }
}

/// Fills the defaults that the schema itself names (`protocol: TCP`), at every depth where their parent exists.
pub fn apply_schema_defaults(of: Type, object: &mut Value) {
    let Value::Object(fields) = object else { return };
    for field in of.fields() {
        // A zero default says nothing where Go has a zero anyway.
        let says = |d: &&str| field.is_pointer() || !matches!(*d, "\"\"" | "0" | "false");
        if let Some(default) = field.default().filter(says) {
            let slot = fields.entry(field.name()).or_insert(Value::Null);
            if slot.is_null() {
                *slot = serde_json::from_str(default).expect("schema.table holds JSON defaults");
            }
        }
        let Some(inner) = field.shape().object() else { continue };
        match (fields.get_mut(field.name()), field.form()) {
            (Some(value), Form::Object(_)) => apply_schema_defaults(inner, value),
            (Some(Value::Array(items)), _) => items.iter_mut().for_each(|i| apply_schema_defaults(inner, i)),
            (Some(Value::Object(map)), _) => map.values_mut().for_each(|v| apply_schema_defaults(inner, v)),
            _ => {}
        }
    }
}

/// Upstream reads the kind of a body first, so a body that is no object fails there.
const KIND_READER: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// One step of the way to the value being read.
enum Step {
    Field(Type, &'static str),
    /// A key of a map, or an unknown object.
    Key(String),
    Index(usize),
}

struct State {
    root: Type,
    steps: Vec<Step>,
    strict: Vec<String>,
    /// The first value of a wrong type; Go reads on and reports it at the end.
    mismatch: Option<String>,
    /// A value refused by a type's own reader (a quantity, a time); Go stops there, so it wins.
    refused: Option<String>,
    /// Above zero inside values whose readers do not report strict errors.
    muted: usize,
}

impl State {
    fn new(root: Type) -> Self {
        State { root, steps: Vec::new(), strict: Vec::new(), mismatch: None, refused: None, muted: 0 }
    }

    /// `spec.containers[0].name`
    fn path(&self, last: &str) -> String {
        let mut path = String::new();
        let names = self.steps.iter().map(|s| match s {
            Step::Field(_, name) => Ok(*name),
            Step::Key(key) => Ok(key.as_str()),
            Step::Index(i) => Err(*i),
        });
        for step in names.chain([Ok(last)]) {
            match step {
                Ok(name) if path.is_empty() => path.push_str(name),
                Ok(name) => path.extend([".", name]),
                Err(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }

    fn strict(&mut self, what: &str, field: &str) {
        if self.muted > 0 || self.strict.len() >= STRICT_ERRORS_MAX {
            return;
        }
        let message = format!("{what} field {}", go_quote(&self.path(field)));
        if !self.strict.contains(&message) {
            self.strict.push(message);
        }
    }

    /// `found` as Go words it: `string`, `number 1.5`, `object`; `wanted` is a Go type.
    fn type_error(&self, found: &str, wanted: &str) -> String {
        // Go names the structs whose fields stand in another's place, too.
        let named = |(of, name): (Type, &'static str)| [of.embedding(name), vec![name]].concat();
        let fields =
            self.steps.iter().filter_map(|s| if let Step::Field(of, name) = s { Some((*of, *name)) } else { None });
        let fields: Vec<&str> = fields.flat_map(named).collect();
        let owner = self.steps.iter().rev().find_map(|s| if let Step::Field(t, _) = s { Some(t.name()) } else { None });
        match owner {
            Some(owner) => {
                let field = fields.join(".");
                format!("json: cannot unmarshal {found} into Go struct field {owner}.{field} of type {wanted}")
            }
            None => format!("json: cannot unmarshal {found} into Go value of type {KIND_READER}"),
        }
    }

    fn mismatch(&mut self, found: &str, wanted: &str) {
        if self.mismatch.is_none() {
            self.mismatch = Some(self.type_error(found, wanted));
        }
    }

    fn refuse(&mut self, message: String) {
        self.refused.get_or_insert(message);
    }
}

/// As Go's `strconv.Quote` for what occurs in field names.
fn go_quote(text: &str) -> String {
    format!("{text:?}")
}

/// A place in the object and what may stand there; no shape means the root.
struct Place<'s> {
    state: &'s mut State,
    shape: Option<Shape>,
}

impl Place<'_> {
    fn form(&self) -> Form {
        self.shape.map_or(Form::Object(self.state.root), Shape::form)
    }
    fn wanted(&self) -> String {
        self.shape.map_or_else(|| self.state.root.go_name(), Shape::go_name)
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, body: D) -> Result<Value, D::Error> {
        match self.form() {
            Form::RawExtension | Form::FieldsV1 | Form::Json => Value::deserialize(body),
            Form::SchemaOrArray | Form::SchemaOrBool | Form::SchemaOrStrings => {
                self.state.muted += 1;
                let value =
                    leaf::SchemaOr { state: &mut *self.state, form: self.shape.map(Shape::form) }.deserialize(body);
                self.state.muted -= 1;
                value
            }
            _ => body.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(leaf::bool(self, value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(leaf::number(self, value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(leaf::number(self, value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(leaf::number(self, number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(leaf::string(self, value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Value, A::Error> {
        match self.form() {
            Form::List(element) | Form::Items(element) => read_list(self.state, element, items),
            _ => {
                leaf::composite(self, "array");
                skip_list(items)
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Value, A::Error> {
        match self.form() {
            Form::Object(object) => read_object(self.state, object, entries),
            Form::Map(value) => read_map(self.state, value, entries),
            _ => {
                leaf::composite(self, "object");
                skip_map(entries)
            }
        }
    }
}

fn skip_list<'de, A: SeqAccess<'de>>(mut items: A) -> Result<Value, A::Error> {
    while items.next_element::<IgnoredAny>()?.is_some() {}
    Ok(Value::Null)
}

fn skip_map<'de, A: MapAccess<'de>>(mut entries: A) -> Result<Value, A::Error> {
    while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(Value::Null)
}

fn read_list<'de, A: SeqAccess<'de>>(state: &mut State, element: Shape, mut items: A) -> Result<Value, A::Error> {
    let mut list = Vec::new();
    loop {
        state.steps.push(Step::Index(list.len()));
        let item = items.next_element_seed(Place { state: &mut *state, shape: Some(element) });
        state.steps.pop();
        match item? {
            Some(Value::Null) => list.push(zero(element)),
            Some(value) => list.push(value),
            None => return Ok(Value::Array(list)),
        }
    }
}

fn read_map<'de, A: MapAccess<'de>>(state: &mut State, value: Shape, mut entries: A) -> Result<Value, A::Error> {
    let mut map = Map::new();
    while let Some(key) = entries.next_key::<String>()? {
        if map.contains_key(&key) {
            state.strict("duplicate", &key);
        }
        state.steps.push(Step::Key(key));
        let item = entries.next_value_seed(Place { state: &mut *state, shape: Some(value) });
        let Some(Step::Key(key)) = state.steps.pop() else {
            return Err(A::Error::custom("steps are pushed and popped in pairs"));
        };
        let item = match item? {
            Value::Null => zero(value),
            item => item,
        };
        map.insert(key, item);
    }
    Ok(Value::Object(map))
}

fn read_object<'de, A: MapAccess<'de>>(state: &mut State, object: Type, mut entries: A) -> Result<Value, A::Error> {
    let mut map = Map::new();
    // Which fields came already; one bit a field, and no type has more than 64 (a test sees to it).
    let mut seen = 0u64;
    while let Some(name) = entries.next_key_seed(FieldName(object))? {
        let index = match name {
            Ok(index) => index,
            Err(unknown) => {
                state.strict("unknown", &unknown);
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
        };
        let field = object.fields()[index];
        if seen & (1 << index) != 0 {
            state.strict("duplicate", field.name());
        }
        seen |= 1 << index;
        state.steps.push(Step::Field(object, field.name()));
        let value = entries.next_value_seed(Place { state: &mut *state, shape: Some(field.shape()) });
        state.steps.pop();
        place_field(&mut map, field, value?);
    }
    for field in object.always() {
        if !map.contains_key(field.name()) {
            map.insert(field.name().into(), zero_field(*field));
        }
    }
    Ok(Value::Object(map))
}

/// Finds the field of a key without copying the key; an unknown one is kept for the report.
struct FieldName(Type);

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Result<usize, String>;
    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Result<usize, String>;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.position(key).ok_or_else(|| key.to_string()))
    }
}

/// Puts a value where Go would write it back, or leaves the field out as Go would.
pub(crate) fn place_field(map: &mut Map<String, Value>, field: Field, value: Value) {
    let value = match value {
        Value::Null => zero_field(field),
        value => value,
    };
    let omitted = if field.is_pointer() {
        field.omits_empty() && value.is_null()
    } else if field.shape().is_struct() {
        field.omits_zero() && value == zero(field.shape())
    } else {
        // A client clears the managers with a list of none; everywhere else that is as good as no list.
        field.omits_empty() && is_empty(&value) && !(field.name() == "managedFields" && value.is_array())
    };
    if omitted {
        map.remove(field.name());
    } else {
        map.insert(field.name().into(), value);
    }
}

/// What `omitempty` omits.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}
