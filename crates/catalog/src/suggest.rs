//! "Did you mean": the known name nearest to one that is unknown.

/// The candidate at the smallest edit distance, if it is small enough to be a slip: one edit in short names, up to a
/// third of the letters in longer ones. Ties go to the first.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let distance = edit_distance(name, candidate);
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours, each costing one.
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let width = b.len() + 1;
    let mut rows = vec![0; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let at = |i: usize, j: usize| rows[i * width + j];
            let distance = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = at(i - 1, j - 1) + usize::from(a[i - 1] != b[j - 1]);
                let edit = replace.min(at(i - 1, j) + 1).min(at(i, j - 1) + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped {
                    edit.min(at(i - 2, j - 2) + 1)
                } else {
                    edit
                }
            };
            rows[i * width + j] = distance;
        }
    }
    rows[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_definition() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("oredrs", "orders"), 1);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn only_slips_are_suggested() {
        let known = ["orders", "people", "t1"];
        let nearest = |name| nearest(name, known.into_iter());
        assert_eq!(nearest("order"), Some("orders"));
        assert_eq!(nearest("t"), Some("t1"));
        assert_eq!(nearest("customers"), None);
        assert_eq!(nearest("x9"), None);
    }
}
