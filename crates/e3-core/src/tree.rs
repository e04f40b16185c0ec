//! Trees: folders as objects. Pure: who walks a file system and who puts the objects is somebody else.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    convert::Infallible,
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use e3_types::{
    Dir, DirEntry, FileEntry, ObjectRef, SymlinkTargetError, check_entry_name, check_symlink_target,
};

use crate::{ObjectError, ObjectStore, ObjectStoreExt, parallel};

/// The largest `dir` object that is read, in bytes: one folder of more than a million entries.
pub(crate) const LARGEST_DIR: u64 = 256 << 20;

/// With so many subfolders there is enough to encode and to hash for several threads.
const WORTH_A_THREAD: usize = 64;

/// Collects what a folder holds and makes the `dir` objects of it.
#[derive(Debug, Default)]
pub struct TreeBuilder(Folder);

#[derive(Debug, Default)]
struct Folder {
    folders: BTreeMap<String, Folder>,
    others: BTreeMap<String, DirEntry>,
}

/// A folder as objects.
#[derive(Debug)]
pub struct Tree {
    /// The root.
    pub root: ObjectRef,
    /// All `dir` objects of the tree, the root among them, subfolders before the folders that hold them.
    pub dirs: Vec<Bytes>,
}

/// An entry that cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be stored: {problem}", path.display())]
pub struct TreeError {
    /// The entry, relative to the folder.
    pub path: PathBuf,
    /// Why.
    pub problem: TreeProblem,
}

/// Why an entry cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum TreeProblem {
    /// Names are UTF-8.
    #[error("its name is not UTF-8")]
    NameNotUtf8,
    /// Not a path below the folder.
    #[error("it is not a plain path below the folder")]
    Outside,
    /// The same path came twice, as different things.
    #[error("it is there twice, as two different things")]
    Clash,
    /// The target of a symbolic link is not UTF-8.
    #[error("the symbolic link's target is not UTF-8")]
    TargetNotUtf8,
    /// The symbolic link leaves the folder.
    #[error(transparent)]
    Target(#[from] SymlinkTargetError),
    /// Neither a file nor a folder nor a symbolic link.
    #[error("it is a device, a socket or a fifo; only files, folders and symbolic links can be kept")]
    Special,
}

impl TreeBuilder {
    /// An empty folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a subfolder and those above it. A folder may be added any number of times.
    pub fn add_dir(&mut self, path: &Path) -> Result<(), TreeError> {
        self.folder(path, path).map(drop)
    }

    /// Adds a file; the folders above it come to be.
    pub fn add_file(&mut self, path: &Path, file: FileEntry) -> Result<(), TreeError> {
        self.add(path, DirEntry::File(file))
    }

    /// Adds a symbolic link, if its target stays inside the tree.
    pub fn add_symlink(&mut self, path: &Path, target: &OsStr) -> Result<(), TreeError> {
        let refuse = |problem| TreeError { path: path.to_owned(), problem };
        let target = target.to_str().ok_or_else(|| refuse(TreeProblem::TargetNotUtf8))?;
        let depth = path.components().count().saturating_sub(1);
        check_symlink_target(target, depth).map_err(|error| refuse(error.into()))?;
        self.add(path, DirEntry::Symlink(target.to_owned()))
    }

    fn add(&mut self, path: &Path, entry: DirEntry) -> Result<(), TreeError> {
        let refuse = |problem| TreeError { path: path.to_owned(), problem };
        let (parent, name) =
            path.parent().zip(path.file_name()).ok_or_else(|| refuse(TreeProblem::Outside))?;
        let name = entry_name(name).map_err(refuse)?;
        let folder = self.folder(parent, path)?;
        if folder.folders.contains_key(&name) {
            return Err(refuse(TreeProblem::Clash));
        }
        match folder.others.entry(name) {
            Entry::Occupied(other) if *other.get() != entry => Err(refuse(TreeProblem::Clash)),
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(place) => {
                place.insert(entry);
                Ok(())
            }
        }
    }

