//! The entries of a folder that a task runs for once each: what they are, and the folder of what came of them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use e3_types::{Dir, DirEntry, ErrorClass, Failure, FileEntry, Hash, Kind, ObjectRef, TaskObject};

use super::items::ItemSpec;
use crate::{ObjectStoreExt, StorageBackend, StorageError, packages, tree::LARGEST_DIR};

/// What a task that runs once per entry is about.
pub(crate) struct Entries {
    /// The entries by name.
    pub(crate) items: Vec<ItemSpec>,
    /// The task objects that they are executed as.
    pub(crate) objects: Vec<Bytes>,
    /// The kind of each output.
    pub(crate) output: Kind,
}

/// Reads the folder `folder` for the task object `task`. The inner error is the task's own.
pub(crate) async fn entries(
    storage: &dyn StorageBackend,
    task: Hash,
    folder: ObjectRef,
) -> Result<Result<Entries, Failure>, StorageError> {
    let wrong = |class, message: String| Ok(Err(Failure::Error { class, message }));
    let template = match packages::load_task(storage, task).await {
        Ok(template) => template,
        Err(crate::PackageError::Storage(error)) => return Err(error),
        Err(error) => return wrong(error.class(), error.to_string()),
    };
    let dir = match storage.objects().get_bytes(&folder.hash, LARGEST_DIR).await {
        Ok(bytes) => Dir::decode(&bytes),
        Err(error) => return wrong(error.class(), format!("reading the entries: {error}")),
    };
    let dir = match dir {
        Ok(dir) => dir,
        Err(error) => return wrong(ErrorClass::Corrupt, format!("reading the entries: {error}")),
    };
    let mut made = Made { template: &template, by_kind: BTreeMap::new(), objects: Vec::new() };
    let mut items = Vec::with_capacity(dir.entries.len());
    for (name, entry) in dir.entries {
        let (kind, input) = match entry {
            DirEntry::File(file) => (Kind::File, file.object.hash),
            DirEntry::Dir(object) => (Kind::Dir, object.hash),
            DirEntry::Symlink(_) => {
                let message = format!("the entry `{name}` is a symbolic link: expected files and folders");
                return wrong(ErrorClass::User, message);
            }
        };
        let object = match made.object(&name, kind) {
            Ok(object) => object,
            Err(error) => return wrong(ErrorClass::User, error.to_string()),
        };
        items.push(ItemSpec { name: name.into(), object, input });
    }
    Ok(Ok(Entries { items, objects: made.objects, output: template.output }))
}

/// The task objects of the entries. Where the name does not matter there is one for files and one for folders.
struct Made<'a> {
    template: &'a TaskObject,
    by_kind: BTreeMap<&'static str, Hash>,
    objects: Vec<Bytes>,
}

impl Made<'_> {
    fn object(&mut self, name: &str, kind: Kind) -> Result<Hash, e3_types::ItemError> {
        let shared = !self.template.uses_item_name();
        if let Some(&known) = self.by_kind.get(kind.as_str()).filter(|_| shared) {
            return Ok(known);
        }
        let bytes = self.template.for_item(name, kind)?.encode();
        let hash = Hash::of(&bytes);
        self.by_kind.insert(kind.as_str(), hash);
        self.objects.push(bytes.into());
        Ok(hash)
    }
}

/// The folder of the outputs of all entries, each under its entry's name.
pub(crate) fn folder(outputs: Vec<(Arc<str>, ObjectRef)>, kind: Kind) -> Bytes {
    let entry = |object| match kind {
        Kind::Dir => DirEntry::Dir(object),
        Kind::File | Kind::Json => DirEntry::File(FileEntry { object, executable: false }),
    };
    let entries = outputs.into_iter().map(|(name, object)| (name.to_string(), entry(object))).collect();
    Dir { entries }.encode().into()
}
