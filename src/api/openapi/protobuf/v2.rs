//! Version 2 in protobuf (gnostic's OpenAPIv2.proto).
//!
//! Owns: the messages' fields and numbers, and which branch of a choice a value takes.
//! Called by: whoever writes a document.
//! Never: writes.

use serde_json::Value;

use super::Holds::{Any, Anys, Choice, Choices, Flag, Items, Many, Number, One, OrFlag, Text, Texts, Type, Whole};
use super::{Branch, Message, is_reference, map, message};

pub static DOCUMENT: Message = message(
    &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, Texts),
        ("consumes", 6, Texts),
        ("produces", 7, Texts),
        ("paths", 8, One(&PATHS)),
        ("definitions", 9, One(&SCHEMAS)),
        ("parameters", 10, One(&PARAMETERS)),
        ("responses", 11, One(&RESPONSE_DEFINITIONS)),
        ("security", 12, Many(&SECURITY_REQUIREMENT)),
        ("securityDefinitions", 13, One(&SECURITY_DEFINITIONS)),
        ("tags", 14, Many(&TAG)),
        ("externalDocs", 15, One(&EXTERNAL_DOCS)),
    ],
    16,
);

static INFO: Message = message(
    &[
        ("title", 1, Text),
        ("version", 2, Text),
        ("description", 3, Text),
        ("termsOfService", 4, Text),
        ("contact", 5, One(&CONTACT)),
        ("license", 6, One(&LICENSE)),
    ],
    7,
);
static CONTACT: Message = message(&[("name", 1, Text), ("url", 2, Text), ("email", 3, Text)], 4);
static LICENSE: Message = message(&[("name", 1, Text), ("url", 2, Text)], 3);
static TAG: Message =
    message(&[("name", 1, Text), ("description", 2, Text), ("externalDocs", 3, One(&EXTERNAL_DOCS))], 4);
static EXTERNAL_DOCS: Message = message(&[("description", 1, Text), ("url", 2, Text)], 3);
static SECURITY_REQUIREMENT: Message = map(1, Type);
static SECURITY_DEFINITIONS: Message = map(1, Choice(security));
static RESPONSE_DEFINITIONS: Message = map(1, One(&RESPONSE));
static PARAMETERS: Message = map(1, Choice(parameter));
static SCHEMAS: Message = map(1, One(&SCHEMA));

static PATHS: Message = Message { fields: &[], extensions: 1, named: Some((2, One(&PATH_ITEM))) };
static PATH_ITEM: Message = message(
    &[
        ("$ref", 1, Text),
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Choices(parameter_or_reference)),
    ],
    10,
);
static OPERATION: Message = message(
    &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, One(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Choices(parameter_or_reference)),
        ("responses", 9, One(&RESPONSES)),
        ("schemes", 10, Texts),
        ("deprecated", 11, Flag),
        ("security", 12, Many(&SECURITY_REQUIREMENT)),
    ],
    13,
);

static RESPONSES: Message = Message { fields: &[], extensions: 2, named: Some((1, Choice(response))) };
static RESPONSE: Message = message(
    &[
        ("description", 1, Text),
        ("schema", 2, Choice(schema_or_file)),
        ("headers", 3, One(&HEADERS)),
        ("examples", 4, One(&EXAMPLES)),
    ],
    5,
);
static HEADERS: Message = map(1, One(&HEADER));
static EXAMPLES: Message = map(1, Any);
static REFERENCE: Message = message(&[("$ref", 1, Text), ("description", 2, Text)], 0);

fn response(value: &Value) -> Branch {
    if is_reference(value) { (&[2], &REFERENCE) } else { (&[1], &RESPONSE) }
}

fn schema_or_file(value: &Value) -> Branch {
    if value["type"] == "file" { (&[2], &FILE_SCHEMA) } else { (&[1], &SCHEMA) }
}

fn parameter_or_reference(value: &Value) -> Branch {
    if is_reference(value) {
        return (&[2], &REFERENCE);
    }
    match value["in"].as_str() {
        Some("body") => (&[1, 1], &BODY_PARAMETER),
        Some("header") => (&[1, 2, 1], &HEADER_PARAMETER),
        Some("formData") => (&[1, 2, 2], &QUERY_PARAMETER),
        Some("path") => (&[1, 2, 4], &HEADER_PARAMETER),
        _ => (&[1, 2, 3], &QUERY_PARAMETER),
    }
}

fn parameter(value: &Value) -> Branch {
    let (way, message) = parameter_or_reference(value);
    (&way[1..], message)
}

static BODY_PARAMETER: Message = message(
    &[("description", 1, Text), ("name", 2, Text), ("in", 3, Text), ("required", 4, Flag), ("schema", 5, One(&SCHEMA))],
    6,
);

