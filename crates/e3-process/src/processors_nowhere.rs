//! Where no thread is tied to a processor: see `processors.rs`.

pub fn keep_threads_apart(_threads: usize) {}

pub fn use_all_processors() {}

pub(crate) fn on_all<T>(start: impl FnOnce() -> T) -> T {
    start()
}
