//! `minik/hello`: a web server in every cluster, made of the running executable, so that a cluster without internet
//! has something to run.
//!
//! Owns: that image. Called by: the image store when it is opened. Never: replaces one that is up to date.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;

use super::record::{self, Config, Stored, StoredLayer, digest};
use super::{ImageError, ImageStore};

const REFERENCE: &str = "docker.io/minik/hello:latest";
const EXECUTABLE: &str = "/proc/self/exe";

/// The layer is named by the executable's size and time rather than its content: hashing it would cost every start.
pub fn ensure(store: &ImageStore) -> Result<(), ImageError> {
    let failed = |source| ImageError::Store { what: "make the image minik/hello".into(), source };
    let metadata = fs::metadata(EXECUTABLE).map_err(failed)?;
    let version = format!("{} {} {}", env!("CARGO_PKG_VERSION"), metadata.len(), metadata.mtime());
    let diff_id = digest(version.as_bytes());
    let folder = store.layer_folder(&diff_id);
    let _lock = record::lock(store.root(), "builtin")?;
    if !folder.exists() {
        let new = store.root().join("new").join(uuid::Uuid::new_v4().to_string());
        let make = || {
            fs::create_dir_all(new.join("tmp"))?;
            fs::create_dir_all(new.join("etc"))?;
            fs::write(new.join("etc/passwd"), "root:x:0:0:root:/:/minik\nnobody:x:65534:65534::/:/minik\n")?;
            // By the kernel: through a buffer it would stay in this process's memory.
            io::copy(&mut File::open(EXECUTABLE)?, &mut File::create(new.join("minik"))?)?;
            fs::set_permissions(new.join("minik"), fs::Permissions::from_mode(0o755))?;
            fs::rename(&new, &folder)
        };
        make().map_err(failed)?;
    }
    let config: Config = serde_json::from_value(serde_json::json!({
        "Entrypoint": ["/minik", "hello"], "Env": ["PATH=/"], "WorkingDir": "/",
    }))
    .expect("the configuration is a constant");
    let layer = StoredLayer { diff_id, size: metadata.len() };
    let image = Stored { id: digest(format!("hello {version}").as_bytes()), layers: vec![layer], config };
    store.records().put(&image, &[REFERENCE.to_string()])
}