    fn folder(&mut self, path: &Path, blamed: &Path) -> Result<&mut Folder, TreeError> {
        let refuse = |problem| TreeError { path: blamed.to_owned(), problem };
        let mut folder = &mut self.0;
        for component in path.components() {
            let name = match component {
                // Most often it is there, and was looked at when it came to be.
                Component::Normal(name) => name.to_str().ok_or_else(|| refuse(TreeProblem::NameNotUtf8))?,
                Component::CurDir => continue,
                Component::Prefix(_) | Component::RootDir | Component::ParentDir => {
                    return Err(refuse(TreeProblem::Outside));
                }
            };
            if folder.others.contains_key(name) {
                return Err(refuse(TreeProblem::Clash));
            }
            if !folder.folders.contains_key(name) {
                let new = entry_name(OsStr::new(name)).map_err(refuse)?;
                folder.folders.insert(new, Folder::default());
            }
            folder = folder.folders.get_mut(name).expect("it was put there above");
        }
        Ok(folder)
    }

    /// The objects.
    pub fn finish(self) -> Tree {
        let Folder { folders, others: mut entries } = self.0;
        let made = |(name, folder): (String, Folder)| {
            let mut dirs = Vec::new();
            let object = folder.finish(&mut dirs);
            Ok::<_, Infallible>((name, object, dirs))
        };
        let made = if folders.len() < WORTH_A_THREAD {
            folders.into_iter().map(made).collect()
        } else {
            parallel::for_each(folders.into_iter().collect(), made)
        };
        let Ok(made) = made;
        let mut dirs = Vec::new();
        for (name, object, more) in made {
            entries.insert(name, DirEntry::Dir(object));
            dirs.extend(more);
        }
        let (root, bytes) = encoded(entries);
        dirs.push(bytes);
        Tree { root, dirs }
    }
}

impl Folder {
    fn finish(self, dirs: &mut Vec<Bytes>) -> ObjectRef {
        let mut entries = self.others;
        for (name, folder) in self.folders {
            entries.insert(name, DirEntry::Dir(folder.finish(dirs)));
        }
        let (object, bytes) = encoded(entries);
        dirs.push(bytes);
        object
    }
}

/// A folder as an object.
fn encoded(entries: BTreeMap<String, DirEntry>) -> (ObjectRef, Bytes) {
    let bytes = Bytes::from(Dir { entries }.encode());
    (ObjectRef::of(&bytes), bytes)
}

fn entry_name(name: &OsStr) -> Result<String, TreeProblem> {
    let name = name.to_str().ok_or(TreeProblem::NameNotUtf8)?;
    check_entry_name(name).map_err(|_| TreeProblem::Outside)?;
    Ok(name.to_owned())
}

/// An entry of a tree that was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeEntry {
    /// A folder; it comes before what it holds.
    Dir,
    /// A file.
    File(FileEntry),
    /// A symbolic link with its target, which stays inside the tree.
    Symlink(String),
}

/// Everything below the `dir` object `root`: paths relative to it, folders before what they hold, names sorted.
pub async fn read_tree(
    objects: &dyn ObjectStore,
    root: &ObjectRef,
) -> Result<Vec<(PathBuf, TreeEntry)>, ObjectError> {
    Ok(read(objects, root).await?.0)
}

/// All objects below the `dir` object `root`, without itself: the `dir` objects of subfolders, and the files.
pub(crate) async fn tree_objects(
    objects: &dyn ObjectStore,
    root: &ObjectRef,
) -> Result<(Vec<ObjectRef>, Vec<ObjectRef>), ObjectError> {
    let (entries, dirs) = read(objects, root).await?;
    let files = entries.into_iter().filter_map(|(_, entry)| match entry {
        TreeEntry::File(file) => Some(file.object),
        TreeEntry::Dir | TreeEntry::Symlink(_) => None,
    });
    Ok((dirs, files.collect()))
}

