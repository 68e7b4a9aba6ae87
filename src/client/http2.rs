//! HTTP/2 as a client speaks it: one connection, its streams, and how it is found dead.
//!
//! Owns: that a request leaves in one piece, flow control of answers, pings.
//! Called by: `remote`, which keeps the connections.
//! Never: opens a socket, or tries a request again.
//!
//! hyper would send a request's headers, be told that they are on their way, and then send its body: two packets and two
//! more wake-ups for each small write.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{HeaderValue, Method, Request, Response, header};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::transport::BoxError;

/// As client-go: a connection whose other side vanished is noticed within 45 s.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// A frame is read whole before it is handed on; larger ones than the default of 16 KiB spare a long list half its wake-ups.
const FRAME_BYTES_MAX: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Cheap to clone; the connection ends with the last clone and the last answer.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_closed: AtomicBool,
    streams: AtomicUsize,
}

/// Why there is no answer.
pub enum Failure {
    /// The connection has ended, and the request was not sent.
    Ended(h2::Error),
    /// It may have reached the server, or would be refused on any connection.
    Other(h2::Error),
}

impl Connection {
    pub async fn start<S>(stream: S) -> Result<Connection, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .handshake(stream)
            .await?;
        let pings = connection.ping_pong().expect("nobody has taken it before");
        let state = Arc::new(State::default());
        let theirs = state.clone();
        tokio::spawn(async move {
            // An error shows in the requests on it.
            tokio::select! {
                _ = connection => {}
                () = silent(pings, &theirs) => {}
            }
            theirs.is_closed.store(true, Ordering::Relaxed);
        });
        Ok(Connection { sender, state })
    }

    /// It takes no more requests.
    pub fn is_closed(&self) -> bool {
        self.state.is_closed.load(Ordering::Relaxed)
    }

    /// Requests that are not answered to their end.
    pub fn streams(&self) -> usize {
        self.state.streams.load(Ordering::Relaxed)
    }

    /// A stream on it, counted from now on.
    pub fn stream(&self) -> Stream {
        Stream { sender: self.sender.clone(), place: Place::taken(&self.state) }
    }
}

