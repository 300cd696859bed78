//! From the bytes of a body to an object in normal form (D2): JSON, YAML or protobuf, checked against the kind.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use api::codec::{DecodeError, DecodeErrorKind, Decoded, Limits, MediaType, json, protobuf, yaml};
use api::normalize::{UnknownField, UnknownFields, normalize};
use api::patch;
use api::schema::SchemaRef;
use api::{GroupVersionKind, Reason, Status, Value, meta};

use crate::call::Call;
use crate::options::FieldValidation;
use crate::respond::view;

/// The media types of objects that a request body may have.
const OBJECT_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What upstream looks for the kind with, as Go prints it.
const TYPE_META: &str = concat!(
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; "#,
    r#"Kind string "json:\"kind,omitempty\"" }"#
);

/// 415, with what is taken.
pub fn unsupported_media_type(accepted: &str) -> Status {
    Status::failure(
        Reason::UnsupportedMediaType,
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}"),
    )
}

/// The media type of a body of objects; JSON when the header is absent.
pub fn media_type(headers: &HeaderMap) -> Result<MediaType, Status> {
    let text = match headers.get(CONTENT_TYPE) {
        None => return Ok(MediaType::Json),
        Some(value) => value.to_str().unwrap_or("?"),
    };
    match MediaType::parse(text) {
        Some(media @ (MediaType::Json | MediaType::Yaml | MediaType::Protobuf)) => Ok(media),
        None if text.is_empty() => Ok(MediaType::Json),
        _ => Err(unsupported_media_type(OBJECT_TYPES)),
    }
}

fn read(media: MediaType, bytes: &Bytes) -> Result<Decoded, DecodeError> {
    let limits = Limits::default();
    match media {
        MediaType::Protobuf => {
            let (gvk, value) = protobuf::decode(bytes)?;
            Ok(of_message(gvk, value))
        }
        MediaType::Yaml => yaml::decode(bytes, &limits),
        _ => json::decode(bytes, &limits),
    }
}

/// Reads an object that is expected to be of a kind: a message that says nothing of itself, or names an older version of the
/// same fields, is of that kind.
fn read_expected(
    media: MediaType,
    bytes: &Bytes,
    expected: &GroupVersionKind,
    older: &[&str],
    schema: &SchemaRef,
) -> Result<Decoded, DecodeError> {
    if media == MediaType::Protobuf {
        let envelope = protobuf::Envelope::open(bytes)?;
        let is_version = envelope.api_version.is_empty() || older.contains(&&*envelope.api_version);
        if is_version && (envelope.kind.is_empty() || envelope.kind == expected.kind) {
            let (gvk, value) = protobuf::decode_as(bytes, schema)?;
            return Ok(of_message(gvk, value));
        }
    }
    read(media, bytes)
}

fn of_message(gvk: GroupVersionKind, mut value: Value) -> Decoded {
    view::set_kind(&mut value, &gvk.api_version(), &gvk.kind);
    Decoded {
        value,
        duplicates: Vec::new(),
    }
}

/// Decodes the object of a create or update: of the expected kind, normal, its unknown fields refused or reported.
pub fn object(
    call: &Call,
    bytes: &Bytes,
    expected: &GroupVersionKind,
    schema: &SchemaRef,
    validation: FieldValidation,
) -> Result<Value, Status> {
    object_in(call, bytes, expected, &[], schema, validation)
}

/// The same, taken in older API versions too whose fields are those of the expected one.
pub fn object_in(
    call: &Call,
    bytes: &Bytes,
    expected: &GroupVersionKind,
    older: &[&str],
    schema: &SchemaRef,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let media = media_type(&call.headers)?;
    let mut decoded = read_expected(media, bytes, expected, older, schema)
        .map_err(|error| undecodable(media, expected, bytes, &error))?;
    let mut value = std::mem::take(&mut decoded.value);
    if !value.is_object() {
        let kind = json::kind_word(&value);
        let why = format!("json: cannot unmarshal {kind} into Go value of type {TYPE_META}");
        return Err(unrecognized(expected, bytes, &format!("{NO_KIND_IN_JSON}{why}")));
    }
    let mut found = complete_kind(&mut value, expected);
    if older.contains(&&*found.api_version()) {
        view::set_kind(&mut value, &expected.api_version(), &found.kind);
        found.version = expected.version.clone();
    }
    if found.kind != expected.kind || found.group_version() != expected.group_version() {
        return Err(wrong_kind(&found, expected));
    }
    let unknown = normalize(&mut value, schema, UnknownFields::Report).map_err(|error| {
        Status::bad_request(format!(
            "{} in version {} cannot be handled as a {}: {error}",
            found.kind,
            api::field::quote(&found.version),
            expected.kind
        ))
    })?;
    // Protobuf has no strict mode (upstream falls back to the plain decoder).
    if media != MediaType::Protobuf && !(decoded.duplicates.is_empty() && unknown.is_empty()) {
        let strict = strict_errors(media, bytes, &decoded, unknown);
        report(call, &strict, validation).map_err(|why| {
            Status::bad_request(format!(
                "{} in version {} cannot be handled as a {}: {why}",
                found.kind,
                api::field::quote(&found.version),
                expected.kind
            ))
        })?;
    }
    Ok(value)
}

