//! `minik hello`: the web server of the image `minik/hello`.
//!
//! Owns: what it answers: who served the request, as learners want to see behind a Service.
//! Called by: the binary's `main` inside a container.
//! Never: needs a file, a library or the network beyond its socket.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

const PORT: u16 = 8080;
/// A request line of a browser is shorter; what is longer is cut off.
const REQUEST_BYTES_MAX: u64 = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

pub fn main() -> ExitCode {
    let port = std::env::var("PORT").ok().and_then(|p| p.parse().ok()).unwrap_or(PORT);
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(e) => {
            eprintln!("hello: could not listen on port {port}: {e}");
            return ExitCode::FAILURE;
        }
    };
    println!("hello: listening on port {port}");
    std::thread::spawn(end_on_sigterm);
    for stream in listener.incoming() {
        match stream {
            // One thread a request: a learner's cluster sees few, and it keeps the server a page long.
            Ok(stream) => drop(std::thread::spawn(move || drop(answer(stream)))),
            Err(e) => eprintln!("hello: {e}"),
        }
    }
    ExitCode::SUCCESS
}

/// The first process of a container has no default reaction to SIGTERM; without one every deletion would take the
/// whole grace period.
fn end_on_sigterm() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let Ok(runtime) = runtime.inspect_err(|e| eprintln!("hello: {e}")) else { return };
    runtime.block_on(async {
        if let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            term.recv().await;
            std::process::exit(0);
        }
    });
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let client = stream.peer_addr()?.ip();
    let mut lines = BufReader::new(std::io::Read::take(&stream, REQUEST_BYTES_MAX)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|l| !l.is_empty()) {}
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let body = format!("Hello from {host}!\n{request}\nclient {client}\n");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
    write!(&stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len())?;
    println!("{client} {request}");
    stream.shutdown(Shutdown::Write)
}
