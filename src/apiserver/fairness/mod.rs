//! API priority and fairness: who waits when there is more to do than can be done at once.
//!
//! Owns: the levels and schemas of this moment, the decision about each request, the headers that tell of it.
//! Called by: the pipeline, after authentication and before authorization.
//! Never: holds a seat while a watch or another long request goes on; those only need one to begin.

mod classify;
mod defaults;
mod keeper;
mod seats;

pub use keeper::start;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use self::classify::{Schema, Table};
use self::seats::{Admitted, Seat, Seats};
use crate::authn::UserInfo;
use crate::body::Body;
use crate::reply;
use crate::route::RequestInfo;

/// Requests at once, all levels together: upstream's 400 that read and 200 that write.
const SEATS: u32 = 600;
/// How long a request may wait for its turn: upstream's quarter of a request's minute.
const WAIT_MAX: Duration = Duration::from_secs(15);

pub struct Fairness {
    table: ArcSwap<Table>,
    seats: Arc<Seats>,
}

impl Default for Fairness {
    fn default() -> Self {
        let table = Table::of(defaults::schemas(), defaults::levels());
        let seats = Arc::new(Seats::new(SEATS));
        seats.configure(&table.levels);
        Self { table: ArcSwap::from_pointee(table), seats }
    }
}

/// A request that may go on. Its seat is free again when this is dropped.
pub struct Turn {
    schema: Arc<Schema>,
    level_uid: HeaderValue,
    _seat: Option<Seat>,
}

/// A request for which there is no room.
pub struct Refused {
    schema: Arc<Schema>,
    level_uid: HeaderValue,
}

impl Fairness {
    /// Waits until the request may go on, or knows that it may not.
    pub async fn turn(&self, user: &UserInfo, info: &RequestInfo) -> Result<Turn, Refused> {
        let (schema, level, level_uid) = {
            let table = self.table.load();
            let schema = table.classify(user, info);
            (schema.clone(), table.level_of(schema), table.uid_of(schema))
        };
        let Some(level) = level else { return Ok(Turn { schema, level_uid, _seat: None }) };
        let seat = match self.seats.admit(level, schema.flow(user, info)) {
            Admitted::Exempt => None,
            Admitted::Now(seat) => Some(seat),
            Admitted::Refused => return Err(Refused { schema, level_uid }),
            Admitted::Waits(turn) => match tokio::time::timeout(WAIT_MAX, turn).await {
                Ok(Ok(seat)) => Some(seat),
                _ => return Err(Refused { schema, level_uid }),
            },
        };
        Ok(Turn { schema, level_uid, _seat: seat })
    }

    fn replace(&self, table: Table) {
        self.seats.configure(&table.levels);
        self.table.store(Arc::new(table));
    }

    /// Lines for `/metrics`, under upstream's names.
    pub fn metrics(&self) -> String {
        self.seats.metrics()
    }
}

static FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

fn tell(headers: &mut HeaderMap, schema: &Schema, level_uid: &HeaderValue) {
    headers.insert(&FLOW_SCHEMA, schema.uid.clone());
    headers.insert(&PRIORITY_LEVEL, level_uid.clone());
}

impl Turn {
    /// Tells the client how its request was classified.
    pub fn tell(&self, headers: &mut HeaderMap) {
        tell(headers, &self.schema, &self.level_uid);
    }
}

impl Refused {
    pub fn answer(&self) -> Response<Body> {
        let mut response = reply::text(429, "Too many requests, please try again later.\n");
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from_static("1"));
        tell(response.headers_mut(), &self.schema, &self.level_uid);
        response
    }
}
