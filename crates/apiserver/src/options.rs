//! The options of a request: read from the query (or, for deletions, from the body) and validated as upstream does.
//!
//! Source: `k8s.io/apimachinery/pkg/apis/meta/v1/validation` and `pkg/apis/meta/internalversion/validation`.

use serde_json::json;

use api::field::{Error, ErrorList, Path};
use api::selector::{FieldSelector, LabelSelector};
use api::{GroupKind, Map, Status, Value, validation};
use kinds::row::Propagation;

use crate::call::Call;
use crate::registry::Served;
use crate::request::Query;

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn.
    Warn,
    /// Refuse the request.
    Strict,
}

/// The options of create, update and patch.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Whether nothing is stored.
    pub dry_run: bool,
    /// Who manages the fields: the parameter, or what the user agent says.
    pub manager: String,
    /// The `fieldManager` parameter as it was given.
    pub field_manager: String,
    /// What to do about unknown fields.
    pub field_validation: FieldValidation,
    /// `force` of an apply.
    pub force: bool,
}

impl WriteOptions {
    /// Reads them. `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`; `apply` marks an apply patch.
    pub fn parse(call: &Call, kind: &str, apply: bool) -> Result<WriteOptions, Status> {
        let query = &call.query;
        let mut options = Map::new();
        let dry_run: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        let field_manager = query.text("fieldManager");
        let field_validation = query.text("fieldValidation");
        let force = query.flag("force");
        options.insert("dryRun".into(), json!(dry_run));
        options.insert("fieldManager".into(), field_manager.into());
        options.insert("fieldValidation".into(), field_validation.into());
        if let Some(force) = force {
            options.insert("force".into(), force.into());
        }
        let options = Value::Object(options);
        let errors = match kind {
            "PatchOptions" => validation::patch_options(&options, apply),
            _ => validation::create_options(&options),
        };
        refuse(kind, &errors)?;
        Ok(WriteOptions {
            dry_run: !dry_run.is_empty(),
            manager: match field_manager {
                "" => manager_of_agent(call.user_agent()),
                manager => manager.to_owned(),
            },
            field_manager: field_manager.to_owned(),
            field_validation: match field_validation {
                "Ignore" => FieldValidation::Ignore,
                "Strict" => FieldValidation::Strict,
                _ => FieldValidation::Warn,
            },
            force: force.unwrap_or(false),
        })
    }

    /// The options as an object for admission.
    pub fn to_value(&self, kind: &str) -> Value {
        let mut options = Map::new();
        options.insert("kind".into(), kind.into());
        options.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        if self.dry_run {
            options.insert("dryRun".into(), json!(["All"]));
        }
        if !self.field_manager.is_empty() {
            options.insert("fieldManager".into(), self.field_manager.clone().into());
        }
        Value::Object(options)
    }
}

fn refuse(kind: &str, errors: &[Error]) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupKind {
        group: "meta.k8s.io".into(),
        kind: kind.into(),
    };
    Err(Status::invalid(&kind, "", errors))
}

/// The default manager: the user agent up to its slash, printable and not too long.
fn manager_of_agent(agent: &str) -> String {
    let mut manager = String::new();
    for character in agent
        .split('/')
        .next()
        .unwrap_or("")
        .chars()
        .filter(|c| !c.is_control())
    {
        if manager.len() + character.len_utf8() > validation::FIELD_MANAGER_LENGTH_MAX {
            break;
        }
        manager.push(character);
    }
    manager
}

