//! Paths of the API.

/// `/apis/<group>/<version>/namespaces/<namespace>/<plural>/<name>/<subresource>`, and shorter
/// paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource<'a> {
    /// Group and version: `apps/v1`, and `v1` of the core group.
    pub version: &'a str,
    pub namespace: Option<&'a str>,
    pub plural: &'a str,
    /// `None` for a collection.
    pub name: Option<&'a str>,
    pub subresource: Option<&'a str>,
}

impl<'a> Resource<'a> {
    /// Parses a path; `None` if it does not belong to an API group.
    pub fn parse(path: &'a str) -> Option<Self> {
        let (version, rest) = if let Some(core) = path.strip_prefix("/api/") {
            core.split_once('/')?
        } else {
            let named = path.strip_prefix("/apis/")?;
            let (end, _) = named.match_indices('/').nth(1)?;
            (&named[..end], &named[end + 1..])
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let (namespace, parts) = match parts.as_slice() {
            ["namespaces", namespace, below @ ..] if !below.is_empty() => (Some(*namespace), below),
            all => (None, all),
        };
        let plural = parts.first()?;
        Some(Self {
            version,
            namespace,
            plural,
            name: parts.get(1).copied(),
            subresource: parts.get(2).copied(),
        })
    }

    /// Name of its API group; empty for the core group.
    pub fn group(&self) -> &'a str {
        self.version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Whether the object at this path belongs to this collection, of one namespace or of all.
    pub fn contains(&self, path: &str) -> bool {
        Resource::parse(path).is_some_and(|object| {
            object.name.is_some()
                && (object.version, object.plural) == (self.version, self.plural)
                && (self.namespace.is_none() || self.namespace == object.namespace)
        })
    }
}
