//! `Files`: tells when files of the project change that matter to its pipeline.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use e3_pipeline::Tracked;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::error::{CliError, Result};

/// How long nothing must happen until a change is taken to be complete: programs write in several steps.
const QUIET: Duration = Duration::from_millis(60);

pub(crate) struct Files {
    project: PathBuf,
    watcher: RecommendedWatcher,
    /// The folders that are watched, and whether with all below them.
    watched: BTreeMap<PathBuf, bool>,
    news: mpsc::Receiver<()>,
}

impl Files {
    /// Watches the folder of the pipeline file.
    pub(crate) fn new(project: &Path) -> Result<Self> {
        let (tell, news) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error is news as well: whoever hears it looks. What is only read has not changed.
            let changed = event.is_ok_and(|event| {
                matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_))
            });
            if changed {
                // If there is no room, the news is there already.
                let _already_known = tell.try_send(());
            }
        });
        let watcher = watcher.map_err(|error| CliError::environment("watching files", error))?;
        Ok(Self { project: project.to_owned(), watcher, watched: BTreeMap::new(), news })
    }

    /// Watches what the pipeline names, and nothing else.
    pub(crate) fn follow(&mut self, tracked: &[Tracked]) -> Result<()> {
        let mut wanted = BTreeMap::from([(self.project.clone(), false)]);
        for (folder, with_all_below) in tracked.iter().flat_map(|tracked| tracked.places(&self.project)) {
            *wanted.entry(folder).or_default() |= with_all_below;
        }
        let gone: Vec<_> = self
            .watched
            .iter()
            .filter(|(path, deep)| wanted.get(*path) != Some(deep))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.watched.remove(&path);
            // A folder that is no longer there is no longer watched either.
            let _gone_already = self.watcher.unwatch(&path);
        }
        for (path, deep) in wanted {
            if self.watched.contains_key(&path) || !path.is_dir() {
                continue;
            }
            let mode = if deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
            self.watcher
                .watch(&path, mode)
                .map_err(|error| CliError::environment(format!("watching `{}`", path.display()), error))?;
            self.watched.insert(path, deep);
        }
        Ok(())
    }

    /// Returns when something has changed and nothing has for a moment.
    pub(crate) async fn changed(&mut self) {
        if self.news.recv().await.is_none() {
            // The watcher lives as long as this value, so it has not hung up.
            return std::future::pending().await;
        }
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.news.recv()).await {}
    }
}
