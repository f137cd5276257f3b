//! Which name a misspelt one was meant to be.

/// Characters that may differ.
const DIFFERENCES_MAX: usize = 2;

/// The one of `names` that differs least from `name`, by [`DIFFERENCES_MAX`] characters at most and by fewer than half of
/// its own; `None` where none is so near.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // What is much longer is nothing of ours, and comparing takes time.
    let near = names.filter(|other| other.len().abs_diff(name.len()) <= DIFFERENCES_MAX).map(|other| {
        let differences = distance(name, other);
        (differences, other)
    });
    let near = near.filter(|(differences, other)| *differences <= DIFFERENCES_MAX && differences * 2 < other.len());
    near.min_by_key(|(differences, _)| *differences).map(|(_, other)| other)
}

/// Levenshtein's distance: characters to add, to drop or to exchange.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, character) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, compared) in other.iter().enumerate() {
            let exchanged = diagonal + usize::from(character != *compared);
            diagonal = row[column + 1];
            row[column + 1] = exchanged.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_near() {
        let names = || ["toggle", "counter", "ingest", "flush", "cache"].into_iter();
        for (written, meant) in
            [("togle", "toggle"), ("toggles", "toggle"), ("conuter", "counter"), ("toggle", "toggle")]
        {
            assert_eq!(nearest(written, names()), Some(meant), "{written}");
        }
        for written in ["", "rooms", "tog", "something-else-entirely"] {
            assert_eq!(nearest(written, names()), None, "{written}");
        }
    }
}
