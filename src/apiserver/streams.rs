//! The streams of an HTTP/2 connection, in the task that reads and writes it.
//!
//! Owns: that frames, TLS and the bodies of answers are the business of one task, and the work for a request that of
//! another, which ends when nobody waits for it any more.
//! Called by: `listen`, for each connection.
//! Never: looks into a request.
//!
//! hyper would give each stream a task. Two threads then wake each other for every chunk of a long list, and wait for the
//! lock on the connection's frames.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use futures::{FutureExt, Stream};
use parking_lot::Mutex;
use tokio::task::{JoinError, coop};
use tokio_util::task::AbortOnDropHandle;

use crate::linger::{Linger, Pace};

/// What a long body hands to the connection at once: with the header of its HTTP/2 frame, four whole records of TLS.
pub const CHUNK_BYTES: usize = (64 << 10) - 9;

/// A fault in one body must not take the connection's other streams with it.
type Running = BoxFuture<'static, Result<(), Box<dyn Any + Send>>>;

/// The work for one request, which may keep a thread busy while the connection goes on: apart from it, unless its client
/// sends nothing else meanwhile.
pub async fn apart<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    pace: Pace,
) -> Result<T, JoinError> {
    if pace.is_quick() { Ok(work.await) } else { AbortOnDropHandle::new(tokio::spawn(work)).await }
}

/// Streams that a connection has begun and that nobody runs yet.
#[derive(Clone, Default)]
pub struct Begun(Arc<Mutex<Vec<Running>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Begun {
    fn execute(&self, stream: F) {
        self.0.lock().push(AssertUnwindSafe(stream).catch_unwind().boxed());
    }
}

/// A connection and its streams; each is looked after when it has something to do.
pub struct Together<C> {
    connection: C,
    begun: Begun,
    running: FuturesUnordered<Running>,
    bell: Arc<Bell>,
    /// The connection's and the streams' ropes.
    wakers: [Waker; 2],
    linger: Option<Linger>,
}

impl<C> Together<C> {
    /// The connection puts its streams into `begun`.
    pub fn new(connection: C, begun: Begun, linger: Option<Linger>) -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(CONNECTION), task: AtomicWaker::new() });
        let wakers = [CONNECTION, STREAMS].map(|side| Waker::from(Arc::new(Rope { bell: bell.clone(), side })));
        Self { connection, begun, running: FuturesUnordered::new(), bell, wakers, linger }
    }

    /// To tell it something, which it looks at afterwards.
    pub fn connection(&mut self) -> &mut C {
        self.bell.ring(CONNECTION);
        &mut self.connection
    }
}

