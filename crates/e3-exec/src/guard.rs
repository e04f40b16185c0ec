//! Looking after a task: whether what it read is still what it was.

use std::{io, path::Path};

use e3_core::{ObjectError, ObjectStore, StorageBackend, parallel};
use e3_types::{Hash, Hasher, ObjectRef, Timestamp};
use futures::TryStreamExt;

use crate::stage::StagedFile;

/// So many files are looked at without going to a thread that may block: that costs more.
pub(crate) const FEW: usize = 64;

/// Of the files that were staged below the folder `work` those that were changed, and those that are no longer there under their name.
pub(crate) fn look(work: &Path, staged: Vec<StagedFile>) -> io::Result<(Vec<StagedFile>, Vec<StagedFile>)> {
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    let look = |file: StagedFile| Ok::<_, io::Error>((file.was_changed(work)?, file));
    let looked: Result<Vec<_>, _> = if staged.len() <= FEW {
        staged.into_iter().map(look).collect()
    } else {
        parallel::for_each(staged, look)
    };
    for (was_changed, file) in looked? {
        match was_changed {
            Some(true) => changed.push(file),
            Some(false) => {}
            None => gone.push(file),
        }
    }
    Ok((changed, gone))
}

/// The staged files that are not what they were. The store looks at what it has of them, and whatever is altered is nobody's
/// object any more. A file that is gone may have been altered before, and be there under another name.
pub(crate) async fn altered(
    storage: &dyn StorageBackend,
    mut changed: Vec<StagedFile>,
    gone: Vec<StagedFile>,
) -> Result<Vec<StagedFile>, ObjectError> {
    let objects = storage.objects();
    for file in &changed {
        // Whoever has changed a file may have hidden that from everybody who does not read it.
        if !is_whole(objects, &file.object).await? {
            objects.delete_many(&[file.object.hash], Timestamp::from_unix_ms(u64::MAX)).await?;
        }
    }
    let hashes: Vec<Hash> = gone.iter().map(|file| file.object.hash).collect();
    let sizes = objects.stat_many(&hashes).await?;
    changed.extend(gone.into_iter().zip(sizes).filter(|(_, size)| size.is_none()).map(|(file, _)| file));
    Ok(changed)
}

/// Whether the bytes of an object are its own, or nobody has it.
async fn is_whole(objects: &dyn ObjectStore, object: &ObjectRef) -> Result<bool, ObjectError> {
    let mut pieces = match objects.get(&object.hash, 0..u64::MAX).await {
        Err(ObjectError::NotFound(_)) => return Ok(true),
        other => other?,
    };
    let mut hasher = Hasher::new();
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
    }
    Ok(hasher.finish() == object.hash)
}
