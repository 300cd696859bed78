//! Tokens of the text form of label selectors.

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The end of the text.
    End,
    /// `)`.
    Closed,
    /// `,`.
    Comma,
    /// `!`.
    DoesNotExist,
    /// `==`.
    DoubleEquals,
    /// `=`.
    Equals,
    /// `>`.
    GreaterThan,
    /// `<`.
    LessThan,
    /// A key or a value.
    Identifier,
    /// `in`.
    In,
    /// `notin`.
    NotIn,
    /// `!=`.
    NotEquals,
    /// `(`.
    Open,
}

/// All tokens with their texts; the last one is [`Token::End`].
pub(super) fn scan(text: &str) -> Vec<(Token, &str)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        // Upstream reads a zero byte as the end of a token, and at its start as the end of the text.
        let Some(first) = rest.bytes().next().filter(|byte| *byte != 0) else {
            tokens.push((Token::End, ""));
            return tokens;
        };
        let (token, length) = if is_special(first) { special(rest) } else { word(rest) };
        tokens.push((token, &rest[..length]));
        rest = &rest[length..];
        rest = rest.strip_prefix('\0').unwrap_or(rest);
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

/// The longest operator at the start.
fn special(text: &str) -> (Token, usize) {
    let two = match text.as_bytes().get(..2) {
        Some(b"==") => Some(Token::DoubleEquals),
        Some(b"!=") => Some(Token::NotEquals),
        _ => None,
    };
    if let Some(token) = two {
        return (token, 2);
    }
    let token = match text.as_bytes()[0] {
        b'=' => Token::Equals,
        b'!' => Token::DoesNotExist,
        b'(' => Token::Open,
        b')' => Token::Closed,
        b',' => Token::Comma,
        b'>' => Token::GreaterThan,
        _ => Token::LessThan,
    };
    (token, 1)
}

fn word(text: &str) -> (Token, usize) {
    let ends = |byte: u8| byte == 0 || is_special(byte) || matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let length = text.bytes().position(ends).unwrap_or(text.len());
    let token = match &text[..length] {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Identifier,
    };
    (token, length)
}

#[cfg(test)]
mod tests {
    use super::{Token::*, *};

    #[test]
    fn texts_become_tokens() {
        for (text, expect) in [
            ("", &[End][..]),
            ("key in ( value )", &[Identifier, In, Open, Identifier, Closed, End]),
            ("!key", &[DoesNotExist, Identifier, End]),
            ("x in (),y", &[Identifier, In, Open, Closed, Comma, Identifier, End]),
            (
                "== != (), = notin",
                &[DoubleEquals, NotEquals, Open, Closed, Comma, Equals, NotIn, End],
            ),
            ("key>2", &[Identifier, GreaterThan, Identifier, End]),
            ("~", &[Identifier, End]),
            ("||", &[Identifier, End]),
            ("!==", &[NotEquals, Equals, End]),
        ] {
            let tokens: Vec<Token> = scan(text).into_iter().map(|(token, _)| token).collect();
            assert_eq!(tokens, expect, "{text}");
        }
    }
}
