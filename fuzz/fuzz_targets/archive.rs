//! An archive that is refused leaves no package behind.
#![no_main]

use std::io::Cursor;

use e3_core::{MemoryStorage, archive, packages};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    futures::executor::block_on(async {
        let storage = MemoryStorage::default();
        let imported = archive::import(&storage, &mut Cursor::new(bytes)).await;
        let known = packages::list(&storage).await.expect("memory can be listed");
        assert_eq!(known.is_empty(), imported.is_err());
    });
});
