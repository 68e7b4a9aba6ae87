//! CEL expressions of webhooks and policies.
//!
//! Owns: the environment they are compiled in, programs already compiled, and turning objects into CEL values.
//! Called by: match conditions, validations, messages.
//! Never: lets an expression do anything but look.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, Program};
use parking_lot::Mutex;
use serde_json::Value;

use super::asking::Asking;

/// Compiled programs are kept by their text; this many, then all are forgotten.
const PROGRAMS_MAX: usize = 1024;

fn environment() -> Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    let build = || {
        let mut env = Env::stdlib();
        for extension in
            [cel::extensions::strings, cel::extensions::lists, cel::extensions::math, cel::extensions::encoders]
        {
            // Two libraries that declare the same function would be a fault of this table alone.
            env.add_extension(extension).expect("the extension libraries do not overlap");
        }
        env.add_extension(super::asking::declare).expect("nobody else asks the authorizer");
        Arc::new(env)
    };
    ENVIRONMENT.get_or_init(build).clone()
}

/// The program of an expression, or why it is none.
pub fn compile(text: &str) -> Result<Arc<Program>, String> {
    static PROGRAMS: OnceLock<Mutex<HashMap<String, Arc<Program>>>> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(Mutex::default);
    if let Some(program) = programs.lock().get(text) {
        return Ok(program.clone());
    }
    let program = Arc::new(environment().compile(text).map_err(|e| e.to_string())?);
    let mut programs = programs.lock();
    if programs.len() >= PROGRAMS_MAX {
        programs.clear();
    }
    programs.insert(text.into(), program.clone());
    Ok(program)
}

/// Names an expression may use.
#[derive(Clone, Default)]
pub struct Variables {
    values: HashMap<&'static str, cel::Value>,
    authorizer: Option<Asking>,
}

impl Variables {
    pub fn with(mut self, name: &'static str, value: cel::Value) -> Self {
        self.values.insert(name, value);
        self
    }
    pub fn with_authorizer(mut self, authorizer: Asking) -> Self {
        self.authorizer = Some(authorizer);
        self
    }
}

pub fn evaluate(text: &str, variables: &Variables) -> Result<cel::Value, String> {
    let program = compile(text)?;
    let mut context = Context::with_env(environment());
    for (name, value) in &variables.values {
        context.add_variable_from_value(*name, value.clone());
    }
    if let Some(authorizer) = &variables.authorizer {
        context.add_variable_as_val("authorizer", Box::new(authorizer.clone()));
    }
    program.execute(&context).map_err(|error| match error {
        cel::ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        other => other.to_string(),
    })
}

/// Integers become CEL's int: clients compare them with literals, which are ints.
pub fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(b) => cel::Value::Bool(*b),
        Value::Number(n) => match n.as_i64() {
            Some(int) => cel::Value::Int(int),
            None => cel::Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(s) => cel::Value::String(Arc::new(s.clone())),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let pairs = fields.iter().map(|(key, value)| (Key::String(Arc::new(key.clone())), to_cel(value)));
            cel::Value::Map(Map { map: Arc::new(pairs.collect()) })
        }
    }
}

/// A map of values that are there already.
pub fn map_of(pairs: impl IntoIterator<Item = (String, cel::Value)>) -> cel::Value {
    let pairs = pairs.into_iter().map(|(key, value)| (Key::String(Arc::new(key)), value));
    cel::Value::Map(Map { map: Arc::new(pairs.collect()) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(expression: &str, expected: Result<bool, &str>) {
        let object =
            json!({"metadata": {"name": "web", "labels": {"app": "x"}}, "spec": {"replicas": 7, "list": [1, 2]}});
        let variables = Variables::default().with("object", to_cel(&object));
        let outcome = evaluate(expression, &variables);
        match (outcome, expected) {
            (Ok(value), Ok(wanted)) => assert_eq!(value, cel::Value::Bool(wanted), "{expression}"),
            (Err(error), Err(wanted)) => assert!(error.contains(wanted), "{expression}: {error}"),
            (outcome, _) => panic!("{expression}: {outcome:?}"),
        }
    }

    #[test]
    fn expressions_look_into_objects() {
        check("object.spec.replicas <= 5", Ok(false));
        check("object.spec.replicas * 2 == 14", Ok(true));
        check("has(object.metadata.labels.app) && !has(object.metadata.annotations)", Ok(true));
        check("object.metadata.name.startsWith('w') && object.metadata.name.upperAscii() == 'WEB'", Ok(true));
        check("object.spec.list.all(x, x > 0)", Ok(true));
        check("object.spec.missing == 1", Err("no such key: missing"));
        check("object.spec.", Err(""));
    }
}
