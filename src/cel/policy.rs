//! The programs of a policy.
//!
//! Owns: compiling a policy's expressions in the order they may use each other, and what does not fit given types.
//! Called by: the API server, for the evaluation of policies and the check of new ones; the controller that tells in
//! their status what does not fit.
//! Never: evaluates.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::admission::{Compiled, Params, compile, environment};
use crate::types::{Fields, ObjectField, ObjectType};
use crate::{Environment, Messages, Program, Type};

/// Everything of a policy that is compiled, in the order of its lists.
pub struct Programs {
    pub variables: Vec<(String, Program)>,
    /// Names of variables that are no programs, and why.
    pub broken: Vec<(String, String)>,
    pub validations: Vec<Compiled>,
    pub messages: Vec<Option<Compiled>>,
    pub annotations: Vec<Compiled>,
    pub mutations: Vec<Compiled>,
}

/// How `object` and `params` are typed.
pub struct Types {
    pub object: Type,
    pub params: Type,
}

impl Default for Types {
    fn default() -> Self {
        Self { object: Type::Dyn, params: Type::Dyn }
    }
}

impl Programs {
    pub fn compile(policy: &Value, types: &Types) -> Self {
        let spec = &policy["spec"];
        let list = |field: &str| spec[field].as_array().map_or(&[][..], Vec::as_slice);
        let text = |of: &Value, field: &str| of[field].as_str().unwrap_or("").to_string();
        let mut names = names(spec, types);
        let is_mutating = spec["mutations"].is_array();
        if is_mutating {
            names = names.with_messages(Messages::Mutations);
        }
        let (mut variables, mut broken) = (Vec::new(), Vec::new());
        // Upstream composes variables only where there may be some.
        if is_mutating || !list("variables").is_empty() {
            compose(&mut names, list("variables"), |name, outcome| match outcome {
                Ok(program) => variables.push((name, program)),
                Err(error) => broken.push((name, error)),
            });
        }
        let message = |rule: &Value| {
            let given = rule["messageExpression"].as_str().filter(|text| !text.trim().is_empty())?;
            Some(compile(&names, given, &[Type::String]))
        };
        Self {
            variables,
            broken,
            validations: list("validations")
                .iter()
                .map(|rule| compile(&names, &text(rule, "expression"), &[Type::Bool]))
                .collect(),
            messages: list("validations").iter().map(message).collect(),
            annotations: list("auditAnnotations")
                .iter()
                .map(|rule| compile(&names, &text(rule, "valueExpression"), &[Type::String, Type::Null]))
                .collect(),
            mutations: list("mutations").iter().map(|mutation| compile_mutation(&names, mutation)).collect(),
        }
    }
}

/// What expressions of a policy may name, but for its variables.
fn names(spec: &Value, types: &Types) -> Environment {
    let params = if spec["paramKind"].is_object() { Params::Known } else { Params::None };
    let mut names = environment(params).with("object", types.object.clone()).with("oldObject", types.object.clone());
    if params == Params::Known {
        names.declare("params", types.params.clone());
    }
    names
}

/// Declares the variables one after the other, so that each may use those before it.
fn compose(names: &mut Environment, variables: &[Value], mut told: impl FnMut(String, Compiled)) {
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or("").to_string();
    let mut known = Vec::new();
    names.declare("variables", of_variables(&known));
    for variable in variables {
        let name = text(variable, "name");
        let outcome = compile(names, &text(variable, "expression"), &[Type::Dyn]);
        if let Ok(program) = &outcome {
            known.push((name.clone(), program.result().clone()));
            names.declare("variables", of_variables(&known));
        }
        told(name, outcome);
    }
}

fn compile_mutation(names: &Environment, mutation: &Value) -> Compiled {
    let (field, wanted) = match mutation["patchType"].as_str() {
        Some("JSONPatch") => ("jsonPatch", "list(JSONPatch)"),
        _ => ("applyConfiguration", "Object"),
    };
    let text = mutation[field]["expression"].as_str().unwrap_or("");
    let program = compile(names, text, &[Type::Dyn])?;
    let found = program.result().to_string();
    // An empty list of patches is a list of anything.
    let fits = found == wanted || (field == "jsonPatch" && found == "list(dyn)");
    if fits {
        Ok(program)
    } else {
        Err(format!("must evaluate to {}", if field == "jsonPatch" { "list" } else { wanted }))
    }
}

fn of_variables(known: &[(String, Type)]) -> Type {
    let fields = known.iter().map(|(name, of)| (name.clone(), ObjectField { json: name.clone(), of: of.clone() }));
    let fields = Fields::Declared(fields.collect());
    Type::Object(Arc::new(ObjectType { name: "kubernetes.variables".into(), fields }))
}

/// `status.typeChecking.expressionWarnings`: what does not fit the types that the policy is about, though it may run.
/// `types` names each kind as upstream's messages do: `apps/v1, Kind=Deployment`.
pub fn warnings(policy: &Value, types: &[(String, Types)]) -> Vec<Value> {
    let spec = &policy["spec"];
    let list = |field: &str| spec[field].as_array().map_or(&[][..], Vec::as_slice);
    let typed = |types: &Types| {
        let mut names = names(spec, types);
        compose(&mut names, list("variables"), |_, _| {});
        names
    };
    let kinds: Vec<(&String, Environment)> = types.iter().map(|(kind, types)| (kind, typed(types))).collect();
    let mut found = Vec::new();
    for (index, rule) in list("validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = rule[field].as_str().unwrap_or("");
            // What an expression must come to is checked where it is written.
            let fault = |names: &Environment| Program::compile(names, text).err();
            let told = kinds.iter().filter_map(|(kind, names)| Some(format!("{kind}: {}\n", fault(names)?)));
            let told: Vec<String> = if text.is_empty() { Vec::new() } else { told.collect() };
            if !told.is_empty() {
                let field = format!("spec.validations[{index}].{field}");
                found.push(json!({"fieldRef": field, "warning": told.join("\n")}));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_checked_against_every_kind() {
        let policy = json!({"spec": {"variables": [{"name": "n", "expression": "object.n"}],
            "validations": [{"expression": "variables.n > 1", "messageExpression": "'n is ' + string(object.n)"}]}});
        let of = |n: Type| Types { object: Type::object("T", [("n", n)]), params: Type::Dyn };
        let types = [("v1, Kind=A".into(), of(Type::Int)), ("v1, Kind=B".into(), of(Type::String))];
        let found = warnings(&policy, &types);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["fieldRef"], "spec.validations[0].expression");
        assert_eq!(
            found[0]["warning"],
            "v1, Kind=B: ERROR: <input>:1:13: found no matching overload for '_>_' applied to '(string, int)'\n \
             | variables.n > 1\n | ............^\n"
        );
    }
}