/// The options of delete and deletecollection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Whether nothing is stored.
    pub dry_run: bool,
    /// The grace period asked for.
    pub grace_period_seconds: Option<i64>,
    /// The old way of asking for orphans.
    pub orphan_dependents: Option<bool>,
    /// What happens to dependents.
    pub propagation: Option<Propagation>,
    /// The uid that the object must have.
    pub uid: Option<String>,
    /// The resourceVersion that the object must have.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads them from a query.
    pub fn from_query(query: &Query) -> Result<DeleteOptions, Status> {
        let mut options = Map::new();
        if let Some(seconds) = query.get("gracePeriodSeconds").filter(|text| !text.is_empty()) {
            let seconds: i64 = seconds.parse().map_err(|_| {
                let text = api::field::quote(seconds);
                Status::bad_request(format!("strconv.ParseInt: parsing {text}: invalid syntax"))
            })?;
            options.insert("gracePeriodSeconds".into(), seconds.into());
        }
        if let Some(orphan) = query.flag("orphanDependents") {
            options.insert("orphanDependents".into(), orphan.into());
        }
        if let Some(policy) = query.get("propagationPolicy").filter(|text| !text.is_empty()) {
            options.insert("propagationPolicy".into(), policy.into());
        }
        let dry_run: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        options.insert("dryRun".into(), json!(dry_run));
        DeleteOptions::from_value(&Value::Object(options))
    }

    /// Reads them from a decoded body in normal form.
    pub fn from_value(value: &Value) -> Result<DeleteOptions, Status> {
        refuse("DeleteOptions", &validation::delete_options(value))?;
        let precondition = |name: &str| {
            let text = value
                .get("preconditions")
                .and_then(|p| p.get(name))
                .and_then(Value::as_str);
            text.map(str::to_owned)
        };
        Ok(DeleteOptions {
            dry_run: value
                .get("dryRun")
                .and_then(Value::as_array)
                .is_some_and(|values| !values.is_empty()),
            // A negative period is one second (upstream: BeforeDelete).
            grace_period_seconds: value
                .get("gracePeriodSeconds")
                .and_then(Value::as_i64)
                .map(|seconds| if seconds < 0 { 1 } else { seconds }),
            orphan_dependents: value.get("orphanDependents").and_then(Value::as_bool),
            propagation: match value.get("propagationPolicy").and_then(Value::as_str) {
                Some("Orphan") => Some(Propagation::Orphan),
                Some("Background") => Some(Propagation::Background),
                Some("Foreground") => Some(Propagation::Foreground),
                _ => None,
            },
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
        })
    }

    /// The options as an object for admission.
    pub fn to_value(&self) -> Value {
        let mut options = Map::new();
        options.insert("kind".into(), "DeleteOptions".into());
        options.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        if self.dry_run {
            options.insert("dryRun".into(), json!(["All"]));
        }
        if let Some(seconds) = self.grace_period_seconds {
            options.insert("gracePeriodSeconds".into(), seconds.into());
        }
        if let Some(orphan) = self.orphan_dependents {
            options.insert("orphanDependents".into(), orphan.into());
        }
        if let Some(propagation) = self.propagation {
            let word = match propagation {
                Propagation::Orphan => "Orphan",
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
            };
            options.insert("propagationPolicy".into(), word.into());
        }
        let mut preconditions = Map::new();
        for (field, wanted) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(wanted) = wanted {
                preconditions.insert(field.into(), wanted.clone().into());
            }
        }
        if !preconditions.is_empty() {
            options.insert("preconditions".into(), Value::Object(preconditions));
        }
        Value::Object(options)
    }
}

/// How exact a list's revision is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// The parameter is absent.
    Unset,
    /// `Exact`.
    Exact,
    /// `NotOlderThan`.
    NotOlderThan,
}

