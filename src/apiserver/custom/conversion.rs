//! Custom resources from one version to another by a webhook.
//!
//! Owns: the ConversionReview, both ways, and what a webhook may not change.
//! Called by: every verb that reads or writes a custom resource in another version than it is stored in.
//! Never: is asked about an object that is in the right version already.

use bytes::Bytes;
use minik_api::{Status, object};
use minik_store::{Entry, Event};
use serde_json::{Value, json};

use crate::admission::webhook::client;
use crate::catalog::Served;
use crate::objects::Objects;
use crate::stored;

/// `spec.conversion.webhook` of a definition.
#[derive(Debug)]
pub struct Converter {
    client_config: Value,
    /// The first version of ConversionReview that both sides know; without one nothing can be converted.
    review_version: Option<&'static str>,
}

impl Converter {
    /// `None` when versions differ in their name alone.
    pub fn of(conversion: &Value) -> Option<Self> {
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let webhook = &conversion["webhook"];
        let mut offered = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        let review_version = offered.find_map(|v| ["v1", "v1beta1"].into_iter().find(|known| v == known));
        Some(Self { client_config: webhook["clientConfig"].clone(), review_version })
    }

    async fn convert(&self, objects: &dyn Objects, trees: Vec<Value>, wanted: &str) -> Result<Vec<Value>, String> {
        let version = self.review_version.ok_or("no supported conversion review versions")?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": trees},
        });
        let subject = subject(&trees[0]);
        let failed = |why: String| format!("conversion webhook for {subject} failed: {why}");
        let answer = client::call(&self.client_config, objects, None, &review).await;
        let converted = read(answer.map_err(|e| failed(e.to_string()))?, version, &uid).map_err(failed)?;
        if converted.len() != trees.len() {
            let (seen, expected) = (converted.len(), trees.len());
            return Err(format!("conversion webhook for {subject} returned {seen} objects, expected {expected}"));
        }
        let pairs = trees.iter().zip(converted).enumerate();
        let checked = pairs.map(|(index, (original, converted))| {
            checked(original, converted, wanted).map_err(|why| {
                format!("conversion webhook for {subject} returned invalid converted object at index {index}: {why}")
            })
        });
        checked.collect()
    }
}

/// As Go prints a kind: `example.com/v1, Kind=Foo`.
fn subject(tree: &Value) -> String {
    let text = |field: &str| tree[field].as_str().unwrap_or("").to_string();
    format!("{}, Kind={}", text("apiVersion"), text("kind"))
}

