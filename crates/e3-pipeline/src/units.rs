//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads a duration: a whole number and a unit (`ms`, `s`, `m`, `h`, `d`), such as `500ms` or `10m`.
///
/// The error says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || {
        format!(
            "`{text}` is not a duration: expected a whole number and a unit (ms, s, m, h, d), such as \"10m\""
        )
    };
    let digits = text.find(|char: char| !char.is_ascii_digit()).ok_or_else(refused)?;
    let number: u64 = text[..digits].parse().map_err(|_| refused())?;
    let unit_ms: u64 = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    // Below 2^53 ms, as all numbers in objects are.
    let ms = number.checked_mul(unit_ms).filter(|ms| *ms < 1 << 53);
    ms.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is longer than e3 can count"))
}

/// Reads a size in bytes: a whole number and a unit (`B`; `kB`, `MB`, `GB`, `TB` in powers of 1000; `KiB`, `MiB`, `GiB`,
/// `TiB` in powers of 1024), such as `4GiB`.
///
/// The error says what was expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let refused = || {
        format!(
            "`{text}` is not a size: expected a whole number and a unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB), such \
             as \"4GiB\""
        )
    };
    let digits = text.find(|char: char| !char.is_ascii_digit()).ok_or_else(refused)?;
    let number: u64 = text[..digits].parse().map_err(|_| refused())?;
    let unit: u64 = match &text[digits..] {
        "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(refused()),
    };
    // Below 2^53, as all numbers in objects are.
    let bytes = number.checked_mul(unit).filter(|bytes| *bytes < 1 << 53);
    bytes.ok_or_else(|| format!("`{text}` is more than e3 can count"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a_number_and_a_unit() {
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert_eq!(parse_size("250MB"), Ok(250_000_000));
        assert_eq!(parse_size("0B"), Ok(0));
        for bad in ["", "4", "GiB", "4G", "4 GiB", "-4GiB", "1.5GiB", "4gib", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_hours(48)));
        for bad in ["", "10", "m", "1.5s", "-1s", "10 m", "1w", "99999999999999999999s", "999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
