//! Compiled filters kept on disk, so that a known one needs no compiler, and the one place where compiled
//! code is taken for code. A folder of the owner's alone; files named by what they were made of; written
//! whole or not at all. What does not fit, or is damaged, is as if it were not there.

#![allow(unsafe_code)] // `take`, below, says why it holds

use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::limits::{COMPILED_BYTES_MAX, COMPILED_FILES_MAX};

/// First bytes of every file; the digest of the rest follows.
const MAGIC: &[u8; 16] = b"rbees-compiled-1";

/// Code that our own compiler made: nothing else can be made one.
pub struct Code(Vec<u8>);

impl Code {
    /// What a compiler of this very binary has just handed over.
    pub(super) const fn from_compiler(bytes: Vec<u8>) -> Self {
        Code(bytes)
    }

    /// The code as something that can be instantiated; none where this engine can't use it.
    pub fn take(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes are the unchanged output of `Engine::precompile_component`. They come
        // straight from our own compiler, or from a file in a folder that only the worker's user can
        // write, whose digest was just compared. wasmtime itself refuses those of another version,
        // machine or setting.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

/// The folder of compiled filters.
pub struct Cache {
    folder: PathBuf,
    /// Stands for the engine's version, machine and settings.
    engine: u64,
}

impl Cache {
    /// The cache in `folder`, which is made if it is missing. None where it can't be the owner's alone.
    pub fn open(folder: &Path, engine: &Engine) -> Option<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let usable = made.and_then(|()| fs::symlink_metadata(folder)).is_ok_and(|meta| {
            let own = meta.uid() == rustix::process::geteuid().as_raw();
            meta.is_dir() && own && meta.mode() & 0o077 == 0
        });
        if !usable {
            let folder = folder.display();
            tracing::warn!(%folder, "compiled filters are not kept: the folder has to be a directory of the worker's user, with mode 0700");
            return None;
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        Some(Cache { folder: folder.to_owned(), engine: hasher.finish() })
    }

    /// The code of the file with this digest, if it was kept and is whole.
    pub fn get(&self, digest: &str) -> Option<Code> {
        let path = self.path(digest);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .ok()?;
        let meta = file.metadata().ok()?;
        if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(COMPILED_BYTES_MAX + 49).read_to_end(&mut bytes).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (known, code) = rest.split_at_checked(32)?;
        if Sha256::digest(code).as_slice() != known {
            tracing::warn!(path = %path.display(), "a compiled filter is damaged, and made anew");
            let _ = fs::remove_file(&path);
            return None;
        }
        Some(Code(code.to_vec()))
    }

    /// Whether there is a file for this digest; whether it is whole, only [`Cache::get`] knows.
    pub fn has(&self, digest: &str) -> bool {
        self.path(digest).is_file()
    }

    /// Keeps code for the next time. What can't be written is not kept.
    pub fn put(&self, digest: &str, code: &Code) {
        let path = self.path(digest);
        let part = self.folder.join(format!("{}.part", uuid::Uuid::now_v7()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut file| {
                file.write_all(MAGIC)?;
                file.write_all(&Sha256::digest(&code.0))?;
                file.write_all(&code.0)
            })
            .and_then(|()| fs::rename(&part, &path));
        if let Err(error) = written {
            tracing::debug!(%error, path = %path.display(), "a compiled filter is not kept");
            let _ = fs::remove_file(&part);
        }
        self.tidy();
    }

    /// Removes the oldest files over the bound, and what was never finished.
    fn tidy(&self) {
        let Ok(listing) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(std::time::SystemTime, PathBuf)> = listing
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        files.sort();
        let excess = files.len().saturating_sub(COMPILED_FILES_MAX);
        for (_, path) in files.into_iter().take(excess) {
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}-{:016x}", self.engine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Host, builtin};

    #[test]
    fn what_is_damaged_stale_or_foreign_is_a_miss() {
        let host = Host::new().expect("wasm runs");
        let folder = std::env::temp_dir().join(format!("rbees-cache-{}", uuid::Uuid::now_v7()));
        let cache = Cache::open(&folder, host.engine()).expect("a folder of our own");
        let bytes = builtin::component("storyteller").expect("it is built in");
        let code = Code(host.engine().precompile_component(bytes).expect("it is sound"));
        assert!(cache.get("d").is_none());
        cache.put("d", &code);
        let kept = cache.get("d").expect("it was kept");
        assert!(kept.take(host.engine()).is_ok());
        let path = cache.path("d");
        let whole = fs::read(&path).expect("it is there");
        let spoiled = |bytes: &[u8]| {
            fs::write(&path, bytes).expect("it can be written");
            cache.get("d").is_none()
        };
        assert!(spoiled(b""));
        assert!(spoiled(&whole[..whole.len() - 1]));
        for at in [0, 16, 48, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(spoiled(&bytes), "byte {at}");
        }
        cache.put("d", &code);
        assert!(cache.get("d").is_some(), "it is made anew");
        let other = Cache { folder: folder.clone(), engine: cache.engine + 1 };
        assert!(other.get("d").is_none(), "of another engine");
        for n in 0..COMPILED_FILES_MAX + 5 {
            cache.put(&n.to_string(), &Code(Vec::new()));
        }
        assert_eq!(fs::read_dir(&folder).expect("it is there").count(), COMPILED_FILES_MAX);
        let mode = fs::Permissions::from_mode(0o777);
        fs::set_permissions(&folder, mode).expect("it is ours");
        assert!(Cache::open(&folder, host.engine()).is_none(), "others may write there");
        fs::remove_dir_all(&folder).expect("it was made above");
    }

    use std::os::unix::fs::PermissionsExt as _;
}
