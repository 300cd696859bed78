//! What a user is told of files of a volume that hide each other.
//!
//! Source: `warningsForOverlappingVirtualPaths` in `pkg/api/pod/warnings.go`.

use api::Value;

use crate::view::View;

/// A file, and of which of a projected volume's sources it is.
#[derive(PartialEq)]
struct File {
    path: String,
    source: String,
}

impl File {
    fn new(path: &str, source: &str) -> File {
        File {
            path: path.trim_end_matches('/').into(),
            source: source.into(),
        }
    }

    fn shown(&self) -> String {
        match self.source.as_str() {
            "" => format!("{:?}", self.path),
            source => format!("{:?} ({source})", self.path),
        }
    }

    /// Whether one is the other, or lies below it.
    fn overlaps(&self, other: &File) -> bool {
        let (one, two) = (format!("{}/", self.path), format!("{}/", other.path));
        let named = !self.path.is_empty() && !other.path.is_empty();
        named && (one.starts_with(&two) || two.starts_with(&one))
    }
}

/// The files of each volume against each other.
pub fn overlapping(volumes: &[Value], warnings: &mut Vec<String>) {
    for volume in volumes {
        let name = volume.text("name");
        for (kind, described) in [
            ("configMap", format!("ConfigMap {:?}", volume.text("configMap.name"))),
            ("secret", format!("Secret {:?}", volume.text("secret.secretName"))),
            ("downwardAPI", "DownwardAPI".to_string()),
        ] {
            let items = files(volume.at(kind), "");
            warnings.extend(
                overlaps(items).map(|pair| format!("volume {name:?} ({described}): overlapping paths: {pair}")),
            );
        }
        let sources = volume.list("projected.sources");
        for source in sources {
            if source.as_object().is_none_or(|source| source.is_empty()) {
                warnings.push(format!("volume {name:?} (Projected) has no sources provided"));
            }
        }
        let all: Vec<File> = sources.iter().flat_map(projected).collect();
        warnings.extend(overlaps(all).map(|pair| format!("volume {name:?} (Projected): overlapping paths: {pair}")));
    }
}

fn files(source: &Value, described: &str) -> Vec<File> {
    let items = source.list("items").iter();
    items.map(|item| File::new(item.text("path"), described)).collect()
}

/// The files of one source of a projected volume.
fn projected(source: &Value) -> Vec<File> {
    for (kind, described) in [
        ("configMap", format!("ConfigMap {:?}", source.text("configMap.name"))),
        ("secret", format!("Secret {:?}", source.text("secret.name"))),
        ("downwardAPI", "DownwardAPI".to_string()),
    ] {
        if source.at(kind).has("items") {
            return files(source.at(kind), &described);
        }
    }
    match source.has("serviceAccountToken") {
        true => vec![File::new(
            source.text("serviceAccountToken.path"),
            "ServiceAccountToken",
        )],
        false => Vec::new(),
    }
}

fn overlaps(files: Vec<File>) -> impl Iterator<Item = String> {
    let mut pairs = Vec::new();
    for (index, file) in files.iter().enumerate() {
        for before in &files[..index] {
            if file.overlaps(before) {
                pairs.push(format!("{} with {}", file.shown(), before.shown()));
            }
        }
    }
    pairs.into_iter()
}
