//! Durations for people.

/// A duration in the unit that suits it: `12 ms`, `3.4 s`, `5 min 6 s`, `2 h 3 min`.
pub fn human_duration(ms: u64) -> String {
    let seconds = (ms + 500) / 1000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..59_950 => format!("{}.{} s", (ms + 50) / 1000, (ms + 50) % 1000 / 100),
        59_950..3_599_500 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", (seconds + 30) / 3600, (seconds + 30) % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_its_unit() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1.0 s"),
            (1949, "1.9 s"),
            (1950, "2.0 s"),
            (59_949, "59.9 s"),
            (59_950, "1 min 0 s"),
            (306_000, "5 min 6 s"),
            (3_599_500, "1 h 0 min"),
            (7_380_000, "2 h 3 min"),
        ] {
            assert_eq!(human_duration(ms), text, "{ms}");
        }
    }
}
