//! What claims say: times, audiences, and whom they name by an issuer's mappings.

use api::{Map, Value};

use super::JwtIssuer;
use crate::request::UserInfo;

/// Google's old name for itself, and the one that it has as an issuer.
/// Source: <http://openid.net/specs/openid-connect-core-1_0.html#GoogleIss>
const GOOGLE: (&str, &str) = ("accounts.google.com", "https://accounts.google.com");

/// Who says that it issued the token.
pub(crate) fn issuer(claims: &Map) -> &str {
    match claims.get("iss").and_then(Value::as_str) {
        Some(name) if name == GOOGLE.0 => GOOGLE.1,
        other => other.unwrap_or(""),
    }
}

/// `aud`: one text or several.
pub(crate) fn audiences(claims: &Map) -> Result<Vec<String>, String> {
    claims.get("aud").map_or(Ok(Vec::new()), |value| {
        texts(value).ok_or_else(|| "failed to unmarshal claims: aud is no text and no list of them".to_owned())
    })
}

/// A time, in seconds since 1970.
pub(crate) fn seconds(claims: &Map, name: &str) -> Result<Option<f64>, String> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let seconds = value.as_f64().filter(|seconds| seconds.is_finite());
            let why = || format!("failed to unmarshal claims: {name} is no time");
            seconds.map(Some).ok_or_else(why)
        }
    }
}

/// Whom verified claims name.
///
/// # Errors
/// A claim that is missing or of another form, an address that was not verified, or a required claim with another value.
pub(crate) fn user(settings: &JwtIssuer, claims: &Map) -> Result<UserInfo, String> {
    let of_claim = settings.expressions.username.is_none();
    let name = of_claim
        .then(|| username(settings, claims))
        .transpose()?
        .unwrap_or_default();
    let groups = groups(settings, claims)?;
    let uid = match &settings.uid_claim {
        Some(claim) => text(claims, claim).map_err(|why| format!("oidc: parse uid claim {claim:?}: {why}"))?,
        None => "",
    };
    let mut user = UserInfo {
        name,
        groups,
        ..UserInfo::default()
    };
    user.uid = uid.to_owned();
    if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        let key = "authentication.kubernetes.io/credential-id";
        user.extra.insert(key.into(), vec![format!("JTI={id}")]);
    }
    for (claim, wanted) in &settings.required_claims {
        if !claims.contains_key(claim) {
            return Err(format!("oidc: required claim {claim} not present in ID token"));
        }
        let got = text(claims, claim).map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
        if got != wanted {
            return Err(format!(
                "oidc: required claim {claim} value does not match. Got = {got}, want = {wanted}"
            ));
        }
    }
    settings.expressions.apply(claims, &mut user)?;
    Ok(user)
}

fn username(settings: &JwtIssuer, claims: &Map) -> Result<String, String> {
    let claim = &*settings.username.claim;
    let name = text(claims, claim).map_err(|why| format!("oidc: parse username claims {claim:?}: {why}"))?;
    if claim == "email" {
        match claims.get("email_verified") {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Err("oidc: email not verified".into()),
            Some(_) => return Err("oidc: parse 'email_verified' claim: it is no boolean".into()),
        }
    }
    Ok(format!("{}{name}", settings.username.prefix))
}

fn groups(settings: &JwtIssuer, claims: &Map) -> Result<Vec<String>, String> {
    let Some(mapping) = &settings.groups else {
        return Ok(Vec::new());
    };
    let Some(value) = claims.get(&mapping.claim) else {
        let distributed = claims.get("_claim_names").and_then(|names| names.get(&mapping.claim));
        return match distributed {
            Some(_) => Err("oidc: could not expand distributed claims: this server does not ask for them".into()),
            None => Ok(Vec::new()),
        };
    };
    let groups = texts(value).ok_or_else(|| format!("oidc: parse groups claim {:?}: it is no list", mapping.claim))?;
    let prefixed = groups.into_iter().map(|group| format!("{}{group}", mapping.prefix));
    Ok(prefixed.collect())
}

/// A claim that is a text.
fn text<'a>(claims: &'a Map, name: &str) -> Result<&'a str, &'static str> {
    let value = claims.get(name).ok_or("claim not present")?;
    value.as_str().ok_or("it is no text")
}

/// One text, or a list of texts.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Prefixed;
    use super::*;

    fn settings(claim: &str) -> JwtIssuer {
        let prefixed = |claim: &str, prefix: &str| Prefixed {
            claim: claim.into(),
            prefix: prefix.into(),
        };
        JwtIssuer {
            username: prefixed(claim, "oidc:"),
            groups: Some(prefixed("groups", "g:")),
            uid_claim: Some("oid".into()),
            required_claims: vec![("hd".into(), "example.com".into())],
            ..JwtIssuer::default()
        }
    }

    fn check(claim: &str, change: Value, expect: Result<(&str, &[&str]), &str>) {
        let mut claims = json!({"sub": "jane", "email": "j@x", "oid": "7", "hd": "example.com", "jti": "t1"});
        for (key, value) in change.as_object().unwrap() {
            claims[key] = value.clone();
        }
        let claims = claims
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, value)| **value != "absent");
        let claims: Map = claims.map(|(key, value)| (key.clone(), value.clone())).collect();
        match (user(&settings(claim), &claims), expect) {
            (Ok(user), Ok((name, groups))) => {
                assert_eq!((&*user.name, &*user.uid), (name, "7"));
                assert_eq!(user.groups, groups);
                assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=t1"]);
            }
            (Err(why), Err(expect)) => assert!(why.contains(expect), "{why}"),
            (got, expect) => panic!("{change}: {got:?} in place of {expect:?}"),
        }
    }

    #[test]
    fn claims_name_users() {
        check("sub", json!({}), Ok(("oidc:jane", &[])));
        check("sub", json!({"groups": ["a", "b"]}), Ok(("oidc:jane", &["g:a", "g:b"])));
        check("sub", json!({"groups": "a"}), Ok(("oidc:jane", &["g:a"])));
        check("email", json!({}), Ok(("oidc:j@x", &[])));
        check("email", json!({"email_verified": true}), Ok(("oidc:j@x", &[])));
        for (claim, change, why) in [
            ("email", json!({"email_verified": false}), "oidc: email not verified"),
            (
                "email",
                json!({"email_verified": "true"}),
                "parse 'email_verified' claim",
            ),
            (
                "sub",
                json!({"sub": "absent"}),
                "oidc: parse username claims \"sub\": claim not present",
            ),
            ("sub", json!({"sub": 5}), "it is no text"),
            ("sub", json!({"groups": [1]}), "oidc: parse groups claim \"groups\""),
            (
                "sub",
                json!({"groups": {"a": 1}}),
                "oidc: parse groups claim \"groups\"",
            ),
            ("sub", json!({"_claim_names": {"groups": "src"}}), "distributed claims"),
            ("sub", json!({"oid": 7}), "oidc: parse uid claim \"oid\""),
            (
                "sub",
                json!({"hd": "absent"}),
                "oidc: required claim hd not present in ID token",
            ),
            ("sub", json!({"hd": "evil.com"}), "Got = evil.com, want = example.com"),
        ] {
            check(claim, change, Err(why));
        }
    }
}
