//! Files in which something is kept that can be found out again: what cannot be read is not there.

use std::{fs, io, io::Write, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    version: u32,
    content: T,
}

/// What is in a file, if it is there and was written as version `version`.
pub(crate) fn load<T: DeserializeOwned>(path: &Path, version: u32) -> Option<T> {
    match read::<T>(path) {
        Ok(kept) if kept.version == version => Some(kept.content),
        Ok(kept) => {
            tracing::info!(path = %path.display(), version = kept.version, "ignoring a file of another version");
            None
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "ignoring a file that cannot be read");
            None
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Kept<T>> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes it aside and puts it in place, so that nobody reads half of it.
pub(crate) fn save<T: Serialize>(path: &Path, version: u32, content: T) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut writer = io::BufWriter::with_capacity(256 << 10, &mut file);
    serde_json::to_writer(&mut writer, &Kept { version, content })?;
    writer.flush()?;
    drop(writer);
    file.persist(path)?;
    Ok(())
}
