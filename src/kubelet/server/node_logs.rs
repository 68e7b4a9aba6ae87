//! `/logs`: the files below the node's log directory.
//!
//! Owns: listing directories and sending files, and nothing outside.
//! Called by: the node server.
//! Never: follows a link out of the directory.

use std::path::Path;

use http::{Response, StatusCode};
use minik_client::Body;

use super::{Server, decode, full, text};

/// Larger files are cut at their beginning: the end is what is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

pub fn serve(server: &Server, parts: &[&str]) -> Response<Body> {
    let root = server.node.log_dir.parent().unwrap_or(Path::new("/var/log"));
    let mut path = root.to_path_buf();
    path.extend(parts.iter().map(|p| decode(p)));
    let inside = path.canonicalize().ok().zip(root.canonicalize().ok()).filter(|(p, r)| p.starts_with(r));
    let Some((path, _)) = inside else { return text(StatusCode::NOT_FOUND, "404 page not found") };
    if path.is_dir() {
        let mut names: Vec<String> = std::fs::read_dir(&path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned() + if e.path().is_dir() { "/" } else { "" })
            .collect();
        names.sort();
        let links: String = names.iter().map(|n| format!("<a href=\"{n}\">{n}</a>\n")).collect();
        let mut response = Response::new(full(format!("<pre>\n{links}</pre>\n")));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/html; charset=utf-8"));
        return response;
    }
    match read_end(&path) {
        Ok(bytes) => Response::new(full(bytes)),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn read_end(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(FILE_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
