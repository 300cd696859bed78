//! `$(NAME)` in values, commands and sub paths.
//!
//! Source: `third_party/forked/golang/expansion/expand.go`.

/// Replaces each `$(NAME)` that `lookup` knows; what it does not know stays. `$$` is a dollar sign, so `$$(NAME)` is the
/// text `$(NAME)`.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    walk(text, |name| lookup(name).unwrap_or_else(|| format!("$({name})")))
}

/// The same, but every name has to be known.
///
/// # Errors
/// Upstream's text for the first name that is not.
pub fn expand_strict(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut missing = None;
    let expanded = walk(text, |name| {
        lookup(name).unwrap_or_else(|| {
            missing.get_or_insert_with(|| format!("missing value for {}", api::field::quote(name)));
            String::new()
        })
    });
    missing.map_or(Ok(expanded), Err)
}

fn walk(text: &str, mut replace: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, behind)) = after.strip_prefix('(').and_then(|open| open.split_once(')')) {
            out.push_str(&replace(name));
            rest = behind;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".into()),
            "B" => Some("$(A)".into()),
            "EMPTY" | "" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn expansion() {
        for (text, expect) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "a"),
            ("x-$(A)-y", "x-a-y"),
            ("$(A)$(A)", "aa"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$(B)", "$(A)"),
            ("$(NONE)", "$(NONE)"),
            ("$(EMPTY)x", "x"),
            ("$()", ""),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("$", "$"),
            ("a$", "a$"),
            ("$$", "$"),
            ("$(A$(A)", "$(A$(A)"),
            ("\u{e4}$(A)\u{f6}", "\u{e4}a\u{f6}"),
        ] {
            assert_eq!(expand(text, lookup), expect, "{text}");
        }
    }

    #[test]
    fn strict_expansion() {
        assert_eq!(expand_strict("$(A)/$$(X)", lookup), Ok("a/$(X)".into()));
        assert_eq!(
            expand_strict("$(X)/$(Y)", lookup),
            Err("missing value for \"X\"".into())
        );
    }
}
