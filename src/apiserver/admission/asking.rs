//! The variable `authorizer` of CEL expressions: rules may ask what the writer may do elsewhere.
//!
//! Owns: `authorizer.group(g).resource(r).check(v).allowed()` and its companions, as Kubernetes' library has them.
//! Called by: the environment of expressions.
//! Never: answers for anybody but the writer, or a service account that the rule names.

use std::any::Any;
use std::sync::{Arc, LazyLock};

use cel::common::traits::Indexer;
use cel::common::types::{CelBool, CelString, STRING_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Env, ExecutionError};

use super::Review;
use crate::authn::{UserInfo, service_account};
use crate::authz::{Attributes, Authorizer, Decision, ResourceTarget, Target};

static AUTHORIZER: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type("kubernetes.authorization.Authorizer"));
static PATH: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type("kubernetes.authorization.PathCheck"));
static GROUP: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type("kubernetes.authorization.GroupCheck"));
static RESOURCE: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type("kubernetes.authorization.ResourceCheck"));
static DECISION: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type("kubernetes.authorization.Decision"));

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
        };
        Self { user: review.user.clone(), authorizer, own, asked: Asked::default(), stage: Stage::Start }
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
                ..Default::default()
            }),
        };
        self.authorizer.authorize(&Attributes { user: &self.user, verb, target })
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asking({})", self.get_type().name())
    }
}

impl Val for Asking {
    fn get_type(&self) -> &Type {
        match self.stage {
            Stage::Start => &AUTHORIZER,
            Stage::Path(_) => &PATH,
            Stage::Group => &GROUP,
            Stage::Resource => &RESOURCE,
            Stage::Decided(_) => &DECISION,
        }
    }
    fn cel_type() -> &'static Type {
        &AUTHORIZER
    }
    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        matches!(self.stage, Stage::Start).then_some(self as &(dyn Indexer + 'v))
    }
    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Asking {}

impl Indexer for Asking {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = index.downcast_ref::<CelString>().map(|s| s.to_string()).unwrap_or_default();
        if name != "requestResource" {
            return Err(ExecutionError::no_such_key(&name));
        }
        Ok(CowVal::owned(Asking { asked: self.own.clone(), stage: Stage::Resource, ..self.clone() }))
    }
    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn next<'b, 'v>(args: &Args<'b, 'v>, change: impl FnOnce(&mut Asking, &[String])) -> Answer<'b, 'v> {
    let Some(asking) = args.first().and_then(|this| this.downcast_ref::<Asking>()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let texts = args.iter().skip(1).map(|a| a.downcast_ref::<CelString>().map(|s| s.to_string()).unwrap_or_default());
    let texts: Vec<String> = texts.collect();
    let mut asking = asking.clone();
    change(&mut asking, &texts);
    Ok(CowVal::owned(asking))
}

fn path<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    next(&args, |a, t| a.stage = Stage::Path(t[0].clone()))
}
fn group<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    next(&args, |a, t| (a.asked.group, a.stage) = (t[0].clone(), Stage::Group))
}
fn account<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    next(&args, |a, t| a.user = Arc::new(service_account::user(&t[0], &t[1], "")))
}
fn resource<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    next(&args, |a, t| (a.asked.resource, a.stage) = (t[0].clone(), Stage::Resource))
}
fn subresource<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    next(&args, |a, t| a.asked.subresource = t[0].clone())
}
fn namespace<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    next(&args, |a, t| a.asked.namespace = t[0].clone())
}
fn name<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    next(&args, |a, t| a.asked.name = t[0].clone())
}
fn check<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    next(&args, |a, t| a.stage = Stage::Decided(a.decide(&t[0])))
}

fn decision<'v>(args: &Args<'_, 'v>) -> Decision {
    match args.first().and_then(|this| this.downcast_ref::<Asking>()).map(|asking| &asking.stage) {
        Some(Stage::Decided(decision)) => decision.clone(),
        _ => Decision::NoOpinion(String::new()),
    }
}
fn allowed<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(decision(&args).is_allowed())))
}
fn reason<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelString::from(decision(&args).reason().to_string())))
}
/// Answers come from memory, so there is never an error.
fn errored<'b, 'v>(_: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelBool::from(false)))
}
fn error<'b, 'v>(_: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(CowVal::owned(CelString::from(String::new())))
}

/// Declares the functions in `env`.
pub fn declare(env: &mut Env) -> Result<(), cel::DeclarationError> {
    let authorizer = || Type::new_opaque_type("kubernetes.authorization.Authorizer");
    let resource_check = || Type::new_opaque_type("kubernetes.authorization.ResourceCheck");
    let decided = || Type::new_opaque_type("kubernetes.authorization.Decision");
    let text = || STRING_TYPE;
    env.add_member_overload("path", "authorizer_path", authorizer(), vec![text()], path)?;
    env.add_member_overload("group", "authorizer_group", authorizer(), vec![text()], group)?;
    env.add_member_overload("serviceAccount", "authorizer_sa", authorizer(), vec![text(), text()], account)?;
    let group_check = Type::new_opaque_type("kubernetes.authorization.GroupCheck");
    env.add_member_overload("resource", "groupcheck_resource", group_check, vec![text()], resource)?;
    env.add_member_overload("subresource", "resourcecheck_sub", resource_check(), vec![text()], subresource)?;
    env.add_member_overload("namespace", "resourcecheck_ns", resource_check(), vec![text()], namespace)?;
    env.add_member_overload("name", "resourcecheck_name", resource_check(), vec![text()], name)?;
    env.add_member_overload("check", "resourcecheck_check", resource_check(), vec![text()], check)?;
    let path_check = Type::new_opaque_type("kubernetes.authorization.PathCheck");
    env.add_member_overload("check", "pathcheck_check", path_check, vec![text()], check)?;
    env.add_member_overload("allowed", "decision_allowed", decided(), vec![], allowed)?;
    env.add_member_overload("reason", "decision_reason", decided(), vec![], reason)?;
    env.add_member_overload("errored", "decision_errored", decided(), vec![], errored)?;
    env.add_member_overload("error", "decision_error", decided(), vec![], error)
}
