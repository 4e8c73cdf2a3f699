//! What a part of the program cannot learn or do at the moment, by topic. Each problem is logged
//! when it begins, when its text changes and when it is over, however often it is reported in
//! between.

use std::collections::BTreeMap;

/// The open problems of a part.
///
/// A topic, such as `"runtime"`, is what a problem is about. Most topics have one problem at most,
/// and [`Problems::set`] is called with an `Option`; a topic that can have several at the same
/// time, such as one for each damaged file, takes a `Vec`.
///
/// ```
/// use pod_checkpointer::problems::Problems;
///
/// let mut problems = Problems::default();
/// problems.set("runtime", Some("no container runtime answers".to_owned())); // logged: it begins
/// problems.set("runtime", Some("no container runtime answers".to_owned())); // not logged
/// assert_eq!(problems.texts(), ["no container runtime answers"]);
/// problems.set("runtime", None); // logged: it is over
/// assert!(problems.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// No topic here is without a text.
    by_topic: BTreeMap<&'static str, Vec<String>>,
}

impl Problems {
    /// These, and no others, are now the problems of this topic. Logs a warning for each text that
    /// the topic did not have before, and one line when the topic has no problem any more.
    pub fn set(&mut self, about: &'static str, problems: impl IntoIterator<Item = String>) {
        let now: Vec<String> = problems.into_iter().collect();
        let before = self.by_topic.remove(about).unwrap_or_default();
        for problem in now.iter().filter(|problem| !before.contains(problem)) {
            tracing::warn!(problem, "{about}");
        }
        if !now.is_empty() {
            self.by_topic.insert(about, now);
        } else if !before.is_empty() {
            tracing::info!("{about}: no longer a problem");
        }
    }

    /// Does this topic have a problem?
    pub fn has(&self, about: &'static str) -> bool {
        self.by_topic.contains_key(about)
    }

    /// The text of every problem of this topic.
    pub fn texts_of(&self, about: &'static str) -> &[String] {
        self.by_topic.get(about).map_or(&[], Vec::as_slice)
    }

    /// Is there no problem at all?
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// The text of every problem, in the order of the topics' names.
    pub fn texts(&self) -> Vec<String> {
        self.by_topic.values().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is logged while this runs, a line each, without times.
    fn logged(work: impl FnOnce()) -> Vec<String> {
        #[derive(Clone, Default)]
        struct Log(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Log {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let bytes = log.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    }

    #[test]
    fn a_problem_is_logged_when_it_begins_when_it_changes_and_when_it_is_over_and_only_then() {
        let mut problems = Problems::default();
        let lines = logged(|| {
            for text in [
                None,
                Some("no socket"),
                Some("no socket"),
                Some("no answer"),
                None,
                None,
                Some("no socket"),
            ] {
                problems.set("runtime", text.map(str::to_owned));
            }
        });
        assert_eq!(
            lines,
            [
                r#"WARN runtime problem="no socket""#,
                r#"WARN runtime problem="no answer""#,
                "INFO runtime: no longer a problem",
                r#"WARN runtime problem="no socket""#,
            ]
        );
        assert!(problems.has("runtime") && !problems.has("store"));
    }

    #[test]
    fn of_a_topic_with_several_problems_only_the_new_ones_are_logged() {
        let mut problems = Problems::default();
        let set = |problems: &mut Problems, texts: &[&str]| {
            problems.set("store", texts.iter().map(|text| (*text).to_owned()));
        };
        let lines = logged(|| {
            set(&mut problems, &["a is damaged"]);
            set(&mut problems, &["a is damaged", "b is damaged"]);
            set(&mut problems, &["b is damaged"]);
            set(&mut problems, &[]);
        });
        let expected = [
            r#"WARN store problem="a is damaged""#,
            r#"WARN store problem="b is damaged""#,
            "INFO store: no longer a problem",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn texts_are_those_of_all_topics_in_their_order() {
        let mut problems = Problems::default();
        problems.set("store", vec!["full".to_owned(), "damaged".to_owned()]);
        problems.set("kubelet", Some("silent".to_owned()));
        assert_eq!(problems.texts(), ["silent", "full", "damaged"]);
        problems.set("store", None);
        problems.set("kubelet", Vec::new());
        assert!(problems.texts().is_empty() && problems.is_empty());
    }
}
