//! Version 3 in protobuf (gnostic's OpenAPIv3.proto).
//!
//! Owns: the messages' fields and numbers, and which branch of a choice a value takes.
//! Called by: whoever writes a document.
//! Never: writes, or knows what Kubernetes has none of (links, callbacks).

use serde_json::Value;

use super::Holds::{
    Any, Anys, Choice, Choices, Flag, Items, Many, Number, One, OrFlag, Scalar, Text, Texts, Type, Whole,
};
use super::{Branch, Message, is_reference, map, message};

pub static DOCUMENT: Message = message(
    &[
        ("openapi", 1, Text),
        ("info", 2, One(&INFO)),
        ("servers", 3, Many(&SERVER)),
        ("paths", 4, One(&PATHS)),
        ("components", 5, One(&COMPONENTS)),
        ("security", 6, Many(&SECURITY_REQUIREMENT)),
        ("tags", 7, Many(&TAG)),
        ("externalDocs", 8, One(&EXTERNAL_DOCS)),
    ],
    9,
);

static INFO: Message = message(
    &[
        ("title", 1, Text),
        ("description", 2, Text),
        ("termsOfService", 3, Text),
        ("contact", 4, One(&CONTACT)),
        ("license", 5, One(&LICENSE)),
        ("version", 6, Text),
        ("summary", 8, Text),
    ],
    7,
);
static CONTACT: Message = message(&[("name", 1, Text), ("url", 2, Text), ("email", 3, Text)], 4);
static LICENSE: Message = message(&[("name", 1, Text), ("url", 2, Text)], 3);
static TAG: Message =
    message(&[("name", 1, Text), ("description", 2, Text), ("externalDocs", 3, One(&EXTERNAL_DOCS))], 4);
static EXTERNAL_DOCS: Message = message(&[("description", 1, Text), ("url", 2, Text)], 3);
static SERVER: Message =
    message(&[("url", 1, Text), ("description", 2, Text), ("variables", 3, One(&SERVER_VARIABLES))], 4);
static SERVER_VARIABLES: Message = map(1, One(&SERVER_VARIABLE));
static SERVER_VARIABLE: Message = message(&[("enum", 1, Texts), ("default", 2, Text), ("description", 3, Text)], 4);
static SECURITY_REQUIREMENT: Message = map(1, Type);
static STRINGS: Message = map(1, Text);

static COMPONENTS: Message = message(
    &[
        ("schemas", 1, One(&SCHEMAS)),
        ("responses", 2, One(&RESPONSES_BY_NAME)),
        ("parameters", 3, One(&PARAMETERS)),
        ("examples", 4, One(&EXAMPLES)),
        ("requestBodies", 5, One(&REQUEST_BODIES)),
        ("headers", 6, One(&HEADERS)),
        ("securitySchemes", 7, One(&SECURITY_SCHEMES)),
    ],
    10,
);
static SCHEMAS: Message = map(1, Choice(schema));
static RESPONSES_BY_NAME: Message = map(1, Choice(response));
static PARAMETERS: Message = map(1, Choice(parameter));
static EXAMPLES: Message = map(1, Choice(example));
static REQUEST_BODIES: Message = map(1, Choice(request_body));
static HEADERS: Message = map(1, Choice(header));
static SECURITY_SCHEMES: Message = map(1, Choice(security_scheme));

