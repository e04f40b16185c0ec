//! Ids of things that happen: `UUIDv7` (RFC 9562), so that their text sorts by the time they were made.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what} id: expected a UUIDv7 such as 0199c0de-0000-7000-8000-000000000000")]
pub struct IdParseError {
    what: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id of a thing made at `unix_ms`, told apart from others of that millisecond by `random`.
            pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match Uuid::try_parse(text) {
                    Ok(id) if id.get_version_num() == 7 && id.to_string() == text => Ok(Self(id)),
                    _ => Err(IdParseError { what: $what, text: text.to_owned() }),
                }
            }
        }
    };
}

id!(
    /// One attempt to execute a task on given inputs.
    ExecutionId, "an execution"
);
id!(
    /// One dataflow execution of a workspace.
    RunId, "a run"
);
id!(
    /// One process, or one worker, that holds leases and runs executions.
    OwnerId, "an owner"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ids_sort_after_earlier_ones_as_text() {
        let early = RunId::from_parts(1_700_000_000_000, [0xff; 10]);
        let late = RunId::from_parts(1_700_000_000_001, [0; 10]);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse::<RunId>().unwrap(), early);
    }

    #[test]
    fn other_uuids_are_refused_by_name() {
        let error = "936da01f-9abd-4d9d-80c7-02af85c822a8".parse::<ExecutionId>().unwrap_err();
        assert!(error.to_string().contains("not an execution id"), "{error}");
        assert!("0199C0DE-0000-7000-8000-000000000000".parse::<RunId>().is_err(), "one spelling only");
    }
}
