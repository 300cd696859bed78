//! Which authorizers there are, and in which order: `AuthorizationConfiguration` of `apiserver.config.k8s.io`.
//!
//! Source: `k8s.io/apiserver/pkg/apis/apiserver` (`v1/types.go`, `v1/defaults.go`, `validation/validation.go`) and
//! `pkg/kubeapiserver/options/authorization.go`.

use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use api::codec::{Limits, yaml};
use api::field::{Error, ErrorList, Path, aggregate};
use api::{Value, duration, validation};
use bytes::Bytes;

use crate::hook::ReadFile;

/// The versions in which a file may be written; their fields are the same.
const GROUP: &str = "apiserver.config.k8s.io";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const TYPES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
/// Those that look at what was read at the start: a server that began without them cannot have them later.
const TYPES_OF_THE_START: [&str; 3] = ["ABAC", "Node", "RBAC"];
/// Upstream's defaults.
pub const AUTHORIZED_TTL: Duration = Duration::from_secs(5 * 60);
/// The same for refusals.
pub const UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);
/// The longest deadline of a webhook.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// So many conditions a webhook may have: upstream's.
const CONDITIONS_MAX: usize = 64;

const FIELDS: [&str; 3] = ["apiVersion", "authorizers", "kind"];
const AUTHORIZER_FIELDS: [&str; 3] = ["name", "type", "webhook"];
const WEBHOOK_FIELDS: [&str; 10] = [
    "authorizedTTL",
    "cacheAuthorizedRequests",
    "cacheUnauthorizedRequests",
    "connectionInfo",
    "failurePolicy",
    "matchConditionSubjectAccessReviewVersion",
    "matchConditions",
    "subjectAccessReviewVersion",
    "timeout",
    "unauthorizedTTL",
];

/// One authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizerConfiguration {
    /// Kubelets, by what their pods use.
    Node,
    /// Roles and bindings.
    Rbac,
    /// A file of policies, which a flag names.
    Abac,
    /// Everybody may do everything.
    AlwaysAllow,
    /// Nobody may do anything.
    AlwaysDeny,
    /// A service of others is asked.
    Webhook(WebhookConfiguration),
}

/// A service that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfiguration {
    /// Its name in logs and metrics.
    pub name: String,
    /// How long a yes is remembered; zero: not at all.
    pub authorized_ttl: Duration,
    /// How long everything else is.
    pub unauthorized_ttl: Duration,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// The version of `SubjectAccessReview` that it is asked in.
    pub version: ReviewVersion,
    /// Whether a request is refused when there is no answer; or others decide.
    pub denies_on_error: bool,
    /// Where it is.
    pub connection: Connection,
    /// CEL over the review's spec: it is asked when all hold.
    pub match_conditions: Vec<String>,
}

/// A version of `SubjectAccessReview`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewVersion {
    /// `authorization.k8s.io/v1`.
    V1,
    /// `authorization.k8s.io/v1beta1`.
    V1Beta1,
}

/// How a webhook is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// As this file says.
    KubeConfigFile(PathBuf),
    /// As a pod reaches its API server.
    InCluster,
}

// === impl AuthorizerConfiguration ===

impl AuthorizerConfiguration {
    /// Its type, as a file names it.
    pub fn kind(&self) -> &'static str {
        match self {
            AuthorizerConfiguration::Node => "Node",
            AuthorizerConfiguration::Rbac => "RBAC",
            AuthorizerConfiguration::Abac => "ABAC",
            AuthorizerConfiguration::AlwaysAllow => "AlwaysAllow",
            AuthorizerConfiguration::AlwaysDeny => "AlwaysDeny",
            AuthorizerConfiguration::Webhook(_) => "Webhook",
        }
    }
}

/// Reads a file's text, with upstream's defaults and rules.
///
/// # Errors
/// All that is wrong, as upstream words it.
pub fn parse(text: &[u8], read: &ReadFile) -> Result<Vec<AuthorizerConfiguration>, String> {
    let (authorizers, misnamed) = load(text, read)?;
    together(misnamed)?;
    Ok(authorizers)
}