/// What strict validation found, in upstream's order: that of the text in JSON; in YAML, which upstream reads into a map
/// first, what the syntax shows before what the type shows.
fn strict_errors(media: MediaType, bytes: &Bytes, decoded: &Decoded, unknown: Vec<UnknownField>) -> Vec<String> {
    let unknown = unknown.into_iter();
    if media == MediaType::Json {
        let unknown: Vec<String> = unknown.map(|field| field.path).collect();
        return json::strict_errors_in_order(bytes, &Limits::default(), &decoded.duplicates, &unknown);
    }
    let repeated = yaml::strict_error(&decoded.duplicates).into_iter();
    repeated.chain(unknown.map(|field| field.to_string())).collect()
}

/// Refuses or warns about what strict validation found. Source: `addStrictDecodingWarnings` of
/// apiserver/pkg/endpoints/handlers/rest.go.
pub fn report(call: &Call, strict: &[String], validation: FieldValidation) -> Result<(), String> {
    if strict.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            for text in strict {
                match text.split_once(yaml::STRICT_ERROR_PREFIX) {
                    Some((_, lines)) => lines.lines().for_each(|line| call.warn(line.trim())),
                    None => call.warn(text.clone()),
                }
            }
            Ok(())
        }
        FieldValidation::Strict => Err(format!("strict decoding error: {}", strict.join(", "))),
    }
}

/// Fills in the kind and version that the body left out; answers with what it says.
fn complete_kind(value: &mut Value, expected: &GroupVersionKind) -> GroupVersionKind {
    let api_version = value.get("apiVersion").and_then(Value::as_str).unwrap_or("");
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or("");
    let api_version = if api_version.is_empty() {
        expected.api_version()
    } else {
        api_version.into()
    };
    let kind = if kind.is_empty() {
        expected.kind.clone()
    } else {
        kind.into()
    };
    view::set_kind(value, &api_version, &kind);
    meta::gvk(value)
}

fn wrong_kind(found: &GroupVersionKind, expected: &GroupVersionKind) -> Status {
    // Versions that upstream knows and does not serve any more are of the kind, and refused for being older.
    let is_older = found.kind == expected.kind
        && found.group == expected.group
        && (found.version.contains("alpha") || found.version.contains("beta"));
    if is_older {
        return Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            found.group_version(),
            expected.group_version()
        ));
    }
    Status::bad_request(format!(
        "{} in version {} cannot be handled as a {}: {}",
        found.kind,
        api::field::quote(&found.version),
        expected.kind,
        no_conversion(found, expected)
    ))
}

/// Why an object of one kind is none of another: there is no such kind, or no way from it. Types have Go's names.
pub fn no_conversion(found: &GroupVersionKind, expected: &GroupVersionKind) -> String {
    if SchemaRef::builtin(found).is_none() {
        return protobuf::no_kind(&found.api_version(), &found.kind);
    }
    let internal = match expected.group.split('.').next() {
        None | Some("") => "core",
        Some(package) => package,
    };
    format!(
        "converting ({}.{}) to ({internal}.{}): unknown conversion",
        found.version, found.kind, expected.kind
    )
}

/// A body that cannot be read. Each decoder of upstream gets so far.
fn undecodable(media: MediaType, expected: &GroupVersionKind, bytes: &Bytes, error: &DecodeError) -> Status {
    let why = error.to_string();
    match media {
        MediaType::Protobuf if error.kind == DecodeErrorKind::UnknownKind => {
            let found = protobuf::Envelope::open(bytes).map(|envelope| envelope.gvk());
            let found = found.unwrap_or_else(|_| expected.clone());
            Status::bad_request(format!(
                "{} in version {} cannot be handled as a {}: {why}",
                found.kind,
                api::field::quote(&found.version),
                expected.kind
            ))
        }
        MediaType::Protobuf => unrecognized(expected, bytes, &why),
        MediaType::Yaml => unrecognized(expected, bytes, why.strip_prefix(yaml::ERROR_PREFIX).unwrap_or(&why)),
        _ => unrecognized(expected, bytes, &format!("{NO_KIND_IN_JSON}{why}")),
    }
}

/// What upstream was at when it met JSON that is none.
const NO_KIND_IN_JSON: &str = "couldn't get version/kind; json parse error: ";

