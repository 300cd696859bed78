//! `AuthenticationConfiguration` of `apiserver.config.k8s.io`: issuers of tokens, and who may come without any.
//!
//! Nothing that is configured is passed over: what is not known is refused with its place.
//! Source: `k8s.io/apiserver/pkg/apis/apiserver/v1/types.go` and `.../validation/validation.go`.

use std::collections::BTreeSet;

use api::codec::{Limits, yaml};
use api::field::{Error, ErrorList, Path};
use bytes::Bytes;
use serde::Deserialize;

use super::jwt::{Expression, Expressions, JwtIssuer, Prefixed, Rule};
use crate::pipeline::Anonymous;

/// Issuers at most, as upstream.
const ISSUERS_MAX: usize = 64;
const VERSIONS: [&str; 3] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
    "apiserver.config.k8s.io/v1alpha1",
];
const KIND: &str = "AuthenticationConfiguration";

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigurationError(String);

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationConfiguration {
    /// Whose tokens are taken.
    pub issuers: Vec<JwtIssuer>,
    /// Which requests without credentials are let in, when the file says so.
    pub anonymous: Option<Anonymous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    jwt: Vec<FileJwt>,
    anonymous: Option<FileAnonymous>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileAnonymous {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    conditions: Vec<FileCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCondition {
    #[serde(default)]
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileJwt {
    #[serde(default)]
    issuer: FileIssuer,
    #[serde(default)]
    claim_validation_rules: Vec<FileClaimRule>,
    #[serde(default)]
    claim_mappings: FileMappings,
    #[serde(default)]
    user_validation_rules: Vec<FileUserRule>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct FileIssuer {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: String,
    certificate_authority: String,
    audiences: Vec<String>,
    audience_match_policy: String,
    egress_selector_type: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct FileClaimRule {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileMappings {
    username: FileMapping,
    groups: FileMapping,
    uid: FileUid,
    extra: Vec<FileExtra>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileMapping {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileUid {
    claim: String,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct FileExtra {
    key: String,
    value_expression: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileUserRule {
    expression: String,
    message: String,
}

// === impl AuthenticationConfiguration ===

impl AuthenticationConfiguration {
    /// Reads a file (YAML or JSON). `own_issuers` are those of service accounts, which are nobody else's.
    ///
    /// # Errors
    /// All that is wrong with it, and where.
    pub fn from_text(text: &str, own_issuers: &[String]) -> Result<AuthenticationConfiguration, ConfigurationError> {
        let fail = |why: String| ConfigurationError(why);
        if text.trim().is_empty() {
            return Err(fail("empty config data".into()));
        }
        let decoded = yaml::decode(&Bytes::copy_from_slice(text.as_bytes()), &Limits::default());
        let value = decoded.map_err(|error| fail(error.to_string()))?.value;
        let (version, kind) = (value["apiVersion"].as_str(), value["kind"].as_str());
        if kind != Some(KIND) || !version.is_some_and(|version| VERSIONS.contains(&version)) {
            return Err(fail(format!(
                "it must be of the kind {KIND} of apiVersion {}",
                VERSIONS[0]
            )));
        }
        let file: File =
            serde_json::from_value(value).map_err(|error| fail(format!("strict decoding error: {error}")))?;
        let (anonymous, mut errors) = anonymous(file.anonymous.as_ref());
        let (issuers, mut all) = read_all(&file.jwt, own_issuers);
        all.append(&mut errors);
        refuse(&all)?;
        Ok(AuthenticationConfiguration { issuers, anonymous })
    }

    /// The one issuer of kube-apiserver's `--oidc-*` flags, by the rules of a file.
    ///
    /// # Errors
    /// As [`AuthenticationConfiguration::from_text`].
    pub fn of_flags(
        issuer: JwtIssuer,
        own_issuers: &[String],
    ) -> Result<AuthenticationConfiguration, ConfigurationError> {
        let path = Path::new("jwt").index(0).child("issuer");
        let mut errors = check_url(&issuer.url, &path.child("url"), Some(own_issuers));
        errors.append(&mut check_authority(
            &issuer.certificate_authority,
            &path.child("certificateAuthority"),
        ));
        refuse(&errors)?;
        Ok(AuthenticationConfiguration {
            issuers: vec![issuer],
            anonymous: None,
        })
    }
}

fn refuse(errors: &[Error]) -> Result<(), ConfigurationError> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ConfigurationError(format!(
            "invalid authentication configuration: {}",
            api::field::aggregate(errors)
        ))),
    }
}

fn anonymous(file: Option<&FileAnonymous>) -> (Option<Anonymous>, ErrorList) {
    let Some(file) = file else {
        return (None, ErrorList::new());
    };
    let paths: BTreeSet<String> = file.conditions.iter().map(|condition| condition.path.clone()).collect();
    if !file.enabled && !paths.is_empty() {
        let path = Path::new("anonymous").child("conditions");
        let why = "enabled should be set to true when conditions are defined";
        let paths: Vec<String> = paths.into_iter().collect();
        return (None, vec![Error::invalid(&path, serde_json::json!(paths), why)]);
    }
    let anonymous = match (file.enabled, paths.is_empty()) {
        (false, _) => Anonymous::Nowhere,
        (true, true) => Anonymous::Everywhere,
        (true, false) => Anonymous::Paths(paths),
    };
    (Some(anonymous), ErrorList::new())
}

fn issuer(file: &FileJwt, expressions: Expressions) -> JwtIssuer {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let prefixed = |mapping: &FileMapping| Prefixed {
        claim: mapping.claim.clone(),
        prefix: mapping.prefix.clone().unwrap_or_default(),
    };
    let (from, mappings) = (&file.issuer, &file.claim_mappings);
    JwtIssuer {
        url: from.url.clone(),
        discovery_url: text(&from.discovery_url),
        certificate_authority: from.certificate_authority.clone(),
        audiences: from.audiences.clone(),
        algorithms: super::jwt::ALGORITHMS.map(str::to_owned).to_vec(),
        username: prefixed(&mappings.username),
        groups: Some(prefixed(&mappings.groups)).filter(|groups| !groups.claim.is_empty()),
        uid_claim: text(&mappings.uid.claim),
        required_claims: file
            .claim_validation_rules
            .iter()
            .filter(|rule| !rule.claim.is_empty())
            .map(|rule| (rule.claim.clone(), rule.required_value.clone()))
            .collect(),
        expressions,
    }
}

fn read_all(all: &[FileJwt], own_issuers: &[String]) -> (Vec<JwtIssuer>, ErrorList) {
    let root = Path::new("jwt");
    if all.len() > ISSUERS_MAX {
        return (Vec::new(), vec![Error::too_many(&root, all.len(), ISSUERS_MAX)]);
    }
    let (mut issuers, mut errors) = (Vec::new(), ErrorList::new());
    let (mut urls, mut discovery_urls) = (BTreeSet::new(), BTreeSet::new());
    for (at, jwt) in all.iter().enumerate() {
        let path = root.index(at);
        let mut expressions = Expressions::default();
        errors.append(&mut check_issuer(&jwt.issuer, own_issuers, &path.child("issuer")));
        errors.append(&mut check(jwt, &path, &mut expressions));
        issuers.push(issuer(jwt, expressions));
        let place = path.child("issuer");
        if !urls.insert(&jwt.issuer.url) {
            errors.push(Error::duplicate(&place.child("url"), jwt.issuer.url.clone()));
        }
        let discovery = &jwt.issuer.discovery_url;
        if !discovery.is_empty() && !discovery_urls.insert(discovery) {
            errors.push(Error::duplicate(&place.child("discoveryURL"), discovery.clone()));
        }
    }
    (issuers, errors)
}

fn check(jwt: &FileJwt, path: &Path, expressions: &mut Expressions) -> ErrorList {
    let mut errors = ErrorList::new();
    let rules = path.child("claimValidationRules");
    let (mut seen, mut texts) = (BTreeSet::new(), BTreeSet::new());
    for (at, rule) in jwt.claim_validation_rules.iter().enumerate() {
        let path = rules.index(at);
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => {
                let why = "claim and expression can't both be set";
                errors.push(Error::invalid(&path, rule.claim.clone(), why));
            }
            (true, true) => errors.push(Error::required(&path, "claim or expression is required")),
            (true, false) => {
                if !rule.required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    errors.push(Error::invalid(
                        &path.child("requiredValue"),
                        rule.required_value.clone(),
                        why,
                    ));
                }
                let place = path.child("expression");
                if !texts.insert(&rule.expression) {
                    errors.push(Error::duplicate(&place, rule.expression.clone()));
                } else if let Some(expression) =
                    read(Expression::truth_of_claims, &place, &rule.expression, &mut errors)
                {
                    expressions.claim_rules.push(Rule {
                        expression,
                        message: rule.message.clone(),
                    });
                }
            }
            (false, true) => {
                if !rule.message.is_empty() {
                    let why = "may not be specified when claim is set";
                    errors.push(Error::invalid(&path.child("message"), rule.message.clone(), why));
                }
                if !seen.insert(&rule.claim) {
                    errors.push(Error::duplicate(&path.child("claim"), rule.claim.clone()));
                }
            }
        }
    }
    let (mappings, of) = (path.child("claimMappings"), &jwt.claim_mappings);
    expressions.username = check_mapping(&of.username, &mappings.child("username"), true, &mut errors);
    expressions.groups = check_mapping(&of.groups, &mappings.child("groups"), false, &mut errors);
    let uid = mappings.child("uid");
    match (of.uid.claim.is_empty(), of.uid.expression.is_empty()) {
        (false, false) => errors.push(Error::invalid(&uid, "", "claim and expression can't both be set")),
        (true, false) => {
            let place = uid.child("expression");
            expressions.uid = read(Expression::of_claims, &place, &of.uid.expression, &mut errors);
        }
        _ => {}
    }
    check_extra(&of.extra, &mappings.child("extra"), expressions, &mut errors);
    check_email(of, &mappings, expressions, &mut errors);
    let mut texts = BTreeSet::new();
    for (at, rule) in jwt.user_validation_rules.iter().enumerate() {
        let place = path.child("userValidationRules").index(at).child("expression");
        if rule.expression.is_empty() {
            errors.push(Error::required(&place, ""));
        } else if !texts.insert(&rule.expression) {
            errors.push(Error::duplicate(&place, rule.expression.clone()));
        } else if let Some(expression) = read(Expression::truth_of_user, &place, &rule.expression, &mut errors) {
            expressions.user_rules.push(Rule {
                expression,
                message: rule.message.clone(),
            });
        }
    }
    errors
}

fn check_extra(extra: &[FileExtra], path: &Path, expressions: &mut Expressions, errors: &mut ErrorList) {
    let mut keys = BTreeSet::new();
    for (at, FileExtra { key, value_expression }) in extra.iter().enumerate() {
        let path = path.index(at);
        let place = path.child("key");
        errors.append(&mut api::validation::domain_prefixed_path(&place, key));
        if key.to_lowercase() != *key {
            errors.push(Error::invalid(&place, key.clone(), "must be lowercase"));
        }
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let reserved = ["kubernetes.io", "k8s.io"];
        if reserved
            .iter()
            .any(|own| domain == *own || domain.ends_with(&format!(".{own}")))
        {
            let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            errors.push(Error::invalid(&place, key.clone(), why));
        }
        let place_of_value = path.child("valueExpression");
        if !keys.insert(key) {
            errors.push(Error::duplicate(&place, key.clone()));
        } else if value_expression.is_empty() {
            errors.push(Error::required(&place_of_value, ""));
        } else if let Some(expression) = read(Expression::of_claims, &place_of_value, value_expression, errors) {
            expressions.extra.push((key.clone(), expression));
        }
    }
}

/// An address that nobody verified names nobody.
fn check_email(of: &FileMappings, mappings: &Path, expressions: &Expressions, errors: &mut ErrorList) {
    const VERIFIED: &str = "email_verified";
    let Some(username) = expressions.username.as_ref().filter(|username| username.reads("email")) else {
        return;
    };
    let extra = expressions.extra.iter().map(|(_, expression)| expression);
    let rules = expressions.claim_rules.iter().map(|rule| &rule.expression);
    if !extra
        .chain(rules)
        .chain([username])
        .any(|expression| expression.reads(VERIFIED))
    {
        let why = "claims.email_verified must be used in claimMappings.username.expression or \
                   claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used \
                   in claimMappings.username.expression";
        let place = mappings.child("username").child("expression");
        errors.push(Error::invalid(&place, of.username.expression.clone(), why));
    }
}

/// The expression, or one error more.
fn read(
    compile: impl Fn(&str) -> Result<Expression, String>,
    path: &Path,
    text: &str,
    errors: &mut ErrorList,
) -> Option<Expression> {
    match compile(text) {
        Ok(expression) => Some(expression),
        Err(why) => {
            errors.push(Error::invalid(path, text, why));
            None
        }
    }
}

fn check_mapping(mapping: &FileMapping, path: &Path, needed: bool, errors: &mut ErrorList) -> Option<Expression> {
    match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
        (false, false) => errors.push(Error::invalid(path, "", "claim and expression can't both be set")),
        (true, true) if needed => errors.push(Error::required(path, "claim or expression is required")),
        (true, true) => {}
        (true, false) => {
            if let Some(prefix) = &mapping.prefix {
                let why = "may not be specified when expression is set";
                errors.push(Error::invalid(&path.child("prefix"), prefix.clone(), why));
            }
            return read(
                Expression::of_claims,
                &path.child("expression"),
                &mapping.expression,
                errors,
            );
        }
        (false, true) if mapping.prefix.is_none() => {
            let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
            errors.push(Error::required(&path.child("prefix"), why));
        }
        (false, true) => {}
    }
    None
}

fn check_issuer(issuer: &FileIssuer, own_issuers: &[String], path: &Path) -> ErrorList {
    let mut errors = check_url(&issuer.url, &path.child("url"), Some(own_issuers));
    let (discovery, place) = (&issuer.discovery_url, path.child("discoveryURL"));
    if !discovery.is_empty() {
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        if !issuer.url.is_empty() && bare(&issuer.url) == bare(discovery) {
            let why = "discoveryURL must be different from URL";
            errors.push(Error::invalid(&place, discovery.clone(), why));
        }
        errors.append(&mut check_url(discovery, &place, None));
    }
    let audiences = path.child("audiences");
    let policy = &issuer.audience_match_policy;
    if issuer.audiences.is_empty() {
        errors.push(Error::required(
            &audiences,
            format!("at least one {audiences} is required"),
        ));
    } else {
        let mut seen = BTreeSet::new();
        for (at, audience) in issuer.audiences.iter().enumerate() {
            if audience.is_empty() {
                errors.push(Error::required(&audiences.index(at), ""));
            }
            if !seen.insert(audience) {
                errors.push(Error::duplicate(&audiences.index(at), audience.clone()));
            }
        }
        let why = match issuer.audiences.len() {
            1 if policy.is_empty() => None,
            _ if policy == "MatchAny" => None,
            1 => Some("audienceMatchPolicy must be empty or MatchAny for single audience"),
            _ => Some("audienceMatchPolicy must be MatchAny for multiple audiences"),
        };
        if let Some(why) = why {
            errors.push(Error::invalid(&path.child("audienceMatchPolicy"), policy.clone(), why));
        }
    }
    errors.append(&mut check_authority(
        &issuer.certificate_authority,
        &path.child("certificateAuthority"),
    ));
    let egress = &issuer.egress_selector_type;
    if !egress.is_empty() {
        let why = match &**egress {
            "controlplane" | "cluster" => "egress selectors are not supported by this server",
            _ => "egress selector must be either controlplane or cluster",
        };
        errors.push(Error::invalid(&path.child("egressSelectorType"), egress.clone(), why));
    }
    errors
}

fn check_authority(pem: &str, path: &Path) -> ErrorList {
    match super::jwt::check_authority(pem) {
        Err(why) if !pem.is_empty() => vec![Error::invalid(path, "<omitted>", why)],
        _ => ErrorList::new(),
    }
}

/// `own_issuers` are those that it must not be, when it is an issuer's.
fn check_url(url: &str, path: &Path, own_issuers: Option<&[String]>) -> ErrorList {
    if url.is_empty() {
        return vec![Error::required(path, "")];
    }
    let mut errors = ErrorList::new();
    let mut wrong = |why: String| errors.push(Error::invalid(path, url, why));
    if let Some(own) = own_issuers.filter(|own| own.iter().any(|issuer| issuer == url)) {
        let mut own = own.to_vec();
        own.sort();
        wrong(format!(
            "URL must not overlap with disallowed issuers: [{}]",
            own.join(" ")
        ));
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    match rest.parse::<http::Uri>() {
        Err(error) => wrong(error.to_string()),
        Ok(uri) => {
            if uri.scheme_str() != Some("https") {
                wrong("URL scheme must be https".into());
            }
            if uri
                .authority()
                .is_some_and(|authority| authority.as_str().contains('@'))
            {
                wrong("URL must not contain a username or password".into());
            }
            if uri.query().is_some_and(|query| !query.is_empty()) {
                wrong("URL must not contain a query".into());
            }
            if !fragment.is_empty() {
                wrong("URL must not contain a fragment".into());
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::ISSUER;

    fn read(text: &str) -> Result<AuthenticationConfiguration, String> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        let own = [ISSUER.to_owned()];
        AuthenticationConfiguration::from_text(&format!("{head}{text}"), &own).map_err(|error| error.to_string())
    }

    fn jwt(issuer: &str, rest: &str) -> Result<AuthenticationConfiguration, String> {
        read(&format!("jwt:\n- {{issuer: {{{issuer}}}, {rest}}}"))
    }

    const ISSUER_FIELDS: &str = "url: 'https://a', audiences: [x]";
    const NAME: &str = "username: {claim: sub, prefix: ''}";

    #[test]
    fn files_are_read() {
        let all = jwt(
            "url: 'https://a/b', discoveryURL: 'https://c/d', audiences: [x, z], audienceMatchPolicy: MatchAny",
            "claimMappings: {username: {claim: email, prefix: 'oidc:'}, groups: {claim: roles, prefix: ''}, uid: {claim: oid}}, \
             claimValidationRules: [{claim: hd, requiredValue: example.com}]",
        );
        let issuer = &all.unwrap().issuers[0];
        assert_eq!(
            (&*issuer.url, issuer.discovery_url.as_deref()),
            ("https://a/b", Some("https://c/d"))
        );
        assert_eq!((&*issuer.username.claim, &*issuer.username.prefix), ("email", "oidc:"));
        assert_eq!(issuer.groups.as_ref().map(|groups| &*groups.claim), Some("roles"));
        assert_eq!(issuer.uid_claim.as_deref(), Some("oid"));
        assert_eq!(issuer.required_claims, [("hd".to_owned(), "example.com".to_owned())]);
        let anonymous = |text| read(text).unwrap().anonymous;
        assert_eq!(anonymous("jwt: []"), None);
        assert_eq!(anonymous("anonymous: {enabled: true}"), Some(Anonymous::Everywhere));
        assert_eq!(anonymous("anonymous: {enabled: false}"), Some(Anonymous::Nowhere));
        let paths = anonymous("anonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}]}").unwrap();
        assert!(paths.allows("/livez") && paths.allows("/readyz"));
        assert!(!paths.allows("/livez/ping") && !paths.allows("/healthz"));
    }

    #[test]
    fn what_is_wrong_is_told_as_upstream_does() {
        let mappings = format!("claimMappings: {{{NAME}}}");
        for (issuer, rest, expect) in [
            (
                "url: '', audiences: [x]",
                &*mappings,
                "jwt[0].issuer.url: Required value",
            ),
            ("url: 'http://a', audiences: [x]", &mappings, "URL scheme must be https"),
            (
                "url: 'https://u:p@a', audiences: [x]",
                &mappings,
                "URL must not contain a username or password",
            ),
            (
                "url: 'https://a?b=c', audiences: [x]",
                &mappings,
                "URL must not contain a query",
            ),
            (
                "url: 'https://a#b', audiences: [x]",
                &mappings,
                "URL must not contain a fragment",
            ),
            (
                "url: 'https://kubernetes.default.svc.cluster.local', audiences: [x]",
                &mappings,
                "URL must not overlap with disallowed issuers",
            ),
            (
                "url: 'https://a', discoveryURL: 'https://a/', audiences: [x]",
                &mappings,
                "discoveryURL must be different from URL",
            ),
            (
                "url: 'https://a'",
                &mappings,
                "at least one jwt[0].issuer.audiences is required",
            ),
            (
                "url: 'https://a', audiences: [x, z]",
                &mappings,
                "audienceMatchPolicy must be MatchAny for multiple audiences",
            ),
            (
                "url: 'https://a', audiences: [x], audienceMatchPolicy: All",
                &mappings,
                "audienceMatchPolicy must be empty or MatchAny for single audience",
            ),
            (
                "url: 'https://a', audiences: [x, x], audienceMatchPolicy: MatchAny",
                &mappings,
                "Duplicate value: \"x\"",
            ),
            (
                "url: 'https://a', audiences: [x], certificateAuthority: nonsense",
                &mappings,
                "certificateAuthority: Invalid value: \"<omitted>\"",
            ),
            (
                "url: 'https://a', audiences: [x], egressSelectorType: cluster",
                &mappings,
                "egress selectors are not supported",
            ),
            (
                ISSUER_FIELDS,
                "claimMappings: {}",
                "jwt[0].claimMappings.username: Required value: claim or expression",
            ),
            (
                ISSUER_FIELDS,
                "claimMappings: {username: {claim: sub}}",
                "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set",
            ),
            (
                ISSUER_FIELDS,
                "claimMappings: {username: {claim: a, expression: b}}",
                "claim and expression can't both be set",
            ),
            (
                ISSUER_FIELDS,
                "claimMappings: {username: {expression: claims.email}}",
                "claims.email_verified must be used in claimMappings.username.expression",
            ),
            (
                ISSUER_FIELDS,
                &format!("{mappings}, claimValidationRules: [{{}}]"),
                "claimValidationRules[0]: Required value: claim or expression is required",
            ),
            (
                ISSUER_FIELDS,
                &format!("{mappings}, claimValidationRules: [{{claim: a}}, {{claim: a}}]"),
                "claimValidationRules[1].claim: Duplicate value: \"a\"",
            ),
            (
                ISSUER_FIELDS,
                &format!("{mappings}, userValidationRules: [{{expression: user.name}}]"),
                "userValidationRules[0].expression: Invalid value: \"user.name\": compilation failed: ",
            ),
            (
                ISSUER_FIELDS,
                &format!("{mappings}, surprise: 1"),
                "unknown field `surprise`",
            ),
        ] {
            let error = jwt(issuer, rest).unwrap_err();
            assert!(error.contains(expect), "{issuer} {rest}: {error}");
        }
        for (text, expect) in [
            (
                "anonymous: {enabled: false, conditions: [{path: /}]}",
                "enabled should be set to true",
            ),
            (
                "jwt: [{issuer: {url: 'https://a', audiences: [x]}}, {issuer: {url: 'https://a', audiences: [x]}}]",
                "jwt[1].issuer.url: Duplicate value",
            ),
            ("other: 1", "unknown field `other`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expect), "{text}: {error}");
        }
        for text in [
            "",
            "kind: Policy",
            "apiVersion: apiserver.config.k8s.io/v9\nkind: AuthenticationConfiguration",
        ] {
            assert!(AuthenticationConfiguration::from_text(text, &[]).is_err(), "{text}");
        }
    }
}
