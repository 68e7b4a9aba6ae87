//! GET of one object.
//!
//! Owns: what `resourceVersion` means for it.
//! Called by: `rest`.
//! Never: decodes what can be copied.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use minik_api::Status;
use minik_api::status::{Cause, Details};
use minik_store::Revision;

use crate::body::Body;
use crate::call::Call;
use crate::custom::conversion;
use crate::reply;
use crate::rest::face::{self, Face};
use crate::server::Core;

/// How long a read waits for a revision that the client has seen and this server has not; upstream's blockTimeout.
const FUTURE_REVISION_WAIT: Duration = Duration::from_secs(3);

/// `""` and `"0"` mean whatever there is.
pub fn parse_revision(text: &str) -> Result<Revision, Status> {
    if text.is_empty() {
        return Ok(Revision(0));
    }
    text.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        // A failure without a reason, as upstream has it for one object and for a watch; a list says it better.
        Status::new(500, "", format!("resourceVersion: Invalid value: {text:?}: {why}"))
    })
}

/// Returns when the store is at least there.
pub async fn not_older_than(core: &Core, revision: Revision) -> Result<(), Status> {
    if revision <= core.store.revision() {
        return Ok(());
    }
    if tokio::time::timeout(FUTURE_REVISION_WAIT, core.store.reached(revision)).await.is_ok() {
        return Ok(());
    }
    let cause = Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        ..Cause::default()
    };
    let details = Details { causes: vec![cause], retry_after_seconds: 1, ..Details::default() };
    let message = format!("Timeout: Too large resource version: {revision}, current: {}", core.store.revision());
    Err(Status { details: Some(details), ..Status::new(504, "Timeout", message) })
}

pub async fn get(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    not_older_than(core, parse_revision(call.query.get("resourceVersion"))?).await?;
    let key = call.served.key(&call.info.namespace, &call.info.name);
    let entry = core.store.get(&key).ok_or_else(|| call.not_found())?;
    let entry = conversion::entry(core.objects.as_ref(), &call.served, entry).await?;
    if Face::of(call) == Face::Scale {
        let whole = reply::served_tree(&call.served, &entry);
        if let Some(path) = face::missing_replicas(&call.served, &whole) {
            return Err(Status::internal(format!("the spec replicas field {path:?} does not exist")));
        }
        let scale = face::scale_of(&call.served, &whole);
        return Ok(reply::scale(call, 200, &call.served, &scale));
    }
    Ok(reply::entry(call, 200, &call.served, &entry))
}
