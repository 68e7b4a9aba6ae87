//! DELETE of all objects that a selector means.
//!
//! Owns: which those are, and how many are deleted at once.
//! Called by: `rest`.
//! Never: stops at an object that somebody else deleted meanwhile.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use http::Response;
use minik_api::{Status, object};
use minik_store::Entry;

use crate::body::Body;
use crate::call::Call;
use crate::rest::delete::{self, DeleteOptions};
use crate::rest::{list, special};
use crate::server::Core;
use crate::stored;

/// So many deletions wait for one commit together.
const CONCURRENT_MAX: usize = 64;

pub async fn delete_collection(core: &Arc<Core>, call: &Call) -> Result<Response<Body>, Status> {
    let options = DeleteOptions::of(call)?;
    special::warn_of_deletion(call, options.says_what_follows());
    let page = list::select(core, call).await?;
    let deletions: Vec<_> = page.entries.iter().map(|entry| one(core, call, entry, &options)).collect();
    futures::stream::iter(deletions).buffer_unordered(CONCURRENT_MAX).try_collect::<Vec<()>>().await?;
    list::respond(call, page)
}

/// Boxed: the compiler cannot tell that a stream of borrowing futures may move between threads.
fn one<'a>(
    core: &'a Arc<Core>,
    call: &'a Call,
    entry: &'a Entry,
    options: &'a DeleteOptions,
) -> BoxFuture<'a, Result<(), Status>> {
    async move {
        let tree = stored::decode(entry);
        match delete::remove(core, call, object::namespace(&tree), object::name(&tree), options).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
    .boxed()
}
