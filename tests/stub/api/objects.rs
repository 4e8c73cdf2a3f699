//! Changes of objects. Each change is an event for the watches that see it.

use serde_json::{Value, json};

use super::{Change, State};

/// Why a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    /// A precondition does not hold.
    Conflict,
}

impl State {
    /// Creates or replaces an object.
    pub fn put(&mut self, path: &str, mut object: Value) {
        let known = self.objects.get(path);
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        let old = known.map(|known| {
            (
                known["spec"].clone(),
                known["metadata"]["generation"].as_i64().unwrap_or(1),
            )
        });
        let generation = old.map_or(1, |(spec, generation)| {
            generation + i64::from(spec != object["spec"])
        });
        self.version += 1;
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(path.rsplit('/').next());
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["generation"] = json!(generation);
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.version));
        }
        self.tell(kind, path, object.clone());
        self.objects.insert(path.to_owned(), object);
    }

    /// Removes an object, or marks it as being deleted while it has finalizers.
    pub fn delete(&mut self, path: &str) {
        let Some(mut object) = self.objects.get(path).cloned() else {
            return;
        };
        if has_finalizers(&object) {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-22T01:00:00Z");
            self.put(path, object);
            return;
        }
        self.version += 1;
        self.objects.remove(path);
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell("DELETED", path, object);
    }

    /// Like `delete`, if the object has this UID.
    pub(super) fn delete_if(&mut self, path: &str, uid: Option<&str>) -> Result<(), Refusal> {
        let known = self.objects.get(path).ok_or(Refusal::NotFound)?;
        if uid.is_some_and(|uid| known["metadata"]["uid"] != uid) {
            return Err(Refusal::Conflict);
        }
        self.delete(path);
        Ok(())
    }

    /// Replaces an object that has not changed since it was read.
    pub(super) fn replace(&mut self, path: &str, sent: Value) -> Result<Value, Refusal> {
        let known = self.objects.get(path).ok_or(Refusal::NotFound)?;
        if known["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] {
            return Err(Refusal::Conflict);
        }
        self.put(path, sent);
        Ok(self.objects[path].clone())
    }

    /// Server-side apply of a whole object or of its status. Without a difference there is no
    /// event.
    pub(super) fn apply(&mut self, path: &str, mut sent: Value) -> Result<Value, Refusal> {
        if let Some(whole) = path.strip_suffix("/status") {
            let mut object = self.objects.get(whole).cloned().ok_or(Refusal::NotFound)?;
            object["status"] = sent["status"].clone();
            self.put(whole, object);
            return Ok(self.objects[whole].clone());
        }
        if let Some(known) = self.objects.get(path) {
            for field in [
                "uid",
                "resourceVersion",
                "generation",
                "finalizers",
                "deletionTimestamp",
            ] {
                if let Some(value) = known["metadata"].get(field) {
                    sent["metadata"][field] = value.clone();
                }
            }
            if let Some(status) = known.get("status") {
                sent["status"] = status.clone();
            }
            if *known == sent {
                return Ok(sent);
            }
        }
        self.put(path, sent);
        Ok(self.objects[path].clone())
    }

    /// A merge patch, if the object still has the resource version that the patch names.
    pub(super) fn merge(&mut self, path: &str, sent: &Value) -> Result<Value, Refusal> {
        let mut object = self.objects.get(path).cloned().ok_or(Refusal::NotFound)?;
        let version = &sent["metadata"]["resourceVersion"];
        if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
            return Err(Refusal::Conflict);
        }
        merge(&mut object, sent);
        self.put(path, object.clone());
        if object["metadata"]["deletionTimestamp"].is_string() && !has_finalizers(&object) {
            self.delete(path);
        }
        Ok(object)
    }

    fn tell(&mut self, kind: &'static str, path: &str, object: Value) {
        self.history.push(Change {
            version: self.version,
            kind,
            path: path.to_owned(),
            object,
        });
    }
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|all| !all.is_empty())
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (field, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(field);
        } else {
            merge(&mut into[field], value);
        }
    }
}
