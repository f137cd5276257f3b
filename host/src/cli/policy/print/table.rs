//! Tables of text: columns as wide as their longest entry, up to a bound; what is longer is cut and marked.

/// Between columns.
const GAP: &str = "  ";

/// A column's title, and the characters that it may take.
pub(super) struct Column {
    title: &'static str,
    width_max: usize,
}

impl Column {
    pub(super) const fn new(title: &'static str, width_max: usize) -> Self {
        Self { title, width_max }
    }
}

/// Rows below their titles. Each row has an entry for each column.
pub(super) fn table(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(titles)
        .chain(rows)
        .map(|row: Vec<String>| {
            row.into_iter().zip(columns).map(|(entry, column)| cut(entry, column.width_max)).collect()
        })
        .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|entry| entry.chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(entry, width)| format!("{entry:<width$}")).collect();
        padded.join(GAP).trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn cut(entry: String, width_max: usize) -> String {
    if entry.chars().count() <= width_max {
        return entry;
    }
    entry.chars().take(width_max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_no_wider_than_they_may() {
        let columns = [Column::new("name", 6), Column::new("é", 9), Column::new("last", 9)];
        let row = |entries: [&str; 3]| entries.map(str::to_owned).to_vec();
        let text = table(&columns, vec![row(["abcdefg", "ü", ""]), row(["a", "", "x"])]);
        assert_eq!(text, "name    é  last\nabcde…  ü\na          x");
    }
}
