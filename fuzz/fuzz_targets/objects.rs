//! What decodes as a task or a package encodes to the same bytes.
#![no_main]

use e3_types::{Package, TaskObject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(task) = TaskObject::decode(bytes) {
        assert_eq!(task.encode(), bytes);
    }
    if let Ok(package) = Package::decode(bytes) {
        assert_eq!(package.encode(), bytes);
    }
});
