//! Tokens of a file: lines of comma-separated values, `token,user,uid,"group1,group2"`. Read once, at the start.
//!
//! Source: `k8s.io/apiserver/pkg/authentication/token/tokenfile/tokenfile.go`; the form is that of Go's `encoding/csv`.

use std::collections::HashMap;

use futures::future::BoxFuture;

use super::TokenKind;
use crate::pipeline::{Identity, Refusal};
use crate::request::UserInfo;

/// The tokens. Nothing shows them, not even for debugging.
pub struct TokenFile(HashMap<String, UserInfo>);

impl std::fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenFile").finish_non_exhaustive()
    }
}

// === impl TokenFile ===

impl TokenFile {
    /// Reads the file's text; `name` is told with what is wrong.
    ///
    /// # Errors
    /// A line that is none, or has no uid.
    pub fn read(text: &str, name: &str) -> Result<TokenFile, String> {
        let mut tokens = HashMap::new();
        for (number, record) in records(text)?.into_iter().enumerate() {
            let number = number + 1;
            let [token, user, uid, rest @ ..] = &record[..] else {
                let found = record.len();
                return Err(format!(
                    "token file '{name}' must have at least 3 columns (token, user name, user uid), found {found}"
                ));
            };
            if token.is_empty() {
                tracing::warn!(number, "empty token has been found in token file '{name}'");
                continue;
            }
            let groups = rest
                .first()
                .map(|groups| groups.split(',').map(str::to_owned).collect());
            let user = UserInfo {
                name: user.clone(),
                uid: uid.clone(),
                groups: groups.unwrap_or_default(),
                ..UserInfo::default()
            };
            if tokens.insert(token.clone(), user).is_some() {
                tracing::warn!(number, "duplicate token has been found in token file '{name}'");
            }
        }
        Ok(TokenFile(tokens))
    }
}

impl TokenKind for TokenFile {
    fn authenticate<'a>(&'a self, token: &'a str, _: &'a [String]) -> BoxFuture<'a, Result<Option<Identity>, Refusal>> {
        let user = self.0.get(token).cloned();
        Box::pin(std::future::ready(Ok(user.map(|user| Identity {
            user: user.into(),
            ..Identity::default()
        }))))
    }
}

/// Records of comma-separated values. A field in quotes may have commas, ends of lines and doubled quotes.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let (mut records, mut line) = (Vec::new(), 1);
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('\n').or_else(|| rest.strip_prefix("\r\n")) {
            (rest, line) = (after, line + 1);
            continue;
        }
        let (mut record, begun) = (Vec::new(), line);
        loop {
            let wrong = |why: &str| format!("record on line {begun}: {why}");
            let mut field = String::new();
            if let Some(quoted) = rest.strip_prefix('"') {
                rest = quoted;
                loop {
                    let end = rest
                        .find('"')
                        .ok_or_else(|| wrong("extraneous or missing \" in quoted-field"))?;
                    field.push_str(&rest[..end]);
                    rest = &rest[end + 1..];
                    match rest.strip_prefix('"') {
                        Some(after) => {
                            field.push('"');
                            rest = after;
                        }
                        None => break,
                    }
                }
                line += field.matches('\n').count();
                if !(rest.is_empty() || rest.starts_with([',', '\n']) || rest.starts_with("\r\n")) {
                    return Err(wrong("extraneous or missing \" in quoted-field"));
                }
            } else {
                let end = rest.find([',', '\n']).unwrap_or(rest.len());
                let whole = &rest[..end];
                let plain = match rest[end..].starts_with(',') {
                    true => whole,
                    false => whole.strip_suffix('\r').unwrap_or(whole),
                };
                if plain.contains('"') {
                    return Err(wrong("bare \" in non-quoted-field"));
                }
                field.push_str(plain);
                rest = &rest[end..];
            }
            record.push(field);
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None => break,
            }
        }
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users() {
        let text = "a,jane,1\n\nb,joe,2,\"dev,ops\",more\r\n\"c\"\"d\",\"x\ny\",3,one\n,nobody,4\n";
        let file = TokenFile::read(text, "tokens.csv").unwrap();
        let user = |token: &str| {
            file.0
                .get(token)
                .map(|user| (&*user.name, &*user.uid, user.groups.join("|")))
        };
        for (token, expect) in [
            ("a", Some(("jane", "1", ""))),
            ("b", Some(("joe", "2", "dev|ops"))),
            ("c\"d", Some(("x\ny", "3", "one"))),
            ("", None),
            ("A", None),
        ] {
            let expect = expect.map(|(name, uid, groups)| (name, uid, groups.to_owned()));
            assert_eq!(user(token), expect, "{token}");
        }
        assert!(TokenFile::read("", "x").unwrap().0.is_empty());
    }

    #[test]
    fn what_is_no_record_is_told() {
        for (text, expect) in [
            (
                "a,b",
                "token file 'x' must have at least 3 columns (token, user name, user uid), found 2",
            ),
            (
                "a,b,1\n\"c,d,2",
                "record on line 2: extraneous or missing \" in quoted-field",
            ),
            (
                "\"a\"b,c,1",
                "record on line 1: extraneous or missing \" in quoted-field",
            ),
            ("a,b\"c,1", "record on line 1: bare \" in non-quoted-field"),
        ] {
            assert_eq!(TokenFile::read(text, "x").unwrap_err(), expect, "{text}");
        }
    }
}