fn read(mut answer: Value, version: &str, uid: &str) -> Result<Vec<Value>, String> {
    if version == "v1" {
        let (said, expected) = (subject(&answer), "apiextensions.k8s.io/v1, Kind=ConversionReview");
        if said != expected {
            return Err(format!("expected webhook response of {expected}, got {said}"));
        }
    }
    let response = &mut answer["response"];
    if !response.is_object() {
        return Err("no response provided".into());
    }
    let echoed = response["uid"].as_str().unwrap_or("");
    if version == "v1" && echoed != uid {
        return Err(format!("expected response.uid={uid:?}, got {echoed:?}"));
    }
    let result = &response["result"];
    if result["status"] != "Success" {
        return Err(match result["message"].as_str().unwrap_or("") {
            "" => format!("response.result.status was '{}', not 'Success'", result["status"].as_str().unwrap_or("")),
            message => message.into(),
        });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// A webhook changes what it likes, but of the metadata only labels and annotations.
fn checked(original: &Value, mut converted: Value, wanted: &str) -> Result<Value, String> {
    let text = |tree: &Value, field: &str| tree[field].as_str().unwrap_or("").to_string();
    let said = text(&converted, "apiVersion");
    if said != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {said})"));
    }
    let kinds = (text(original, "kind"), text(&converted, "kind"));
    if kinds.0 != kinds.1 {
        return Err(format!("invalid kind (expected {}, received {})", kinds.0, kinds.1));
    }
    for (what, of) in
        [("name", object::name as fn(&Value) -> &str), ("namespace", object::namespace), ("UID", object::uid)]
    {
        let (before, after) = (of(original), of(&converted));
        if before != after {
            return Err(format!("must have the same {what}: {before} != {after}"));
        }
    }
    if !converted["metadata"].is_object() {
        return Err("missing metadata in converted object".into());
    }
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let new = converted["metadata"][field].take();
        match (new, metadata.as_object_mut()) {
            (Value::Null, Some(fields)) => drop(fields.remove(field)),
            (Value::Object(new), _) => metadata[field] = Value::Object(new),
            (other, _) => return Err(format!("invalid metadata.{field} in converted object: {other}")),
        }
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

fn of(served: &Served) -> Option<&Converter> {
    served.custom().and_then(|c| c.conversion.as_ref())
}

/// Trees in `wanted`, in their order.
pub async fn trees(
    objects: &dyn Objects,
    served: &Served,
    mut trees: Vec<Value>,
    wanted: &str,
) -> Result<Vec<Value>, Status> {
    let Some(converter) = of(served) else { return Ok(trees) };
    let others: Vec<usize> = (0..trees.len()).filter(|i| trees[*i]["apiVersion"] != wanted).collect();
    if others.is_empty() {
        return Ok(trees);
    }
    let sent = others.iter().map(|i| trees[*i].take()).collect();
    // Without a reason, as upstream has it: the fault is neither the client's nor this server's.
    let converted = converter.convert(objects, sent, wanted).await.map_err(|why| Status::new(500, "", why))?;
    for (index, tree) in others.into_iter().zip(converted) {
        trees[index] = tree;
    }
    Ok(trees)
}

async fn values(objects: &dyn Objects, served: &Served, mut values: Vec<Bytes>) -> Result<Vec<Bytes>, Status> {
    let others: Vec<usize> = (0..values.len()).filter(|i| !served.is_of_version(&values[*i])).collect();
    if others.is_empty() {
        return Ok(values);
    }
    let decoded = others.iter().map(|i| stored::decode_bytes(&values[*i])).collect();
    let converted = trees(objects, served, decoded, &served.row.api_version()).await?;
    for (index, tree) in others.into_iter().zip(converted) {
        values[index] = stored::to_json(&tree).into();
    }
    Ok(values)
}

/// Stored entries as they are in the version of the request.
pub async fn entries(objects: &dyn Objects, served: &Served, entries: Vec<Entry>) -> Result<Vec<Entry>, Status> {
    if of(served).is_none() {
        return Ok(entries);
    }
    let converted = values(objects, served, entries.iter().map(|e| e.value.clone()).collect()).await?;
    Ok(entries.iter().zip(converted).map(|(entry, value)| entry.told_as(value)).collect())
}

pub async fn entry(objects: &dyn Objects, served: &Served, entry: Entry) -> Result<Entry, Status> {
    if of(served).is_none() {
        return Ok(entry);
    }
    let mut converted = entries(objects, served, vec![entry]).await?;
    Ok(converted.swap_remove(0))
}

/// Events of a watch; `None` when nothing has to be converted.
pub async fn events(
    objects: &dyn Objects,
    served: &Served,
    events: &[std::sync::Arc<Event>],
) -> Result<Option<Vec<Event>>, Status> {
    if of(served).is_none() {
        return Ok(None);
    }
    // The state before is only ever shown as the last of an object that left the view, with the revision of that.
    let mut all: Vec<Bytes> = Vec::new();
    for event in events {
        all.push(event.entry.value.clone());
        all.extend(event.faded().map(|f| f.value.clone()));
    }
    let mut converted = values(objects, served, all).await?.into_iter();
    let mut told = Vec::with_capacity(events.len());
    for event in events {
        let (Some(value), before) = (converted.next(), event.previous.as_ref()) else { break };
        let before = before.and_then(|p| converted.next().map(|value| p.told_as(value)));
        told.push(event.told_as(event.entry.told_as(value), before));
    }
    Ok(Some(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_may_change_labels_but_not_whose_object_it_is() {
        let original = json!({"apiVersion": "g/v1", "kind": "A",
            "metadata": {"name": "a", "uid": "u", "labels": {"x": "1"}, "resourceVersion": "5"}, "spec": {"a": 1}});
        let converted = json!({"apiVersion": "g/v2", "kind": "A",
            "metadata": {"name": "a", "uid": "u", "labels": {"y": "2"}, "resourceVersion": "9"}, "spec": {"b": 1}});
        let seen = checked(&original, converted.clone(), "g/v2").expect("sound");
        assert_eq!(seen["metadata"], json!({"name": "a", "uid": "u", "labels": {"y": "2"}, "resourceVersion": "5"}));
        let mut other = converted.clone();
        other["metadata"]["name"] = "b".into();
        assert_eq!(checked(&original, other, "g/v2"), Err("must have the same name: a != b".into()));
        let wrong = checked(&original, converted, "g/v3");
        assert_eq!(wrong, Err("invalid groupVersion (expected g/v3, received g/v2)".into()));
    }

    #[test]
    fn a_refusal_is_told_in_the_webhooks_words() {
        let answer = |result: Value| {
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": "u", "result": result, "convertedObjects": [1]}})
        };
        assert_eq!(read(answer(json!({"status": "Failed", "message": "no"})), "v1", "u"), Err("no".into()));
        assert_eq!(
            read(answer(json!({"status": "Failed"})), "v1", "u"),
            Err("response.result.status was 'Failed', not 'Success'".into())
        );
        assert_eq!(read(answer(json!({"status": "Success"})), "v1", "u"), Ok(vec![json!(1)]));
    }
}