/// Reads the text of a file that changed: what the server began with and is no webhook has to stay.
///
/// # Errors
/// As [`parse`], and an authorizer that is missing, or cannot be had any more.
pub fn parse_again(
    text: &[u8],
    read: &ReadFile,
    begun: &[AuthorizerConfiguration],
) -> Result<Vec<AuthorizerConfiguration>, String> {
    let (authorizers, mut wrong) = load(text, read)?;
    let lacks = |all: &[AuthorizerConfiguration], kind: &str| all.iter().all(|one| one.kind() != kind);
    let mut missing: Vec<&str> = begun.iter().map(AuthorizerConfiguration::kind).collect();
    missing.retain(|kind| *kind != "Webhook" && lacks(&authorizers, kind));
    if !missing.is_empty() {
        missing.sort_unstable();
        wrong.push(format!("missing required types: [{}]", missing.join(" ")));
    }
    together(wrong)?;
    let late = |one: &&AuthorizerConfiguration| TYPES_OF_THE_START.contains(&one.kind()) && lacks(begun, one.kind());
    match authorizers.iter().find(late) {
        Some(late) => Err(format!(
            "authorizer type {} is not allowed if it was not enabled at initial server startup",
            late.kind()
        )),
        None => Ok(authorizers),
    }
}

fn together(mut wrong: Vec<String>) -> Result<(), String> {
    match wrong.len() {
        0 => Ok(()),
        1 => Err(wrong.remove(0)),
        _ => Err(format!("[{}]", wrong.join(", "))),
    }
}

/// The authorizers, and what is wrong with their names alone.
fn load(text: &[u8], read: &ReadFile) -> Result<(Vec<AuthorizerConfiguration>, Vec<String>), String> {
    let failed = |why: String| format!("failed to load AuthorizationConfiguration from file: {why}");
    let config = match text.is_empty() {
        true => Value::Null,
        false => decode(text).map_err(failed)?,
    };
    let mut errors = ErrorList::new();
    let authorizers = authorizers(&config, read, &mut errors);
    if !errors.is_empty() {
        return Err(aggregate(&errors));
    }
    let given = config["authorizers"].as_array().into_iter().flatten();
    let others = given.filter(|authorizer| authorizer["type"] != "Webhook");
    let misnamed = others.filter_map(|authorizer| {
        let (kind, name) = (string(authorizer, "type"), string(authorizer, "name"));
        let expected = kind.to_lowercase();
        (name != expected).then(|| format!("expected name {expected} for authorizer {kind} instead of {name}"))
    });
    Ok((authorizers, misnamed.collect()))
}

fn decode(text: &[u8]) -> Result<Value, String> {
    let decoded = yaml::decode(&Bytes::copy_from_slice(text), &Limits::default());
    let config = decoded.map_err(|error| error.to_string())?.value;
    let (version, kind) = (string(&config, "apiVersion"), string(&config, "kind"));
    let known = version.split_once('/');
    if kind != "AuthorizationConfiguration" || !known.is_some_and(|(g, v)| g == GROUP && VERSIONS.contains(&v)) {
        return Err(format!(
            "no kind {} is registered for version {}: it must be AuthorizationConfiguration of {GROUP}/v1",
            api::field::quote(kind),
            api::field::quote(version)
        ));
    }
    let unknown = unknown_fields(&config);
    match unknown.is_empty() {
        true => Ok(config),
        false => Err(format!("strict decoding error: {}", unknown.join(", "))),
    }
}

fn string<'a>(of: &'a Value, field: &str) -> &'a str {
    of[field].as_str().unwrap_or("")
}

