//! What expressions come to: data in, text out.
//!
//! Owns: tests over the whole of this crate.
//! Called by: `cargo test`.
//! Never: looks inside.

use serde_json::{Value as Json, json};

use crate::types::{Fields, ListMerge, ListType, ObjectField, ObjectType};
use crate::{Environment, Messages, Meter, Program, Scope, Type, Value};

fn object(name: &str, fields: &[(&str, Type)]) -> Type {
    let fields = fields.iter().map(|(n, of)| (n.to_string(), ObjectField { json: n.to_string(), of: of.clone() }));
    Type::Object(std::sync::Arc::new(ObjectType { name: name.into(), fields: Fields::Declared(fields.collect()) }))
}

fn self_type() -> Type {
    let set = ListType { element: Type::String, merge: ListMerge::Set };
    object(
        "selfType",
        &[
            ("replicas", Type::Int),
            ("name", Type::String),
            ("names", Type::list(Type::String)),
            ("set", Type::List(std::sync::Arc::new(set))),
            ("labels", Type::map(Type::String, Type::String)),
            ("when", Type::Timestamp),
            ("any", Type::Dyn),
        ],
    )
}

fn data() -> Json {
    json!({"replicas": 3, "name": "web", "names": ["a", "b"], "set": ["x", "y"], "labels": {"app": "w"},
        "when": "2026-01-02T03:04:05Z", "any": "7"})
}

fn environment() -> Environment {
    Environment::default()
        .with("self", self_type())
        .with("object", Type::Dyn)
        .with_messages(Messages::Mutations)
        .with_bindings()
}

