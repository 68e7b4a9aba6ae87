//! The programs of the policies in force.
//!
//! Owns: compiling them once.
//! Called by: the evaluation of policies.
//! Never: evaluates.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use minik_api::object;
use minik_cel::policy::{Programs, Types};
use parking_lot::Mutex;
use serde_json::Value;

/// Policies whose programs are remembered; then all are forgotten.
const POLICIES_MAX: usize = 1024;

/// Remembered by what changes with every write of the policy.
pub fn of_policy(policy: &Value) -> Arc<Programs> {
    /// By uid and resource version of the policy.
    type Known = Mutex<HashMap<(String, String), Arc<Programs>>>;
    static KNOWN: OnceLock<Known> = OnceLock::new();
    let version = object::resource_version(policy);
    if version.is_empty() {
        return Arc::new(Programs::compile(policy, &Types::default()));
    }
    let known = KNOWN.get_or_init(Mutex::default);
    let key = (object::uid(policy).to_string(), version.to_string());
    if let Some(programs) = known.lock().get(&key) {
        return programs.clone();
    }
    let programs = Arc::new(Programs::compile(policy, &Types::default()));
    let mut known = known.lock();
    if known.len() >= POLICIES_MAX {
        known.clear();
    }
    known.insert(key, programs.clone());
    programs
}
