//! Which encoding a `Content-Type` or one entry of an `Accept` names.

/// An encoding of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
    /// `application/json-patch+json`.
    JsonPatch,
    /// `application/merge-patch+json`.
    MergePatch,
    /// `application/strategic-merge-patch+json`.
    StrategicMergePatch,
    /// `application/apply-patch+yaml`.
    ApplyYaml,
    /// `application/apply-patch+cbor`: upstream reads it behind a feature gate, we do not.
    ApplyCbor,
    /// `application/cbor`: likewise.
    Cbor,
}

impl MediaType {
    /// Reads the type without its parameters, whatever its case. `None` for a type that no body has.
    pub fn parse(content_type: &str) -> Option<MediaType> {
        let essence = content_type.split(';').next().unwrap_or("").trim();
        ALL.into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(essence))
    }

    /// The type as it stands in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            MediaType::Json => "application/json",
            MediaType::Yaml => "application/yaml",
            MediaType::Protobuf => "application/vnd.kubernetes.protobuf",
            MediaType::JsonPatch => "application/json-patch+json",
            MediaType::MergePatch => "application/merge-patch+json",
            MediaType::StrategicMergePatch => "application/strategic-merge-patch+json",
            MediaType::ApplyYaml => "application/apply-patch+yaml",
            MediaType::ApplyCbor => "application/apply-patch+cbor",
            MediaType::Cbor => "application/cbor",
        }
    }

    /// Whether it is a patch rather than an object.
    pub fn is_patch(self) -> bool {
        !matches!(
            self,
            MediaType::Json | MediaType::Yaml | MediaType::Protobuf | MediaType::Cbor
        )
    }
}

const ALL: [MediaType; 9] = [
    MediaType::Json,
    MediaType::Yaml,
    MediaType::Protobuf,
    MediaType::JsonPatch,
    MediaType::MergePatch,
    MediaType::StrategicMergePatch,
    MediaType::ApplyYaml,
    MediaType::ApplyCbor,
    MediaType::Cbor,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        for (text, expect) in [
            ("application/json", Some(MediaType::Json)),
            ("Application/JSON; charset=utf-8", Some(MediaType::Json)),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", Some(MediaType::Json)),
            (
                "application/vnd.kubernetes.protobuf;stream=watch",
                Some(MediaType::Protobuf),
            ),
            ("application/apply-patch+yaml", Some(MediaType::ApplyYaml)),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(MediaType::parse(text), expect, "{text}");
        }
        for known in ALL {
            assert_eq!(MediaType::parse(known.as_str()), Some(known));
        }
    }
}
