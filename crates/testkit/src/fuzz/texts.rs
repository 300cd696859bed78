//! Small languages: selectors and quantities.

use api::quantity::{Quantity, QuantityError};
use api::selector::{FieldSelector, LabelSelector};
use base::Random;

fn one_of(random: &Random, texts: &[&str]) -> Vec<u8> {
    texts[random.index(texts.len())].as_bytes().to_vec()
}

pub fn make_labels(random: &Random) -> Vec<u8> {
    one_of(
        random,
        &[
            "a in (b,c),d!=e,!f,g",
            "x/y=z",
            "a notin (b,,c)",
            "a>1,b<2,c == d",
            "kubernetes.io/name=",
        ],
    )
}

pub fn make_fields(random: &Random) -> Vec<u8> {
    one_of(
        random,
        &[
            "metadata.name=x\\,y,spec.nodeName!=n",
            "status.phase==Running",
            "a=b\\=c",
            "metadata.namespace=",
        ],
    )
}

pub fn make_quantity(random: &Random) -> Vec<u8> {
    one_of(
        random,
        &[
            "1.5Gi",
            "100m",
            "-1e-3",
            "0.000000001n",
            "9223372036854775807E",
            "+12Ki",
            ".5",
        ],
    )
}

pub fn labels(input: &[u8]) -> String {
    let selector = LabelSelector::parse(&String::from_utf8_lossy(input));
    match selector {
        Err(error) => error.to_string(),
        Ok(selector) => format!("matches nothing: {}", selector.matches(|_| None)),
    }
}

pub fn fields(input: &[u8]) -> String {
    let selector = FieldSelector::parse(&String::from_utf8_lossy(input));
    match selector {
        Err(error) => error.to_string(),
        Ok(selector) => format!("matches nothing: {}", selector.matches(|_| None)),
    }
}

/// The canonical form is read as the same quantity. A number of more digits than the parser holds (`9233792233720368547758082E`
/// and two places more) is written out and then refused: a known gap, named in the corpus.
pub fn quantity(input: &[u8]) -> String {
    match Quantity::parse(&String::from_utf8_lossy(input)) {
        Err(error) => error.to_string(),
        Ok(quantity) => {
            let canonical = quantity.with_format(quantity.format()).to_string();
            match Quantity::parse(&canonical) {
                Ok(again) => assert_eq!(again, quantity, "{canonical}"),
                Err(error) => assert_eq!(error, QuantityError::Numeric, "{canonical} was refused"),
            }
            canonical.chars().filter(|char| !char.is_ascii_digit()).collect()
        }
    }
}
