//! An operator as they are written with kube-rs: a kind of its own, a reconciler with a finalizer, children it owns.
//!
//! Owns: what kube-rs' controller, finalizer, apply, recorder and conditions ask of an API server.
//! Called by: the test harness.
//! Never: uses a client of ours for what an operator would do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event as RecordedEvent;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, watcher};
use kube::{Api, CustomResource, CustomResourceExt, Resource, ResourceExt};
use minik_apiserver::{UserInfo, body};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::controllers;
use crate::server::Server;

const LIMIT: Duration = Duration::from_secs(30);
const MANAGER: &str = "gardener";
const FINALIZER: &str = "garden.minik.dev/tidied";
const BED: &str = "garden.minik.dev/bed";

/// A bed of plants: a ConfigMap for each.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(group = "garden.minik.dev", version = "v1", kind = "Bed", namespaced, status = "BedStatus", shortname = "bd")]
#[kube(printcolumn = r#"{"name": "Planted", "type": "integer", "jsonPath": ".status.planted"}"#)]
struct BedSpec {
    #[schemars(length(max = 3))]
    plants: Vec<String>,
    soil: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct BedStatus {
    planted: usize,
    observed_generation: Option<i64>,
}

/// kube-rs' client, whose requests go to the server of this process.
fn client(server: &Server) -> kube::Client {
    let server = server.0.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let server = server.clone();
        async move {
            let (parts, content) = request.into_parts();
            let mut request = Request::from_parts(parts, body::full(content.collect().await?.to_bytes()));
            request
                .extensions_mut()
                .insert(Arc::new(UserInfo::new("gardener", &["system:masters", "system:authenticated"])));
            Ok::<_, kube::Error>(server.handle(request).await)
        }
    });
    kube::Client::new(service, "default")
}

struct Gardener {
    client: kube::Client,
    recorder: Recorder,
}

async fn reconcile(bed: Arc<Bed>, gardener: Arc<Gardener>) -> Result<Action, finalizer::Error<kube::Error>> {
    let beds: Api<Bed> = Api::namespaced(gardener.client.clone(), &bed.namespace().unwrap_or_default());
    finalizer(&beds, FINALIZER, bed, |event| async {
        match event {
            finalizer::Event::Apply(bed) => gardener.plant(&bed).await,
            finalizer::Event::Cleanup(bed) => gardener.tidy(&bed).await,
        }
    })
    .await
}

impl Gardener {
    fn maps(&self, bed: &Bed) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &bed.namespace().unwrap_or_default())
    }

    async fn note(&self, bed: &Bed, reason: &str) -> Result<(), kube::Error> {
        let event = Event {
            type_: EventType::Normal,
            reason: reason.into(),
            note: Some(format!("{} plants", bed.spec.plants.len())),
            action: "Garden".into(),
            secondary: None,
        };
        self.recorder.publish(&event, &bed.object_ref(&())).await
    }

    /// Applies a ConfigMap for each plant, removes those of others, and says so in the status.
    async fn plant(&self, bed: &Bed) -> Result<Action, kube::Error> {
        let (maps, params) = (self.maps(bed), PatchParams::apply(MANAGER).force());
        for plant in &bed.spec.plants {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(format!("{}-{plant}", bed.name_any())),
                    labels: Some(BTreeMap::from([(BED.into(), bed.name_any())])),
                    owner_references: bed.controller_owner_ref(&()).map(|r| vec![r]),
                    ..Default::default()
                },
                data: Some(BTreeMap::from([("plant".into(), plant.clone())])),
                ..Default::default()
            };
            maps.patch(&map.name_any(), &params, &Patch::Apply(&map)).await?;
        }
        let labelled = ListParams::default().labels(&format!("{BED}={}", bed.name_any()));
        for map in maps.list(&labelled).await? {
            let plant = map.data.as_ref().and_then(|d| d.get("plant"));
            if !plant.is_some_and(|p| bed.spec.plants.contains(p)) {
                maps.delete(&map.name_any(), &DeleteParams::default()).await?;
            }
        }
        let status = json!({"apiVersion": Bed::api_version(&()), "kind": "Bed",
            "status": BedStatus { planted: bed.spec.plants.len(), observed_generation: bed.metadata.generation }});
        let beds: Api<Bed> = Api::namespaced(self.client.clone(), &bed.namespace().unwrap_or_default());
        beds.patch_status(&bed.name_any(), &params, &Patch::Apply(status)).await?;
        self.note(bed, "Planted").await?;
        Ok(Action::await_change())
    }

    /// Leaves a mark that nobody owns, so that a test sees that it ran before the Bed went.
    async fn tidy(&self, bed: &Bed) -> Result<Action, kube::Error> {
        let mark = ConfigMap {
            metadata: ObjectMeta { name: Some(format!("tidied-{}", bed.name_any())), ..Default::default() },
            ..Default::default()
        };
        self.maps(bed).patch(&mark.name_any(), &PatchParams::apply(MANAGER), &Patch::Apply(&mark)).await?;
        self.note(bed, "Tidied").await?;
        Ok(Action::await_change())
    }
}

