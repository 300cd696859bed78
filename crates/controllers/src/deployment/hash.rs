//! The hash of a pod template that names its replica set. Pure.
//!
//! Upstream hashes a dump of Go's structs, which no other program can reproduce; what clients rely on is that the value is
//! a label of the set and its pods, made of the letters of generated names, and stable. Here it is FNV-1a (32 bits) of the
//! template's JSON with sorted keys and of the collision count. Invariant: two templates that are equal have one hash, in
//! every version of this program.

use api::Value;

/// Source: `k8s.io/apimachinery/pkg/util/rand` `SafeEncodeString`.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const OFFSET: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;

/// The value of the label `pod-template-hash`.
pub(super) fn template_hash(template: &Value, collisions: Option<i32>) -> String {
    let mut sum = OFFSET;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            sum = (sum ^ u32::from(*byte)).wrapping_mul(PRIME);
        }
    };
    // A `serde_json` map is sorted, so that this text is one and the same for equal trees.
    feed(template.to_string().as_bytes());
    if let Some(collisions) = collisions {
        feed(&collisions.to_le_bytes());
    }
    sum.to_string()
        .bytes()
        .map(|digit| ALPHABET[usize::from(digit) % ALPHABET.len()] as char)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hash_is_what_it_always_was() {
        let template =
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
        let same: Value = serde_json::from_str(
            r#"{"spec": {"containers": [{"image": "b", "name": "a"}]}, "metadata": {"labels": {"app": "web"}}}"#,
        )
        .unwrap();
        assert_eq!(template_hash(&template, None), template_hash(&same, None));
        let hashes = [
            template_hash(&template, None),
            template_hash(&template, Some(0)),
            template_hash(&template, Some(1)),
        ];
        assert_eq!(hashes.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
        assert_eq!(template_hash(&json!({}), None), "5859f96865");
        assert!(hashes.iter().all(|hash| (8..=10).contains(&hash.len())));
    }
}
