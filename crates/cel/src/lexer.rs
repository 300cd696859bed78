//! Words of an expression. Source: the lexer rules of cel-spec's grammar (`CEL.g4`).
//!
//! Places are counted in characters, as messages show them.

use std::sync::Arc;

use crate::issues::Issues;

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Int(i128),
    Uint(u128),
    /// A whole number that is larger than any of ours.
    TooLarge {
        unsigned: bool,
    },
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    Ident(Arc<str>),
    /// A name in backticks.
    Quoted(Arc<str>),
    /// An operator, a bracket, or one of `in true false null`.
    Symbol(&'static str),
    End,
}

/// A word and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) token: Token,
    /// The first character, from 0.
    pub(crate) start: usize,
    /// As it was written; `<EOF>` at the end.
    pub(crate) text: Arc<str>,
}

/// Longer ones first.
const SYMBOLS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%", "=",
];
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

/// Splits a text into words, the last of which is [`Token::End`]. What is no word is reported and left out.
pub(crate) fn words(text: &str, issues: &mut Issues) -> Vec<Word> {
    let characters: Vec<char> = text.chars().collect();
    let mut lexer = Lexer {
        characters: &characters,
        at: 0,
    };
    let mut words = Vec::new();
    loop {
        lexer.skip_blanks();
        let start = lexer.at;
        if start >= characters.len() {
            words.push(Word {
                token: Token::End,
                start,
                text: Arc::from("<EOF>"),
            });
            return words;
        }
        let token = lexer.token();
        let written: String = characters[start..lexer.at].iter().collect();
        match token {
            Ok(token) => words.push(Word {
                token,
                start,
                text: Arc::from(written),
            }),
            Err(Wrong::NotAWord) => {
                issues.add(
                    start,
                    format!("Syntax error: token recognition error at: '{}'", shown(&written)),
                );
            }
            Err(Wrong::Literal(message)) => {
                issues.add(start, message);
                words.push(Word {
                    token: Token::String(Arc::from("")),
                    start,
                    text: Arc::from(written),
                });
            }
        }
    }
}

