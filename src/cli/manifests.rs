//! `manifests`: prints all objects of an installation as YAML, for an installation without the
//! operator.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::api::podcheckpointer::{PodCheckpointer, PodCheckpointerSpec};
use crate::args::ManifestsArguments;
use crate::cli::{Answer, print};
use crate::names;
use crate::operator::settings::{self, Checked};
use crate::operator::{installation, objects};

/// Runs `manifests`.
pub fn manifests(arguments: &ManifestsArguments) -> anyhow::Result<Answer> {
    let ManifestsArguments {
        filename,
        image,
        skip_crds,
        operator,
    } = arguments;
    let spec = match filename {
        None => PodCheckpointerSpec::default(),
        Some(path) => {
            let mut text = String::new();
            let read = if path.as_os_str() == "-" {
                std::io::stdin().read_to_string(&mut text).map(drop)
            } else {
                std::fs::read_to_string(path).map(|read| text = read)
            };
            read.with_context(|| format!("cannot read {}", path.display()))?;
            spec(&text)
                .with_context(|| format!("{} is not a valid PodCheckpointer", path.display()))?
        }
    };
    let mut all = if *skip_crds {
        Vec::new()
    } else {
        objects::definitions()
    };
    all.extend(if *operator {
        installation::objects(image)
    } else {
        let image = settings::image(&spec, Some(image))
            .unwrap_or(image)
            .to_owned();
        objects::objects(&Checked::new(spec, image)?)
    });
    print(&objects::yaml(&all)?)
}

fn spec(text: &str) -> anyhow::Result<PodCheckpointerSpec> {
    let value: Value = serde_yaml::from_str(text)?;
    for (field, wanted) in [
        ("apiVersion", names::API_VERSION),
        ("kind", "PodCheckpointer"),
    ] {
        if value.get(field).and_then(Value::as_str) != Some(wanted) {
            bail!("{field} must be {wanted}");
        }
    }
    let definition = serde_json::to_value(PodCheckpointer::crd())?;
    let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
    let given = value.get("spec").cloned().unwrap_or_default();
    if let Some(field) = schema.and_then(|schema| unknown(&given, schema, "spec")) {
        bail!("unknown field {field}");
    }
    if given.is_null() {
        return Ok(PodCheckpointerSpec::default());
    }
    serde_path_to_error::deserialize(given).map_err(|error| {
        let path = error.path().to_string();
        anyhow::Error::new(error.into_inner()).context(format!("spec.{path}"))
    })
}

/// The first field that the schema does not have: it is probably misspelled, and an API server
/// would drop it silently.
fn unknown(value: &Value, schema: &Value, path: &str) -> Option<String> {
    match value {
        Value::Object(fields) => {
            let properties = schema.get("properties");
            fields.iter().find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                match (
                    properties.and_then(|all| all.get(name)),
                    schema.get("additionalProperties"),
                ) {
                    (Some(schema), _) | (None, Some(schema)) => unknown(value, schema, &path),
                    (None, None) => Some(path),
                }
            })
        }
        Value::Array(items) => {
            let schema = schema.get("items")?;
            items
                .iter()
                .enumerate()
                .find_map(|(at, item)| unknown(item, schema, &format!("{path}[{at}]")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: &str) -> Result<PodCheckpointerSpec, String> {
        let text = format!(
            "apiVersion: podcheckpointer.io/v1alpha1\nkind: PodCheckpointer\nmetadata: {{name: default}}\n{spec}"
        );
        super::spec(&text).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_misspelled_field_or_a_wrong_type_is_named_with_its_path() {
        assert_eq!(read("").unwrap(), PodCheckpointerSpec::default());
        assert_eq!(
            read("spec: {retention: 5m}").unwrap().retention.as_deref(),
            Some("5m")
        );
        assert_eq!(
            read("spec: {nodeSelector: {any.name/x: y}}")
                .unwrap()
                .node_selector["any.name/x"],
            "y"
        );
        for (spec, path) in [
            ("spec: {retenton: 5m}", "spec.retenton"),
            ("spec: {metrics: {port: 1}}", "spec.metrics.port"),
            (
                "spec: {select: [{matchLabels: {a: b}}, {matchLabel: {a: b}}]}",
                "spec.select[1].matchLabel",
            ),
            ("spec: {namespaces: shop}", "spec.namespaces"),
            (
                "spec: {select: [{matchExpressions: [{key: a, operator: in}]}]}",
                "spec.select[0].matchExpressions[0].operator",
            ),
        ] {
            let error = read(spec).unwrap_err();
            assert!(error.contains(path), "{spec}: {error}");
        }
        assert!(
            super::spec("kind: Pod\napiVersion: v1")
                .unwrap_err()
                .to_string()
                .contains("apiVersion must be")
        );
    }
}
