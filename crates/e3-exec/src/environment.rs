//! The environment of a task: nothing is inherited but a short list, so that what a task sees is what it declares.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use e3_types::TaskObject;

use crate::stage::{OUTPUT, staged_path};

/// Those variables of `environment` that every task inherits: `PATH`, `HOME`, `LANG` and `LC_*`.
///
/// They are not part of a task's identity. A task whose output depends on one of them names it in `env`.
pub fn inherited(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    environment.into_iter().filter(|(name, _)| is_inherited(name)).collect()
}

fn is_inherited(name: &OsStr) -> bool {
    matches!(name.as_bytes(), b"PATH" | b"HOME" | b"LANG") || name.as_bytes().starts_with(b"LC_")
}

/// All variables of a task: what it declares wins over what it is given, and that over what it inherits.
pub(crate) fn of_task(
    task: &TaskObject,
    inherited: &[(OsString, OsString)],
    temporary: &Path,
) -> BTreeMap<OsString, OsString> {
    let mut all: BTreeMap<OsString, OsString> = inherited.iter().cloned().collect();
    all.insert("TMPDIR".into(), temporary.into());
    for name in task.inputs.iter().filter_map(|input| input.name.as_ref()) {
        all.insert(format!("E3_INPUT_{name}").into(), staged_path(name).into());
    }
    all.insert("E3_OUTPUT".into(), OUTPUT.into());
    all.extend(task.env.iter().map(|(name, value)| (name.into(), value.into())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_short_list_is_inherited() {
        let given =
            ["PATH", "HOME", "LANG", "LC_ALL", "LC_TIME", "LCX", "PYTHONPATH", "TMPDIR", "E3_REPO", "USER"];
        let given = given.map(|name| (name.into(), "x".into()));
        let names: Vec<_> = inherited(given).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "HOME", "LANG", "LC_ALL", "LC_TIME"]);
    }
}