/// As ANTLR shows what it read: one line.
fn shown(written: &str) -> String {
    written.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

enum Wrong {
    NotAWord,
    Literal(&'static str),
}

struct Lexer<'a> {
    characters: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.at + ahead).copied()
    }

    fn is_digit(&self, ahead: usize) -> bool {
        self.peek(ahead).is_some_and(|one| one.is_ascii_digit())
    }

    fn skip_while(&mut self, belongs: impl Fn(char) -> bool) {
        while self.peek(0).is_some_and(&belongs) {
            self.at += 1;
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            self.skip_while(|one| matches!(one, ' ' | '\t' | '\n' | '\r' | '\u{c}'));
            if (self.peek(0), self.peek(1)) != (Some('/'), Some('/')) {
                return;
            }
            self.skip_while(|one| one != '\n');
        }
    }

    fn token(&mut self) -> Result<Token, Wrong> {
        let first = self.peek(0).expect("invariant: asked before the end");
        if first.is_ascii_digit() || first == '.' && self.is_digit(1) {
            return self.number();
        }
        if let Some(prefix) = self.string_prefix() {
            return self.string(prefix);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let start = self.at;
            self.skip_while(|one| one.is_ascii_alphanumeric() || one == '_');
            let name: String = self.characters[start..self.at].iter().collect();
            let word = WORDS.into_iter().find(|word| *word == name);
            return Ok(word.map_or_else(|| Token::Ident(Arc::from(name)), Token::Symbol));
        }
        if first == '`' {
            return self.quoted_name();
        }
        let matches = |symbol: &&str| {
            symbol
                .chars()
                .enumerate()
                .all(|(ahead, one)| self.peek(ahead) == Some(one))
        };
        match SYMBOLS.into_iter().find(matches) {
            Some(symbol) if symbol != "=" => {
                self.at += symbol.len();
                Ok(Token::Symbol(symbol))
            }
            _ => {
                // ANTLR shows what it read until nothing fitted any more: for `&x` that is both.
                self.at += if matches!(first, '&' | '|' | '=') && self.peek(1).is_some() {
                    2
                } else {
                    1
                };
                Err(Wrong::NotAWord)
            }
        }
    }

    fn quoted_name(&mut self) -> Result<Token, Wrong> {
        let start = self.at + 1;
        self.at = start;
        self.skip_while(|one| one.is_ascii_alphanumeric() || matches!(one, '_' | '.' | '-' | '/' | ' '));
        if self.peek(0) != Some('`') || self.at == start {
            return Err(Wrong::NotAWord);
        }
        let name: String = self.characters[start..self.at].iter().collect();
        self.at += 1;
        Ok(Token::Quoted(Arc::from(name)))
    }

    fn number(&mut self) -> Result<Token, Wrong> {
        let start = self.at;
        if self.peek(0) == Some('0')
            && self.peek(1) == Some('x')
            && self.peek(2).is_some_and(|one| one.is_ascii_hexdigit())
        {
            self.at += 2;
            let digits = self.at;
            self.skip_while(|one| one.is_ascii_hexdigit());
            return Ok(self.whole(digits, 16));
        }
        self.skip_while(|one| one.is_ascii_digit());
        let mut fraction = false;
        if self.peek(0) == Some('.') && self.is_digit(1) {
            fraction = true;
            self.at += 1;
            self.skip_while(|one| one.is_ascii_digit());
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if self.is_digit(1 + sign) {
                fraction = true;
                self.at += 1 + sign;
                self.skip_while(|one| one.is_ascii_digit());
            }
        }
        if !fraction {
            return Ok(self.whole(start, 10));
        }
        let text: String = self.characters[start..self.at].iter().collect();
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Token::Double(value)),
            _ => Err(Wrong::Literal("invalid double literal")),
        }
    }

    fn whole(&mut self, start: usize, radix: u32) -> Token {
        let text: String = self.characters[start..self.at].iter().collect();
        let unsigned = matches!(self.peek(0), Some('u' | 'U'));
        self.at += usize::from(unsigned);
        match u128::from_str_radix(&text, radix) {
            Ok(value) if unsigned => Token::Uint(value),
            Ok(value) if i128::try_from(value).is_ok() => Token::Int(value.cast_signed()),
            _ => Token::TooLarge { unsigned },
        }
    }

    /// The length of a prefix like `r` or `b` when a string follows.
    fn string_prefix(&self) -> Option<usize> {
        let quote = |ahead| matches!(self.peek(ahead), Some('"' | '\''));
        let is = |ahead, upper: char| self.peek(ahead).is_some_and(|one| one.to_ascii_uppercase() == upper);
        if quote(0) {
            Some(0)
        } else if (is(0, 'R') || is(0, 'B')) && quote(1) {
            Some(1)
        } else if is(0, 'B') && is(1, 'R') && quote(2) {
            Some(2)
        } else {
            None
        }
    }

    /// Passes an escape. Of a broken one, what stands up to the first character that does not fit is no word.
    fn escape(&mut self) -> Result<(), Wrong> {
        let digits = match self.peek(1) {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`') => 0,
            Some('x' | 'X') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some('0'..='3') => 2,
            _ => {
                self.at = (self.at + 2).min(self.characters.len());
                return Err(Wrong::NotAWord);
            }
        };
        let radix = if matches!(self.peek(1), Some('0'..='3')) { 8 } else { 16 };
        self.at += 2;
        for _ in 0..digits {
            let good = self.peek(0).is_some_and(|digit| digit.is_digit(radix));
            self.at = (self.at + 1).min(self.characters.len());
            if !good {
                return Err(Wrong::NotAWord);
            }
        }
        Ok(())
    }

    fn string(&mut self, prefix: usize) -> Result<Token, Wrong> {
        let is_prefix = |upper: char| {
            (0..prefix).any(|ahead| self.peek(ahead).is_some_and(|one| one.to_ascii_uppercase() == upper))
        };
        let (raw, bytes) = (is_prefix('R'), is_prefix('B'));
        self.at += prefix;
        let quote = self.peek(0).expect("invariant: a quote follows the prefix");
        let long = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let quotes = if long { 3 } else { 1 };
        self.at += quotes;
        let start = self.at;
        loop {
            let Some(one) = self.peek(0) else {
                return Err(Wrong::NotAWord);
            };
            if (0..quotes).all(|ahead| self.peek(ahead) == Some(quote)) {
                break;
            }
            if !long && matches!(one, '\n' | '\r') {
                return Err(Wrong::NotAWord);
            }
            if one == '\\' && !raw {
                self.escape()?;
            } else {
                self.at += 1;
            }
        }
        let inside: String = self.characters[start..self.at].iter().collect();
        self.at += quotes;
        let inside = inside.replace("\r\n", "\n").replace('\r', "\n");
        if raw {
            return Ok(if bytes {
                Token::Bytes(Arc::from(inside.into_bytes()))
            } else {
                Token::String(Arc::from(inside))
            });
        }
        let value = unescape(&inside, bytes)?;
        if bytes {
            return Ok(Token::Bytes(Arc::from(value)));
        }
        let text = String::from_utf8(value).map_err(|_| Wrong::Literal("unable to unescape string"))?;
        Ok(Token::String(Arc::from(text)))
    }
}

/// Replaces escapes. In bytes, `\x` and octal escapes are bytes; in strings they are code points.
fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, Wrong> {
    const UNABLE: Wrong = Wrong::Literal("unable to unescape string");
    let mut value = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    let push = |value: &mut Vec<u8>, one: char| value.extend_from_slice(one.encode_utf8(&mut [0; 4]).as_bytes());
    while let Some(one) = characters.next() {
        if one != '\\' {
            push(&mut value, one);
            continue;
        }
        let (length, radix, kept) = match characters.next().ok_or(UNABLE)? {
            'a' => {
                value.push(7);
                continue;
            }
            'b' => {
                value.push(8);
                continue;
            }
            'f' => {
                value.push(12);
                continue;
            }
            'n' => {
                value.push(b'\n');
                continue;
            }
            'r' => {
                value.push(b'\r');
                continue;
            }
            't' => {
                value.push(b'\t');
                continue;
            }
            'v' => {
                value.push(11);
                continue;
            }
            same @ ('\\' | '\'' | '"' | '`' | '?') => {
                push(&mut value, same);
                continue;
            }
            'x' | 'X' => (2, 16, None),
            'u' if !bytes => (4, 16, None),
            'U' if !bytes => (8, 16, None),
            first @ '0'..='3' => (2, 8, Some(first)),
            // A word of ANTLR's grammar never has another escape.
            _ => return Err(Wrong::NotAWord),
        };
        let mut digits: String = kept.into_iter().collect();
        for _ in 0..length {
            digits.push(characters.next().ok_or(UNABLE)?);
        }
        if !digits.chars().all(|digit| digit.is_digit(radix)) {
            return Err(UNABLE);
        }
        let code = u32::from_str_radix(&digits, radix).map_err(|_| UNABLE)?;
        if bytes {
            value.push(u8::try_from(code).map_err(|_| UNABLE)?);
        } else {
            push(
                &mut value,
                char::from_u32(code).ok_or(Wrong::Literal("invalid unicode code point"))?,
            );
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> (Vec<Token>, Issues) {
        let mut issues = Issues::new(text);
        let mut tokens: Vec<Token> = words(text, &mut issues).into_iter().map(|word| word.token).collect();
        tokens.pop();
        (tokens, issues)
    }

    #[test]
    fn words_are_told_apart() {
        let string = |text: &str| Token::String(Arc::from(text));
        let bytes = |text: &[u8]| Token::Bytes(Arc::from(text));
        for (text, expect) in [
            ("12", Token::Int(12)),
            ("0xfF", Token::Int(255)),
            ("7u", Token::Uint(7)),
            ("0x1U", Token::Uint(1)),
            ("1.5e-2", Token::Double(0.015)),
            (".5", Token::Double(0.5)),
            ("1e3", Token::Double(1000.0)),
            (r#""a\tb""#, string("a\tb")),
            (r"'\x41\101\u0042\U00000043'", string("AABC")),
            (r"r'\d'", string(r"\d")),
            ("'''a\nb'''", string("a\nb")),
            (r#""""say "hi" """"#, string(r#"say "hi" "#)),
            (r"b'\xff\377a'", bytes(b"\xff\xffa")),
            (r"bR'\x'", bytes(br"\x")),
            ("in", Token::Symbol("in")),
            ("inner", Token::Ident(Arc::from("inner"))),
            ("`a.b/c-d`", Token::Quoted(Arc::from("a.b/c-d"))),
            ("a // rest", Token::Ident(Arc::from("a"))),
        ] {
            let (found, issues) = tokens(text);
            assert!(issues.is_empty(), "{text}: {issues}");
            assert_eq!(found, [expect], "{text}");
        }
    }

    #[test]
    fn what_is_no_word_is_reported_with_its_place() {
        for (text, expect) in [
            (
                "a $ b",
                "ERROR: <input>:1:3: Syntax error: token recognition error at: '$'\n | a $ b\n | ..^",
            ),
            (
                "'abc",
                "ERROR: <input>:1:1: Syntax error: token recognition error at: ''abc'\n | 'abc\n | ^",
            ),
        ] {
            assert_eq!(tokens(text).1.to_string(), expect);
        }
    }
}
