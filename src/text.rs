//! Text for people: an error with its causes, and lists of bounded length.

/// The first `most` names, separated by commas, and how many more there are.
pub fn first_of<T: AsRef<str>>(names: &[T], most: usize) -> String {
    let more = names.len().saturating_sub(most);
    let first = names
        .iter()
        .take(most)
        .map(AsRef::as_ref)
        .collect::<Vec<_>>()
        .join(", ");
    if more == 0 {
        first
    } else {
        format!("{first} and {more} more")
    }
}

/// An error with its causes, in one line. A cause that the text already ends with is not repeated.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
