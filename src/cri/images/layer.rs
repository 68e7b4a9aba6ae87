//! Unpacks one layer into a folder in overlayfs' own form.
//!
//! Owns: whiteouts, opaque folders, owners, modes, links, devices and capabilities of files; staying inside the folder.
//! Called by: import and pull.
//! Never: follows a link out of the layer: every path is resolved by the kernel within it (openat2, RESOLVE_IN_ROOT).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fsetxattr, linkat, makedev, mkdirat, mknodat, openat2, symlinkat, unlinkat, utimensat,
};
use sha2::{Digest, Sha256};
use tar::{Entry, EntryType};

use super::record::{self, StoredLayer};
use super::{ImageError, ImageStore};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Beside an unpacked layer's folder nothing is stored, so its size lies in it, under a name no image has: an
/// attribute of the folder itself.
const SIZE_ATTRIBUTE: &str = "trusted.minik.size";

/// A layer that is in the store already.
pub fn find(store: &ImageStore, diff_id: &str) -> Option<StoredLayer> {
    let folder = File::open(store.layer_folder(diff_id)).ok()?;
    let mut text = [0; 20];
    let length = rustix::fs::fgetxattr(&folder, SIZE_ATTRIBUTE, &mut text[..]).ok()?;
    let size = std::str::from_utf8(&text[..length]).ok()?.parse().ok()?;
    Some(StoredLayer { diff_id: diff_id.into(), size })
}

/// Unpacks a layer (plain, gzip or zstd) unless it is there; the content must have the digest it is named by.
pub fn unpack(store: &ImageStore, diff_id: &str, source: impl Read) -> Result<StoredLayer, ImageError> {
    let _lock = record::lock(store.root(), diff_id)?;
    if let Some(layer) = find(store, diff_id) {
        return Ok(layer);
    }
    let failed = |why: String| ImageError::Layer { digest: diff_id.into(), why };
    let new = store.root().join("new").join(uuid::Uuid::new_v4().to_string());
    let result = unpack_into(&new, source).map_err(|e| failed(e.to_string())).and_then(|(found, size)| {
        if found != diff_id {
            return Err(failed(format!("its content has the digest {found}")));
        }
        let finish = || -> io::Result<()> {
            let folder = File::open(&new)?;
            fsetxattr(&folder, SIZE_ATTRIBUTE, size.to_string().as_bytes(), XattrFlags::empty())?;
            fs::rename(&new, store.layer_folder(diff_id))
        };
        finish().map_err(|e| failed(e.to_string()))?;
        Ok(StoredLayer { diff_id: diff_id.into(), size })
    });
    if result.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    result
}

/// Digest of the uncompressed bytes, and how many bytes of files they hold.
fn unpack_into(folder: &Path, source: impl Read) -> io::Result<(String, u64)> {
    fs::create_dir(folder)?;
    let root: OwnedFd = File::open(folder)?.into();
    let plain = decompress(source)?;
    let mut hashing = Hashing { source: plain, digest: Sha256::new() };
    let mut size = 0;
    let mut folders_times = Vec::new();
    {
        let mut archive = tar::Archive::new(&mut hashing);
        for entry in archive.entries()? {
            let mut entry = entry?;
            size += place(&root, &mut entry, &mut folders_times)?;
        }
    }
    // The digest covers the padding behind the archive's end too.
    io::copy(&mut hashing, &mut io::sink())?;
    // Last, since placing files in a folder changes its time; deepest first does not matter then.
    for (path, time) in folders_times {
        if let Ok(fd) = open_beneath(&root, &path) {
            let _ = utimensat(&fd, ".", &times(time), AtFlags::empty());
        }
    }
    Ok((format!("sha256:{}", hex::encode(hashing.digest.finalize())), size))
}

struct Hashing<R> {
    source: R,
    digest: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.digest.update(&buffer[..n]);
        Ok(n)
    }
}

fn decompress<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(256 << 10, source);
    let mut magic = Vec::new();
    source.by_ref().take(4).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(source);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Parent folder and last name of an entry's path, without `.`; refuses `..`.