/// The entries below `root`, and the `dir` objects of the subfolders.
async fn read(
    objects: &dyn ObjectStore,
    root: &ObjectRef,
) -> Result<(Vec<(PathBuf, TreeEntry)>, Vec<ObjectRef>), ObjectError> {
    let mut entries = Vec::new();
    let mut subfolders = Vec::new();
    let mut open = vec![(PathBuf::new(), *root)];
    while let Some((path, object)) = open.pop() {
        let corrupt = |message: String| ObjectError::Corrupt { hash: object.hash, message };
        let bytes = objects.get_bytes(&object.hash, LARGEST_DIR).await?;
        let dir = Dir::decode(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if !path.as_os_str().is_empty() {
            entries.push((path.clone(), TreeEntry::Dir));
        }
        let depth = path.components().count();
        for (name, entry) in dir.entries {
            let path = path.join(&name);
            match entry {
                DirEntry::File(file) => entries.push((path, TreeEntry::File(file))),
                DirEntry::Dir(object) => {
                    subfolders.push(object);
                    open.push((path, object));
                }
                DirEntry::Symlink(target) => {
                    check_symlink_target(&target, depth).map_err(|error| corrupt(error.to_string()))?;
                    entries.push((path, TreeEntry::Symlink(target)));
                }
            }
        }
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok((entries, subfolders))
}

/// How many files a tree holds, and their sizes together, in bytes.
pub async fn tree_size(objects: &dyn ObjectStore, root: &ObjectRef) -> Result<(u64, u64), ObjectError> {
    let files = read_tree(objects, root).await?.into_iter().filter_map(|(_, entry)| match entry {
        TreeEntry::File(file) => Some(file.object.size),
        TreeEntry::Dir | TreeEntry::Symlink(_) => None,
    });
    Ok(files.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryObjects;

    fn file(bytes: &[u8]) -> FileEntry {
        FileEntry { object: ObjectRef::of(bytes), executable: false }
    }

    #[tokio::test]
    async fn a_tree_reads_back_as_it_was_built() {
        let mut builder = TreeBuilder::new();
        builder.add_file(Path::new("b/c/x"), file(b"x")).unwrap();
        builder.add_file(Path::new("a"), file(b"a")).unwrap();
        builder.add_dir(Path::new("empty")).unwrap();
        builder.add_symlink(Path::new("b/up"), OsStr::new("../a")).unwrap();
        let tree = builder.finish();
        let store = MemoryObjects::default();
        for dir in tree.dirs {
            store.put_bytes(dir).await.unwrap();
        }
        let entries = read_tree(&store, &tree.root).await.unwrap();
        assert_eq!(
            entries,
            [
                ("a".into(), TreeEntry::File(file(b"a"))),
                ("b".into(), TreeEntry::Dir),
                ("b/c".into(), TreeEntry::Dir),
                ("b/c/x".into(), TreeEntry::File(file(b"x"))),
                ("b/up".into(), TreeEntry::Symlink("../a".into())),
                ("empty".into(), TreeEntry::Dir),
            ]
        );
        assert_eq!(tree_size(&store, &tree.root).await.unwrap(), (2, 2));
    }

    #[test]
    fn many_subfolders_make_the_same_objects_as_few() {
        for count in [WORTH_A_THREAD - 1, WORTH_A_THREAD] {
            let mut builder = TreeBuilder::new();
            let (mut entries, mut dirs) = (BTreeMap::new(), Vec::new());
            for number in 0..count {
                let name = format!("{number:03}");
                builder.add_file(&Path::new(&name).join("file"), file(name.as_bytes())).unwrap();
                let inner = [("file".to_owned(), DirEntry::File(file(name.as_bytes())))];
                let (object, bytes) = encoded(inner.into());
                entries.insert(name, DirEntry::Dir(object));
                dirs.push(bytes);
            }
            let (root, bytes) = encoded(entries);
            dirs.push(bytes);
            let tree = builder.finish();
            assert_eq!((tree.root, tree.dirs), (root, dirs));
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name() {
        use std::os::unix::ffi::OsStrExt;
        let mut builder = TreeBuilder::new();
        builder.add_file(Path::new("a"), file(b"a")).unwrap();
        for (error, expected) in [
            (builder.add_file(Path::new("a"), file(b"b")), "`a` cannot be stored: it is there twice"),
            (builder.add_file(Path::new("a/b"), file(b"b")), "`a/b` cannot be stored: it is there twice"),
            (builder.add_file(Path::new("../b"), file(b"b")), "not a plain path"),
            (builder.add_file(Path::new("/b"), file(b"b")), "not a plain path"),
            (builder.add_file(Path::new(OsStr::from_bytes(b"\xff")), file(b"b")), "not UTF-8"),
            (builder.add_symlink(Path::new("l"), OsStr::new("../x")), "outside the folder"),
        ] {
            let message = error.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[tokio::test]
    async fn a_link_that_was_stored_deeper_than_it_may_be_is_corrupt() {
        let store = MemoryObjects::default();
        let dir = Dir { entries: [("l".to_owned(), DirEntry::Symlink("../../etc".into()))].into() };
        let root = store.put_bytes(dir.encode()).await.unwrap();
        assert!(matches!(read_tree(&store, &root).await, Err(ObjectError::Corrupt { .. })));
    }
}