static PATHS: Message = Message { fields: &[], extensions: 2, named: Some((1, One(&PATH_ITEM))) };
static PATH_ITEM: Message = message(
    &[
        ("$ref", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("get", 4, One(&OPERATION)),
        ("put", 5, One(&OPERATION)),
        ("post", 6, One(&OPERATION)),
        ("delete", 7, One(&OPERATION)),
        ("options", 8, One(&OPERATION)),
        ("head", 9, One(&OPERATION)),
        ("patch", 10, One(&OPERATION)),
        ("trace", 11, One(&OPERATION)),
        ("servers", 12, Many(&SERVER)),
        ("parameters", 13, Choices(parameter)),
    ],
    14,
);
static OPERATION: Message = message(
    &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, One(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("parameters", 6, Choices(parameter)),
        ("requestBody", 7, Choice(request_body)),
        ("responses", 8, One(&RESPONSES)),
        ("deprecated", 10, Flag),
        ("security", 11, Many(&SECURITY_REQUIREMENT)),
        ("servers", 12, Many(&SERVER)),
    ],
    13,
);

/// What parameters and headers have in common; `$first` is the number of the description.
macro_rules! place {
    ([$($own:expr),*], [$description:expr, $first:expr]) => {
        message(
            &[
                $($own,)*
                ("description", $description, Text),
                ("required", $first, Flag),
                ("deprecated", $first + 1, Flag),
                ("allowEmptyValue", $first + 2, Flag),
                ("style", $first + 3, Text),
                ("explode", $first + 4, Flag),
                ("allowReserved", $first + 5, Flag),
                ("schema", $first + 6, Choice(schema)),
                ("example", $first + 7, Any),
                ("examples", $first + 8, One(&EXAMPLES)),
                ("content", $first + 9, One(&MEDIA_TYPES)),
            ],
            $first + 10,
        )
    };
}

static PARAMETER: Message = place!([("name", 1, Text), ("in", 2, Text)], [3, 4]);
static HEADER: Message = place!([], [1, 2]);
static REQUEST_BODY: Message =
    message(&[("description", 1, Text), ("content", 2, One(&MEDIA_TYPES)), ("required", 3, Flag)], 4);
static RESPONSES: Message =
    Message { fields: &[("default", 1, Choice(response))], extensions: 3, named: Some((2, Choice(response))) };
static RESPONSE: Message =
    message(&[("description", 1, Text), ("headers", 2, One(&HEADERS)), ("content", 3, One(&MEDIA_TYPES))], 5);
static MEDIA_TYPES: Message = map(1, One(&MEDIA_TYPE));
static MEDIA_TYPE: Message = message(
    &[
        ("schema", 1, Choice(schema)),
        ("example", 2, Any),
        ("examples", 3, One(&EXAMPLES)),
        ("encoding", 4, One(&ENCODINGS)),
    ],
    5,
);
static ENCODINGS: Message = map(1, One(&ENCODING));
static ENCODING: Message = message(
    &[
        ("contentType", 1, Text),
        ("headers", 2, One(&HEADERS)),
        ("style", 3, Text),
        ("explode", 4, Flag),
        ("allowReserved", 5, Flag),
    ],
    6,
);
static EXAMPLE: Message =
    message(&[("summary", 1, Text), ("description", 2, Text), ("value", 3, Any), ("externalValue", 4, Text)], 5);

static SCHEMA: Message = message(
    &[
        ("nullable", 1, Flag),
        ("discriminator", 2, One(&DISCRIMINATOR)),
        ("readOnly", 3, Flag),
        ("writeOnly", 4, Flag),
        ("xml", 5, One(&XML)),
        ("externalDocs", 6, One(&EXTERNAL_DOCS)),
        ("example", 7, Any),
        ("deprecated", 8, Flag),
        ("title", 9, Text),
        ("multipleOf", 10, Number),
        ("maximum", 11, Number),
        ("exclusiveMaximum", 12, Flag),
        ("minimum", 13, Number),
        ("exclusiveMinimum", 14, Flag),
        ("maxLength", 15, Whole),
        ("minLength", 16, Whole),
        ("pattern", 17, Text),
        ("maxItems", 18, Whole),
        ("minItems", 19, Whole),
        ("uniqueItems", 20, Flag),
        ("maxProperties", 21, Whole),
        ("minProperties", 22, Whole),
        ("required", 23, Texts),
        ("enum", 24, Anys),
        ("type", 25, Text),
        ("allOf", 26, Choices(schema)),
        ("oneOf", 27, Choices(schema)),
        ("anyOf", 28, Choices(schema)),
        ("not", 29, One(&SCHEMA)),
        ("items", 30, Items(&Choice(schema))),
        ("properties", 31, One(&SCHEMAS)),
        ("additionalProperties", 32, OrFlag(&Choice(schema))),
        ("default", 33, Scalar),
        ("description", 34, Text),
        ("format", 35, Text),
    ],
    36,
);
static DISCRIMINATOR: Message = message(&[("propertyName", 1, Text), ("mapping", 2, One(&STRINGS))], 3);
static XML: Message = message(
    &[("name", 1, Text), ("namespace", 2, Text), ("prefix", 3, Text), ("attribute", 4, Flag), ("wrapped", 5, Flag)],
    6,
);

static SECURITY_SCHEME: Message = message(
    &[
        ("type", 1, Text),
        ("description", 2, Text),
        ("name", 3, Text),
        ("in", 4, Text),
        ("scheme", 5, Text),
        ("bearerFormat", 6, Text),
        ("flows", 7, One(&FLOWS)),
        ("openIdConnectUrl", 8, Text),
    ],
    9,
);
static FLOWS: Message = message(
    &[
        ("implicit", 1, One(&FLOW)),
        ("password", 2, One(&FLOW)),
        ("clientCredentials", 3, One(&FLOW)),
        ("authorizationCode", 4, One(&FLOW)),
    ],
    5,
);
static FLOW: Message = message(
    &[("authorizationUrl", 1, Text), ("tokenUrl", 2, Text), ("refreshUrl", 3, Text), ("scopes", 4, One(&STRINGS))],
    5,
);

static REFERENCE: Message = message(&[("$ref", 1, Text), ("summary", 2, Text), ("description", 3, Text)], 0);

fn or_reference(value: &Value, message: &'static Message) -> Branch {
    if is_reference(value) { (&[2], &REFERENCE) } else { (&[1], message) }
}

fn schema(value: &Value) -> Branch {
    or_reference(value, &SCHEMA)
}

fn response(value: &Value) -> Branch {
    or_reference(value, &RESPONSE)
}

fn parameter(value: &Value) -> Branch {
    or_reference(value, &PARAMETER)
}

fn example(value: &Value) -> Branch {
    or_reference(value, &EXAMPLE)
}

fn request_body(value: &Value) -> Branch {
    or_reference(value, &REQUEST_BODY)
}

fn header(value: &Value) -> Branch {
    or_reference(value, &HEADER)
}

fn security_scheme(value: &Value) -> Branch {
    or_reference(value, &SECURITY_SCHEME)
}
