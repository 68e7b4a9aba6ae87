//! The tools of validation: a value that knows its path, and the list of what is wrong.
//!
//! Owns: how paths are built (only when something is wrong) and the checks that many fields share.
//! Called by: every file of `validation`.
//! Never: knows a kind.

use serde_json::Value;

use crate::names;
use crate::quantity::Quantity;
use crate::status::{FieldError, FieldErrorType};

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

/// A value and how one came to it. An absent field is `null`.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub value: &'a Value,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

impl<'a> At<'a> {
    pub fn root(value: &'a Value) -> At<'a> {
        At { value, parent: None, step: Step::Field("") }
    }
    pub fn get<'b>(&'b self, name: &'b str) -> At<'b> {
        At { value: &self.value[name], parent: Some(self), step: Step::Field(name) }
    }
    /// The same place with another value: what an error shows.
    pub fn showing<'b>(&'b self, value: &'b Value) -> At<'b> {
        At { value, ..*self }
    }
    pub fn index<'b>(&'b self, i: usize) -> At<'b> {
        At { value: &self.value[i], parent: Some(self), step: Step::Index(i) }
    }
    /// `labels[app]`
    pub fn key<'b>(&'b self, key: &'b str) -> At<'b> {
        At { value: &self.value[key], parent: Some(self), step: Step::Key(key) }
    }
    pub fn items<'b>(&'b self) -> impl Iterator<Item = At<'b>> {
        let list = self.value.as_array().map_or(&[][..], Vec::as_slice);
        list.iter().enumerate().map(|(i, value)| At { value, parent: Some(self), step: Step::Index(i) })
    }
    pub fn entries<'b>(&'b self) -> impl Iterator<Item = (&'b str, At<'b>)> {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.as_str(), At { value, parent: Some(self), step: Step::Key(key) }))
    }

    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or("")
    }
    pub fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }
    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }
    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }
    pub fn len(&self) -> usize {
        self.value.as_array().map(Vec::len).or(self.value.as_object().map(serde_json::Map::len)).unwrap_or(0)
    }

    pub fn path(&self) -> String {
        let mut path = self.parent.map(At::path).unwrap_or_default();
        match self.step {
            Step::Field(name) => {
                if !path.is_empty() && !name.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Step::Index(i) => path.push_str(&format!("[{i}]")),
            Step::Key(key) => path.push_str(&format!("[{key}]")),
        }
        path
    }
}

/// What is wrong, in the order found. What upstream checks by declaration comes last.
#[derive(Default)]
pub struct Errors(pub Vec<FieldError>, Vec<FieldError>);