fn unknown_fields(config: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut look = |of: &Value, known: &[&str], path: &str| {
        for field in of.as_object().into_iter().flat_map(|fields| fields.keys()) {
            if !known.contains(&field.as_str()) {
                unknown.push(format!("unknown field \"{path}{field}\""));
            }
        }
    };
    look(config, &FIELDS, "");
    for (index, authorizer) in config["authorizers"].as_array().into_iter().flatten().enumerate() {
        let path = format!("authorizers[{index}].");
        look(authorizer, &AUTHORIZER_FIELDS, &path);
        let webhook = &authorizer["webhook"];
        look(webhook, &WEBHOOK_FIELDS, &format!("{path}webhook."));
        let path = format!("{path}webhook.connectionInfo.");
        look(&webhook["connectionInfo"], &["kubeConfigFile", "type"], &path);
        for (at, condition) in webhook["matchConditions"].as_array().into_iter().flatten().enumerate() {
            let path = format!("authorizers[{index}].webhook.matchConditions[{at}].");
            look(condition, &["expression"], &path);
        }
    }
    unknown
}

fn authorizers(config: &Value, read: &ReadFile, errors: &mut ErrorList) -> Vec<AuthorizerConfiguration> {
    let root = Path::new("authorizers");
    let given = config["authorizers"].as_array().map_or(&[][..], Vec::as_slice);
    if given.is_empty() {
        errors.push(Error::required(
            &root,
            "at least one authorization mode must be defined",
        ));
    }
    let (mut types, mut names, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for (index, authorizer) in given.iter().enumerate() {
        let path = root.index(index);
        let (kind, name) = (string(authorizer, "type"), string(authorizer, "name"));
        let type_path = path.child("type");
        if kind.is_empty() {
            errors.push(Error::required(&type_path, ""));
            continue;
        }
        if !TYPES.contains(&kind) {
            errors.push(Error::not_supported(&type_path, kind, &TYPES));
            continue;
        }
        if types.contains(&kind) && kind != "Webhook" {
            errors.push(Error::duplicate(&type_path, kind));
            continue;
        }
        types.push(kind);
        check_name(name, &names, &path.child("name"), errors);
        names.push(name);
        let webhook = &authorizer["webhook"];
        if kind != "Webhook" && !webhook.is_null() {
            let why = "may only be specified when type=Webhook";
            errors.push(Error::invalid(&path.child("webhook"), "non-null", why));
        }
        match kind {
            "Node" => all.push(AuthorizerConfiguration::Node),
            "RBAC" => all.push(AuthorizerConfiguration::Rbac),
            "ABAC" => all.push(AuthorizerConfiguration::Abac),
            "AlwaysAllow" => all.push(AuthorizerConfiguration::AlwaysAllow),
            "AlwaysDeny" => all.push(AuthorizerConfiguration::AlwaysDeny),
            _ if webhook.is_null() => {
                errors.push(Error::required(&path.child("webhook"), "required when type=Webhook"));
            }
            _ => all.extend(self::webhook(name, webhook, &path, read, errors).map(AuthorizerConfiguration::Webhook)),
        }
    }
    all
}

fn check_name(name: &str, seen: &[&str], path: &Path, errors: &mut ErrorList) {
    let broken = validation::dns1123_subdomain(name);
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else if seen.contains(&name) {
        errors.push(Error::duplicate(path, name));
    } else if !broken.is_empty() {
        let why = format!("authorizer name is invalid: {}", broken.join(", "));
        errors.push(Error::invalid(path, name, why));
    }
}

/// Upstream's paths of a webhook's fields leave `webhook` out.
fn webhook(
    name: &str,
    webhook: &Value,
    path: &Path,
    read: &ReadFile,
    errors: &mut ErrorList,
) -> Option<WebhookConfiguration> {
    let before = errors.len();
    let timeout = time(webhook, "timeout", None, path, errors);
    if timeout > TIMEOUT_MAX {
        let why = "must be > 0s and <= 30s";
        errors.push(Error::invalid(&path.child("timeout"), duration::text(timeout), why));
    }
    let authorized_ttl = time(webhook, "authorizedTTL", Some(AUTHORIZED_TTL), path, errors);
    let unauthorized_ttl = time(webhook, "unauthorizedTTL", Some(UNAUTHORIZED_TTL), path, errors);
    let version = one_of(webhook, "subjectAccessReviewVersion", &["v1", "v1beta1"], path, errors);
    let match_conditions = conditions(webhook, path, errors);
    let policy = one_of(webhook, "failurePolicy", &["NoOpinion", "Deny"], path, errors);
    let connection = connection(&webhook["connectionInfo"], &path.child("connectionInfo"), read, errors);
    check_conditions(&match_conditions, path, errors);
    let remembers = |field: &str, ttl: Duration| match webhook[field] == false {
        true => Duration::ZERO,
        false => ttl,
    };
    let connection = connection.filter(|_| errors.len() == before)?;
    Some(WebhookConfiguration {
        name: name.into(),
        authorized_ttl: remembers("cacheAuthorizedRequests", authorized_ttl),
        unauthorized_ttl: remembers("cacheUnauthorizedRequests", unauthorized_ttl),
        timeout,
        version: match version {
            "v1" => ReviewVersion::V1,
            _ => ReviewVersion::V1Beta1,
        },
        denies_on_error: policy == "Deny",
        connection,
        match_conditions,
    })
}

fn time(webhook: &Value, field: &str, default: Option<Duration>, path: &Path, errors: &mut ErrorList) -> Duration {
    let path = path.child(field);
    let text = string(webhook, field);
    let rule = match default {
        Some(_) => "must be > 0s",
        None => "must be > 0s and <= 30s",
    };
    let time = match text {
        "" => Some(Duration::ZERO),
        text => duration::parse(text),
    };
    match (time, default) {
        (None, _) => errors.push(Error::invalid(&path, text, rule)),
        (Some(Duration::ZERO), Some(default)) => return default,
        (Some(Duration::ZERO), None) => errors.push(Error::required(&path, "")),
        _ => {}
    }
    time.unwrap_or_default()
}

fn one_of<'a>(webhook: &'a Value, field: &str, known: &[&str], path: &Path, errors: &mut ErrorList) -> &'a str {
    let (given, path) = (string(webhook, field), path.child(field));
    if given.is_empty() {
        errors.push(Error::required(&path, ""));
    } else if !known.contains(&given) {
        errors.push(Error::not_supported(&path, given, known));
    }
    given
}

