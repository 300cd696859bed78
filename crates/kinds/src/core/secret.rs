//! Secret.
//!
//! Source of the rules: `ValidateSecret` in `pkg/apis/core/validation/validation.go`; of `stringData`:
//! `pkg/apis/core/v1/conversion.go`.

mod pair;

use api::Value;
use api::field::ErrorList;
use api::validation::config_map_key;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::configmap::{DATA_BYTES_MAX, decoded_length, immutable};
use crate::build::Row;
use crate::check::{At, Report};
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "Secret", "secrets")
        .strategy(Secrets)
        .trigger(|object| Some(object.text("metadata.name").into()))
        .fields(&[("type", |object| object.text("type").into())])
        .reads(&["metadata.name", "type"])
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Type", "What the secret is for."),
        text("Data", "The number of values."),
        AGE,
    ],
    cells: |object, context| {
        vec![
            name(object),
            object.text("type").into(),
            object.entries("data").count().into(),
            age(object, context),
        ]
    },
};

const ACCOUNT_ANNOTATION: &str = "kubernetes.io/service-account.name";

struct Secrets;

impl Strategy for Secrets {
    fn default(&self, object: &mut Value) {
        object.put_default("type", "Opaque");
        // Written as text, stored as data, never shown.
        if let Some(texts) = object.cut("stringData") {
            for (key, text) in texts.entries("") {
                let encoded = STANDARD.encode(text.as_str().unwrap_or(""));
                object.object("data").insert(key.into(), encoded.into());
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            object.get("type").unchanged(old.at("type"));
            immutable(&object, old, &["data"]);
            validate(&object);
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        if object.text("type") != "kubernetes.io/tls" {
            return Vec::new();
        }
        let bytes = |key: &str| {
            let value = object.at("data").get(key).and_then(Value::as_str);
            STANDARD.decode(value.unwrap_or("")).unwrap_or_default()
        };
        pair::complaint(&bytes("tls.crt"), &bytes("tls.key"))
            .into_iter()
            .collect()
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    let data = object.get("data");
    let mut size = 0;
    for (key, value) in object.entries("data") {
        for message in config_map_key(key) {
            value.invalid_as(key, message);
        }
        size += decoded_length(value.text());
    }
    if size > DATA_BYTES_MAX {
        data.too_long(DATA_BYTES_MAX);
    }
    let missing = |key: &str| data.elsewhere(data.path.key(key), object.value).missing("");
    let has = |key: &str| data.value.get(key).is_some();
    match object.value.text("type") {
        "kubernetes.io/service-account-token"
            if api::meta::annotation(object.value, ACCOUNT_ANNOTATION)
                .unwrap_or("")
                .is_empty() =>
        {
            let annotations = object.get("metadata.annotations");
            let path = annotations.path.key(ACCOUNT_ANNOTATION);
            annotations.elsewhere(path, object.value).missing("");
        }
        "kubernetes.io/dockercfg" => json_object(&data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_object(&data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            missing("username");
            missing("password");
        }
        "kubernetes.io/ssh-auth"
            if data
                .value
                .get("ssh-privatekey")
                .and_then(Value::as_str)
                .unwrap_or("")
                .is_empty() =>
        {
            missing("ssh-privatekey");
        }
        "kubernetes.io/tls" => ["tls.crt", "tls.key"]
            .into_iter()
            .filter(|key| !has(key))
            .for_each(missing),
        _ => {}
    }
}

fn json_object(data: &At, key: &str) {
    let at = |value| data.elsewhere(data.path.key(key), value);
    let Some(value) = data.value.get(key) else {
        return at(data.value).missing("");
    };
    let bytes = STANDARD.decode(value.as_str().unwrap_or("")).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<api::Map>(&bytes) {
        at(value).invalid_as("<secret contents redacted>", error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, check};

    #[test]
    fn defaults() {
        let case = Case::new("texts become data")
            .object("data: {a: eA==, b: eQ==}\nstringData: {b: z}")
            .field("type", "Opaque")
            .field("data.a", "eA==")
            .field("data.b", "eg==")
            .field("stringData", ());
        check(&super::Secrets, case);
    }

    #[test]
    fn create() {
        for case in [
            Case::new("bad key")
                .object("data: {..: eA==}")
                .errors(&["data[..]: Invalid value: \"..\": must not be '..'"]),
            Case::new("no account")
                .object("type: kubernetes.io/service-account-token")
                .errors(&["metadata.annotations[kubernetes.io/service-account.name]: Required value"]),
            Case::new("account").object(
                "type: kubernetes.io/service-account-token\n\
                 metadata: {annotations: {kubernetes.io/service-account.name: a}}",
            ),
            Case::new("no docker config")
                .object("type: kubernetes.io/dockerconfigjson")
                .errors(&["data[.dockerconfigjson]: Required value"]),
            Case::new("a docker config that is none")
                .object("type: kubernetes.io/dockercfg\nstringData: {.dockercfg: '[]'}")
                .errors(&[
                    "data[.dockercfg]: Invalid value: \"<secret contents redacted>\": invalid type: sequence, \
                           expected a map at line 1 column 0",
                ]),
            Case::new("docker config").object("type: kubernetes.io/dockercfg\nstringData: {.dockercfg: '{}'}"),
            Case::new("no login")
                .object("type: kubernetes.io/basic-auth")
                .errors(&["data[username]: Required value", "data[password]: Required value"]),
            Case::new("half a login").object("type: kubernetes.io/basic-auth\nstringData: {username: u}"),
            Case::new("no key")
                .object("type: kubernetes.io/ssh-auth")
                .errors(&["data[ssh-privatekey]: Required value"]),
            Case::new("half a certificate")
                .object("type: kubernetes.io/tls\nstringData: {tls.crt: c}")
                .errors(&["data[tls.key]: Required value"]),
        ] {
            check(&super::Secrets, case);
        }
    }

    #[test]
    fn size() {
        let object = format!("data: {{a: {}}}", "AAAA".repeat(super::DATA_BYTES_MAX / 3 + 1));
        let errors = ["data: Too long: may not be more than 1048576 bytes"];
        check(&super::Secrets, Case::new("too large").object(&object).errors(&errors));
    }

    #[test]
    fn update() {
        for case in [
            Case::new("another type")
                .old("type: a")
                .object("type: b")
                .errors(&["type: Invalid value: \"b\": field is immutable"]),
            Case::new("immutable")
                .old("immutable: true\ndata: {a: eA==}")
                .object("data: {}")
                .errors(&[
                    "immutable: Forbidden: field is immutable when `immutable` is set",
                    "data: Forbidden: field is immutable when `immutable` is set",
                ]),
        ] {
            check(&super::Secrets, case);
        }
    }
}
