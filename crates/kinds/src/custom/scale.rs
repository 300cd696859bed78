//! Where a custom resource keeps what its `scale` subresource shows.
//!
//! Source: `apiextensions-apiserver/pkg/registry/customresource/{etcd,validator}.go`.

use api::field::{Error, ErrorList, Path, go_type};
use api::{Map, Value};

use crate::view::View;

/// The paths of the replicas and of the selector, in dot notation.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalePaths {
    /// Below `.spec`.
    pub spec: String,
    /// Below `.status`.
    pub status: String,
    /// Below either; a text.
    pub selector: Option<String>,
}

/// What is at a path, or why there cannot be anything.
fn nested<'v>(object: &'v Value, path: &str, kind: &str) -> Result<Option<&'v Value>, String> {
    let path = path.strip_prefix('.').unwrap_or(path);
    let mut here = object;
    let mut walked: Vec<&str> = Vec::new();
    for name in path.split('.') {
        if !here.is_object() {
            let found = go_type(here);
            return Err(format!(
                ".{} accessor error: {here} is of the type {found}, expected map[string]interface{{}}",
                walked.join(".")
            ));
        }
        walked.push(name);
        match here.get(name) {
            Some(next) => here = next,
            None => return Ok(None),
        }
    }
    let fits = match kind {
        "int64" => here.as_i64().is_some(),
        _ => here.is_string(),
    };
    match fits {
        true => Ok(Some(here)),
        false => Err(format!(
            ".{path} accessor error: {} is of the type {}, expected {kind}",
            shown(here),
            go_type(here)
        )),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl ScalePaths {
    /// Of a version's `subresources.scale`.
    pub fn of(scale: &Value) -> Option<ScalePaths> {
        scale.is_object().then(|| ScalePaths {
            spec: scale.text("specReplicasPath").to_owned(),
            status: scale.text("statusReplicasPath").to_owned(),
            selector: Some(scale.text("labelSelectorPath").to_owned()).filter(|path| !path.is_empty()),
        })
    }

    /// The replicas that are wanted, and those that are there; `None` when nobody said how many are wanted.
    ///
    /// # Errors
    /// What stands there is no number.
    pub fn replicas(&self, object: &Value) -> Result<(Option<i64>, i64), String> {
        let number = |path: &str| Ok::<_, String>(nested(object, path, "int64")?.and_then(Value::as_i64));
        Ok((number(&self.spec)?, number(&self.status)?.unwrap_or(0)))
    }

    /// The selector as a text.
    ///
    /// # Errors
    /// What stands there is no text.
    pub fn selector(&self, object: &Value) -> Result<String, String> {
        match &self.selector {
            None => Ok(String::new()),
            Some(path) => Ok(nested(object, path, "string")?.map(shown).unwrap_or_default()),
        }
    }

    /// Sets how many replicas are wanted.
    ///
    /// # Errors
    /// There is something else on the way.
    pub fn set_replicas(&self, object: &mut Value, replicas: i64) -> Result<(), String> {
        let path = self.spec.strip_prefix('.').unwrap_or(&self.spec);
        let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut here = object;
        for name in parents.split('.').filter(|name| !name.is_empty()) {
            let Some(map) = here.as_object_mut() else {
                return Err(format!(
                    "value cannot be set because .{parents} is not a map[string]interface{{}}"
                ));
            };
            here = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
        }
        let Some(map) = here.as_object_mut() else {
            return Err(format!(
                "value cannot be set because .{parents} is not a map[string]interface{{}}"
            ));
        };
        map.insert(last.to_owned(), replicas.into());
        Ok(())
    }

    /// The replicas and the selector are what a Scale can show.
    pub(super) fn validate(&self, object: &Value, with_spec: bool) -> ErrorList {
        let mut errors = ErrorList::new();
        let paths: &[&String] = match with_spec {
            true => &[&self.spec, &self.status],
            false => &[&self.status],
        };
        for path in paths {
            let at = Path::new(path);
            match nested(object, path, "int64").map(|found| found.and_then(Value::as_i64).unwrap_or(0)) {
                Err(why) => errors.push(Error::invalid(&at, 0, why)),
                Ok(number) if number < 0 => {
                    errors.push(Error::invalid(&at, number, "should be a non-negative integer"));
                }
                Ok(number) if number > i64::from(i32::MAX) => {
                    let why = format!("should be less than or equal to {}", i32::MAX);
                    errors.push(Error::invalid(&at, number, why));
                }
                Ok(_) => {}
            }
        }
        if let Err(why) = self.selector(object) {
            let path = self.selector.as_deref().unwrap_or("");
            errors.push(Error::invalid(&Path::new(path), "", why));
        }
        errors
    }
}
