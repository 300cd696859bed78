//! A walk over a JSON text: parts of it are read, the others stepped over, and whoever walks knows where it is.

use std::borrow::Cow;

use super::{Parser, invalid, plain_len, truncated};
use crate::Value;
use crate::codec::{DecodeError, Limits};

/// A walk over one JSON text. All that is passed has to be JSON, read or not.
pub struct Walk<'a> {
    parser: Parser<'a>,
    /// Where escapes of texts go that nobody reads.
    scratch: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// A walk that begins at the text's value.
    pub fn new(bytes: &'a [u8], limits: &'a Limits) -> Walk<'a> {
        let mut parser = Parser::new(bytes, limits);
        parser.skip_blanks();
        Walk {
            parser,
            scratch: Vec::new(),
        }
    }

    /// How many bytes are passed.
    pub fn at(&self) -> usize {
        self.parser.at
    }

    /// Whether an object is next.
    pub fn is_object(&self) -> bool {
        self.parser.peek() == Some(b'{')
    }

    /// Reads the next value.
    ///
    /// # Errors
    /// It is no JSON, as with [`super::decode`]; so everywhere here.
    pub fn value(&mut self) -> Result<Value, DecodeError> {
        self.parser.value()
    }

    /// Steps over the next value.
    ///
    /// # Errors
    /// As [`Walk::value`].
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        self.parser.skip_blanks();
        match self.parser.peek() {
            Some(b'{') => self.object(|walk| {
                walk.skip_text()?;
                walk.colon()?;
                walk.skip()
            }),
            Some(b'[') => self.items(b']', "after array element", Walk::skip),
            Some(b'"') => self.skip_text(),
            _ => self.parser.value().map(drop),
        }
    }

    /// Walks into the object that is next: `member` is called at each name and has to pass its value.
    ///
    /// # Errors
    /// As [`Walk::value`], and what `member` fails with.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Walk<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.items(b'}', "after object key:value pair", |walk| match walk.parser.peek() {
            Some(b'"') => member(walk),
            Some(byte) => Err(invalid(byte, "looking for beginning of object key string")),
            None => Err(truncated()),
        })
    }

    /// Reads a member's name; its value is next.
    ///
    /// # Errors
    /// As [`Walk::value`].
    pub fn name(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let rest = self.parser.bytes.get(self.parser.at + 1..).unwrap_or_default();
        let (plain, behind) = rest.split_at(plain_len(rest));
        let name = match (behind.first(), std::str::from_utf8(plain)) {
            (Some(b'"'), Ok(name)) => {
                self.parser.at += plain.len() + 2;
                Cow::Borrowed(name)
            }
            _ => Cow::Owned(self.parser.string()?),
        };
        self.colon()?;
        Ok(name)
    }

    /// Ends the walk: nothing may follow.
    ///
    /// # Errors
    /// As [`Walk::value`].
    pub fn end(mut self) -> Result<(), DecodeError> {
        self.parser.end()
    }

    /// What stands between the brackets of an object or a list, each piece by `item`.
    fn items(
        &mut self,
        close: u8,
        context: &str,
        mut item: impl FnMut(&mut Walk<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.parser.deeper()?;
        self.parser.skip_blanks();
        if self.parser.peek() != Some(close) {
            loop {
                self.parser.skip_blanks();
                item(self)?;
                self.parser.skip_blanks();
                match self.parser.peek().ok_or_else(truncated)? {
                    b',' => self.parser.at += 1,
                    byte if byte == close => break,
                    byte => return Err(invalid(byte, context)),
                }
            }
        }
        self.parser.at += 1;
        self.parser.depth -= 1;
        Ok(())
    }

    fn colon(&mut self) -> Result<(), DecodeError> {
        self.parser.skip_blanks();
        match self.parser.peek().ok_or_else(truncated)? {
            b':' => self.parser.at += 1,
            byte => return Err(invalid(byte, "after object key")),
        }
        self.parser.skip_blanks();
        Ok(())
    }

    fn skip_text(&mut self) -> Result<(), DecodeError> {
        self.parser.at += 1;
        loop {
            self.parser.skip_plain();
            let byte = self.parser.peek().ok_or_else(truncated)?;
            if !matches!(byte, b'"' | b'\\') {
                return Err(invalid(byte, "in string literal"));
            }
            self.parser.at += 1;
            if byte == b'"' {
                return Ok(());
            }
            self.scratch.clear();
            self.parser.escape(&mut self.scratch)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stepped over is JSON where what is read is, and ends there.
    #[test]
    fn what_is_stepped_over_is_judged_as_what_is_read() {
        let deep = "[".repeat(300);
        let limits = Limits::default();
        for text in [
            "{}",
            " { } ",
            "[]",
            "[ 1 , -2.5e3 , true , null , \"\" ]",
            r#"{"a":{"b":[{"c":"d\"\\e\u00e9\ud83d\ude00"},{}],"":""},"f":"g"} "#,
            "7",
            "\"x\"",
            "",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "[1,]",
            "[1 2]",
            "\"a",
            "\"a\u{1}\"",
            r#""\x""#,
            r#""\u12""#,
            r#"{"\u12":1}"#,
            "nul",
            "-",
            "1e999",
            "{} x",
            &deep,
        ] {
            let mut walk = Walk::new(text.as_bytes(), &limits);
            let skipped = walk.skip().and_then(|()| walk.end());
            let read = super::super::decode(text.as_bytes(), &limits).map(drop);
            assert_eq!(skipped, read, "{text}");
        }
    }

    #[test]
    fn names_and_places_are_told() {
        let text = r#" {"a":1, "b\u0063" : {"d":[2]},"e":"f"}"#;
        let limits = Limits::default();
        let mut walk = Walk::new(text.as_bytes(), &limits);
        assert!(walk.is_object());
        let mut seen = Vec::new();
        walk.object(|walk| {
            let at = walk.at();
            let name = walk.name()?;
            seen.push((name.into_owned(), at, walk.is_object()));
            walk.skip()
        })
        .unwrap();
        walk.end().unwrap();
        let expect = [("a", 2, false), ("bc", 9, true), ("e", 31, false)];
        let expect = expect.map(|(name, at, object)| (name.to_owned(), at, object));
        assert_eq!(seen, expect);
    }
}