/// The value as text, or the error.
fn run(expression: &str) -> String {
    let program = match Program::compile(&environment(), expression) {
        Ok(program) => program,
        Err(error) => return error,
    };
    let (data, of) = (data(), self_type());
    let scope = Scope::default().with("self", Value::typed(&data, &of)).with("object", Value::plain(&data));
    match program.evaluate(&scope, &mut Meter::new(1_000_000)) {
        Ok(value) => value.to_json().map_or_else(|e| e, |json| json.to_string()),
        Err(failure) => format!("error: {failure}"),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (expression, wanted) in cases {
        assert_eq!(run(expression), *wanted, "{expression}");
    }
}

fn holds(expressions: &[&str]) {
    for expression in expressions {
        assert_eq!(run(expression), "true", "{expression}");
    }
}

#[test]
fn arithmetic_does_not_wrap() {
    check(&[
        ("1 + 2 * 3 - 4 / 2 % 2", "7"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("1.5 * 2.0", "3.0"),
        ("-self.replicas", "-3"),
        ("0x1f", "31"),
        ("'a' + \"b\" + r'\\n' + '''c'''", "\"ab\\\\nc\""),
        ("'\\u00e9\\x41\\101'", "\"éAA\""),
    ]);
}

#[test]
fn logic_is_decided_by_one_side() {
    holds(&[
        "true || object.gone",
        "object.gone || true",
        "!(object.gone && false)",
        "self.replicas > 2 ? true : object.gone",
    ]);
    check(&[("object.gone && true", "error: no such key: gone"), ("object.name || false", "error: no such overload")]);
}

#[test]
fn numbers_compare_across_types() {
    holds(&["1 == 1", "1 < 1.5", "2u > 1", "dyn(1) == 1.0", "1 in [1, 2]", "!(3 in [1, 2])", "'app' in self.labels"]);
}

#[test]
fn folds_look_at_lists_and_maps() {
    holds(&[
        "self.names.all(n, n.size() == 1)",
        "self.names.exists(n, n == 'b')",
        "self.names.exists_one(n, n == 'b')",
        "self.labels.all(k, self.labels[k] == 'w')",
        "self.names.map(n, n + n) == ['aa', 'bb']",
        "self.names.filter(n, n != 'a') == ['b']",
        "self.names.map(n, n == 'a', n + '!') == ['a!']",
        "[1, 2, 3].exists(x, x / (x - 1) == 2)",
        "self.names.all(i, n, i < 2 && n != '')",
        "self.labels.exists(k, v, k == 'app' && v == 'w')",
        "self.names.transformList(i, n, string(i) + n) == ['0a', '1b']",
        "self.labels.transformMap(k, v, v + k) == {'app': 'wapp'}",
        "self.labels.transformMapEntry(k, v, {v: k}) == {'w': 'app'}",
        "self.names.existsOne(i, n, n == 'a')",
    ]);
    check(&[("[1].map(x, x / 0)", "error: division by zero")]);
}

#[test]
fn optional_values_may_be_absent() {
    holds(&[
        "object.?gone.orValue('x') == 'x'",
        "object.?name.orValue('x') == 'web'",
        "!object.?a.b.c.hasValue()",
        "object.?names[0] == optional.of('a')",
        "self.names[?7] == optional.none()",
        "optional.of(3).optMap(x, x + 1).value() == 4",
        "!optional.none().optMap(x, x + 1).hasValue()",
        "optional.of(3).optFlatMap(x, optional.of(x)).value() == 3",
        "[?optional.none(), 1] == [1]",
        "{?'a': optional.none()} == {}",
        "optional.none().or(optional.of(1)).value() == 1",
        "[1, 2].first().value() == 1 && [1, 2].last().value() == 2",
        "optional.ofNonZeroValue('') == optional.none()",
        "optional.unwrap([optional.of(1), optional.none()]) == [1]",
    ]);
    check(&[("optional.none().value()", "error: optional.none() dereference")]);
}

#[test]
fn strings_are_taken_apart() {
    holds(&[
        "'hello'.substring(1, 3) == 'el' && 'hello'.charAt(4) == 'o'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'ab'.split('') == ['a', 'b']",
        "'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'a'.indexOf('bc') == -1",
        "['a', 'b'].join('-') == 'a-b'",
        "' x '.trim() == 'x' && 'aa'.replace('a', 'b', 1) == 'ba'",
        "'%s is %d, %.2f, %x'.format(['a', 3, 1.5, 255]) == 'a is 3, 1.50, ff'",
        "strings.quote('a\"b') == '\"a\\\\\"b\"'",
        "'abc 123'.find('[0-9]+') == '123' && '1 2 3'.findAll('[0-9]', 2) == ['1', '2']",
        "'abc'.matches('^a.c$') && matches('abc', 'b')",
        "string(1.0) == '1' && string(1e30) == '1e+30' && string(duration('90m')) == '5400s'",
    ]);
    check(&[
        ("'abc'.substring(5)", "error: index out of range: 5"),
        ("int('x')", "error: strconv.ParseInt: parsing \"x\": invalid syntax"),
    ]);
}

#[test]
fn lists_and_sets_have_their_functions() {
    holds(&[
        "[1, 2, 3].sum() == 6 && [3, 1].min() == 1 && [3, 1].max() == 3 && [1, 2].isSorted()",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2",
        "[3, 1, 2].sort() == [1, 2, 3] && [1, 2].reverse() == [2, 1] && [1, 1].distinct() == [1]",
        "['bb', 'a'].sortBy(s, size(s)) == ['a', 'bb']",
        "[[1], [2]].flatten() == [1, 2] && lists.range(3) == [0, 1, 2] && [1, 2, 3].slice(1, 2) == [2]",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1, 1]) && sets.intersects([1], [1, 2])",
        "self.set == ['y', 'x'] && (self.set + ['x', 'z']).size() == 3",
    ]);
}

#[test]
fn kubernetes_libraries_know_their_formats() {
    holds(&[
        "quantity('1Ki').isGreaterThan(quantity('1k')) && quantity('1').add(1).compareTo(quantity('2')) == 0",
        "isQuantity('1.5Gi') && !isQuantity('x') && quantity('50k').asInteger() == 50000 && sign(quantity('-1')) == -1",
        "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('1.2.3') && ip.isCanonical('::1') && ip('127.0.0.1').isLoopback()",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8 && !isCIDR('10.0.0.0/33')",
        "string(cidr('10.0.0.0/8').ip()) == '10.0.0.0'",
        "url('https://a.b:80/p%20q?x=1&x=2').getHost() == 'a.b:80' && url('https://a.b:80/p').getPort() == '80'",
        "url('https://a.b/p?x=1&x=2').getQuery() == {'x': ['1', '2']} && isURL('/path') && !isURL('../x')",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).minor() == 2 && !isSemver('1.2')",
        "format.dns1123Label().validate('a-b') == optional.none() && format.named('uuid').value().validate('x').hasValue()",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
    ]);
}