/// The conditions under which a webhook is asked at all.
fn conditions(webhook: &Value, path: &Path, errors: &mut ErrorList) -> Vec<String> {
    let given = webhook["matchConditions"].as_array().map_or(&[][..], Vec::as_slice);
    let field = "matchConditionSubjectAccessReviewVersion";
    match string(webhook, field) {
        "" if !given.is_empty() => errors.push(Error::required(
            &path.child(field),
            "required if match conditions are specified",
        )),
        "" | "v1" => {}
        other => errors.push(Error::not_supported(&path.child(field), other, &["v1"])),
    }
    given
        .iter()
        .map(|condition| string(condition, "expression").to_owned())
        .collect()
}

/// Expressions are there, each once, and can be compiled.
fn check_conditions(expressions: &[String], path: &Path, errors: &mut ErrorList) {
    let path = path.child("matchConditions");
    if expressions.len() > CONDITIONS_MAX {
        errors.push(Error::too_many(&path, expressions.len(), CONDITIONS_MAX));
        return;
    }
    for (index, text) in expressions.iter().enumerate() {
        let path = path.index(index).child("expression");
        if text.trim().is_empty() {
            errors.push(Error::required(&path, ""));
        } else if expressions[..index].contains(text) {
            errors.push(Error::duplicate(&path, text.as_str()));
        } else if let Err(why) = super::webhook::conditions::check(text) {
            errors.push(Error::invalid(&path, text.as_str(), why));
        }
    }
}