impl Errors {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }
    pub fn into_list(mut self) -> Vec<FieldError> {
        self.0.append(&mut self.1);
        self.0
    }
    /// As `into_list`, each fault once, as upstream has it for kinds with declarations.
    pub fn into_distinct(mut self) -> Vec<FieldError> {
        let mut seen = Vec::new();
        self.0.retain(|error| {
            let is_new = !seen.contains(error);
            if is_new {
                seen.push(error.clone());
            }
            is_new
        });
        self.into_list()
    }
    /// As a client reads them: `spec.replicas: Required value`.
    #[cfg(test)]
    pub fn into_texts(self) -> Vec<String> {
        self.into_list().iter().map(|e| format!("{}: {}", e.path, e.body())).collect()
    }
    /// Required by upstream's declarations, which give no details and are reported after everything else.
    pub fn required_by_declaration(&mut self, at: &At<'_>) {
        self.1.push(FieldError::required(at.path(), ""));
    }
    /// As `required_by_declaration`, with whatever is to be said.
    pub fn push_declared(&mut self, error: FieldError) {
        self.1.push(error);
    }
    /// As `required_by_declaration`, of a value that is wrong.
    pub fn faults_by_declaration(&mut self, at: &At<'_>, faults: Vec<String>) {
        self.1.extend(faults.into_iter().map(|fault| FieldError::invalid(at.path(), at.value, fault)));
    }
    /// As `required_by_declaration`, of what may not change and is shown so.
    pub fn immutable_by_declaration(&mut self, at: &At<'_>, shown: String) {
        let error = FieldError::invalid(at.path(), &Value::Null, "field is immutable");
        self.1.push(FieldError { value: Some(shown), ..error });
    }
    /// As `required_by_declaration`, of what must not be there.
    pub fn forbidden_by_declaration(&mut self, at: &At<'_>) {
        self.1.push(FieldError::forbidden(at.path(), ""));
    }
    /// As `not_supported`, showing the value as it is.
    pub fn not_supported_shown(&mut self, at: &At<'_>, supported: &[&str]) {
        self.0.push(FieldError::not_supported(at.path(), at.value, supported));
    }
    /// An error that shows a value as upstream's internal type prints it.
    pub fn invalid_shown(&mut self, at: &At<'_>, shown: String, detail: &str) {
        let error = FieldError::invalid(at.path(), &Value::Null, detail);
        self.0.push(FieldError { value: Some(shown), ..error });
    }
    /// An error about a place the object does not have.
    pub fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }
    pub fn required(&mut self, at: &At<'_>, detail: &str) {
        self.0.push(FieldError::required(at.path(), detail));
    }
    pub fn forbidden(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(at.path(), detail));
    }
    pub fn invalid(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(at.path(), at.value, detail));
    }
    pub fn duplicate(&mut self, at: &At<'_>) {
        self.0.push(FieldError::duplicate(at.path(), at.value));
    }
    /// As `invalid_shown`, of a value that is there already.
    pub fn duplicate_shown(&mut self, at: &At<'_>, shown: String) {
        let error = FieldError::duplicate(at.path(), &Value::Null);
        self.0.push(FieldError { value: Some(shown), ..error });
    }
    pub fn not_found(&mut self, at: &At<'_>) {
        self.0.push(FieldError::not_found(at.path(), at.value));
    }
    pub fn not_supported(&mut self, at: &At<'_>, supported: &[&str]) {
        self.0.push(FieldError::not_supported(at.path(), &at.text().into(), supported));
    }
    pub fn too_long(&mut self, at: &At<'_>, max: usize) {
        let detail = format!("may not be more than {max} bytes");
        self.0.push(FieldError { kind: FieldErrorType::TooLong, path: at.path(), value: None, detail });
    }
    pub fn too_many(&mut self, at: &At<'_>, max: usize) {
        let detail = format!("must have at most {max} items");
        let value = Some(at.len().to_string());
        self.0.push(FieldError { kind: FieldErrorType::TooMany, path: at.path(), value, detail });
    }

    /// One error for each text; the value shown is the field's text.
    pub fn faults(&mut self, at: &At<'_>, faults: Vec<String>) {
        for fault in faults {
            self.0.push(FieldError::invalid(at.path(), &at.text().into(), fault));
        }
    }
    /// As `faults`, showing the value as it is.
    pub fn faults_of_value(&mut self, at: &At<'_>, faults: Vec<String>) {
        for fault in faults {
            self.invalid(at, fault);
        }
    }

    /// Required, and one of these.
    pub fn one_of(&mut self, at: &At<'_>, supported: &[&str]) {
        if at.text().is_empty() {
            self.required(at, "");
        } else {
            self.one_of_if_set(at, supported);
        }
    }
    pub fn one_of_if_set(&mut self, at: &At<'_>, supported: &[&str]) {
        if !at.is_null() && !supported.contains(&at.text()) {
            self.not_supported(at, supported);
        }
    }
    pub fn non_negative(&mut self, at: &At<'_>) {
        if at.number().is_some_and(|n| n < 0) {
            self.invalid(at, "must be greater than or equal to 0");
        }
    }
    pub fn all_non_negative(&mut self, at: &At<'_>, fields: &[&str]) {
        fields.iter().for_each(|field| self.non_negative(&at.get(field)));
    }
    /// Required, and without the faults that `rule` finds.
    pub fn required_name(&mut self, at: &At<'_>, rule: impl FnOnce(&str) -> Vec<String>) {
        if at.text().is_empty() {
            self.required(at, "");
        } else {
            self.faults(at, rule(at.text()));
        }
    }
    /// As `immutable`, where upstream does not show the new value.
    pub fn immutable_unshown(&mut self, new: &At<'_>, old: &Value) {
        if new.value != old {
            self.invalid(&new.showing(&Value::Null), "field is immutable");
        }
    }
    /// Not given, or the same as before.
    pub fn immutable(&mut self, new: &At<'_>, old: &Value) {
        if new.value != old {
            self.invalid(new, "field is immutable");
        }
    }

    pub fn label(&mut self, at: &At<'_>) {
        self.faults(at, names::dns1123_label(at.text()));
    }
    pub fn subdomain(&mut self, at: &At<'_>) {
        self.faults(at, names::dns1123_subdomain(at.text()));
    }
    pub fn qualified_name(&mut self, at: &At<'_>) {
        self.faults(at, names::qualified_name(at.text()));
    }

    pub fn labels(&mut self, at: &At<'_>) {
        for (key, value) in at.entries() {
            self.faults(&at.showing(&key.into()), names::qualified_name(key));
            self.faults(&at.showing(value.value), names::label_value(value.text()));
        }
    }

    pub fn label_selector(&mut self, at: &At<'_>) {
        self.labels(&at.get("matchLabels"));
        for expression in at.get("matchExpressions").items() {
            self.selector_values(&expression);
            let operator = expression.get("operator");
            if !matches!(operator.text(), "In" | "NotIn" | "Exists" | "DoesNotExist") {
                self.invalid(&operator.showing(&operator.text().into()), "not a valid selector operator");
            }
            self.qualified_name(&expression.get("key"));
            for value in expression.get("values").items() {
                self.faults(&value, names::label_value(value.text()));
            }
        }
    }
    /// The operators that all selectors share want values or none.
    pub fn selector_values(&mut self, expression: &At<'_>) {
        let values = expression.get("values");
        match expression.get("operator").text() {
            "In" | "NotIn" if values.len() == 0 => {
                self.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                self.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            _ => {}
        }
    }

    /// A number from 1 to 65535 or a port name.
    pub fn port(&mut self, at: &At<'_>) {
        match at.value {
            Value::String(name) => self.faults(at, names::port_name(name)),
            number => {
                let number = number.as_i64().unwrap_or(0);
                self.faults_of_value(&at.showing(&number.into()), names::port_number(number));
            }
        }
    }
    pub fn port_number(&mut self, at: &At<'_>) {
        let number = at.number().unwrap_or(0);
        self.faults_of_value(&at.showing(&number.into()), names::port_number(number));
    }

    pub fn non_negative_quantity(&mut self, at: &At<'_>) {
        if Quantity::from_json(at.value).is_ok_and(|q| q.signum() < 0) {
            self.invalid(at, "must be greater than or equal to 0");
        }
    }

    /// `25%` or a number that is not negative.
    pub fn int_or_percent(&mut self, at: &At<'_>) {
        match at.value {
            Value::String(text) => self.faults(at, names::percent(text)),
            _ => self.non_negative(at),
        }
    }
    pub fn at_most_all(&mut self, at: &At<'_>) {
        if percent(at).is_some_and(|p| p > 100) {
            self.invalid(at, "must not be greater than 100%");
        }
    }
}

fn percent(at: &At<'_>) -> Option<i64> {
    at.value.as_str()?.strip_suffix('%')?.parse().ok()
}
/// The number before the percent sign, or the number.
pub fn amount(at: &At<'_>) -> i64 {
    percent(at).or(at.number()).unwrap_or(0)
}
