//! Compiling: once for a given text, its variables and the program that does it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::HashMap, ffi::OsString, fs, path::PathBuf, sync::Arc};

use e3_core::{MemoryStorage, ObjectStoreExt, StorageBackend, packages};
use e3_pipeline::{Compiled, Compiler, Project, Sources};
use e3_types::{Package, Timestamp};
use tempfile::TempDir;

const TEXT: &str = "[package]\nname = \"p\"\n\n[run]\njobs = 3\ngrace = \"5s\"\n\n\
    [inputs]\na = { file = \"a.txt\" }\nb = { json = [1] }\n\n\
    [tasks.t]\ncommand = \"cat {a} {b} > {output}\"\ncode = [\"*.py\"]\npass_env = [\"A\", \"B\"]\n\n\
    [outputs]\n\"out/t\" = { from = \"t\", link = true }\n";

struct Bench {
    _folder: TempDir,
    cache: PathBuf,
    storage: Arc<dyn StorageBackend>,
    variables: HashMap<&'static str, OsString>,
    program: &'static str,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("deep/cache");
        let variables = HashMap::from([("A", "1".into())]);
        Self {
            _folder: folder,
            cache,
            storage: Arc::new(MemoryStorage::default()),
            variables,
            program: "one",
        }
    }

    async fn compile(&self, text: &str) -> (Compiled, Option<Package>) {
        let compiler = self.compiler(text);
        compiler.compile(&self.storage, |name| self.variables.get(name).cloned()).await.unwrap()
    }

    fn compiler(&self, text: &str) -> Compiler {
        let (file, cache) = ("e3.toml".into(), self.cache.clone());
        Compiler { file, text: text.into(), cache, program: self.program.to_owned() }
    }

    async fn is_known(&self, text: &str) -> bool {
        self.compile(text).await.1.is_none()
    }
}

#[tokio::test]
async fn what_is_known_is_what_would_be_made() {
    let bench = Bench::new();
    let (first, package) = bench.compile(TEXT).await;
    let (again, none) = bench.compile(TEXT).await;
    assert!(none.is_none());
    assert_eq!(packages::load(&*bench.storage, again.package).await.unwrap(), package.unwrap());
    assert_eq!(format!("{first:?}"), format!("{again:?}"));
    assert_eq!((again.tracked.len(), again.outputs.len(), again.run.jobs.unwrap().get()), (2, 1, 3));
}

#[tokio::test]
async fn whatever_it_depends_on_makes_it_anew() {
    let mut bench = Bench::new();
    bench.compile(TEXT).await;
    assert!(bench.is_known(TEXT).await);
    let text = TEXT.replace("[1]", "[2]");
    assert!(!bench.is_known(&text).await && bench.is_known(&text).await && !bench.is_known(TEXT).await);
    for (name, value) in [("A", Some("2")), ("A", None), ("B", Some("")), ("B", None)] {
        match value {
            Some(value) => bench.variables.insert(name, value.into()),
            None => bench.variables.remove(name),
        };
        assert!(!bench.is_known(TEXT).await, "{name} is {value:?}");
        assert!(bench.is_known(TEXT).await);
    }
    bench.variables.insert("C", "no part of it".into());
    assert!(bench.is_known(TEXT).await);
    bench.program = "another";
    assert!(!bench.is_known(TEXT).await);
    let package = bench.compile(TEXT).await.0.package;
    let any_time = Timestamp::from_unix_ms(u64::MAX);
    assert_eq!(bench.storage.objects().delete_many(&[package.hash], any_time).await.unwrap(), 1);
    assert!(!bench.is_known(TEXT).await);
    assert_eq!(bench.storage.objects().stat(&package.hash).await.unwrap(), Some(package.size));
}

#[tokio::test]
async fn a_cache_that_cannot_be_read_is_none() {
    let bench = Bench::new();
    bench.compile(TEXT).await;
    let whole = fs::read(&bench.cache).unwrap();
    for bytes in [&whole[..whole.len() / 2], b"", b"{}", br#"{"version":99,"content":{}}"#] {
        fs::write(&bench.cache, bytes).unwrap();
        assert!(!bench.is_known(TEXT).await);
        assert!(bench.is_known(TEXT).await);
    }
}

#[tokio::test]
async fn an_error_about_a_file_points_at_the_same_place() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let project = Project { folder: folder.path().to_owned(), repository: folder.path().join(".e3") };
    let mut said = Vec::new();
    for _ in 0..2 {
        let tracked = bench.compile(TEXT).await.0.tracked;
        said.push(Sources::look(&project, &tracked).await.unwrap_err().to_string());
    }
    assert!(said[0].starts_with("e3.toml:9:1: a: "), "{said:?}");
    assert_eq!(said[0], said[1]);
}

/// All that a package refers to is there when it is asked for, whatever has become of it.
#[tokio::test]
async fn what_is_gone_is_made_again() {
    let bench = Bench::new();
    let package = bench.compile(TEXT).await.1.unwrap();
    let any_time = Timestamp::from_unix_ms(u64::MAX);
    let objects = bench.storage.objects();
    let task = package.tasks.values().next().unwrap().task;
    let default = package.datasets.values().find_map(|slot| slot.default.clone()).unwrap().hash;
    for hash in [task, default] {
        assert_eq!(objects.delete_many(&[hash], any_time).await.unwrap(), 1);
        let known = bench.compile(TEXT).await.0;
        let variable = |name: &str| bench.variables.get(name).cloned();
        let again = bench.compiler(TEXT).complete(&bench.storage, known.package, variable).await.unwrap();
        assert_eq!(again, package);
        assert!(objects.stat(&hash).await.unwrap().is_some());
    }
}
