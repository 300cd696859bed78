//! The rules of CustomResourceDefinitions, their schemas aside ([`super::schema`]).
//!
//! Upstream judges its internal form, in which what all versions have in common stands beside them: with one version that is
//! everything, so errors name `spec.validation` where the user wrote `spec.versions[0].schema`.
//!
//! Source: `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`, `v1/conversion.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::{Error, ErrorList, Path};
use api::validation::{dns1035_label, dns1123_subdomain};
use serde_json::json;

use super::conditions::validate_approval;
use super::schema::{self, Known, Options};
use super::{defaults, structural};
use crate::admissionregistration::rules::client_config;
use crate::check::{At, Report};
use crate::custom::{field_path, is_true};
use crate::view::{Edit, View};

/// The most fields that selectors may name.
const SELECTABLE_FIELDS_MAX: usize = 8;
/// The longest deprecation warning in bytes.
const WARNING_BYTES_MAX: usize = 256;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Judges a definition; an old one is what it replaces.
pub fn validate(crd: &Value, old: Option<&Value>) -> ErrorList {
    let internal = internal(crd);
    let mut errors = ErrorList::new();
    if old.is_none() {
        let required = format!("{}.{}", crd.text("spec.names.plural"), crd.text("spec.group"));
        let name = crd.text("metadata.name");
        if name != required {
            let path = Path::new("metadata").child("name");
            let why = r#"must be spec.names.plural+"."+spec.group"#;
            errors.push(Error::invalid(&path, name, why));
        }
    }
    errors.extend(Report::of(&internal, |object| {
        spec(&object.get("spec"), crd, old);
        if let Some(old) = old {
            spec_update(&object.get("spec"), old);
        }
        names(&object.get("status.acceptedNames"));
        stored_versions(&object.get("status.storedVersions"), crd);
    }));
    errors.extend(validate_approval(crd, old));
    let was_kept = old.is_some_and(|old| old.flag("spec.preserveUnknownFields"));
    if crd.flag("spec.preserveUnknownFields") && !was_kept {
        let path = Path::new("spec").child("preserveUnknownFields");
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(Error::invalid(&path, true, why));
    }
    errors
}

/// Judges what a write of the status may change.
pub fn validate_status(crd: &Value) -> ErrorList {
    Report::of(crd, |object| names(&object.get("status.acceptedNames")))
}