fn split(path: &Path) -> io::Result<Option<(PathBuf, PathBuf)>> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::other(format!("the path {} leaves the layer", path.display())));
            }
        }
    }
    let Some(name) = clean.file_name().map(PathBuf::from) else { return Ok(None) };
    let parent = clean.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(Some((parent, name)))
}

fn open_beneath(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?)
}

/// The folder, with missing ones on the way made.
fn ensure_folder(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    if let Ok(found) = open_beneath(root, path) {
        return Ok(found);
    }
    let Some(name) = path.file_name() else { return open_beneath(root, path) };
    let parent = ensure_folder(root, path.parent().unwrap_or(Path::new("")))?;
    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => open_beneath(root, path),
        Err(e) => Err(e.into()),
    }
}

fn times(seconds: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Puts one entry into place; the bytes of its content.
fn place<R: Read>(root: &OwnedFd, entry: &mut Entry<'_, R>, folders: &mut Vec<(PathBuf, u64)>) -> io::Result<u64> {
    let path = entry.path()?.into_owned();
    let kind = entry.header().entry_type();
    let Some((parent_path, name)) = split(&path)? else { return root_folder(root, entry) };
    let parent = ensure_folder(root, &parent_path)?;
    if name.as_os_str().as_bytes() == OPAQUE {
        fsetxattr(&parent, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
        return Ok(0);
    }
    if let Some(hidden) = name.as_os_str().as_bytes().strip_prefix(WHITEOUT) {
        let hidden = OsStr::from_bytes(hidden);
        clear(&parent, hidden)?;
        mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?;
        return Ok(0);
    }
    let mut size = 0;
    match kind {
        EntryType::Directory => {
            // A folder that an earlier entry implied keeps its content.
            if let Err(e) = mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
                let is_folder = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
                if e != rustix::io::Errno::EXIST {
                    return Err(e.into());
                }
                if !is_folder {
                    clear(&parent, name.as_os_str())?;
                    mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
                }
            }
            folders.push((parent_path.join(&name), entry.header().mtime().unwrap_or(0)));
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            clear(&parent, name.as_os_str())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o600))?);
            size = io::copy(entry, &mut file)?;
        }
        EntryType::Symlink => {
            clear(&parent, name.as_os_str())?;
            let target = entry.link_name()?.ok_or_else(|| io::Error::other("a symlink without a target"))?;
            symlinkat(target.as_ref(), &parent, &name)?;
        }
        EntryType::Link => {
            clear(&parent, name.as_os_str())?;
            let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link without a target"))?.into_owned();
            let Some((from, from_name)) = split(&target)? else {
                return Err(io::Error::other("a link to the layer itself"));
            };
            linkat(open_beneath(root, &from)?, &from_name, &parent, &name, AtFlags::empty())?;
            return Ok(0);
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            clear(&parent, name.as_os_str())?;
            let header = entry.header();
            let device = makedev(header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
            let file_type = match kind {
                EntryType::Char => FileType::CharacterDevice,
                EntryType::Block => FileType::BlockDevice,
                _ => FileType::Fifo,
            };
            mknodat(&parent, &name, file_type, Mode::from_raw_mode(0o600), device)?;
        }
        // Global and extended headers are read by the tar reader itself.
        _ => return Ok(0),
    }
    attributes(&parent, name.as_os_str(), entry)?;
    Ok(size)
}

/// `./`: the root of the image has a mode and owner as well.
fn root_folder<R: Read>(root: &OwnedFd, entry: &mut Entry<'_, R>) -> io::Result<u64> {
    if entry.header().entry_type() == EntryType::Directory {
        chmodat(root, ".", Mode::from_raw_mode(entry.header().mode()? & 0o7777), AtFlags::empty())?;
    }
    Ok(0)
}

/// A later entry of the same name replaces an earlier one.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => {
            let path = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&parent.as_fd())));
            fs::remove_dir_all(path.join(name))
        }
        Err(e) => Err(e.into()),
    }
}

