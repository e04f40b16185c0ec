//! What parses as JSON has one canonical form, which parses to itself.
#![no_main]

use e3_types::Json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(json) = Json::parse(bytes) {
        let canonical = json.to_canonical();
        let again = Json::parse(&canonical).expect("the canonical form is JSON");
        assert_eq!(again.to_canonical(), canonical);
    }
});