/// Upstream's internal form: what all versions say alike stands in the spec.
fn internal(crd: &Value) -> Value {
    let mut internal = crd.clone();
    let versions = crd.list("spec.versions");
    for (field, common) in [
        ("subresources", "subresources"),
        ("schema", "validation"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
        ("selectableFields", "selectableFields"),
    ] {
        let Some(first) = versions.first().map(|version| version.at(field).clone()) else {
            break;
        };
        if first.is_null() || versions.iter().any(|version| *version.at(field) != first) {
            continue;
        }
        for version in internal["spec"].elements("versions") {
            version.cut(field);
        }
        internal["spec"].put(common, first);
    }
    if let Some(webhook) = internal["spec"].cut("conversion.webhook") {
        let conversion = &mut internal["spec"]["conversion"];
        conversion.copy_from(&webhook, "conversionReviewVersions");
        if webhook.has("clientConfig") {
            conversion.put("webhookClientConfig", webhook["clientConfig"].clone());
        }
    }
    internal
}

fn spec(spec: &At, crd: &Value, old: Option<&Value>) {
    let group = spec.get("group");
    if group.required() {
        let wrong = dns1123_subdomain(group.text());
        if !wrong.is_empty() {
            group.invalid(wrong.join(","));
        } else if !group.text().contains('.') {
            group.invalid("should be a domain with at least one dot");
        }
    }
    spec.get("scope").required_one_of(&["Cluster", "Namespaced"]);
    let preserves = spec.value.flag("preserveUnknownFields");
    let mut options = Options::of(crd, old);
    options.structural |= !preserves;
    let has_common = spec.value.at("validation.openAPIV3Schema").is_object();
    let versions = spec.items("versions");
    if !has_common {
        for version in &versions {
            let schema = version.get("schema.openAPIV3Schema");
            if options.schemas && !schema.is_set() {
                schema.missing("");
            } else if !options.schemas && !preserves && version.value.flag("served") && !schema.is_set() {
                schema.missing("because otherwise all fields are pruned");
            }
        }
    }
    let schemas = || {
        crd.list("spec.versions")
            .iter()
            .map(|version| version.at("schema.openAPIV3Schema"))
    };
    if schemas().any(|schema| schema::any(schema, &|schema| schema.has("default"))) {
        options.structural = true;
        if preserves {
            spec.get("preserveUnknownFields")
                .invalid_as(true, "must be false in order to use defaults in the schema");
        }
    }
    options.structural |= schemas().any(schema::has_extensions);
    let mut names = BTreeSet::new();
    let mut unique = true;
    let mut storages = 0;
    for version in &versions {
        storages += usize::from(version.value.flag("storage"));
        let name = version.get("name");
        unique &= names.insert(name.text());
        let wrong = dns1035_label(name.text());
        if !wrong.is_empty() {
            name.invalid_as(name.text(), wrong.join(","));
        }
        let subresources = match spec.value.at("subresources") {
            Value::Null => version.value.at("subresources"),
            common => common,
        };
        self::version(version, subresources, &options, old);
    }
    let list = spec.get("versions");
    if !unique {
        list.invalid("must contain unique version names");
    }
    if storages != 1 {
        list.invalid("must have exactly one version marked as storage version");
    }
    for name in ["plural", "singular", "kind", "listKind"] {
        spec.get("names").get(name).required();
    }
    self::names(&spec.get("names"));
    let has_status = crd
        .list("spec.versions")
        .iter()
        .any(|version| version.at("subresources.status").is_object());
    let first = crd
        .list("spec.versions")
        .first()
        .map_or("", |version| version.text("name"));
    validation(&spec.get("validation"), has_status, &options.of_version(first));
    subresources(&spec.get("subresources"));
    for column in spec.items("additionalPrinterColumns") {
        self::column(&column);
    }
    let selectable = spec.get("selectableFields");
    if !selectable.is_empty() {
        match spec.value.at("validation.openAPIV3Schema") {
            Value::Null => selectable.invalid_as("", "may only be set when validations.schema is included"),
            schema => selectable_fields(&selectable, schema, old),
        }
    }
    conversion(&spec.get("conversion"), preserves, old);
}

fn spec_update(spec: &At, old: &Value) {
    let before = old.at("spec");
    if is_true(old, "Established") {
        spec.get("scope").unchanged_text(before.at("scope"));
        spec.get("names.kind").unchanged_text(before.at("names.kind"));
    }
    spec.get("group").unchanged_text(before.at("group"));
    spec.get("names.plural").unchanged_text(before.at("names.plural"));
}

fn version(version: &At, subresources: &Value, options: &Options, old: Option<&Value>) {
    let warning = version.get("deprecationWarning");
    if warning.is_set() {
        for why in warning_rules(version.value.flag("deprecated"), warning.text()) {
            warning.invalid(why);
        }
    }
    let name = version.value.text("name");
    let has_status = subresources.at("status").is_object();
    validation(&version.get("schema"), has_status, &options.of_version(name));
    self::subresources(&version.get("subresources"));
    for column in version.items("additionalPrinterColumns") {
        self::column(&column);
    }
    let selectable = version.get("selectableFields");
    if !selectable.is_empty() {
        match version.value.at("schema.openAPIV3Schema") {
            Value::Null => selectable.invalid_as(
                "",
                "may only be set when `version.schema.openAPIV3Schema` is not included",
            ),
            schema => selectable_fields(&selectable, schema, old),
        }
    }
}

fn warning_rules(deprecated: bool, warning: &str) -> Vec<String> {
    if !deprecated {
        return vec!["can only be set for deprecated versions".into()];
    }
    let mut wrong = Vec::new();
    if warning.len() > WARNING_BYTES_MAX {
        wrong.push(format!("must be <= {WARNING_BYTES_MAX} characters long"));
    }
    if warning.is_empty() {
        wrong.push("must not be an empty string".into());
    }
    let strange = warning
        .char_indices()
        .find(|(_, character)| character.is_control() || (character.is_whitespace() && *character != ' '));
    if let Some((index, _)) = strange {
        wrong.push(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        ));
    }
    wrong
}

/// The schema of a version, or of all.
fn validation(validation: &At, has_status: bool, options: &Options) {
    let at = validation.get("openAPIV3Schema");
    let schema = at.value;
    if !schema.is_object() {
        return;
    }
    let before = validation.report.len();
    if has_status {
        schema::root_fields(&at, &validation.path);
    }
    if schema.flag("nullable") {
        at.elsewhere(validation.path.child("openAPIV3Schema.nullable"), schema)
            .forbidden("nullable cannot be true at the root");
    }
    let mut context = None;
    let mut unconvertible = None;
    if options.structural {
        match schema::unconvertible(schema) {
            Some(why) => unconvertible = Some(why),
            None => {
                let wrong = structural::validate(schema, &at.path);
                let wrong = match wrong.is_empty() {
                    true => defaults::validate(schema, &at.path, options.pruned_defaults),
                    false => wrong,
                };
                match wrong.is_empty() {
                    true => context = Some(schema::Context::root()),
                    false => at.extend(wrong),
                }
            }
        }
    }
    let mut total = schema::TotalCost::default();
    at.extend(schema::validate(schema, &at.path, options, context, &mut total));
    if let Some(why) = unconvertible.filter(|_| validation.report.len() == before) {
        at.invalid_as("", why);
    }
    at.extend(total.errors(&at.path));
}

