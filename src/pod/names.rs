//! Rules for the names of objects.

/// Longest DNS subdomain (RFC 1123).
pub const LONGEST_NAME: usize = 253;

/// Whether this is a DNS subdomain (RFC 1123).
pub fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= LONGEST_NAME
        && text.split('.').all(|label| {
            label.starts_with(is_plain)
                && label.ends_with(is_plain)
                && label.chars().all(|c| is_plain(c) || c == '-')
        })
}