/// Returns once a ping stays unanswered while somebody waits for something.
async fn silent(mut pings: PingPong, state: &State) {
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        if state.streams.load(Ordering::Relaxed) == 0 {
            continue;
        }
        match tokio::time::timeout(PING_TIMEOUT, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection tells of its own end.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Room for one request.
pub struct Stream {
    sender: SendRequest<Bytes>,
    place: Place,
}

impl Stream {
    pub async fn send(self, request: Request<Bytes>) -> Result<Response<Answer>, Failure> {
        let Stream { sender, place } = self;
        let unsent = |error: h2::Error| {
            if !error.is_io() && !error.is_go_away() {
                return Failure::Other(error);
            }
            // From now on nobody should be given it, even if the last answers are still to come.
            place.0.is_closed.store(true, Ordering::Relaxed);
            Failure::Ended(error)
        };
        let mut sender = sender.ready().await.map_err(unsent)?;
        let (mut head, body) = request.into_parts();
        let says_length = matches!(head.method, Method::POST | Method::PUT | Method::PATCH) || !body.is_empty();
        if says_length && !head.headers.contains_key(header::CONTENT_LENGTH) {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let (answer, mut rest) = sender.send_request(Request::from_parts(head, ()), body.is_empty()).map_err(unsent)?;
        if !body.is_empty() {
            rest.send_data(body, true).map_err(Failure::Other)?;
        }
        let answer = answer.await.map_err(Failure::Other)?;
        Ok(answer.map(|stream| Answer { stream, is_over: false, _place: place }))
    }
}

/// One stream taken, until dropped.
struct Place(Arc<State>);

impl Place {
    fn taken(state: &Arc<State>) -> Place {
        state.streams.fetch_add(1, Ordering::Relaxed);
        Place(state.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer. It holds its stream's place until it is read or dropped.
pub struct Answer {
    stream: RecvStream,
    /// There are only trailers left.
    is_over: bool,
    _place: Place,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.is_over {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    // It is read, so there is room for as much again.
                    let released = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(released.map(|()| Frame::data(data)).map_err(BoxError::from)));
                }
                // A server may stop an answer early without any fault.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => self.is_over = true,
            }
        }
        match ready!(self.stream.poll_trailers(context)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use parking_lot::Mutex;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// What a stream is told to write, piece by piece.
    struct Watched {
        stream: DuplexStream,
        pieces: Arc<Mutex<Vec<usize>>>,
    }

    impl AsyncRead for Watched {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            into: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, into)
        }
    }

    impl AsyncWrite for Watched {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            self.pieces.lock().push(data.len());
            Pin::new(&mut self.stream).poll_write(context, data)
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            parts: &[std::io::IoSlice<'_>],
        ) -> Poll<std::io::Result<usize>> {
            self.pieces.lock().push(parts.iter().map(|part| part.len()).sum());
            Pin::new(&mut self.stream).poll_write_vectored(context, parts)
        }
        fn is_write_vectored(&self) -> bool {
            true
        }
        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(context)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }

    const LONG: usize = 3 * CONNECTION_WINDOW_BYTES as usize;

    /// Answers each request with as many bytes as it is asked for, after its body.
    async fn serve(stream: DuplexStream) {
        let mut connection = h2::server::handshake(stream).await.expect("a client");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let length: usize = request.uri().path().trim_start_matches('/').parse().expect("a number");
                let mut body = request.into_body();
                let mut answer = Vec::new();
                while let Some(data) = body.data().await {
                    let data = data.expect("a body");
                    body.flow_control().release_capacity(data.len()).expect("it came");
                    answer.extend_from_slice(&data);
                }
                answer.resize(length, b'x');
                let mut out = respond.send_response(Response::new(()), false).expect("somebody waits");
                out.send_data(answer.into(), true).expect("somebody waits");
            });
        }
    }

    async fn connected() -> (Connection, Arc<Mutex<Vec<usize>>>) {
        let (near, far) = duplex(1 << 20);
        tokio::spawn(serve(far));
        let pieces = Arc::default();
        let connection = Connection::start(Watched { stream: near, pieces: Arc::clone(&pieces) }).await;
        (connection.expect("a server"), pieces)
    }

    fn post(path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
        Request::post(format!("https://server{path}")).body(body.into()).expect("a constant request")
    }

    async fn text(connection: &Connection, request: Request<Bytes>) -> Bytes {
        let Ok(answer) = connection.stream().send(request).await else { panic!("there is no answer") };
        answer.into_body().collect().await.expect("a whole answer").to_bytes()
    }

    #[tokio::test]
    async fn a_request_leaves_in_one_piece() {
        let (connection, pieces) = connected().await;
        // The first is preceded by what both sides say of themselves.
        text(&connection, post("/5", "hello")).await;
        pieces.lock().clear();
        assert_eq!(text(&connection, post("/600", vec![b'y'; 600])).await, vec![b'y'; 600]);
        let pieces = pieces.lock().clone();
        assert!(pieces[0] > 600 && pieces[1..].iter().all(|length| *length < 100), "{pieces:?}");
    }

    #[tokio::test]
    async fn long_bodies_arrive_whole_both_ways_and_streams_are_counted() {
        let (connection, _) = connected().await;
        let Ok(answer) = connection.stream().send(post(&format!("/{LONG}"), vec![b'x'; LONG])).await else {
            panic!("there is no answer")
        };
        assert_eq!(connection.streams(), 1);
        let body = answer.into_body().collect().await.expect("a whole answer").to_bytes();
        assert_eq!((body.len(), connection.streams()), (LONG, 0));
    }

    #[tokio::test]
    async fn a_connection_that_ended_is_known_to_and_sends_nothing() {
        let (near, far) = duplex(1 << 16);
        let server = tokio::spawn(serve(far));
        let connection = Connection::start(near).await.expect("a server");
        text(&connection, post("/1", "")).await;
        server.abort();
        let _ = server.await;
        let failure = connection.stream().send(post("/1", "")).await.err();
        assert!(failure.is_some());
        assert!(matches!(connection.stream().send(post("/1", "")).await, Err(Failure::Ended(_))));
        assert!(connection.is_closed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_falls_silent_is_found_out_while_somebody_waits() {
        // The other end stays there and says nothing more.
        let (near, _far) = duplex(1 << 16);
        let connection = Connection::start(near).await.expect("it only writes");
        tokio::time::sleep(10 * PING_INTERVAL).await;
        assert!(!connection.is_closed(), "nobody has asked for anything");
        let asked = tokio::time::Instant::now();
        assert!(matches!(connection.stream().send(post("/1", "")).await, Err(Failure::Other(_))));
        assert!(asked.elapsed() <= PING_INTERVAL + PING_TIMEOUT);
        assert!(connection.is_closed());
    }
}
