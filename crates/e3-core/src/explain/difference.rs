//! What differs between two keys, down to the file in a folder and the member of a JSON value.

use std::collections::{BTreeMap, BTreeSet};

use e3_types::{CommandLine, Dir, DirEntry, Hash, Kind};
use serde::Serialize;

use super::key::{KeyDocument, KeyInput};
use crate::{ObjectError, ObjectStore, ObjectStoreExt, tree::LARGEST_DIR};

/// Something that differs between two keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Difference {
    /// The command.
    Command {
        /// Before.
        before: CommandLine,
        /// After.
        after: CommandLine,
    },
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
        /// Before; none if it was not named.
        before: Option<String>,
        /// After; none if it is not named any more.
        after: Option<String>,
    },
    /// The kind of the output.
    Output {
        /// Before.
        before: Kind,
        /// After.
        after: Kind,
    },
    /// An input.
    Input {
        /// Its name.
        name: String,
        /// Its object before; none if there was no such input.
        before: Option<Hash>,
        /// After; none if there is no such input any more.
        after: Option<Hash>,
        /// What differs inside, the first of it.
        details: Vec<Detail>,
        /// How many more details there are.
        more: usize,
    },
    /// How inputs are staged: their order, or which of them the task may write to.
    Staging,
}

/// Something that differs inside an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// The path of a file in a folder, or the JSON pointer (RFC 6901) of a member.
    pub path: String,
    /// What happened to it.
    #[serde(flatten)]
    pub change: DetailChange,
}

/// What happened to a file or a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum DetailChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another one: hashes of files, values of members.
    Changed {
        /// Before.
        before: String,
        /// After.
        after: String,
    },
}

/// How many details of one input are told.
const DETAILS: usize = 20;
/// The largest JSON value that is looked into, in bytes.
const LARGEST_JSON: u64 = 4 << 20;

/// What differs between two keys; nothing, if they are the same.
pub async fn differences(
    objects: &dyn ObjectStore,
    before: &KeyDocument,
    after: &KeyDocument,
) -> Result<Vec<Difference>, ObjectError> {
    let mut all = Vec::new();
    if before.command != after.command {
        all.push(Difference::Command { before: before.command.clone(), after: after.command.clone() });
    }
    let names: BTreeSet<&String> = before.env.keys().chain(after.env.keys()).collect();
    for name in names {
        let (old, new) = (before.env.get(name), after.env.get(name));
        if old != new {
            all.push(Difference::Env { name: name.clone(), before: old.cloned(), after: new.cloned() });
        }
    }
    if before.output != after.output {
        all.push(Difference::Output { before: before.output, after: after.output });
    }
    let by_name = |key: &'_ KeyDocument| -> BTreeMap<String, KeyInput> {
        key.inputs.iter().map(|input| (input.name.clone(), input.clone())).collect()
    };
    let (old, new) = (by_name(before), by_name(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (old, new) = (old.get(name), new.get(name));
        if old.map(|input| input.object) != new.map(|input| input.object) {
            let mut details = match (old, new) {
                (Some(old), Some(new)) if old.kind == new.kind => details(objects, old, new).await?,
                _ => Vec::new(),
            };
            let more = details.len().saturating_sub(DETAILS);
            details.truncate(DETAILS);
            let (before, after) = (old.map(|input| input.object), new.map(|input| input.object));
            all.push(Difference::Input { name: name.clone(), before, after, details, more });
        }
    }
    if all.is_empty() && before != after {
        all.push(Difference::Staging);
    }
    Ok(all)
}

/// What differs inside; nothing of what is no longer in the store.
async fn details(
    objects: &dyn ObjectStore,
    old: &KeyInput,
    new: &KeyInput,
) -> Result<Vec<Detail>, ObjectError> {
    let found = match old.kind {
        Kind::File => return Ok(Vec::new()),
        Kind::Dir => folder_details(objects, old.object, new.object).await,
        Kind::Json => values(objects, old.object, new.object).await,
    };
    match found {
        Err(ObjectError::NotFound(_)) => Ok(Vec::new()),
        other => other,
    }
}

