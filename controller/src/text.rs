//! Spelling: which known word a person most likely meant. Pure.

/// The known word nearest to `word`, if it is near enough to be worth offering: at most one edit in three letters,
/// where an edit is a letter missing, added, replaced, or two neighbours swapped; case does not count.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let bound = (lower.chars().count() / 3).max(1);
    let scored = known.into_iter().map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate));
    let near = scored.filter(|(distance, _)| *distance <= bound);
    near.min_by_key(|(distance, candidate)| (*distance, candidate.len().abs_diff(word.len()))).map(|(_, word)| word)
}

/// Optimal string alignment distance. Words are bounded: what is longer than 64 letters is far from everything.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slip_is_understood_and_nonsense_is_not() {
        let known = ["image", "imageFrom", "replicas", "env", "args"];
        assert_eq!(nearest("imgae", known), Some("image"));
        assert_eq!(nearest("Replicas", known), Some("replicas"));
        assert_eq!(nearest("replcas", known), Some("replicas"));
        assert_eq!(nearest("en", known), Some("env"));
        assert_eq!(nearest("zzzz", known), None);
        assert_eq!(nearest("", known), None);
    }
}
