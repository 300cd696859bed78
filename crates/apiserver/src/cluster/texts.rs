//! Several texts in one piece of memory: what is looked at in each object of a long list.
//!
//! A list that selects looks at the labels of every object there is. With a text of its own for each of them it waits for a
//! handful of places in memory an object; here they lie one behind the other.

use std::fmt;

/// Texts in their order. Immutable.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts(
    /// Of each its length and then itself. Lengths are digits of six bits, the lowest first, and so are characters, too.
    Box<str>,
);

/// Says that another digit of a length follows.
const MORE: u8 = 0x40;
const DIGIT_BITS: u32 = MORE.trailing_zeros();

impl Texts {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let text;
            (text, rest) = split(rest)?;
            Some(text)
        })
    }

    /// The one at that place.
    pub fn get(&self, index: usize) -> Option<&str> {
        self.iter().nth(index)
    }

    /// Of names and values in turn: the value of a name.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        let mut texts = self.iter();
        while let Some(known) = texts.next() {
            let value = texts.next()?;
            if known == name {
                return Some(value);
            }
        }
        None
    }
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Texts {
        let mut all = String::new();
        for text in texts {
            let text = text.as_ref();
            let mut length = text.len();
            loop {
                let digit = (length % usize::from(MORE)) as u8;
                length >>= DIGIT_BITS;
                let more = if length > 0 { MORE } else { 0 };
                all.push(char::from(digit | more));
                if more == 0 {
                    break;
                }
            }
            all.push_str(text);
        }
        Texts(all.into())
    }
}

/// The first text and what is behind it.
fn split(all: &str) -> Option<(&str, &str)> {
    let (mut length, mut bits) = (0, 0);
    for (at, digit) in all.bytes().enumerate() {
        length |= usize::from(digit % MORE) << bits;
        if digit & MORE == 0 {
            return all[at + 1..].split_at_checked(length);
        }
        bits += DIGIT_BITS;
    }
    None
}

impl fmt::Debug for Texts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_their_order() {
        let long = "ö".repeat(5000);
        let lengths: Vec<String> = [62, 63, 64, 65, 4095, 4096].map(|length| "x".repeat(length)).into();
        let lengths: Vec<&str> = lengths.iter().map(String::as_str).collect();
        for given in [&[][..], &[""], &["", "a", "", &long, "b"], &lengths] {
            let texts: Texts = given.iter().collect();
            assert_eq!(texts.iter().collect::<Vec<_>>(), given);
            assert_eq!(texts.get(given.len()), None);
            for (index, text) in given.iter().enumerate() {
                assert_eq!(texts.get(index), Some(*text));
            }
        }
        assert_eq!(format!("{:?}", ["a", "\""].iter().collect::<Texts>()), r#"["a", "\""]"#);
    }

    #[test]
    fn values_are_found_by_their_names() {
        let texts: Texts = ["a", "1", "b", "a", "c", ""].iter().collect();
        for (name, expect) in [
            ("a", Some("1")),
            ("b", Some("a")),
            ("c", Some("")),
            ("1", None),
            ("", None),
        ] {
            assert_eq!(texts.value_of(name), expect, "{name}");
        }
        assert_eq!(Texts::default().value_of(""), None);
    }
}