/// A reconciler whose cache is a moment behind may find its Bed changed or gone; anything else is a fault.
fn retried(error: &finalizer::Error<kube::Error>) -> Action {
    use finalizer::Error::{AddFinalizer, ApplyFailed, CleanupFailed, RemoveFinalizer};
    match error {
        ApplyFailed(kube::Error::Api(status))
        | CleanupFailed(kube::Error::Api(status))
        | AddFinalizer(kube::Error::Api(status))
        | RemoveFinalizer(kube::Error::Api(status))
            if [404, 409, 422].contains(&status.code) =>
        {
            Action::requeue(Duration::from_millis(20))
        }
        other => panic!("the reconciler failed: {other:?}"),
    }
}

struct Garden {
    client: kube::Client,
    beds: Api<Bed>,
    maps: Api<ConfigMap>,
    stop: tokio::sync::oneshot::Sender<()>,
    running: tokio::task::JoinHandle<()>,
}

impl Garden {
    /// A server with Kubernetes' own controllers, the kind, and the operator, which lists and watches as `watching` says.
    async fn start(watching: watcher::Config) -> Self {
        let server = controllers::cluster().await;
        let client = client(&server);
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        definitions.create(&PostParams::default(), &Bed::crd()).await.expect("the definition is taken");
        let established = await_condition(definitions, Bed::crd_name(), conditions::is_crd_established());
        within(established).await.expect("the watch of the definition goes on");
        let reporter = Reporter { controller: MANAGER.into(), instance: Some("one".into()) };
        let gardener = Gardener { client: client.clone(), recorder: Recorder::new(client.clone(), reporter) };
        let (beds, maps) = (Api::<Bed>::default_namespaced(client.clone()), Api::default_namespaced(client.clone()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let controller = Controller::new(beds.clone(), watching.clone())
            .owns(Api::<ConfigMap>::default_namespaced(client.clone()), watching.labels(BED))
            .graceful_shutdown_on(async move { drop(stopped.await) })
            .run(reconcile, |_, error, _| retried(error), Arc::new(gardener));
        let running = tokio::spawn(controller.for_each(|outcome| async {
            match outcome {
                // A child that went after its Bed still says whose it was.
                Ok(_) | Err(controller::Error::ObjectNotFound(_) | controller::Error::ReconcilerFailed(..)) => {}
                Err(error) => panic!("the controller failed: {error:?}"),
            }
        }));
        Self { client, beds, maps, stop, running }
    }

    async fn bed(&self, name: &str, what: &str, wanted: impl Fn(&Bed) -> bool) -> Bed {
        let condition = |bed: Option<&Bed>| bed.is_some_and(&wanted);
        let met = within(await_condition(self.beds.clone(), name, condition)).await;
        met.unwrap_or_else(|e| panic!("{what}: {e}")).expect("the condition asks for one")
    }

    async fn map(&self, name: &str, wanted: impl Fn(Option<&ConfigMap>) -> bool) -> Option<ConfigMap> {
        within(await_condition(self.maps.clone(), name, wanted)).await.expect("the watch of ConfigMaps goes on")
    }

    async fn end(self) {
        self.stop.send(()).expect("the controller runs");
        within(self.running).await.expect("it had no error");
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("not within the limit")
}

fn bed(name: &str, plants: &[&str]) -> Bed {
    Bed::new(name, BedSpec { plants: plants.iter().map(|p| p.to_string()).collect(), soil: None })
}

async fn a_bed_is_planted_changed_and_tidied(watching: watcher::Config) {
    let garden = Garden::start(watching).await;
    let made = garden.beds.create(&PostParams::default(), &bed("north", &["bean", "pea"])).await.expect("taken");
    let planted = garden.bed("north", "planted", |b| b.status.as_ref().is_some_and(|s| s.planted == 2)).await;
    assert_eq!(planted.finalizers(), [FINALIZER]);
    assert_eq!(planted.status.expect("just seen").observed_generation, Some(1), "a finalizer is no new generation");
    let bean = garden.maps.get("north-bean").await.expect("an owned ConfigMap");
    let owner = &bean.owner_references()[0];
    assert_eq!((Some(&owner.uid), owner.controller), (made.uid().as_ref(), Some(true)));
    let managers = |o: &ObjectMeta| -> Vec<(Option<String>, Option<String>, Option<String>)> {
        o.managed_fields
            .iter()
            .flatten()
            .map(|m| (m.manager.clone(), m.operation.clone(), m.subresource.clone()))
            .collect()
    };
    assert_eq!(managers(&bean.metadata), [(Some(MANAGER.into()), Some("Apply".into()), None)]);

    // What is taken from the operator comes back, as another object.
    garden.maps.delete("north-bean", &DeleteParams::default()).await.expect("it was there");
    let again = garden.map("north-bean", |m| m.is_some_and(|m| m.uid() != bean.uid())).await.expect("made again");
    assert_eq!(again.data.expect("data")["plant"], "bean");

    // Another manager's apply takes one away and adds one; its refusal names the field.
    let apply = PatchParams::apply("visitor");
    let change =
        |plants: &[&str]| json!({"apiVersion": "garden.minik.dev/v1", "kind": "Bed", "spec": {"plants": plants}});
    let error = garden.beds.patch("north", &apply, &Patch::Apply(change(&["pea"]))).await.expect_err("a conflict");
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"), "{status:?}");
    let changed = garden
        .beds
        .patch("north", &apply.clone().force(), &Patch::Apply(change(&["pea", "leek"])))
        .await
        .expect("forced");
    assert_eq!(changed.metadata.generation, Some(2));
    garden.bed("north", "changed", |b| b.status.as_ref().is_some_and(|s| s.observed_generation == Some(2))).await;
    garden.map("north-bean", |m| m.is_none()).await;
    garden.maps.get("north-leek").await.expect("a ConfigMap of the new plant");
    let error = garden.beds.patch("north", &apply.force(), &Patch::Apply(change(&["a", "b", "c", "d"]))).await;
    let kube::Error::Api(status) = error.expect_err("too many") else { panic!("another error") };
    assert_eq!(status.code, 422);
    assert!(status.message.contains("spec.plants: Too many: 4: must have at most 3 items"), "{}", status.message);

    // The Bed waits for its finalizer, its ConfigMaps for it.
    garden.beds.delete("north", &DeleteParams::background()).await.expect("it was there");
    let uid = made.uid().expect("one");
    let gone = await_condition(garden.beds.clone(), "north", conditions::is_deleted(&uid));
    within(gone).await.expect("the watch of the Bed goes on");
    garden.maps.get("tidied-north").await.expect("the reconciler tidied before the Bed went");
    garden.map("north-pea", |m| m.is_none()).await;
    garden.map("north-leek", |m| m.is_none()).await;
    assert_eq!(garden.events(&made).await, ["Planted", "Tidied"]);
    garden.end().await;
}

impl Garden {
    /// Reasons of the events about a Bed, each once: repeated ones are a series of one object.
    async fn events(&self, of: &Bed) -> Vec<String> {
        let events: Api<RecordedEvent> = Api::default_namespaced(self.client.clone());
        let about = ListParams::default().fields(&format!("regarding.uid={}", of.uid().expect("one")));
        let mut reasons: Vec<_> =
            events.list(&about).await.expect("events").into_iter().filter_map(|e| e.reason).collect();
        reasons.sort();
        reasons
    }
}

#[tokio::test]
async fn an_operator_that_lists_and_watches() {
    a_bed_is_planted_changed_and_tidied(watcher::Config::default()).await;
}

#[tokio::test]
async fn an_operator_whose_watches_send_the_present_first() {
    a_bed_is_planted_changed_and_tidied(watcher::Config::default().streaming_lists()).await;
}

/// Pages of one, so that a list of a few needs its continue tokens.
#[tokio::test]
async fn an_operator_that_lists_in_pages_takes_up_what_was_there_before_it() {
    let garden = Garden::start(watcher::Config::default().page_size(1)).await;
    for name in ["east", "south", "west"] {
        garden.beds.create(&PostParams::default(), &bed(name, &["pea"])).await.expect("taken");
    }
    for name in ["east", "south", "west"] {
        garden.bed(name, "planted", |b| b.status.as_ref().is_some_and(|s| s.planted == 1)).await;
    }
    garden.end().await;
}