/// A body whose kind could not even be read.
fn unrecognized(expected: &GroupVersionKind, bytes: &Bytes, why: &str) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
        expected.kind,
        summary(bytes)
    ))
}

/// How much of a bad body is shown.
const SUMMARY_BYTES_MAX: usize = 30;

fn summary(bytes: &Bytes) -> String {
    let more = if bytes.len() > SUMMARY_BYTES_MAX { " ..." } else { "" };
    let shown = &bytes[..bytes.len().min(SUMMARY_BYTES_MAX)];
    match bytes.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

/// Decodes an object of options in a body (`DeleteOptions`), of any group version.
pub fn delete_options(call: &Call, bytes: &Bytes) -> Result<Value, Status> {
    let media = media_type(&call.headers)?;
    let bad = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
    let mut value = read(media, bytes).map_err(|error| bad(&error))?.value;
    let kind = value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or("DeleteOptions")
        .to_owned();
    if !matches!(&*kind, "" | "DeleteOptions") {
        return Err(Status::bad_request(
            "decoded object cannot be converted to DeleteOptions",
        ));
    }
    let schema = SchemaRef::builtin_type("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
        .expect("invariant: the schema has the options of meta/v1");
    normalize(&mut value, &schema, UnknownFields::Ignore).map_err(|error| bad(&error))?;
    Ok(value)
}

/// Reads a patch document in JSON: a list of operations, a merge patch or a strategic one.
pub fn json_document(media: MediaType, bytes: &Bytes) -> Result<(Value, Vec<String>), Status> {
    tracing::trace!(target: "walk", "the body is decoded");
    // Upstream says what it was about only where another library reads the patch.
    let context = match media {
        MediaType::StrategicMergePatch => "",
        _ => "error decoding patch: ",
    };
    let bad = |error: &dyn std::fmt::Display| Status::bad_request(format!("{context}{error}"));
    let limits = Limits::default();
    let decoded = json::decode(bytes, &limits).map_err(|error| bad(&error))?;
    if media == MediaType::JsonPatch {
        let unknown = patch::json_patch_unknown_fields(&decoded.value);
        if decoded.duplicates.is_empty() && unknown.is_empty() {
            return Ok((decoded.value, Vec::new()));
        }
        let strict = json::strict_errors_in_order(bytes, &limits, &decoded.duplicates, &unknown);
        let strict = strict.into_iter().map(|text| format!("json patch {text}"));
        return Ok((decoded.value, strict.collect()));
    }
    if !decoded.value.is_object() {
        let kind = json::kind_word(&decoded.value);
        let why = format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}");
        return Err(bad(&why));
    }
    Ok((decoded.value, json::strict_errors(&decoded.duplicates)))
}

/// Reads an apply configuration in YAML (or JSON, which is YAML).
pub fn apply_document(bytes: &Bytes) -> Result<(Value, Vec<String>), Status> {
    let bad = |error: &dyn std::fmt::Display| Status::bad_request(format!("error decoding YAML: {error}"));
    let decoded = yaml::decode(bytes, &Limits::default()).map_err(|error| bad(&error))?;
    let strict = yaml::strict_error(&decoded.duplicates)
        .map(|text| yaml::ERROR_PREFIX.to_owned() + &text)
        .into_iter()
        .collect();
    Ok((decoded.value, strict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_bodies_are_summarized() {
        for (body, expect) in [
            ("", "<empty>"),
            ("{\"a\"", "{\"a\""),
            ("xy", "7879"),
            ("{234567890123456789012345678901", "{23456789012345678901234567890 ..."),
        ] {
            assert_eq!(summary(&Bytes::from(body)), expect);
        }
    }

    #[test]
    fn kinds_are_completed_and_compared() {
        let expected = GroupVersionKind::new("apps", "v1", "Deployment");
        let mut value = serde_json::json!({"metadata": {}});
        assert_eq!(complete_kind(&mut value, &expected), expected);
        let found = GroupVersionKind::new("apps", "v1beta1", "Deployment");
        assert_eq!(
            wrong_kind(&found, &expected).message,
            "the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)"
        );
        for (group, version, kind, expect) in [
            (
                "",
                "v1",
                "Secret",
                "Secret in version \"v1\" cannot be handled as a Deployment: converting (v1.Secret) to (apps.Deployment): unknown conversion",
            ),
            (
                "apps",
                "v2",
                "Deployment",
                "Deployment in version \"v2\" cannot be handled as a Deployment: no kind \"Deployment\" is registered for version \"apps/v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            ),
        ] {
            let found = GroupVersionKind::new(group, version, kind);
            assert_eq!(wrong_kind(&found, &expected).message, expect);
        }
    }
}
