//! No text makes the reader of `e3.toml` panic, and every error can be shown.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let built = e3_pipeline::parse(Path::new("e3.toml"), text)
        .and_then(|pipeline| e3_pipeline::build(pipeline, |_| None));
    if let Err(error) = built {
        assert!(!error.to_string().is_empty());
    }
});
