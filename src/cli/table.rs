//! Columns, sizes and ages for people.

use std::time::Duration;

/// Aligns the cells of each column, with two blanks between columns.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..count)
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// An age as kubectl writes it: `7s`, `5m`, `3h`, `12d`.
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A size, for example `812 B`, `14 KiB` or `2 MiB`.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_a_column_are_aligned() {
        let rows = [
            vec!["A".to_owned(), "LONGER".into(), "C".into()],
            vec!["äöü".into(), "b".into(), String::new()],
        ];
        assert_eq!(columns(&rows), "A    LONGER  C\näöü  b\n");
    }

    #[test]
    fn ages_and_sizes_are_short() {
        let ages = [7, 119, 120, 7199, 7200, 172_799, 172_800]
            .map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["7s", "119s", "2m", "119m", "2h", "47h", "2d"]);
        assert_eq!(
            [812, 14_500, 3 << 20].map(size),
            ["812 B", "14 KiB", "3 MiB"]
        );
    }
}
