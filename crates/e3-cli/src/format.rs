//! Sizes, ages and tables for people.

use e3_types::Timestamp;

/// A size in bytes, in powers of 1000: `512 B`, `15.2 kB`.
pub(crate) fn size(bytes: u64) -> String {
    let mut unit = 1_u64;
    let mut name = "B";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if bytes < unit * 1000 {
            break;
        }
        unit *= 1000;
        name = next;
    }
    if unit == 1 {
        format!("{bytes} B")
    } else {
        format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
    }
}

/// How long ago something was.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.ms_since(then) / 1000;
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// A time as RFC 3339 in UTC.
pub(crate) fn time(at: Timestamp) -> String {
    let ms = i64::try_from(at.unix_ms()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map_or_else(
        |_| format!("{ms} ms after 1970"),
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

/// A word as it can be typed in a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-+,:@%=/".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Rows in columns of equal width, the last one ragged. The first row is the heading.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&heading.map(str::to_owned)).chain(rows) {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(15_241), "15.2 kB");
        assert_eq!(size(4_000_000_000), "4.0 GB");
        assert_eq!(time(Timestamp::from_unix_ms(1_700_000_000_123)), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn tables_line_up() {
        let rows = [["a".to_owned(), "1".to_owned()], ["longer".to_owned(), "2".to_owned()]];
        assert_eq!(table(["TASK", "N"], &rows), "TASK    N\na       1\nlonger  2\n");
    }
}