/// Owner before mode, because a change of owner clears set-user-id.
fn attributes<R: Read>(parent: &OwnedFd, name: &OsStr, entry: &mut Entry<'_, R>) -> io::Result<()> {
    let is_link = entry.header().entry_type() == EntryType::Symlink;
    // An owner that was left out is root, as tar itself reads it.
    let owner = |field: &[u8; 8], parsed: io::Result<u64>| if field.iter().all(|b| *b == 0) { Ok(0) } else { parsed };
    let header = entry.header();
    let uid = owner(&header.as_old().uid, header.uid())?;
    let gid = owner(&header.as_old().gid, header.gid())?;
    let mode = if is_link { 0 } else { header.mode()? };
    let id = |n: u64| u32::try_from(n).map_err(|_| io::Error::other("an owner's number is too large"));
    let (uid, gid) = (Uid::from_raw(id(uid)?), Gid::from_raw(id(gid)?));
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !is_link {
        chmodat(parent, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
    }
    const PREFIX: &str = "SCHILY.xattr.";
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let Some(attribute) = extension.key().ok().and_then(|k| k.strip_prefix(PREFIX)) else { continue };
            // Capabilities of files matter; others (such as a host's SELinux labels) would be wrong here.
            if attribute == "security.capability" {
                let file = rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())?;
                fsetxattr(&file, attribute, extension.value_bytes(), XattrFlags::empty())?;
            }
        }
    }
    let time = entry.header().mtime().unwrap_or(0);
    utimensat(parent, name, &times(time), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: EntryType, content: &[u8], link: &str) {
        let mut header = tar::Header::new_gnu();
        // Written raw: the tar crate's own setter would refuse what a hostile archive contains.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        let me = rustix::process::getuid().as_raw();
        header.set_uid(u64::from(me));
        header.set_gid(u64::from(rustix::process::getgid().as_raw()));
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }

    fn layer(entries: &[(&str, EntryType, &str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, content, link) in entries {
            entry(&mut tar, path, *kind, content.as_bytes(), link);
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn files_folders_and_links_are_placed() {
        let dir = tempfile::tempdir().unwrap();
        let tar = layer(&[
            ("a/b.txt", EntryType::Regular, "hello", ""),
            ("a/c.txt", EntryType::Link, "", "a/b.txt"),
            ("l", EntryType::Symlink, "", "a"),
            ("l/d.txt", EntryType::Regular, "through", ""),
        ]);
        let (digest, size) = unpack_into(&dir.path().join("x"), tar.as_slice()).unwrap();
        assert_eq!((digest, size), (record::digest(&tar), 12));
        assert_eq!(fs::read_to_string(dir.path().join("x/a/c.txt")).unwrap(), "hello");
        assert_eq!(fs::read_to_string(dir.path().join("x/a/d.txt")).unwrap(), "through");
    }

    #[test]
    fn an_archive_cannot_write_outside() {
        let dir = tempfile::tempdir().unwrap();
        let escape = layer(&[("../out", EntryType::Regular, "x", "")]);
        assert!(unpack_into(&dir.path().join("x"), escape.as_slice()).is_err());
        let target = dir.path().to_str().unwrap();
        let link = layer(&[("l", EntryType::Symlink, "", target), ("l/out", EntryType::Regular, "x", "")]);
        let _ = unpack_into(&dir.path().join("y"), link.as_slice());
        let hard = layer(&[("h", EntryType::Link, "", "../../etc/passwd")]);
        assert!(unpack_into(&dir.path().join("z"), hard.as_slice()).is_err());
        assert!(!dir.path().join("out").exists());
    }

    #[test]
    fn compressed_layers_have_the_digest_of_their_plain_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let tar = layer(&[("f", EntryType::Regular, "content", "")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &tar).unwrap();
        let (digest, _) = unpack_into(&dir.path().join("gz"), gzip.finish().unwrap().as_slice()).unwrap();
        assert_eq!(digest, record::digest(&tar));
        let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
        let (digest, _) = unpack_into(&dir.path().join("zst"), zstd.as_slice()).unwrap();
        assert_eq!(digest, record::digest(&tar));
    }
}
