//! What decodes as a `dir` object encodes to the same bytes.
#![no_main]

use e3_types::Dir;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(dir) = Dir::decode(bytes) {
        assert_eq!(dir.encode(), bytes);
    }
});
