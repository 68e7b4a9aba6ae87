//! JSON as Go writes a struct: its fields in the order of their declaration.
//!
//! Owns: that order, and the JSON of upstream's internal types, whose fields have no names of their own for it.
//! Called by: validation, where a message shows a value; `convert`, where an annotation holds one.
//! Never: changes a value.

use serde_json::{Map, Value};

use crate::schema::{Field, Form, Shape, Type};
use crate::unified_diff;

const META: &str = "k8s.io/apimachinery/pkg/apis/meta/v1";

/// Which of Go's types stands for the value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// That of the API: what is there, by its JSON name.
    Version,
    /// The one upstream works with: every field, by the name it has in Go.
    Internal,
}

/// `{"matchLabels":{"a":"b"},"matchExpressions":[]}`
pub fn versioned(of: Type, value: &Value) -> String {
    let mut out = String::new();
    object(&mut out, of, value, Of::Version);
    out
}

/// `{"Type":"OnDelete","RollingUpdate":null}`; of types that have the same fields there.
pub fn internal(of: Type, value: &Value) -> String {
    let mut out = String::new();
    object(&mut out, of, value, Of::Internal);
    out
}

/// What differs between two values of such a type, as a message tells it.
pub fn difference(of: Type, old: &Value, new: &Value) -> String {
    unified_diff::unified(&indented(&internal(of, old)), &indented(&internal(of, new)))
}

/// A label selector as a message shows it.
pub fn selector(value: &Value) -> String {
    versioned(Type::meta("LabelSelector").expect("a built-in type"), value)
}

/// A string as Go's encoder writes it, which makes it safe for HTML.
fn string(out: &mut String, text: &str) {
    let quoted = Value::from(text).to_string();
    out.push_str(&escaped(&quoted));
}

/// JSON with the escapes of Go's encoder for what HTML or JavaScript would take for its own; it stands in texts alone.
pub fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            other => text.push(other),
        }
    }
    text
}

fn object(out: &mut String, of: Type, value: &Value, style: Of) {
    // Label selectors and their like are the same types everywhere.
    let style = if of.package() == META { Of::Version } else { style };
    let Some(fields) = value.as_object() else { return out.push_str(&value.to_string()) };
    out.push('{');
    let mut first = true;
    members(out, of, fields, style, &mut first);
    out.push('}');
}

fn members(out: &mut String, of: Type, fields: &Map<String, Value>, style: Of, first: &mut bool) {
    for field in of.own_fields() {
        if let (true, Form::Object(inlined)) = (field.is_inline(), field.form()) {
            members(out, inlined, fields, style, first);
            continue;
        }
        let value = fields.get(field.name());
        // Internal types embed the metadata, which has names for JSON.
        if let (Of::Internal, "metadata", Form::Object(metadata)) = (style, field.name(), field.form()) {
            if let Some(inlined) = value.and_then(Value::as_object) {
                members(out, metadata, inlined, Of::Version, first);
            }
            continue;
        }
        if value.is_none() && style == Of::Version {
            continue;
        }
        if !std::mem::take(first) {
            out.push(',');
        }
        match style {
            Of::Version => string(out, field.name()),
            Of::Internal => string(out, &field.go_name()),
        }
        out.push(':');
        match value.filter(|v| !v.is_null()) {
            Some(value) => shape(out, field.shape(), value, style),
            None if style == Of::Internal => zero(out, field),
            None => out.push_str("null"),
        }
    }
}

fn shape(out: &mut String, shape_of: Shape, value: &Value, style: Of) {
    match (shape_of.form(), value) {
        (Form::Object(of), value) => object(out, of, value, style),
        (Form::List(element) | Form::Items(element), Value::Array(items)) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                shape(out, element, item, style);
            }
            out.push(']');
        }
        (Form::Map(element), Value::Object(entries)) => {
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                string(out, key);
                out.push(':');
                shape(out, element, value, style);
            }
            out.push('}');
        }
        (_, Value::String(text)) => string(out, text),
        (_, value) => out.push_str(&value.to_string()),
    }
}

/// What Go holds where nothing was said.
fn zero(out: &mut String, field: Field) {
    let text = match field.form() {
        _ if field.is_pointer() => "null",
        Form::String => "\"\"",
        Form::Bool => "false",
        Form::Int32 | Form::Int64 | Form::Float64 | Form::IntOrString => "0",
        Form::Quantity => "\"0\"",
        Form::Object(of) => return object(out, of, &Value::Object(Map::new()), Of::Internal),
        _ => "null",
    };
    out.push_str(text);
}

/// Compact JSON with a line for each value, one space further in for each level.
fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let mut letters = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth));
    };
    while let Some(letter) = letters.next() {
        if quoted {
            out.push(letter);
            quoted = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
            continue;
        }
        match letter {
            '{' | '[' => {
                out.push(letter);
                match letters.next_if(|next| matches!(next, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(letter);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            letter => {
                quoted = letter == '"';
                out.push(letter);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_come_in_the_order_of_gos_declaration() {
        let value = json!({"matchExpressions": [{"values": ["<b>"], "key": "a", "operator": "In"}],
            "matchLabels": {"operator": "x", "key": "y"}});
        assert_eq!(
            selector(&value),
            r#"{"matchLabels":{"key":"y","operator":"x"},"matchExpressions":[{"key":"a","operator":"In","values":["\u003cb\u003e"]}]}"#
        );
    }

    #[test]
    fn an_internal_type_shows_all_its_fields_by_gos_names() {
        let of = Type::named("io.k8s.api.batch.v1.PodFailurePolicy").expect("a built-in type");
        let value = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": null}}]});
        assert_eq!(
            internal(of, &value),
            r#"{"Rules":[{"Action":"FailJob","OnExitCodes":{"ContainerName":null,"Operator":"In","Values":null},"OnPodConditions":null}]}"#
        );
    }

    #[test]
    fn a_difference_has_a_line_for_each_field() {
        let of = Type::named("io.k8s.api.core.v1.PersistentVolumeClaimSpec").expect("a built-in type");
        let selector = json!({"matchLabels": {"a": "b:\"{"}});
        let (old, new) = (json!({"selector": selector, "volumeName": "v"}), json!({"selector": selector}));
        let told = "@@ -9,7 +9,7 @@\n   \"Limits\": null,\n   \"Requests\": null\n  },\n- \"VolumeName\": \"v\",\n\
            + \"VolumeName\": \"\",\n  \"StorageClassName\": null,\n  \"VolumeMode\": null,\n  \"DataSource\": null,\n";
        assert_eq!(difference(of, &old, &new), told);
        assert_eq!(
            indented(r#"{"a":{"b":"\\"},"c":[],"d":[1]}"#),
            "{\n \"a\": {\n  \"b\": \"\\\\\"\n },\n \"c\": [],\n \"d\": [\n  1\n ]\n}"
        );
    }
}
