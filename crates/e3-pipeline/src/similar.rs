//! The most similar name: for "did you mean".

/// The candidate that `text` was most probably meant to be, if there is one that is near.
pub fn most_similar<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= text.len().max(candidate.len()))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        assert_eq!(most_similar("comand", ["code", "command", "inputs"]), Some("command"));
        assert_eq!(most_similar("claen", ["clean", "stats"]), Some("clean"));
        assert_eq!(most_similar("xyz", ["clean", "stats"]), None);
    }
}
