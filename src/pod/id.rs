//! Namespace and name of a pod, validated once.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name of a namespace and of a pod that the API server takes (pkg/apis/core/validation: a
/// DNS label and a DNS subdomain).
const LONGEST_NAMESPACE: usize = 63;
const LONGEST_NAME: usize = 253;

/// Namespace and name of a pod. Both are DNS names, so the file form is never a path.
///
/// It has one file form, `<namespace>_<name>` ([`PodId::file_form`]; `_` occurs in neither name),
/// which is also its form in YAML and JSON, and one form for people, `<namespace>/<name>` (its
/// `Display`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId {
    file_form: String,
    /// Position of the `_`.
    separator: usize,
}

/// The text is not the namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not <namespace>_<pod>")]
pub struct Invalid(String);

impl PodId {
    /// The pod with this namespace and name; an error if either is invalid.
    pub fn new(namespace: &str, name: &str) -> Result<Self, Invalid> {
        let legal = |part: &str, longest: usize, dots: bool| {
            !part.is_empty()
                && part.len() <= longest
                && !part.starts_with(['.', '-'])
                && part.bytes().all(|byte| {
                    byte.is_ascii_lowercase()
                        || byte.is_ascii_digit()
                        || byte == b'-'
                        || (dots && byte == b'.')
                })
        };
        let file_form = format!("{namespace}_{name}");
        if !legal(namespace, LONGEST_NAMESPACE, false) || !legal(name, LONGEST_NAME, true) {
            return Err(Invalid(file_form));
        }
        Ok(Self {
            file_form,
            separator: namespace.len(),
        })
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        self.file_form.get(..self.separator).unwrap_or_default()
    }

    /// The pod's name.
    pub fn name(&self) -> &str {
        self.file_form.get(self.separator + 1..).unwrap_or_default()
    }

    /// `<namespace>_<name>`, as in names of files and directories.
    ///
    /// It can be longer than a file name. The rules refuse a pod long before that (its log
    /// directory has a longer name); reading and removing it find nothing, and writing it is an
    /// error.
    pub fn file_form(&self) -> &str {
        &self.file_form
    }

    /// Whether these are its namespace and name.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace() == namespace && self.name() == name
    }
}

impl FromStr for PodId {
    type Err = Invalid;

    /// Parses the file form.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (namespace, name) = text
            .split_once('_')
            .ok_or_else(|| Invalid(text.to_owned()))?;
        Self::new(namespace, name)
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}

impl fmt::Debug for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for PodId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.file_form)
    }
}

impl<'de> Deserialize<'de> for PodId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// For tests: the pod of this file form.
#[cfg(test)]
pub(crate) fn id(file_form: &str) -> PodId {
    file_form.parse().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_one_file_form_and_one_form_for_people() {
        let pod: PodId = "kube-system_kube-proxy.x-1".parse().unwrap();
        assert_eq!(pod, PodId::new("kube-system", "kube-proxy.x-1").unwrap());
        assert_eq!(
            (pod.namespace(), pod.name()),
            ("kube-system", "kube-proxy.x-1")
        );
        assert_eq!(pod.file_form(), "kube-system_kube-proxy.x-1");
        assert_eq!(pod.to_string(), "kube-system/kube-proxy.x-1");
        assert_eq!(
            serde_json::from_str::<PodId>(&serde_json::to_string(&pod).unwrap()).unwrap(),
            pod
        );
    }

    #[test]
    fn paths_and_invalid_names_are_refused() {
        let long = format!("shop_{}", "a".repeat(254));
        let long_namespace = format!("{}_till", "a".repeat(64));
        for text in [
            "",
            "_",
            "a",
            "a_",
            "_b",
            "../x_y",
            "a_../b",
            "a_..",
            "a_.b",
            "a/b_c",
            "A_b",
            "a_b_c",
            "a.b_c",
            "a_b\0",
            &long,
            &long_namespace,
        ] {
            assert!(text.parse::<PodId>().is_err(), "{text}");
        }
    }
}
