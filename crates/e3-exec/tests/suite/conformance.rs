//! `LocalTaskRunner` passes the suite of its seam, on memory and on a repository in a folder.

use crate::bench::{self, Bench, script};
use e3_core::ObjectStoreExt;
use e3_testkit::RunnerFixture;
use e3_types::Kind;

/// Each execution leaves a line in a file outside, which nothing but a test would do.
async fn fixture(bench: Bench) -> RunnerFixture {
    let tally = bench.folder.path().join("tally");
    std::fs::write(&tally, "").unwrap();
    let task = async |text: &str| {
        let text = format!("echo x >> '{}'; {text}", tally.display());
        bench.storage.objects().put_bytes(script(&text, &[], Kind::File).encode()).await.unwrap().hash
    };
    RunnerFixture {
        succeeding: task("echo output > {output}").await,
        failing: task("exit 3").await,
        endless: task("exec sleep 100000").await,
        executions: Box::new(move || std::fs::read_to_string(&tally).unwrap().lines().count()),
        runner: bench.runner,
        storage: bench.storage,
        folder: bench.folder,
    }
}

async fn on_memory() -> RunnerFixture {
    fixture(bench::memory()).await
}

async fn on_files() -> RunnerFixture {
    fixture(bench::local()).await
}

mod memory_storage {
    use super::on_memory;
    e3_testkit::runner_conformance!(on_memory);
}

mod local_storage {
    use super::on_files;
    e3_testkit::runner_conformance!(on_files);
}
