//! `Retry`: when an attempt that failed is worth another one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Failure;

/// How often, how long apart, and after which failures to try again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How many attempts may follow the first one.
    pub max: u32,
    /// The wait before the second attempt, in milliseconds; it doubles before each further one, up to an hour.
    pub backoff_ms: u64,
    /// The failures that are worth another attempt.
    pub on: Vec<RetryClass>,
}

/// A class of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// `exit`: any exit code but 0; `exit:N`: this one.
    Exit(Option<i32>),
    /// `signal`: killed by any signal; `signal:N`: by this one.
    Signal(Option<i32>),
    /// `timeout`
    Timeout,
    /// `lost`: whoever executed it is gone
    Lost,
    /// `oom`: out of memory
    OutOfMemory,
}

/// The text is not a class of failures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a class of failures: expected `exit`, `exit:N`, `signal`, `signal:N`, `timeout`, `lost` or `oom`"
)]
pub struct RetryClassError(String);

const LONGEST_WAIT_MS: u64 = 3_600_000;

impl Retry {
    /// The wait before the attempt after `attempt` (from 1) in milliseconds, if there is to be one.
    pub fn wait_after(&self, attempt: u32, failure: &Failure) -> Option<u64> {
        if attempt > self.max || !self.on.iter().any(|class| class.includes(failure)) {
            return None;
        }
        let doubled = 1_u64.checked_shl(attempt - 1).and_then(|factor| self.backoff_ms.checked_mul(factor));
        Some(doubled.unwrap_or(LONGEST_WAIT_MS).min(LONGEST_WAIT_MS))
    }
}

impl RetryClass {
    fn includes(self, failure: &Failure) -> bool {
        match (self, failure) {
            (Self::Exit(wanted), Failure::Exit { code }) => wanted.is_none_or(|wanted| wanted == *code),
            (Self::Signal(wanted), Failure::Signal { signal }) => {
                wanted.is_none_or(|wanted| wanted == *signal)
            }
            (Self::Timeout, Failure::Timeout { .. })
            | (Self::Lost, Failure::WorkerLost { .. })
            | (Self::OutOfMemory, Failure::OutOfMemory) => true,
            _ => false,
        }
    }
}

impl fmt::Display for RetryClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(None) => f.write_str("exit"),
            Self::Exit(Some(code)) => write!(f, "exit:{code}"),
            Self::Signal(None) => f.write_str("signal"),
            Self::Signal(Some(signal)) => write!(f, "signal:{signal}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Lost => f.write_str("lost"),
            Self::OutOfMemory => f.write_str("oom"),
        }
    }
}

impl FromStr for RetryClass {
    type Err = RetryClassError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || RetryClassError(text.to_owned());
        let class = match text.split_once(':') {
            None if text == "exit" => Self::Exit(None),
            None if text == "signal" => Self::Signal(None),
            None if text == "timeout" => Self::Timeout,
            None if text == "lost" => Self::Lost,
            None if text == "oom" => Self::OutOfMemory,
            Some(("exit", code)) => Self::Exit(Some(code.parse().map_err(|_| refused())?)),
            Some(("signal", signal)) => Self::Signal(Some(signal.parse().map_err(|_| refused())?)),
            _ => return Err(refused()),
        };
        if class.to_string() == text { Ok(class) } else { Err(refused()) }
    }
}

impl Serialize for RetryClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RetryClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_for_the_failures_that_are_named() {
        let retry =
            Retry { max: 40, backoff_ms: 1000, on: vec![RetryClass::Exit(Some(75)), RetryClass::Timeout] };
        let failure = Failure::Exit { code: 75 };
        assert_eq!(retry.wait_after(1, &failure), Some(1000));
        assert_eq!(retry.wait_after(3, &failure), Some(4000));
        assert_eq!(retry.wait_after(40, &failure), Some(LONGEST_WAIT_MS));
        assert_eq!(retry.wait_after(41, &failure), None, "only so many");
        assert_eq!(retry.wait_after(1, &Failure::Exit { code: 1 }), None);
        assert_eq!(retry.wait_after(1, &Failure::Cancelled), None);
        assert!(retry.wait_after(1, &Failure::Timeout { after_ms: 1 }).is_some());
    }

    #[test]
    fn classes_have_one_spelling() {
        for text in ["exit", "exit:75", "signal", "signal:9", "timeout", "lost", "oom"] {
            assert_eq!(text.parse::<RetryClass>().unwrap().to_string(), text);
        }
        for text in ["", "exit:", "exit:+1", "exit:01", "Exit", "timeout:3", "OOM"] {
            assert!(text.parse::<RetryClass>().is_err(), "{text}");
        }
    }
}
