//! Whether a container's image is a name at all: found before the runtime is asked, so that its words are upstream's.
//!
//! Source: `pkg/kubelet/images/image_manager.go` (`applyDefaultImageTag`) and the grammar of `github.com/distribution/reference`
//! (`normalize.go`, `regexp.go`).

use api::field::quote;

/// The longest path of a repository, and the longest tag.
const PATH_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
/// The shortest digest that is one, in hexadecimal digits.
const DIGEST_DIGITS_MIN: usize = 32;
/// An image's id: names that look like one are refused.
const ID_DIGITS: usize = 64;

/// Checks a name as users write it.
///
/// # Errors
/// Why it is none.
pub fn check_image_name(image: &str) -> Result<(), String> {
    parse(image).map_err(|why| format!("couldn't parse image reference {}: {why}", quote(image)))
}

fn parse(image: &str) -> Result<(), String> {
    if image.len() == ID_DIGITS && image.bytes().all(is_lower_hex) {
        return Err(format!(
            "invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"
        ));
    }
    let invalid = || "invalid reference format".to_owned();
    let (domain, rest) = match image.split_once('/') {
        Some((first, rest)) if is_domain_like(first) => (Some(first), rest),
        _ => (None, image),
    };
    let before_tag = rest.split(':').next().unwrap_or_default();
    if before_tag.chars().any(char::is_uppercase) {
        return Err(format!(
            "invalid reference format: repository name ({before_tag}) must be lowercase"
        ));
    }
    let (name, digest) = match rest.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (rest, None),
    };
    let (path, tag) = match name.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (name, None),
    };
    let fits = domain.is_none_or(is_domain)
        && path.split('/').all(is_path_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    if !fits {
        return Err(invalid());
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!(
            "repository name must not be more than {PATH_BYTES_MAX} characters"
        ));
    }
    Ok(())
}

/// Whether the part before the first slash names a registry and not the first part of a path.
fn is_domain_like(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match address {
        Some(address) => address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'),
        None => host.split('.').all(|part| {
            let ends = part.bytes().next().zip(part.bytes().last());
            ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }),
    };
    host_fits && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lower-case letters and digits, between them a dot, one or two underscores, or any number of dashes.
fn is_path_component(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = part.bytes().next().zip(part.bytes().last());
    let separators = part.split(|letter: char| u8::try_from(letter).is_ok_and(is_word));
    ends.is_some_and(|(first, last)| is_word(first) && is_word(last))
        && separators
            .filter(|between| !between.is_empty())
            .all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_BYTES_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, digits)) = digest.split_once(':') else {
        return false;
    };
    let part_fits = |part: &str| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part_fits)
        && digits.len() >= DIGEST_DIGITS_MIN
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for image in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "localhost/demo:1",
            "localhost:5000/a/b__c--d.e:v1",
            "registry.k8s.io/pause:3.10",
            "[::1]:5000/a",
            "UPPER/a",
            &format!("a@{digest}"),
            &format!("a:b@{digest}"),
        ] {
            assert_eq!(check_image_name(image), Ok(()), "{image}");
        }
    }

    #[test]
    fn what_is_no_name_is_told_in_docker_s_words() {
        let id = "0a".repeat(32);
        let long = "a".repeat(256);
        for (image, expect) in [
            ("a b", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("https://a", "invalid reference format"),
            ("a@sha256:12", "invalid reference format"),
            ("a:!", "invalid reference format"),
            (
                "Nginx:A",
                "invalid reference format: repository name (Nginx) must be lowercase",
            ),
            (
                &id,
                &format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings"),
            ),
            (&long, "repository name must not be more than 255 characters"),
        ] {
            let expect = format!("couldn't parse image reference \"{image}\": {expect}");
            assert_eq!(check_image_name(image), Err(expect), "{image}");
        }
    }
}
