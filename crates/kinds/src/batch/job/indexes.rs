//! Indexes of an indexed job as its status and success policy write them: `1,3-5,7`.

/// How many indexes the text names, or why it names none below `completions` in order.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    for interval in intervals(text) {
        let (first, end) = parse(interval, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(not_increasing(last, first));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// An index that both texts name. What cannot be read names nothing here.
pub fn overlap(completed: &str, failed: &str, completions: i64) -> Option<i64> {
    let read = |text| intervals(text).filter_map(|interval| parse(interval, completions).ok());
    let failed: Vec<(i64, i64)> = read(failed).collect();
    read(completed).find_map(|(first, last)| {
        let both = failed.iter().find(|(from, to)| first <= *to && *from <= last)?;
        Some(first.max(both.0))
    })
}

fn intervals(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(move |_| !text.is_empty())
}

fn parse(interval: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| -> Result<i64, String> {
        let quoted = api::field::quote(text);
        let index: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {quoted}"))?;
        match index < completions {
            true => Ok(index),
            false => Err(format!("too large index: {quoted}")),
        }
    };
    let mut parts = interval.split('-');
    let (first, last) = (parts.next().unwrap_or(""), parts.next());
    if parts.next().is_some() {
        return Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            api::field::quote(interval)
        ));
    }
    let first = index(first)?;
    let Some(last) = last else {
        return Ok((first, first));
    };
    let last = index(last)?;
    match first < last {
        true => Ok((first, last)),
        false => Err(not_increasing(first, last)),
    }
}

fn not_increasing(previous: i64, current: i64) -> String {
    format!("non-increasing order, previous: {previous}, current: {current}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted_or_refused() {
        for (text, expect) in [
            ("", Ok(0)),
            ("3", Ok(1)),
            ("0,2-4,9", Ok(5)),
            ("1,1", Err("non-increasing order, previous: 1, current: 1")),
            ("4-2", Err("non-increasing order, previous: 4, current: 2")),
            ("10", Err("too large index: \"10\"")),
            ("1-10", Err("too large index: \"10\"")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
            ("1,", Err("cannot convert string to integer for index: \"\"")),
            (
                "1-2-3",
                Err(
                    "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts \
                     separated by '-'",
                ),
            ),
        ] {
            assert_eq!(count(text, 10), expect.map_err(String::from), "{text}");
        }
    }

    #[test]
    fn overlaps_are_found() {
        for (completed, failed, expect) in [
            ("0-3,7", "4,8", None),
            ("0-3,7", "5,7", Some(7)),
            ("2-5", "0,4-6", Some(4)),
            ("x,2", "2", Some(2)),
            ("", "1", None),
        ] {
            assert_eq!(overlap(completed, failed, 10), expect, "{completed} {failed}");
        }
    }
}
