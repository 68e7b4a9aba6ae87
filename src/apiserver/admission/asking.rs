//! The variable `authorizer` of CEL expressions: rules may ask what the writer may do elsewhere.
//!
//! Owns: `authorizer.group(g).resource(r).check(v).allowed()` and its companions, as Kubernetes' library has them.
//! Called by: the evaluation of expressions.
//! Never: answers for anybody but the writer, or a service account that the rule names.

use std::fmt;
use std::sync::Arc;

use minik_api::selector::{FieldRequirement, FieldSelector, LabelSelector, Requirement};
use minik_cel::types::{AUTHORIZER, DECISION, GROUP_CHECK, PATH_CHECK, RESOURCE_CHECK};
use minik_cel::value::Host;
use minik_cel::{Failure, Value as Cel};

use super::Review;
use crate::authn::{UserInfo, service_account};
use crate::authz::{Attributes, Authorizer, Decision, ResourceTarget, Target};

/// How far the question has got.
#[derive(Clone)]
enum Stage {
    Start,
    Path(String),
    Group,
    Resource,
    Decided(Decision),
}

#[derive(Clone, Default)]
struct Asked {
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    fields: Vec<FieldRequirement>,
    labels: Vec<Requirement>,
}

/// A question on its way.
#[derive(Clone)]
pub struct Asking {
    user: Arc<UserInfo>,
    authorizer: Arc<dyn Authorizer>,
    /// What the write itself is about: `authorizer.requestResource`.
    own: Asked,
    asked: Asked,
    stage: Stage,
}

impl Asking {
    pub fn of(review: &Review, authorizer: Arc<dyn Authorizer>) -> Self {
        let own = Asked {
            group: review.group.clone(),
            resource: review.resource.clone(),
            subresource: review.subresource.clone(),
            namespace: review.namespace.clone(),
            name: review.name.clone(),
            ..Asked::default()
        };
        Self { user: review.user.clone(), authorizer, own, asked: Asked::default(), stage: Stage::Start }
    }

    pub fn about_the_write(&self) -> Self {
        Self { asked: self.own.clone(), stage: Stage::Resource, ..self.clone() }
    }

    fn decide(&self, verb: &str) -> Decision {
        let target = match &self.stage {
            Stage::Path(path) => Target::Path(path),
            _ => Target::Resource(ResourceTarget {
                group: &self.asked.group,
                version: "*",
                resource: &self.asked.resource,
                subresource: &self.asked.subresource,
                namespace: &self.asked.namespace,
                name: &self.asked.name,
                fields: &self.asked.fields,
                labels: &self.asked.labels,
            }),
        };
        self.authorizer.authorize(&Attributes { user: &self.user, verb, target })
    }

    /// The question one step further.
    fn next(&self, function: &str, texts: &[String]) -> Option<Self> {
        let mut next = self.clone();
        match (function, texts) {
            ("path", [path]) => next.stage = Stage::Path(path.clone()),
            ("group", [group]) => (next.asked.group, next.stage) = (group.clone(), Stage::Group),
            ("serviceAccount", [namespace, name]) => {
                next.user = Arc::new(service_account::user(namespace, name, ""));
            }
            ("resource", [resource]) => (next.asked.resource, next.stage) = (resource.clone(), Stage::Resource),
            ("subresource", [subresource]) => next.asked.subresource.clone_from(subresource),
            ("namespace", [namespace]) => next.asked.namespace.clone_from(namespace),
            ("name", [name]) => next.asked.name.clone_from(name),
            // A selector that cannot be read narrows nothing: the question is then about everything.
            ("fieldSelector", [text]) => {
                next.asked.fields = FieldSelector::parse(text).map(|s| s.requirements().to_vec()).unwrap_or_default();
            }
            ("labelSelector", [text]) => {
                next.asked.labels = LabelSelector::parse(text).map(|s| s.requirements().to_vec()).unwrap_or_default();
            }
            ("check", [verb]) => next.stage = Stage::Decided(self.decide(verb)),
            _ => return None,
        }
        Some(next)
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asking({})", self.type_name())
    }
}

impl Host for Asking {
    fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Start => AUTHORIZER,
            Stage::Path(_) => PATH_CHECK,
            Stage::Group => GROUP_CHECK,
            Stage::Resource => RESOURCE_CHECK,
            Stage::Decided(_) => DECISION,
        }
    }

    fn call(&self, function: &str, args: &[Cel<'_>]) -> Result<Cel<'static>, Failure> {
        let texts = args.iter().map(|arg| match arg {
            Cel::String(text) => Ok(text.to_string()),
            _ => Err(Failure::no_such_overload()),
        });
        let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
        match (function, &self.stage) {
            ("allowed", Stage::Decided(decision)) => Ok(Cel::Bool(decision.is_allowed())),
            ("reason", Stage::Decided(decision)) => Ok(Cel::from(decision.reason())),
            // Answers come from memory, so there is never an error.
            ("errored", Stage::Decided(_)) => Ok(Cel::Bool(false)),
            ("error", Stage::Decided(_)) => Ok(Cel::from("")),
            _ => match self.next(function, &texts) {
                Some(next) => Ok(Cel::Host(Arc::new(next))),
                None => Err(Failure::no_such_overload()),
            },
        }
    }
}
