//! Where no thread is tied to a processor: see `processors.rs`.

pub fn keep_threads_apart(_threads: usize) {}

pub fn use_all_processors() {}