fn connection(info: &Value, path: &Path, read: &ReadFile, errors: &mut ErrorList) -> Option<Connection> {
    let (kind, file) = (string(info, "type"), string(info, "kubeConfigFile"));
    let file_path = path.child("kubeConfigFile");
    match kind {
        "" => errors.push(Error::required(&path.child("type"), "")),
        "InClusterConfig" if info["kubeConfigFile"].is_null() => return Some(Connection::InCluster),
        "InClusterConfig" => {
            errors.push(Error::invalid(
                &file_path,
                file,
                "can only be set when type=KubeConfigFile",
            ));
        }
        "KubeConfigFile" if file.is_empty() => errors.push(Error::required(&file_path, "")),
        "KubeConfigFile" if !FilePath::new(file).is_absolute() => {
            errors.push(Error::invalid(&file_path, file, "must be an absolute path"));
        }
        "KubeConfigFile" => match read(FilePath::new(file)) {
            Ok(_) => return Some(Connection::KubeConfigFile(file.into())),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                errors.push(Error::invalid(&file_path, file, "must be a regular file"));
            }
            Err(error) => {
                errors.push(Error::invalid(&file_path, file, format!("error loading file: {error}")));
            }
        },
        other => {
            let known = ["InClusterConfig", "KubeConfigFile"];
            errors.push(Error::not_supported(&path.child("type"), other, &known));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn read(authorizers: &str) -> Result<Vec<AuthorizerConfiguration>, String> {
        let files: ReadFile = Arc::new(|path| match path.to_str() {
            Some("/hook") => Ok(Vec::new()),
            Some("/") => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::Error::other("no such file or directory")),
        });
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: {authorizers}\n"
        );
        parse(text.as_bytes(), &files)
    }

    #[test]
    fn authorizers_stand_in_their_order() {
        let found = read(
            "[{type: Webhook, name: first, webhook: {timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, \
             cacheUnauthorizedRequests: false, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /hook}}}, \
             {type: Node, name: node}, {type: RBAC, name: rbac}]",
        );
        let webhook = WebhookConfiguration {
            name: "first".into(),
            authorized_ttl: AUTHORIZED_TTL,
            unauthorized_ttl: Duration::ZERO,
            timeout: Duration::from_secs(3),
            version: ReviewVersion::V1,
            denies_on_error: true,
            connection: Connection::KubeConfigFile("/hook".into()),
            match_conditions: Vec::new(),
        };
        let expect = vec![
            AuthorizerConfiguration::Webhook(webhook),
            AuthorizerConfiguration::Node,
            AuthorizerConfiguration::Rbac,
        ];
        assert_eq!(found, Ok(expect));
    }

    #[test]
    fn what_is_wrong_is_told_as_upstream_does() {
        let hook = |rest: &str| format!("[{{type: Webhook, name: a, webhook: {{{rest}}}}}]");
        let good = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, ";
        let file = |name: &str| {
            hook(&format!(
                "{good}connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {name}}}"
            ))
        };
        for (authorizers, expect) in [
            (
                "[]".into(),
                "authorizers: Required value: at least one authorization mode must be defined",
            ),
            ("[{name: a}]".into(), "authorizers[0].type: Required value"),
            (
                "[{type: abac, name: abac}]".into(),
                "authorizers[0].type: Unsupported value: \"abac\": supported values: \"ABAC\", \"AlwaysAllow\", \
                 \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"",
            ),
            (
                "[{type: Node, name: node}, {type: Node, name: b}]".into(),
                "authorizers[1].type: Duplicate value: \"Node\"",
            ),
            ("[{type: Node}]".into(), "authorizers[0].name: Required value"),
            (
                "[{type: Node, name: other}]".into(),
                "expected name node for authorizer Node instead of other",
            ),
            (
                "[{type: Node, name: a}, {type: ABAC, name: b}]".into(),
                "[expected name node for authorizer Node instead of a, expected name abac for authorizer ABAC instead of b]",
            ),
            (
                "[{type: Node, name: node, webhook: {}}]".into(),
                "authorizers[0].webhook: Invalid value: \"non-null\": may only be specified when type=Webhook",
            ),
            (
                "[{type: Webhook, name: a}]".into(),
                "authorizers[0].webhook: Required value: required when type=Webhook",
            ),
            (
                hook(""),
                "[authorizers[0].timeout: Required value, authorizers[0].subjectAccessReviewVersion: Required value, \
                 authorizers[0].failurePolicy: Required value, authorizers[0].connectionInfo.type: Required value]",
            ),
            (
                hook(&format!("{good}timeOut: 1s")),
                "failed to load AuthorizationConfiguration from file: strict decoding error: unknown field \
                 \"authorizers[0].webhook.timeOut\"",
            ),
            (
                hook(&format!("{good}matchConditions: [{{expression: 'true', name: a}}]")),
                "failed to load AuthorizationConfiguration from file: strict decoding error: unknown field \
                 \"authorizers[0].webhook.matchConditions[0].name\"",
            ),
            (
                file("hook"),
                "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"hook\": must be an absolute path",
            ),
            (
                file("/none"),
                "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"/none\": error loading file: no such \
                 file or directory",
            ),
            (
                file("/"),
                "authorizers[0].connectionInfo.kubeConfigFile: Invalid value: \"/\": must be a regular file",
            ),
            (
                hook(
                    "timeout: 31s, authorizedTTL: -1s, subjectAccessReviewVersion: v2, failurePolicy: Open, \
                     connectionInfo: {type: InClusterConfig}, matchConditions: [{expression: \"'true'\"}, {expression: \"'true'\"}, {}]",
                ),
                "[authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s, authorizers[0].authorizedTTL: \
                 Invalid value: \"-1s\": must be > 0s, authorizers[0].subjectAccessReviewVersion: Unsupported value: \
                 \"v2\": supported values: \"v1\", \"v1beta1\", authorizers[0].matchConditionSubjectAccessReviewVersion: \
                 Required value: required if match conditions are specified, authorizers[0].failurePolicy: Unsupported \
                 value: \"Open\": supported values: \"NoOpinion\", \"Deny\", \
                 authorizers[0].matchConditions[0].expression: Invalid value: \"'true'\": must evaluate to bool but got \
                 string, authorizers[0].matchConditions[1].expression: Duplicate value: \"'true'\", \
                 authorizers[0].matchConditions[2].expression: Required value]",
            ),
        ] {
            assert_eq!(read(&authorizers).unwrap_err(), expect, "{authorizers}");
        }
    }

    #[test]
    fn a_file_that_changes_keeps_what_the_server_began_with() {
        use AuthorizerConfiguration::{Abac, AlwaysAllow, Node, Rbac};
        let files: ReadFile = Arc::new(|_| Err(io::ErrorKind::NotFound.into()));
        let again = |begun: &[AuthorizerConfiguration], kinds: &[&str]| {
            let entries = kinds
                .iter()
                .map(|kind| format!("{{type: {kind}, name: {}}}", kind.to_lowercase()));
            let text = format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{}]\n",
                entries.collect::<Vec<_>>().join(", ")
            );
            parse_again(text.as_bytes(), &files, begun)
        };
        assert_eq!(
            again(&[Node, Abac], &["ABAC", "AlwaysAllow", "Node"]),
            Ok(vec![Abac, AlwaysAllow, Node])
        );
        assert_eq!(
            again(&[Rbac, Node, AlwaysAllow], &["AlwaysAllow"]),
            Err("missing required types: [Node RBAC]".into())
        );
        assert_eq!(
            again(&[Node], &["Node", "ABAC"]),
            Err("authorizer type ABAC is not allowed if it was not enabled at initial server startup".into())
        );
        let none = parse_again(b"", &files, &[Node]).unwrap_err();
        assert_eq!(
            none,
            "authorizers: Required value: at least one authorization mode must be defined"
        );
    }
}