/// What differs between two folders, by path. Reads only folders that differ.
pub(crate) async fn folder_details(
    objects: &dyn ObjectStore,
    old: Hash,
    new: Hash,
) -> Result<Vec<Detail>, ObjectError> {
    let mut details = Vec::new();
    let mut open = vec![(String::new(), old, new)];
    while let Some((at, old, new)) = open.pop() {
        let (old, new) = (folder(objects, old).await?, folder(objects, new).await?);
        let names: BTreeSet<&String> = old.entries.keys().chain(new.entries.keys()).collect();
        for name in names {
            let path = format!("{at}{name}");
            let change = match (old.entries.get(name), new.entries.get(name)) {
                (before, after) if before == after => continue,
                (Some(DirEntry::Dir(before)), Some(DirEntry::Dir(after))) => {
                    open.push((format!("{path}/"), before.hash, after.hash));
                    continue;
                }
                (None, _) => DetailChange::Added,
                (_, None) => DetailChange::Removed,
                (Some(before), Some(after)) => {
                    DetailChange::Changed { before: entry(before), after: entry(after) }
                }
            };
            details.push(Detail { path, change });
        }
    }
    details.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(details)
}

async fn folder(objects: &dyn ObjectStore, object: Hash) -> Result<Dir, ObjectError> {
    let bytes = objects.get_bytes(&object, LARGEST_DIR).await?;
    Dir::decode(&bytes).map_err(|error| ObjectError::Corrupt { hash: object, message: error.to_string() })
}

fn entry(entry: &DirEntry) -> String {
    match entry {
        DirEntry::File(file) if file.executable => format!("{} (executable)", file.object.hash),
        DirEntry::File(file) => file.object.hash.to_string(),
        DirEntry::Dir(_) => "a folder".to_owned(),
        DirEntry::Symlink(target) => format!("a link to {target}"),
    }
}

async fn values(objects: &dyn ObjectStore, old: Hash, new: Hash) -> Result<Vec<Detail>, ObjectError> {
    let mut pair = Vec::new();
    for object in [old, new] {
        let bytes = match objects.get_bytes(&object, LARGEST_JSON).await {
            // Too large to be told in words: that it changed is said all the same.
            Err(ObjectError::TooLarge { .. }) => return Ok(Vec::new()),
            other => other?,
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| ObjectError::Corrupt { hash: object, message: error.to_string() })?;
        pair.push(value);
    }
    let mut details = Vec::new();
    compare(String::new(), &pair[0], &pair[1], &mut details);
    Ok(details)
}

fn compare(at: String, old: &serde_json::Value, new: &serde_json::Value, details: &mut Vec<Detail>) {
    use serde_json::Value::{Array, Object};
    let below = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    match (old, new) {
        (old, new) if old == new => {}
        (Object(old), Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                both(below(key), old.get(key), new.get(key), details);
            }
        }
        (Array(old), Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                both(below(&index.to_string()), old.get(index), new.get(index), details);
            }
        }
        (old, new) => {
            let change = DetailChange::Changed { before: old.to_string(), after: new.to_string() };
            details.push(Detail { path: at, change });
        }
    }
}

fn both(
    path: String,
    old: Option<&serde_json::Value>,
    new: Option<&serde_json::Value>,
    details: &mut Vec<Detail>,
) {
    match (old, new) {
        (Some(old), Some(new)) => compare(path, old, new, details),
        (None, _) => details.push(Detail { path, change: DetailChange::Added }),
        (_, None) => details.push(Detail { path, change: DetailChange::Removed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_values_differ_in_their_members() {
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let mut details = Vec::new();
        compare(
            String::new(),
            &value(r#"{"a":1,"b":{"c/d":[1,2],"gone":0},"same":[1]}"#),
            &value(r#"{"a":2,"b":{"c/d":[1,3,4]},"same":[1],"new":null}"#),
            &mut details,
        );
        let text: Vec<_> = details.iter().map(|detail| serde_json::to_string(detail).unwrap()).collect();
        assert_eq!(
            text,
            [
                r#"{"path":"/a","change":"changed","before":"1","after":"2"}"#,
                r#"{"path":"/b/c~1d/1","change":"changed","before":"2","after":"3"}"#,
                r#"{"path":"/b/c~1d/2","change":"added"}"#,
                r#"{"path":"/b/gone","change":"removed"}"#,
                r#"{"path":"/new","change":"added"}"#
            ]
        );
    }
}
