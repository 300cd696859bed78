//! Small languages: selectors, quantities, schedules and durations.

use api::quantity::{Quantity, QuantityError};
use api::selector::{FieldSelector, LabelSelector};
use api::{cron, duration as durations};
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

pub fn make_schedule(random: &Random) -> Vec<u8> {
    one_of(
        random,
        &[
            "*/5 1-3,7 * JAN-dec/2 sun",
            "TZ=Europe/Berlin 0 0 1 1 *",
            "@every 1h30m",
            "@hourly",
            "? ? ? ? ?",
        ],
    )
}

pub fn make_duration(random: &Random) -> Vec<u8> {
    one_of(
        random,
        &["1h30m", "-1.5s", "300ms", "2562047h47m16.854775807s", "0", "1us2ns"],
    )
}

pub fn schedule(input: &[u8]) -> String {
    match cron::parse(&String::from_utf8_lossy(input)) {
        Err(error) => error,
        Ok(_) => "good".into(),
    }
}

/// What is written of a duration can be read; of ages of the world no number is kept.
pub fn duration(input: &[u8]) -> String {
    match durations::parse(&String::from_utf8_lossy(input)) {
        None => "none".into(),
        Some(duration) => {
            let text = durations::text(duration);
            assert!(
                duration.as_secs() > 1 << 40 || durations::parse(&text).is_some(),
                "{text}"
            );
            text.chars().filter(|char| !char.is_ascii_digit()).collect()
        }
    }
}