/// The facts of a value that is no object, in the order that every message has them; their numbers begin with `$first`.
macro_rules! primitive {
    ([$($own:expr),*], $first:expr, $extensions:expr) => {
        message(
            &[
                $($own,)*
                ("type", $first, Text),
                ("format", $first + 1, Text),
                ("items", $first + 2, One(&PRIMITIVE_ITEMS)),
                ("collectionFormat", $first + 3, Text),
                ("default", $first + 4, Any),
                ("maximum", $first + 5, Number),
                ("exclusiveMaximum", $first + 6, Flag),
                ("minimum", $first + 7, Number),
                ("exclusiveMinimum", $first + 8, Flag),
                ("maxLength", $first + 9, Whole),
                ("minLength", $first + 10, Whole),
                ("pattern", $first + 11, Text),
                ("maxItems", $first + 12, Whole),
                ("minItems", $first + 13, Whole),
                ("uniqueItems", $first + 14, Flag),
                ("enum", $first + 15, Anys),
                ("multipleOf", $first + 16, Number),
            ],
            $extensions,
        )
    };
}

static PRIMITIVE_ITEMS: Message = primitive!([], 1, 18);
static HEADER: Message = primitive!([("description", 18, Text)], 1, 19);
/// Also of parameters in the path.
static HEADER_PARAMETER: Message =
    primitive!([("required", 1, Flag), ("in", 2, Text), ("description", 3, Text), ("name", 4, Text)], 5, 22);
/// Also of parameters in a form.
static QUERY_PARAMETER: Message = primitive!(
    [("required", 1, Flag), ("in", 2, Text), ("description", 3, Text), ("name", 4, Text), ("allowEmptyValue", 5, Flag)],
    6,
    23
);

static SCHEMA: Message = message(
    &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Number),
        ("maximum", 7, Number),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Number),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Whole),
        ("minLength", 12, Whole),
        ("pattern", 13, Text),
        ("maxItems", 14, Whole),
        ("minItems", 15, Whole),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Whole),
        ("minProperties", 18, Whole),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, OrFlag(&One(&SCHEMA))),
        ("type", 22, Type),
        ("items", 23, Items(&One(&SCHEMA))),
        ("allOf", 24, Many(&SCHEMA)),
        ("properties", 25, One(&SCHEMAS)),
        ("discriminator", 26, Text),
        ("readOnly", 27, Flag),
        ("xml", 28, One(&XML)),
        ("externalDocs", 29, One(&EXTERNAL_DOCS)),
        ("example", 30, Any),
    ],
    31,
);
static FILE_SCHEMA: Message = message(
    &[
        ("format", 1, Text),
        ("title", 2, Text),
        ("description", 3, Text),
        ("default", 4, Any),
        ("required", 5, Texts),
        ("type", 6, Text),
        ("readOnly", 7, Flag),
        ("externalDocs", 8, One(&EXTERNAL_DOCS)),
        ("example", 9, Any),
    ],
    10,
);
static XML: Message = message(
    &[("name", 1, Text), ("namespace", 2, Text), ("prefix", 3, Text), ("attribute", 4, Flag), ("wrapped", 5, Flag)],
    6,
);

static BASIC_SECURITY: Message = message(&[("type", 1, Text), ("description", 2, Text)], 3);
static KEY_SECURITY: Message =
    message(&[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)], 5);
static SCOPES: Message = map(1, Text);
static IMPLICIT_SECURITY: Message = message(
    &[
        ("type", 1, Text),
        ("flow", 2, Text),
        ("scopes", 3, One(&SCOPES)),
        ("authorizationUrl", 4, Text),
        ("description", 5, Text),
    ],
    6,
);
/// Also of the flow for applications.
static PASSWORD_SECURITY: Message = message(
    &[
        ("type", 1, Text),
        ("flow", 2, Text),
        ("scopes", 3, One(&SCOPES)),
        ("tokenUrl", 4, Text),
        ("description", 5, Text),
    ],
    6,
);
static ACCESS_CODE_SECURITY: Message = message(
    &[
        ("type", 1, Text),
        ("flow", 2, Text),
        ("scopes", 3, One(&SCOPES)),
        ("authorizationUrl", 4, Text),
        ("tokenUrl", 5, Text),
        ("description", 6, Text),
    ],
    7,
);

fn security(value: &Value) -> Branch {
    match (value["type"].as_str(), value["flow"].as_str()) {
        (Some("basic"), _) => (&[1], &BASIC_SECURITY),
        (Some("apiKey"), _) => (&[2], &KEY_SECURITY),
        (_, Some("implicit")) => (&[3], &IMPLICIT_SECURITY),
        (_, Some("password")) => (&[4], &PASSWORD_SECURITY),
        (_, Some("application")) => (&[5], &PASSWORD_SECURITY),
        _ => (&[6], &ACCESS_CODE_SECURITY),
    }
}
