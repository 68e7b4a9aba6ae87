//! One more process in a running container, and connecting to the one that runs.
//!
//! Owns: the exec's process description, its limits, and carrying its streams.
//! Called by: the CRI RuntimeService (ExecSync), the streaming server (Exec, Attach).
//! Never: lets an exec outlive its caller: the shim ends it when the connection does.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use minik_shim::protocol::{Frame, Request};
use minik_shim::{CONFIG_FILE, ExecConfig, PROCESS_FILE};
use minik_streaming::{CommandSession, Ends, Exit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::container::pid_of;
use crate::error::{Error, chain, io_error};
use crate::runtime::{Container, Runtime, new_id};
use crate::shim_process::{self, Reader, Writer};

/// containerd's limit of what ExecSync keeps of each stream; the rest is dropped.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
const STDIN_CHUNK: usize = 32 * 1024;

pub(crate) struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub code: i32,
}

/// A process that was started; it ends with this connection.
pub(crate) struct Running {
    reader: Reader,
    writer: Writer,
}

pub(crate) async fn start(
    runtime: &Runtime,
    container: &Container,
    command: &[String],
    ends: Ends,
) -> Result<Running, Error> {
    pid_of(container)?;
    let dir = describe(runtime, container, command, ends)?;
    let started = shim_process::start(&runtime.0.config.exe, "exec", &dir).await;
    if let Err(error) = started {
        let _ = fs::remove_dir_all(&dir);
        return Err(error);
    }
    let request = Request::Attach { stdin: ends.stdin, stdout: true, stderr: true };
    let (reader, writer) = shim_process::connect(&dir, &request).await.map_err(io_error("could not reach the exec"))?;
    Ok(Running { reader, writer })
}

/// Writes what the shim needs; its folder.
fn describe(runtime: &Runtime, container: &Container, command: &[String], ends: Ends) -> Result<PathBuf, Error> {
    let record = container.record.lock().clone();
    let config = &runtime.0.config;
    let bundle = fs::read(config.container(&record.id).join("config.json"))
        .map_err(io_error("could not read the container's specification"))?;
    let spec: Value = serde_json::from_slice(&bundle)
        .map_err(|e| io_error("could not read the container's specification")(e.into()))?;
    let seccomp = spec["linux"].get("seccomp").cloned();
    let mut process = process(&spec, command, ends.tty);
    if seccomp.is_some() {
        let_install_filter(&mut process);
    }
    let exec = ExecConfig {
        container_id: record.id.clone(),
        libcontainer_root: config.libcontainer(),
        tty: ends.tty,
        stdin: ends.stdin,
        uid: record.user.uid,
        gid: record.user.gid,
        seccomp,
    };
    // Shorter than a container's id, for the length of the socket's path.
    let dir = config.execs().join(&new_id()[..32]);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(PROCESS_FILE), serde_json::to_vec(&process)?)?;
        fs::write(dir.join(CONFIG_FILE), serde_json::to_vec(&exec)?)
    };
    write().map_err(io_error("could not describe the exec"))?;
    Ok(dir)
}

/// As the container's own process, but for the command and the terminal.
fn process(spec: &Value, command: &[String], tty: bool) -> Value {
    let mut process = spec["process"].clone();
    process["args"] = json!(command);
    process["terminal"] = json!(tty);
    if let Some(env) = process["env"].as_array_mut().filter(|_| tty)
        && !env.iter().any(|e| e.as_str().is_some_and(|e| e.starts_with("TERM=")))
    {
        env.push(json!("TERM=xterm"));
    }
    process
}

/// Without no_new_privs only CAP_SYS_ADMIN may install a filter, and an exec's is installed last, after capabilities
/// were dropped. So it keeps that one until it becomes its program: `execve` computes the new sets from the bounding
/// and inheritable ones, which do not have it (capabilities(7)).
fn let_install_filter(process: &mut Value) {
    const NEEDED: &str = "CAP_SYS_ADMIN";
    if process["noNewPrivileges"] == json!(true) {
        return;
    }
    for set in ["effective", "permitted"] {
        if let Some(names) = process["capabilities"][set].as_array_mut().filter(|n| !n.contains(&json!(NEEDED))) {
            names.push(json!(NEEDED));
        }
    }
}

/// Runs a command to its end. `timeout` zero means none.
pub(crate) async fn sync(
    runtime: &Runtime,
    container: &Container,
    command: &[String],
    timeout: Duration,
) -> Result<Output, Error> {
    let ends = Ends { stdin: false, stdout: true, stderr: true, tty: false };
    let run = async {
        let mut running = start(runtime, container, command, ends).await?;
        let mut output = Output { stdout: Vec::new(), stderr: Vec::new(), code: 0 };
        loop {
            match running.reader.next().await.map_err(io_error("lost the exec"))? {
                Some(Frame::Stdout(bytes)) => keep(&mut output.stdout, &bytes),
                Some(Frame::Stderr(bytes)) => keep(&mut output.stderr, &bytes),
                Some(Frame::Exit(exit)) => {
                    output.code = exit.code;
                    return Ok(output);
                }
                Some(_) => {}
                None => return Err(io_error("lost the exec")(std::io::ErrorKind::UnexpectedEof.into())),
            }
        }
    };
    if timeout.is_zero() {
        return run.await;
    }
    // Dropping the connection ends the process.
    tokio::time::timeout(timeout, run).await.unwrap_or_else(|_| {
        Err(Error::DeadlineExceeded(format!("failed to exec in container: timeout {timeout:?} exceeded")))
    })
}

