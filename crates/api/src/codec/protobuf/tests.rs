//! Bytes written by hand, malformed input, and random bytes.

use serde_json::json;

use super::*;
use crate::normalize::{UnknownFields, normalize};

fn of(name: &str) -> SchemaRef {
    SchemaRef::builtin_type(name).unwrap_or_else(|| panic!("{name}"))
}

/// Writes the tree, compares the bytes (blanks in `hex` do not count), and reads them back.
fn check(ty: &str, value: Value, hex: &str) {
    let schema = of(ty);
    let bytes = encode_raw(&value, &schema).unwrap();
    let got: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(got, hex.replace(' ', ""), "{ty}");
    let mut back = decode_raw(&bytes, &schema).unwrap();
    normalize(&mut back, &schema, UnknownFields::Ignore).unwrap();
    let mut expect = value;
    normalize(&mut expect, &schema, UnknownFields::Ignore).unwrap();
    assert_eq!(back, expect, "{ty}");
}

#[test]
fn values_are_always_written_and_pointers_when_set() {
    check("api.core.v1.LocalObjectReference", json!({}), "0a00");
    check("api.core.v1.LocalObjectReference", json!({"name": "a"}), "0a0161");
    check(
        "api.core.v1.ConfigMapKeySelector",
        json!({"name": "a", "key": "k"}),
        "0a030a0161 12016b",
    );
    check(
        "api.core.v1.ConfigMapKeySelector",
        json!({"key": "", "optional": false}),
        "0a020a00 1200 1800",
    );
    check(
        "api.core.v1.SleepAction",
        json!({"seconds": -1}),
        "08ffffffffffffffffff01",
    );
    check(
        "api.core.v1.TCPSocketAction",
        json!({"port": "http"}),
        "0a0a 0801 1000 1a0468747470 1200",
    );
    check(
        "api.core.v1.TCPSocketAction",
        json!({"port": 80, "host": "h"}),
        "0a06 0800 1050 1a00 120168",
    );
}

#[test]
fn maps_are_sorted_and_keep_empty_bytes() {
    let metadata = "0a10 0a00 1200 1a00 2200 2a00 3200 3800 4200";
    let hex = format!("{metadata} 1206 0a0161 120101 1205 0a0162 1200 1a00");
    check("api.core.v1.Secret", json!({"data": {"b": "", "a": "AQ=="}}), &hex);
    check(
        "api.authorization.v1.SubjectAccessReviewSpec",
        json!({"extra": {"b": ["x"], "a": null}}),
        "1a00 2a030a0161 2a080a0162 1203 0a0178 3200",
    );
}

#[test]
fn packed_lists_and_unknown_fields_are_read() {
    let context = of("api.core.v1.PodSecurityContext");
    // supplementalGroups (4) once packed and once not, between them a field nobody knows in each wire type.
    let bytes = [
        0x22, 0x02, 0x01, 0x02, // packed 1, 2
        0xf8, 0x07, 0x05, // varint
        0xf9, 0x07, 1, 2, 3, 4, 5, 6, 7, 8, // 64 bit
        0xfa, 0x07, 0x01, 0xff, // bytes
        0xfd, 0x07, 1, 2, 3, 4, // 32 bit
        0xfb, 0x07, 0x08, 0x01, 0xfc, 0x07, // group
        0x20, 0x03, // unpacked 3
    ];
    let value = decode_raw(&bytes, &context).unwrap();
    assert_eq!(value, json!({"supplementalGroups": [1, 2, 3]}));
}

#[test]
fn malformed_input_is_an_error() {
    let schema = of("api.core.v1.Pod");
    for (bytes, expect) in [
        (&b"\x0a"[..], "unexpected EOF"),
        (b"\x0a\x05a", "unexpected EOF"),
        (
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            "proto: integer overflow",
        ),
        (
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            "proto: negative length found during unmarshaling",
        ),
        (b"\x08\x01", "proto: wrong wireType = 0 for field metadata"),
        (b"\x0c", "proto: wiretype end group for non-group"),
        (b"\x00", "proto: illegal tag 0 (wire type 0)"),
        (b"\xff\x01\x00", "proto: illegal wireType 7"),
    ] {
        assert_eq!(decode_raw(bytes, &schema).unwrap_err().message, expect, "{bytes:x?}");
    }
    let error = decode(b"{}").unwrap_err();
    assert!(
        error
            .message
            .starts_with("provided data does not appear to be a protobuf message"),
        "{error}"
    );
    let error = decode(b"k8s\0\x0a\x08\x0a\x02v9\x12\x02Xy").unwrap_err();
    assert_eq!(
        error.message,
        r#"no kind "Xy" is registered for version "v9" in scheme "pkg/api/legacyscheme/scheme.go:30""#
    );
}

#[test]
fn nesting_ends_in_an_error() {
    // JSONSchemaProps.not (28) inside itself.
    let mut bytes = Vec::new();
    for _ in 0..5000 {
        let mut outer = vec![0xe2, 0x01];
        let mut len = bytes.len();
        while len >= 0x80 {
            outer.push(len as u8 | 0x80);
            len >>= 7;
        }
        outer.push(len as u8);
        outer.extend(&bytes);
        bytes = outer;
    }
    let schema = of("apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
    assert_eq!(decode_raw(&bytes, &schema).unwrap_err(), DecodeError::too_deep());
}

#[test]
fn an_object_inside_may_be_json_or_an_envelope() {
    let schema = of("apimachinery.pkg.apis.meta.v1.WatchEvent");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let event = json!({"type": "ADDED", "object": object});
    let as_json = encode(&event, &schema).unwrap();
    assert_eq!(decode_as(&as_json, &schema).unwrap().1, event);

    let inner = encode(&object, &of("api.core.v1.ConfigMap")).unwrap();
    let mut bytes = vec![0x0a, 0x00, 0x12, inner.len() as u8 + 2, 0x0a, inner.len() as u8];
    bytes.extend(&inner);
    let read = decode_raw(&bytes, &schema).unwrap();
    assert_eq!(read["object"]["kind"], "ConfigMap");
    assert_eq!(read["object"]["metadata"]["name"], "a");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..96)) {
        for ty in ["api.core.v1.Pod", "apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"] {
            let _ = decode_raw(&bytes, &of(ty));
        }
        let _ = decode(&bytes);
        let _ = decode(&[&PREFIX[..], &bytes[..]].concat());
    }
}
