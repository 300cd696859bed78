//! The query string, decoded once. Repeated keys keep their order.

use percent::decode;

/// A decoded query string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`. Upstream ignores pairs that do not decode; so does this.
    pub fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
        Query(
            pairs
                .filter_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((decode(key, true)?, decode(value, true)?))
                })
                .collect(),
        )
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == key).map(|(_, value)| &**value)
    }

    /// The first value of a key; empty when absent.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or("")
    }

    /// All values of a key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(own, _)| own == key)
            .map(|(_, value)| &**value)
    }

    /// Whether the key is there at all.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A boolean as upstream's query conversion reads it: absent is `None`, `false` and `0` are false, everything else
    /// (the empty value too) is true.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)
            .map(|value| !matches!(&*value.to_ascii_lowercase(), "false" | "0"))
    }
}

/// Percent-decoding of paths and queries.
pub mod percent {
    /// Decodes `%41`, and `+` as a space where `plus` says so. `None` for a broken escape or bytes that are not UTF-8.
    pub fn decode(text: &str, plus: bool) -> Option<String> {
        if !(text.contains('%') || plus && text.contains('+')) {
            return Some(text.into());
        }
        let bytes = text.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                b'%' => {
                    let digits = text.get(at + 1..at + 3)?;
                    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                        return None;
                    }
                    out.push(u8::from_str_radix(digits, 16).ok()?);
                    at += 3;
                }
                b'+' if plus => {
                    out.push(b' ');
                    at += 1;
                }
                byte => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        String::from_utf8(out).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=app%3Dweb%2Ctier+in+(a)&command=sh&command=-c&watch&x=%zz&pretty=0");
        assert_eq!(query.text("labelSelector"), "app=web,tier in (a)");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c"]);
        assert_eq!(query.flag("watch"), Some(true));
        assert_eq!(query.flag("pretty"), Some(false));
        assert_eq!(query.flag("absent"), None);
        assert!(!query.has("x"));
    }
}
