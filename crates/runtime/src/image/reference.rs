//! Image names, normalised as Docker and every CRI runtime do: `nginx` is `docker.io/library/nginx:latest`.

/// Longest name that is taken: what registries allow, with room for a digest.
const NAME_BYTES_MAX: usize = 512;

/// A name in full, or a reason why it is none.
pub fn normalize(name: &str) -> Result<String, String> {
    let invalid = |why: &str| Err(format!("couldn't parse image name {name:?}: {why}"));
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return invalid("invalid reference format");
    }
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (name, None),
    };
    if digest.is_some_and(|digest| hex_digest(digest).is_none()) {
        return invalid("invalid digest");
    }
    // A colon behind the last slash begins a tag; before it, a port.
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match rest[slash..].split_once(':') {
        Some((last, tag)) => (format!("{}{last}", &rest[..slash]), Some(tag)),
        None => (rest.to_owned(), None),
    };
    let tag_valid = |tag: &str| {
        !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    if tag.is_some_and(|tag| !tag_valid(tag)) {
        return invalid("invalid tag");
    }
    let (domain, path) = match repository.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path.to_owned()),
        Some(_) => ("docker.io", repository.clone()),
        None => ("docker.io", format!("library/{repository}")),
    };
    let domain_valid = domain.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b));
    if !domain_valid {
        return invalid("invalid reference format");
    }
    let part_valid = |part: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(part.bytes().next())
            && edge(part.bytes().last())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    if path.chars().any(|letter| letter.is_ascii_uppercase()) {
        return invalid("repository name must be lowercase");
    }
    if !path.split('/').all(part_valid) {
        return invalid("invalid reference format");
    }
    let mut full = format!("{domain}/{path}");
    match (tag, digest) {
        (Some(tag), _) => full.push_str(&format!(":{tag}")),
        (None, None) => full.push_str(":latest"),
        (None, Some(_)) => {}
    }
    if let Some(digest) = digest {
        full.push_str(&format!("@{digest}"));
    }
    Ok(full)
}

/// The repository of a normalised name: without tag and digest.
pub fn repository(normalized: &str) -> &str {
    let rest = normalized.split('@').next().unwrap_or(normalized);
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    rest[slash..].find(':').map_or(rest, |at| &rest[..slash + at])
}

/// The hexadecimal part of `sha256:...`, if it is one; what becomes part of a path has to pass here.
pub fn hex_digest(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))).then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |name: &str, expect: &str| assert_eq!(normalize(name).as_deref(), Ok(expect), "{name}");
        check("nginx", "docker.io/library/nginx:latest");
        check("a/b:1", "docker.io/a/b:1");
        check("localhost/demo", "localhost/demo:latest");
        check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
        check("localhost:5000/a", "localhost:5000/a:latest");
        let digest = format!("sha256:{}", "0".repeat(64));
        check(&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}"));
        for bad in ["", "A", "a:", "a b", "../x", "a@sha256:zz", "a/../b", &"x".repeat(600)] {
            assert!(normalize(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn repositories() {
        let check = |name: &str, expect: &str| assert_eq!(repository(name), expect, "{name}");
        check("docker.io/library/nginx:latest", "docker.io/library/nginx");
        check("localhost:5000/a", "localhost:5000/a");
        check("localhost:5000/a:1@sha256:00", "localhost:5000/a");
    }
}