/// The options of list and watch.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Which objects.
    pub selector: Selector,
    /// `resourceVersion`, when given: `0` is "anything".
    pub resource_version: Option<u64>,
    /// `resourceVersionMatch`.
    pub version_match: VersionMatch,
    /// `limit`; 0 is none.
    pub limit: usize,
    /// `continue`, or empty.
    pub next: String,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`.
    pub initial_events: Option<bool>,
    /// `timeoutSeconds`.
    pub timeout_seconds: Option<u64>,
}

/// Which objects a list or watch is about.
#[derive(Clone, Debug)]
pub struct Selector {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
    /// The one name, when the request is about one object.
    pub name: Option<String>,
    /// The one namespace; empty is every one.
    pub namespace: String,
}

impl Selector {
    /// Whether everything in the namespace is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.name.is_none()
    }
}

impl ListOptions {
    /// Reads and validates them. `watch` decides which rules hold.
    pub fn parse(call: &Call, served: &Served, watch: bool) -> Result<ListOptions, Status> {
        let query = &call.query;
        let initial_events = query.flag("sendInitialEvents");
        let match_text = query.text("resourceVersionMatch");
        let version_text = query.text("resourceVersion");
        let next = query.text("continue").to_owned();
        let errors = check_list(watch, initial_events, match_text, version_text, &next);
        refuse("ListOptions", &errors)?;
        let resource_version = match version_text {
            "" => None,
            text if watch => Some(parse_version(text)?),
            // A list names its parameter twice (upstream: storage.ValidateListOptions).
            text => Some(
                parse_version(text)
                    .map_err(|status| Status::bad_request(format!("invalid resource version: {}", status.message)))?,
            ),
        };
        let mut limit: i64 = parse_number(query, "limit")?.unwrap_or(0);
        // Whoever takes any version gets all of it at once, so that pages are never of a version that is far behind
        // (upstream: `computeListLimit`).
        if version_text == "0" && next.is_empty() {
            limit = 0;
        }
        let timeout: Option<i64> = parse_number(query, "timeoutSeconds")?;
        Ok(ListOptions {
            selector: selector(call, served)?,
            resource_version,
            version_match: match match_text {
                "Exact" => VersionMatch::Exact,
                "NotOlderThan" => VersionMatch::NotOlderThan,
                _ => VersionMatch::Unset,
            },
            limit: usize::try_from(limit).unwrap_or(0),
            next,
            bookmarks: query.flag("allowWatchBookmarks") == Some(true),
            initial_events,
            timeout_seconds: timeout
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0),
        })
    }
}

fn check_list(watch: bool, initial: Option<bool>, matching: &str, version: &str, next: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("resourceVersionMatch");
    let forbid = |detail: &str| Error::forbidden(&path, detail);
    if watch {
        if initial.is_some() && matching != "NotOlderThan" {
            errors.push(forbid(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if !matching.is_empty() {
            if initial.is_none() {
                errors.push(forbid(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            if matching != "NotOlderThan" {
                errors.push(Error::not_supported(&path, matching, &["NotOlderThan"]));
            }
            if !next.is_empty() {
                errors.push(forbid("resourceVersionMatch is forbidden when continue is provided"));
            }
        }
        return errors;
    }
    if !matching.is_empty() {
        if version.is_empty() {
            errors.push(forbid(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !next.is_empty() {
            errors.push(forbid("resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errors.push(Error::not_supported(&path, matching, &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && version == "0" {
            errors.push(forbid(
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if initial.is_some() {
        let detail = "sendInitialEvents is forbidden for list";
        errors.push(Error::forbidden(&Path::new("sendInitialEvents"), detail));
    }
    errors
}

/// Reads a resourceVersion.
pub fn parse_version(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let quoted = api::field::quote(text);
        let path = Path::new("resourceVersion");
        let why = format!("strconv.ParseUint: parsing {quoted}: invalid syntax");
        Status::bad_request(api::field::aggregate(&[Error::invalid(&path, text, why)]))
    })
}

fn parse_number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    match query.text(name) {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            let quoted = api::field::quote(text);
            Status::bad_request(format!("strconv.ParseInt: parsing {quoted}: invalid syntax"))
        }),
    }
}

/// Reads the selectors of a list, watch or deletecollection. A name in the path is one more field term.
pub fn selector(call: &Call, served: &Served) -> Result<Selector, Status> {
    let labels =
        LabelSelector::parse(call.query.text("labelSelector")).map_err(|e| Status::bad_request(e.to_string()))?;
    let fields =
        FieldSelector::parse(call.query.text("fieldSelector")).map_err(|e| Status::bad_request(e.to_string()))?;
    fields.check(|term| {
        let known = served.kind.row.check_field(served.version(), &term.field);
        known.map_err(Status::bad_request)
    })?;
    let attributes = &call.attributes;
    let in_fields = fields.exact_value("metadata.name").map(str::to_owned);
    let name = match (&*attributes.name, in_fields) {
        ("", name) => name,
        (path, Some(name)) if name != path => {
            let why = "fieldSelector metadata.name doesn't match requested name";
            return Err(Status::bad_request(why));
        }
        (path, _) => Some(path.to_owned()),
    };
    let namespace = match (served.kind.row.namespaced, &*attributes.namespace) {
        (false, _) => String::new(),
        (true, "") => fields.exact_value("metadata.namespace").unwrap_or("").to_owned(),
        (true, namespace) => namespace.to_owned(),
    };
    Ok(Selector {
        labels,
        fields,
        name,
        namespace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_options_are_validated() {
        for (watch, initial, matching, version, next, expect) in [
            (false, None, "", "", "", ""),
            (
                false,
                None,
                "Exact",
                "",
                "",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                false,
                None,
                "Exact",
                "0",
                "",
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                false,
                None,
                "NotOlderThan",
                "5",
                "x",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ),
            (
                false,
                Some(true),
                "",
                "",
                "",
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
            (true, Some(true), "NotOlderThan", "", "", ""),
            (
                true,
                Some(true),
                "",
                "",
                "",
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (
                true,
                None,
                "NotOlderThan",
                "",
                "",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
        ] {
            let errors = check_list(watch, initial, matching, version, next);
            let got = if errors.is_empty() {
                String::new()
            } else {
                api::field::aggregate(&errors)
            };
            assert_eq!(got, expect, "{matching} {version} {next}");
        }
    }

    #[test]
    fn delete_options_are_read_from_both_places() {
        let query = Query::parse("gracePeriodSeconds=-5&propagationPolicy=Orphan&dryRun=All");
        let options = DeleteOptions::from_query(&query).unwrap();
        assert_eq!(
            (options.grace_period_seconds, options.propagation, options.dry_run),
            (Some(1), Some(Propagation::Orphan), true)
        );
        let body = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u", "resourceVersion": "7"}});
        let options = DeleteOptions::from_value(&body).unwrap();
        assert_eq!(
            (options.uid.as_deref(), options.resource_version.as_deref()),
            (Some("u"), Some("7"))
        );
        for (query, code) in [
            ("propagationPolicy=Maybe", 422),
            ("dryRun=Some", 422),
            ("gracePeriodSeconds=x", 400),
            ("orphanDependents=true&propagationPolicy=Orphan", 422),
        ] {
            assert_eq!(
                DeleteOptions::from_query(&Query::parse(query)).unwrap_err().code,
                code,
                "{query}"
            );
        }
    }

    #[test]
    fn managers_come_from_the_agent() {
        for (agent, expect) in [
            ("kubectl/v1.36.0 (linux/amd64) kubernetes/abc", "kubectl"),
            ("Mozilla/5.0", "Mozilla"),
            ("", ""),
            ("a\u{7}b/1", "ab"),
        ] {
            assert_eq!(manager_of_agent(agent), expect);
        }
        assert_eq!(
            manager_of_agent(&"x".repeat(500)).len(),
            validation::FIELD_MANAGER_LENGTH_MAX
        );
    }
}