impl<C: Future + Unpin> Future for Together<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        let [for_connection, for_streams] = &this.wakers;
        this.bell.task.register(context.waker());
        let mut has_answered = false;
        loop {
            let rung = this.bell.attend();
            if rung & CONNECTION != 0
                && let Poll::Ready(ended) =
                    Pin::new(&mut this.connection).poll(&mut Context::from_waker(for_connection))
            {
                return Poll::Ready(ended);
            }
            let begun = std::mem::take(&mut *this.begun.0.lock());
            if let Some(linger) = this.linger.as_mut().filter(|_| !begun.is_empty()) {
                linger.asked(begun.len(), Instant::now());
            }
            if rung & STREAMS != 0 || !begun.is_empty() {
                this.running.extend(begun);
                let for_streams = &mut Context::from_waker(for_streams);
                while let Poll::Ready(Some(_)) = Pin::new(&mut this.running).poll_next(for_streams) {
                    has_answered = true;
                }
            }
            if this.bell.leave() {
                if let Some(linger) = this.linger.as_mut().filter(|_| has_answered && this.running.is_empty()) {
                    linger.answered(Instant::now);
                }
                return Poll::Pending;
            }
            if !coop::has_budget_remaining() {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

/// Somebody is there, who will look again before leaving.
const ATTENDED: u8 = 1;
const CONNECTION: u8 = 2;
const STREAMS: u8 = 4;

/// Wakes the task; while it runs, tells it to look again: a connection and its streams wake each other all the time, and a
/// task that is woken while it runs goes to the end of a queue, from where another thread takes it.
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Bell {
    fn ring(&self, side: u8) {
        if self.state.fetch_or(side, Ordering::SeqCst) & ATTENDED == 0 {
            self.task.wake();
        }
    }

    /// Who has rung since.
    fn attend(&self) -> u8 {
        self.state.swap(ATTENDED, Ordering::SeqCst)
    }

    /// Fails if somebody has rung meanwhile.
    fn leave(&self) -> bool {
        self.state.compare_exchange(ATTENDED, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

struct Rope {
    bell: Arc<Bell>,
    side: u8,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.bell.ring(self.side);
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.ring(self.side);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Empty, StreamBody};
    use hyper::body::{Frame, Incoming};
    use hyper::client::conn::http2::{SendRequest, handshake};
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::sync::mpsc;

    use super::*;
    use crate::linger::Requests;

    const CHUNKS: usize = 500;

    type Content = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

    /// A client of a server that answers like this.
    async fn connected<A>(
        answer: fn(String, mpsc::UnboundedSender<String>) -> A,
    ) -> (Client, mpsc::UnboundedReceiver<String>)
    where
        A: Future<Output = Content> + Send + 'static,
    {
        let (told, heard) = mpsc::unbounded_channel();
        let (near, far) = tokio::io::duplex(100_000);
        let service = service_fn(move |request: Request<Incoming>| {
            let work = answer(request.uri().path().to_string(), told.clone());
            apart(async move { Response::new(work.await) }, Pace::default())
        });
        let begun = Begun::default();
        let connection = http2::Builder::new(begun.clone()).serve_connection(TokioIo::new(far), service);
        tokio::spawn(Together::new(Box::pin(connection), begun, None));
        let (client, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(near)).await.expect("the server is there");
        tokio::spawn(connection);
        (client, heard)
    }

    type Client = SendRequest<Empty<Bytes>>;

    async fn get(client: &mut Client, path: &str) -> hyper::Result<Bytes> {
        let request = Request::get(format!("http://server{path}")).body(Empty::new()).expect("a constant request");
        let response = client.send_request(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }

    fn body(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Content {
        use futures::StreamExt;
        StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
    }

    fn long(told: &mpsc::UnboundedSender<String>) -> Content {
        let told = told.clone();
        let chunks = (0..CHUNKS).map(move |_| {
            let _ = told.send(format!("{:?}", tokio::task::id()));
            Bytes::from_static(&[b'x'; 10_000])
        });
        body(futures::stream::iter(chunks))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bodies_are_made_in_one_task_and_arrive_whole() {
        let (client, mut heard) = connected(|_, told| async move { long(&told) }).await;
        let all = (0..4).map(|_| {
            let mut client = client.clone();
            async move { get(&mut client, "/").await }
        });
        for answer in futures::future::join_all(all).await {
            let answer = answer.expect("it is answered");
            assert!(answer.len() == CHUNKS * 10_000 && answer.iter().all(|b| *b == b'x'));
        }
        let mut tasks = std::collections::HashSet::new();
        while let Ok(task) = heard.try_recv() {
            tasks.insert(task);
        }
        assert_eq!(tasks.len(), 1, "{tasks:?}");
    }

    #[tokio::test]
    async fn only_who_sends_nothing_else_gets_an_answer_from_the_connection_itself() {
        let work = || async { tokio::task::id() };
        let connection = tokio::spawn(async move {
            let (near, far) = (apart(work(), Pace::quick()).await, apart(work(), Pace::default()).await);
            (tokio::task::id(), near.expect("it is done"), far.expect("it is done"))
        });
        let (connection, near, far) = connection.await.expect("it ends");
        assert!(near == connection && far != connection);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_asks_at_once_again_is_known_for_it() {
        let (near, far) = tokio::net::UnixStream::pair().expect("two sockets");
        let linger = Linger::new(&far, Requests::default()).expect("there are descriptors");
        let (pace, begun) = (linger.pace(), Begun::default());
        let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
        let connection = http2::Builder::new(begun.clone()).serve_connection(TokioIo::new(far), service);
        tokio::spawn(Together::new(Box::pin(connection), begun, Some(linger)));
        let (mut client, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(near)).await.expect("the server is there");
        tokio::spawn(connection);
        // Some may come late on a busy machine.
        for _ in 0..10_000 {
            get(&mut client, "/").await.expect("it is answered");
            if pace.is_quick() {
                return;
            }
        }
        panic!("no request came quickly");
    }

    #[tokio::test]
    async fn work_ends_when_its_client_has_gone() {
        struct Guard(mpsc::UnboundedSender<String>);
        impl Drop for Guard {
            fn drop(&mut self) {
                let _ = self.0.send("ended".into());
            }
        }
        let (mut client, mut heard) = connected(|_, told| async move {
            let _ = told.send("begun".into());
            let _guard = Guard(told);
            std::future::pending().await
        })
        .await;
        let asked = tokio::spawn(async move { get(&mut client, "/").await });
        assert_eq!(heard.recv().await.as_deref(), Some("begun"));
        asked.abort();
        assert_eq!(heard.recv().await.as_deref(), Some("ended"));
    }

    #[tokio::test]
    async fn a_fault_in_one_answer_leaves_the_others() {
        let (mut client, _heard) = connected(|path, told| async move {
            match path.as_str() {
                "/work" => panic!("a fault in the work"),
                "/body" => body(futures::stream::once(async { panic!("a fault in the body") })),
                _ => long(&told),
            }
        })
        .await;
        for path in ["/work", "/body"] {
            assert!(get(&mut client, path).await.is_err(), "{path}");
        }
        assert_eq!(get(&mut client, "/").await.expect("the connection goes on").len(), CHUNKS * 10_000);
    }

    #[tokio::test]
    async fn a_body_that_waits_goes_on_when_there_is_more() {
        let (mut client, _heard) = connected(|_, _| async move {
            let (more, mut chunks) = mpsc::channel(1);
            // From another thread, as the store's.
            std::thread::spawn(move || (0..100).all(|_| more.blocking_send(Bytes::from_static(b"x")).is_ok()));
            body(futures::stream::poll_fn(move |context| chunks.poll_recv(context)))
        })
        .await;
        assert_eq!(get(&mut client, "/").await.expect("it is answered").len(), 100);
    }

    #[tokio::test]
    async fn a_connection_that_is_told_something_looks_at_it() {
        struct Told(bool);
        impl Future for Told {
            type Output = ();
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
                if self.0 { Poll::Ready(()) } else { Poll::Pending }
            }
        }
        let mut together = Together::new(Told(false), Begun::default(), None);
        assert!(futures::poll!(&mut together).is_pending());
        together.connection().0 = true;
        assert!(futures::poll!(&mut together).is_ready());
    }
}