fn keep(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let room = OUTPUT_BYTES_MAX - buffer.len();
    buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// `kubectl exec`.
pub(crate) async fn stream(
    runtime: &Runtime,
    container: &Container,
    command: &[String],
    ends: Ends,
    session: CommandSession,
) {
    match start(runtime, container, command, ends).await {
        Ok(running) => carry(running, session, true).await,
        Err(error) => {
            let text = format!("Internal error occurred: error executing command in container: {}", chain(&error));
            let CommandSession { stdout, stderr, exit, .. } = session;
            drop((stdout, stderr));
            let _ = exit.send(Exit::Failed(text));
        }
    }
}

/// `kubectl attach`.
pub(crate) async fn attach(runtime: &Runtime, container: &Container, ends: Ends, session: CommandSession) {
    let dir = runtime.0.config.container(&container.record.lock().id);
    let request = Request::Attach { stdin: ends.stdin, stdout: ends.stdout, stderr: ends.stderr };
    match shim_process::connect(&dir, &request).await {
        Ok((reader, writer)) => carry(Running { reader, writer }, session, false).await,
        Err(error) => {
            let text = format!("Internal error occurred: error attaching to container: {error}");
            let CommandSession { stdout, stderr, exit, .. } = session;
            drop((stdout, stderr));
            let _ = exit.send(Exit::Failed(text));
        }
    }
}

/// Carries streams until the process ends or the client has gone.
async fn carry(running: Running, session: CommandSession, report_code: bool) {
    let Running { mut reader, writer } = running;
    let CommandSession { stdin, mut stdout, mut stderr, resize, mut exit } = session;
    let input = tokio::spawn(carry_input(writer, stdin, resize));
    let mut code = None;
    loop {
        let frame = tokio::select! {
            frame = reader.next() => frame,
            // The client has gone: so does our connection, and an exec with it.
            () = exit.closed() => break,
        };
        let (to, bytes) = match frame {
            Ok(Some(Frame::Stdout(bytes))) => (&mut stdout, bytes),
            Ok(Some(Frame::Stderr(bytes))) => (&mut stderr, bytes),
            Ok(Some(Frame::Exit(ended))) => {
                code = Some(ended.code);
                break;
            }
            Ok(Some(_)) => continue,
            Ok(None) | Err(_) => break,
        };
        if let Some(pipe) = to
            && pipe.write_all(&bytes).await.is_err()
        {
            break;
        }
    }
    input.abort();
    drop((stdout, stderr));
    let end = match code {
        Some(code) if report_code => Exit::Code(code),
        // An attached client learns the container's code from the pod's status.
        Some(_) => Exit::Code(0),
        None => Exit::Failed("the connection to the container was lost".into()),
    };
    let _ = exit.send(end);
}

async fn carry_input(
    mut writer: Writer,
    mut stdin: Option<tokio::io::DuplexStream>,
    mut resize: tokio::sync::mpsc::Receiver<minik_streaming::TerminalSize>,
) {
    let mut chunk = vec![0; STDIN_CHUNK];
    let mut sizes_end = false;
    loop {
        let read = async {
            match &mut stdin {
                Some(stdin) => stdin.read(&mut chunk).await,
                None => std::future::pending().await,
            }
        };
        let frame = tokio::select! {
            n = read => match n {
                Ok(0) | Err(_) => {
                    stdin = None;
                    Frame::CloseStdin
                }
                Ok(n) => Frame::Stdin(chunk[..n].to_vec()),
            },
            size = resize.recv(), if !sizes_end => match size {
                Some(size) => Frame::request(&Request::Resize { width: size.width, height: size.height }),
                None => {
                    sizes_end = true;
                    continue;
                }
            },
        };
        if writer.send(&frame).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_is_the_containers_process_with_another_command() {
        let spec = json!({"process": {"args": ["/web"], "terminal": false, "cwd": "/srv", "env": ["A=1"]}});
        let command = ["sh".to_owned()];
        assert_eq!(
            process(&spec, &command, true),
            json!({"args": ["sh"], "terminal": true, "cwd": "/srv", "env": ["A=1", "TERM=xterm"]})
        );
        assert_eq!(process(&spec, &command, false)["env"], json!(["A=1"]));
    }

    #[test]
    fn the_capability_to_install_a_filter_does_not_outlive_execve() {
        let sets = json!({"bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []});
        let mut process = json!({"capabilities": sets});
        let_install_filter(&mut process);
        let keeps = json!(["CAP_SYS_ADMIN"]);
        let expected =
            json!({"bounding": [], "effective": keeps, "permitted": keeps, "inheritable": [], "ambient": []});
        assert_eq!(process["capabilities"], expected);
    }
}
