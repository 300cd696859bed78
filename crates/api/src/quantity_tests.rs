//! Upstream's own cases (`quantity_test.go`) and properties of the arithmetic.

use proptest::prelude::*;

use super::*;
use Format::{BinarySi as B, DecimalExponent as X, DecimalSi as D};

fn quantity(text: &str) -> Quantity {
    Quantity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn texts_are_read() {
    const KI: i64 = 1024;
    let table = [
        ("0", 0, 0, D),
        ("0n", 0, 0, D),
        ("0Ki", 0, 0, B),
        ("0k", 0, 0, D),
        ("1", 1, 0, D),
        ("1Ki", KI, 0, B),
        ("8Ki", 8 * KI, 0, B),
        ("7Mi", 7 * KI * KI, 0, B),
        ("6Gi", 6 * KI * KI * KI, 0, B),
        ("4Pi", 4 * KI * KI * KI * KI * KI, 0, B),
        ("3Ei", 3 << 60, 0, B),
        ("100Ti", 100 << 40, 0, B),
        ("5n", 5, -9, D),
        ("4u", 4, -6, D),
        ("3m", 3, -3, D),
        ("50k", 5, 4, D),
        ("300T", 3, 14, D),
        ("2P", 2, 15, D),
        ("1E", 1, 18, D),
        ("1E-3", 1, -3, X),
        ("1e3", 1, 3, X),
        ("1E18", 1, 18, X),
        ("100.035k", 100035, 0, D),
        ("0.0005k", 5, -1, D),
        ("0.05000", 5, -2, D),
        ("0.5e-2", 5, -3, X),
        ("1.3E+6", 13, 5, X),
        ("1.7E18", 17, 17, X),
        ("7.123456M", 7123456, 0, D),
        ("1.01E", 101, 16, D),
        ("3.001n", 4, -9, D),
        ("1.1E-9", 2, -9, X),
        ("0.0000000001", 1, -9, D),
        ("0.00000012345", 124, -9, D),
        ("9Ei", i64::MAX, 0, B),
        ("9223372036854775807Ki", i64::MAX, 0, B),
        ("12E", 12, 18, D),
        ("100.035Ki", 10243584, -2, B),
        ("0.5Mi", 512 * KI, 0, B),
        ("0.05Gi", 536870912, -1, B),
        ("0.025Ti", 274877906944, -1, B),
        ("0.000000000001Ki", 2, -9, D),
        (".001", 1, -3, D),
        (".0001k", 100, -3, D),
        ("1.", 1, 0, D),
        ("1.G", 1, 9, D),
        (".", 0, 0, D),
        ("-", 0, 0, D),
    ];
    for (text, value, scale, format) in table {
        for (sign, factor) in [("", 1), ("+", 1), ("-", -1)] {
            if !sign.is_empty() && text == "-" {
                continue;
            }
            let text = format!("{sign}{text}");
            let got = quantity(&text);
            let expect = Quantity::scaled(value * factor, scale, format);
            assert_eq!((&got, got.format()), (&expect, format), "{text}");
        }
    }
}

#[test]
fn bad_texts_are_refused_in_upstreams_words() {
    use QuantityError::*;
    for (text, error) in [
        ("", Format),
        ("1.1.M", Format),
        ("1+1.0M", Format),
        ("0.1mi", Suffix),
        ("0.1am", Format),
        ("aoeu", Format),
        (".5i", Suffix),
        ("1i", Suffix),
        ("-3.01i", Suffix),
        ("-3.01e-", Suffix),
        (" 1", Format),
        ("1 ", Format),
        ("1é", Format),
        ("1e99999999999999999999", Suffix),
        ("1234567890123456789012345678901234567890", Numeric),
    ] {
        assert_eq!(Quantity::parse(text), Err(error), "{text}");
    }
    let text = Quantity::parse("x").unwrap_err().to_string();
    assert_eq!(
        text,
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
}

#[test]
fn numbers_print_in_canonical_form() {
    for (value, scale, format, expect) in [
        (1 << 30, 0, B, "1Gi"),
        (300 << 20, 0, B, "300Mi"),
        (6 << 10, 0, B, "6Ki"),
        (1001 << 30, 0, B, "1001Gi"),
        (5, 0, B, "5"),
        (500, -3, B, "500m"),
        (1, 9, D, "1G"),
        (1000000000, 0, D, "1G"),
        (1080, -3, D, "1080m"),
        (10800, -4, D, "1080m"),
        (1234567, 6, D, "1234567M"),
        (1234567, -3, B, "1234567m"),
        (1025, 0, B, "1025"),
        (0, 0, B, "0"),
        (1, 9, X, "1e9"),
        (80, -3, X, "80e-3"),
        (3, 3, X, "3e3"),
        (108, -8, D, "1080n"),
        (80, -6, D, "80u"),
        (1024, -3, B, "1024m"),
        (1, 21, D, "1000E"),
        (1, 20, X, "100e18"),
    ] {
        assert_eq!(Quantity::scaled(value, scale, format).to_string(), expect);
        if value != 0 {
            assert_eq!(
                Quantity::scaled(-value, scale, format).to_string(),
                format!("-{expect}")
            );
        }
        assert_eq!(quantity(expect).to_string(), expect);
    }
}

#[test]
fn texts_print_as_upstream_prints_them() {
    for (text, expect) in [
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("307200Ki", "300Mi"),
        ("1000M", "1G"),
        ("0.001T", "1G"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("1.5Gi", "1536Mi"),
        (".001Ki", "1024m"),
        (".000000001Ki", "1024n"),
        (".000000000001Ki", "2n"),
        ("1080000000n", "1080m"),
        ("0.001e0", "1e-3"),
        ("1000e-12", "1e-9"),
        ("00", "0"),
        ("0Gi", "0"),
        ("-0", "0"),
        // Spellings that upstream takes for canonical.
        ("+5", "+5"),
        ("05", "05"),
        ("1.500", "1.500"),
        ("1.234k", "1.234k"),
        ("1E3", "1E3"),
        ("1028Ki", "1028Ki"),
    ] {
        assert_eq!(quantity(text).to_string(), expect, "{text}");
    }
}

#[test]
fn arithmetic_keeps_suffixes() {
    for (a, b, plus, minus) in [
        ("100m", "0", "100m", "100m"),
        ("0", "1Gi", "1Gi", "-1Gi"),
        ("1Gi", "1Mi", "1025Mi", "1023Mi"),
        ("1", "1m", "1001m", "999m"),
        ("1Ki", "1k", "2024", "24"),
        ("7Ei", "7Ei", "14Ei", "0"),
    ] {
        let (mut sum, mut difference) = (quantity(a), quantity(a));
        sum.add(&quantity(b));
        difference.sub(&quantity(b));
        assert_eq!((&*sum.to_string(), &*difference.to_string()), (plus, minus), "{a} {b}");
    }
}

#[test]
fn rounding_goes_away_from_zero() {
    for (text, scale, expect, exact) in [
        ("9.01", -3, "9010m", true),
        ("9.01", -1, "9100m", false),
        ("9.01", 0, "10", false),
        ("9.01", 1, "10", false),
        ("9.01", 2, "100", false),
        ("-9.01", -1, "-9100m", false),
        ("-9.01", 2, "-100", false),
    ] {
        let mut got = quantity(text);
        assert_eq!(got.round_up(scale), exact, "{text}");
        assert_eq!(got, quantity(expect), "{text} {scale}");
    }
    assert_eq!(quantity("1001m").value(), 2);
    assert_eq!(quantity("1.5").milli_value(), 1500);
    assert_eq!(quantity("1n").milli_value(), 1);
    assert_eq!(quantity("100E").milli_value(), i64::MAX);
}

#[test]
fn order_holds_for_extreme_numbers() {
    for (a, b) in [
        ("50m", "100m"),
        ("100Gi", "10000T"),
        ("1e100000000", "1.1e100000000"),
        ("99999999999999999999999999999999999999", "1e38"),
        ("-1", "0"),
        ("-2", "-1"),
        ("1n", "1e90000000"),
    ] {
        let (a, b) = (quantity(a), quantity(b));
        assert_eq!((a.cmp(&b), b.cmp(&a)), (Ordering::Less, Ordering::Greater));
    }
    assert_eq!(quantity("1000m"), quantity("1"));
    assert_eq!(quantity("1e38"), quantity("100000000000000000000000000000000000000"));
}

proptest! {
    #[test]
    fn a_printed_quantity_reads_back(value in any::<i64>(), scale in -9i32..30, kind in 0..3) {
        let format = [D, B, X][kind as usize];
        // A binary number past the cap is not read back as it was.
        let scale = if format == B { scale.min(0) } else { scale };
        let made = Quantity::scaled(value, scale, format);
        prop_assert_eq!(quantity(&made.to_string()), made);
    }

    #[test]
    fn sums_and_order_are_exact(a in any::<i64>(), b in any::<i64>(), s in -9i32..9, t in -9i32..9) {
        let nanos = |v: i64, s: i32| i128::from(v) * 10i128.pow((s + 9) as u32);
        let (x, y) = (Quantity::scaled(a, s, D), Quantity::scaled(b, t, D));
        prop_assert_eq!(x.cmp(&y), nanos(a, s).cmp(&nanos(b, t)));
        let mut sum = x.clone();
        sum.add(&y);
        let expect = nanos(a, s) + nanos(b, t);
        prop_assert_eq!(sum.cmp(&Quantity::make(expect, -9, D)), Ordering::Equal);
        sum.sub(&y);
        prop_assert_eq!(sum, x);
    }

    #[test]
    fn no_text_panics(text in "[-+.0-9eEinumkKMGTP]{0,50}") {
        if let Ok(quantity) = Quantity::parse(&text) {
            let mut sum = quantity.clone();
            sum.add(&Quantity::new(7, D));
            sum.sub(&quantity);
            sum.mul(i64::MAX);
            let _ = (sum.to_string(), quantity.to_string(), quantity.value(), quantity.milli_value(), quantity.as_f64());
        }
    }
}