#[test]
fn moments_have_parts() {
    holds(&[
        "self.when.getFullYear() == 2026 && self.when.getMonth() == 0 && self.when.getDate() == 2",
        "self.when.getHours() == 3 && self.when.getHours('+01:00') == 4",
        "self.when + duration('1h') > self.when && timestamp('2026-01-02T03:04:06Z') - self.when == duration('1s')",
        "duration('90m').getMinutes() == 90 && duration('1500ms').getSeconds() == 1",
        "type(self.when) == google.protobuf.Timestamp && type(1) == int && type([]) == list",
    ]);
}

#[test]
fn mutations_make_objects_and_patches() {
    check(&[
        ("Object{spec: Object.spec{replicas: 1 + 1, ?gone: optional.none()}}", r#"{"spec":{"replicas":2}}"#),
        ("[JSONPatch{op: 'add', path: '/a', value: {'x': 1}}]", r#"[{"op":"add","path":"/a","value":{"x":1}}]"#),
        (
            "JSONPatch{nope: 1}",
            "ERROR: <input>:1:15: undefined field 'nope'\n | JSONPatch{nope: 1}\n | ..............^",
        ),
    ]);
}

#[test]
fn faults_are_told_as_upstream_tells_them() {
    check(&[
        ("self.gone", "ERROR: <input>:1:5: undefined field 'gone'\n | self.gone\n | ....^"),
        (
            "self.replicas == 'x'",
            "ERROR: <input>:1:15: found no matching overload for '_==_' applied to '(int, string)'\n | self.replicas == 'x'\n | ..............^",
        ),
        (
            "self.name.all(x, true)",
            "ERROR: <input>:1:5: expression of type 'string' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.name.all(x, true)\n | ....^",
        ),
        ("nope == 1", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope == 1\n | ^"),
        (
            "self.name.nope()",
            "ERROR: <input>:1:15: undeclared reference to 'nope' (in container '')\n | self.name.nope()\n | ..............^",
        ),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('x')\n | .........^"),
        (
            "self.name.size('x')",
            "ERROR: <input>:1:15: found no matching overload for 'size' applied to 'string.(string)'\n | self.name.size('x')\n | ..............^",
        ),
    ]);
}

#[test]
fn what_costs_too_much_is_ended() {
    let program = Program::compile(&environment(), "lists.range(1000).all(x, lists.range(1000).all(y, x + y >= 0))");
    let failure = program.unwrap().evaluate(&Scope::default(), &mut Meter::new(10_000)).unwrap_err();
    assert!(failure.is_cost(), "{failure}");
    assert_eq!(
        run(&"(".repeat(300)).lines().next().unwrap(),
        "ERROR: <input>:1:251: expression recursion limit exceeded: 250"
    );
}

#[test]
fn estimates_grow_with_what_a_schema_allows() {
    let estimate = |expression: &str, max: u64| {
        let program = Program::compile(&environment(), expression).unwrap();
        program.estimate(&|path: &[String]| Some(if path.len() > 1 { max } else { 1 })).max
    };
    assert_eq!(estimate("self.replicas > 1", 10), 3);
    assert_eq!(estimate("self.name == 'abc'", 10), 3);
    assert!(estimate("self.names.all(n, n == 'a')", 1_000_000) > 1_000_000);
    assert!(estimate("self.names.all(n, self.names.all(m, n != m))", 1_000_000) > 1_000_000_000_000);
}

#[test]
fn a_value_may_be_named_once_and_used_often() {
    check(&[
        ("cel.bind(n, self.name, n + n)", "\"webweb\""),
        ("cel.bind(a, 1, cel.bind(b, a + 1, a + b))", "3"),
        (
            "cel.bind(self.name, 1, 2)",
            "ERROR: <input>:1:14: cel.bind() variable names must be simple identifiers\n | cel.bind(self.name, 1, 2)\n | .............^",
        ),
    ]);
}
