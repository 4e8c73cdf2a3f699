//! What cannot be learned or done at the moment, by topic.

use std::collections::BTreeMap;

/// Logs each problem when it begins or changes, and when it is over.
#[derive(Debug, Default)]
pub struct Problems(BTreeMap<&'static str, String>);

impl Problems {
    /// Sets or clears the problem of a topic.
    pub fn set(&mut self, about: &'static str, problem: Option<String>) {
        match problem {
            Some(text) => {
                if self.0.get(about) != Some(&text) {
                    tracing::warn!(problem = text, "{about}");
                    self.0.insert(about, text);
                }
            }
            None => {
                if self.0.remove(about).is_some() {
                    tracing::info!("{about}: no longer a problem");
                }
            }
        }
    }

    /// The problem of this topic, if there is one.
    pub fn get(&self, about: &'static str) -> Option<&str> {
        self.0.get(about).map(String::as_str)
    }

    /// All of them.
    pub fn texts(&self) -> Vec<String> {
        self.0.values().cloned().collect()
    }
}