fn subresources(subresources: &At) {
    let scale = subresources.get("scale");
    if !scale.is_set() {
        return;
    }
    for (field, roots) in [
        ("specReplicasPath", &["spec"] as &[&str]),
        ("statusReplicasPath", &["status"]),
        ("labelSelectorPath", &["spec", "status"]),
    ] {
        let path = scale.get(field);
        if path.text().is_empty() {
            if field != "labelSelectorPath" {
                path.missing("");
            }
            continue;
        }
        if simple_path(&path) && !roots.iter().any(|root| path.text().starts_with(&format!(".{root}."))) {
            path.invalid(match roots {
                [root] => format!("should be a json path under .{root}"),
                _ => "should be a json path under either .spec or .status".into(),
            });
        }
    }
}

fn simple_path(path: &At) -> bool {
    let starts = path.text().starts_with('.');
    path.ensure(starts, "must be a simple json path starting with .");
    starts
}

fn column(column: &At) {
    column.get("name").required();
    let kind = column.get("type");
    let types = format!("must be one of {}", COLUMN_TYPES.join(","));
    if kind.text().is_empty() {
        kind.missing(types);
    } else if !COLUMN_TYPES.contains(&kind.text()) {
        kind.invalid(types);
    }
    let format = column.get("format");
    if !format.text().is_empty() && !COLUMN_FORMATS.contains(&format.text()) {
        format.invalid(format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    let path = column.elsewhere(column.path.child("JSONPath"), column.value.at("jsonPath"));
    match path.text() {
        "" => path.missing(""),
        _ => {
            simple_path(&path);
        }
    }
}

fn selectable_fields(fields: &At, schema: &Value, old: Option<&Value>) {
    let mut seen = BTreeSet::new();
    let items = fields.value.as_array().map_or(&[] as &[Value], Vec::as_slice);
    for (index, item) in items.iter().enumerate() {
        let path = fields.elsewhere(fields.path.index(index).child("jsonPath"), item.at("jsonPath"));
        if path.text().is_empty() {
            path.missing("");
            continue;
        }
        let found = match field_path::normalized(path.text(), schema, false) {
            Ok(found) => found,
            Err(why) => {
                path.invalid(format!("is an invalid path: {why}"));
                continue;
            }
        };
        if found.root == "metadata" {
            path.invalid("must not point to fields in metadata");
        }
        if !matches!(found.schema.text("type"), "string" | "boolean" | "integer") {
            path.invalid(
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            );
        }
        if !seen.insert(found.text) {
            path.duplicate(path.value.clone());
        }
    }
    let before = old.into_iter().flat_map(|old| old.list("spec.versions"));
    let was_so = before
        .map(|version| version.list("selectableFields"))
        .any(|before| before.len() > SELECTABLE_FIELDS_MAX && before == items);
    if seen.len() > SELECTABLE_FIELDS_MAX && !was_so {
        fields.extend(vec![Error::too_many(&fields.path, seen.len(), SELECTABLE_FIELDS_MAX)]);
    }
}

fn names(names: &At) {
    for name in ["plural", "singular"] {
        let at = names.get(name);
        let wrong = dns1035_label(at.text());
        if !at.text().is_empty() && !wrong.is_empty() {
            at.invalid(wrong.join(","));
        }
    }
    for kind in ["kind", "listKind"] {
        let at = names.get(kind);
        let wrong = dns1035_label(&at.text().to_lowercase());
        if !at.text().is_empty() && !wrong.is_empty() {
            let rule = wrong.join(",");
            at.invalid(format!("may have mixed case, but should otherwise match: {rule}"));
        }
    }
    let labels = |list: &str| {
        for at in names.items(list) {
            let wrong = dns1035_label(at.text());
            if !wrong.is_empty() {
                at.invalid(wrong.join(","));
            }
        }
    };
    labels("shortNames");
    let (kind, list_kind) = (names.get("kind"), names.get("listKind"));
    if !kind.text().is_empty() && kind.text() == list_kind.text() {
        list_kind.invalid("kind and listKind may not be the same");
    }
    labels("categories");
}

fn stored_versions(stored: &At, crd: &Value) {
    if stored.is_empty() {
        let shown = json!([]);
        return stored.invalid_as(shown, "must have at least one stored version");
    }
    let known: Vec<&str> = crd
        .list("spec.versions")
        .iter()
        .map(|version| version.text("name"))
        .collect();
    let storage = crd.list("spec.versions").iter().find(|version| version.flag("storage"));
    if let Some(storage) = storage.map(|version| version.at("name"))
        && !stored.value.as_array().is_some_and(|stored| stored.contains(storage))
    {
        stored.invalid(format!(
            "must have the storage version {}",
            storage.as_str().unwrap_or("")
        ));
    }
    let list = stored.value.as_array().map_or(&[] as &[Value], Vec::as_slice);
    for (index, name) in list.iter().enumerate() {
        let text = name.as_str().unwrap_or("");
        if !known.contains(&text) {
            stored.elsewhere(stored.path.index(index), name).invalid(format!(
                "missing from spec.versions; {text} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {text} and removes {text} from status.storedVersions"
            ));
        }
    }
}

fn conversion(conversion: &At, preserves: bool, old: Option<&Value>) {
    if !conversion.is_set() {
        return;
    }
    let strategy = conversion.get("strategy");
    if strategy.text() != "None" && preserves {
        strategy.invalid("must be None if spec.preserveUnknownFields is true");
    }
    strategy.required_one_of(&["None", "Webhook"]);
    let config = conversion.get("webhookClientConfig");
    let versions = conversion.get("conversionReviewVersions");
    if strategy.text() != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        config.forbidden_when_set(why);
        if !versions.is_empty() {
            versions.forbidden(why);
        }
        return;
    }
    match config.is_set() {
        true => client_config(&config),
        false => config.missing("required when strategy is set to Webhook"),
    }
    let bundle = config.get("caBundle");
    let old_bundle = old.map_or("", |old| old.text("spec.conversion.webhook.clientConfig.caBundle"));
    let may_be_broken =
        old.is_none_or(|old| !is_true(old, "Established")) || (!old_bundle.is_empty() && !is_bundle(old_bundle));
    if !bundle.text().is_empty() && !may_be_broken && !is_bundle(bundle.text()) {
        bundle.invalid("unable to load root certificates: unable to parse bytes as PEM block");
    }
    if versions.is_empty() {
        return versions.missing("");
    }
    let mut seen = BTreeSet::new();
    let mut is_known = false;
    for version in conversion.items("conversionReviewVersions") {
        if !seen.insert(version.text()) {
            version.invalid("duplicate version");
            continue;
        }
        version.check(dns1035_label(version.text()));
        is_known |= REVIEW_VERSIONS.contains(&version.text());
    }
    let before = old.map_or(&[] as &[Value], |old| {
        old.list("spec.conversion.webhook.conversionReviewVersions")
    });
    let was_unknown = !before.is_empty()
        && !before
            .iter()
            .any(|version| REVIEW_VERSIONS.iter().any(|own| version == own));
    if !is_known && !was_unknown {
        versions.invalid(format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")));
    }
}

/// Whether there is a certificate in a bundle of certificates in base64.
fn is_bundle(text: &str) -> bool {
    use base64::Engine as _;
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(text) else {
        return false;
    };
    x509_parser::pem::Pem::iter_from_buffer(&pem)
        .any(|block| block.is_ok_and(|block| block.label == "CERTIFICATE" && block.parse_x509().is_ok()))
}

impl<'o> Options<'o> {
    /// What is asked of a new definition, or of one that replaces another: what that breaks already is not asked.
    fn of(crd: &Value, old: Option<&'o Value>) -> Options<'o> {
        let Some(old) = old else { return Options::default() };
        let versions = old.list("spec.versions");
        let schemas = || versions.iter().map(|version| version.at("schema.openAPIV3Schema"));
        let present = || schemas().filter(|schema| schema.is_object());
        let root = Path::root();
        let is_structural =
            |schema: &&Value| schema::unconvertible(schema).is_none() && structural::validate(schema, &root).is_empty();
        let unchanged = versions.iter().filter(|version| {
            let mut new = crd.list("spec.versions").iter();
            new.any(|new| new.text("name") == version.text("name") && new.at("schema") == version.at("schema"))
        });
        Options {
            schemas: schemas().all(Value::is_object),
            valid_types: !present().any(|schema| schema::any(schema, &schema::has_invalid_type)),
            structural: present().all(|schema| is_structural(&schema)),
            pruned_defaults: present().all(defaults::are_pruned),
            atomic_sets: !present().any(|schema| schema::any(schema, &schema::has_open_set)),
            map_keys: !present().any(|schema| schema::any(schema, &schema::has_loose_keys)),
            known: Known::of(present()),
            unchanged: unchanged.map(|version| version.text("name")).collect(),
            suppress_cost: false,
        }
    }

    fn of_version(&self, name: &str) -> Options<'o> {
        Options {
            suppress_cost: self.unchanged.contains(name),
            ..self.clone()
        }
    }
}
