//! How the server's seats are divided among the priority levels: by shares, and every ten seconds by what each wants, within
//! what it may lend and borrow.
//!
//! Sources: `finishQueueSetReconfigsLocked`, `updateBorrowingLocked` and `computeConcurrencyAllocation` of
//! `k8s.io/apiserver/pkg/util/flowcontrol`.

use super::demand::Wanted;

/// What the configuration of a level says about its seats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shares {
    /// `nominalConcurrencyShares`.
    pub nominal: u32,
    /// `lendablePercent`.
    pub lendable_percent: u32,
    /// `borrowingLimitPercent`; `None`: no limit.
    pub borrowing_percent: Option<u32>,
    /// Whether the level is exempt: it takes what it wants.
    pub exempt: bool,
}

/// The seats of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seats {
    /// By its shares.
    pub nominal: usize,
    /// What it never lends.
    pub min: usize,
    /// What it never has more than.
    pub max: usize,
}

/// The seats of each level by its shares.
pub(super) fn divide(server: usize, shares: &[Shares]) -> Vec<Seats> {
    let sum: f64 = shares.iter().map(|level| f64::from(level.nominal)).sum();
    let percent = |seats: usize, percent: u32| (seats as f64 * f64::from(percent) / 100.0).round() as usize;
    let of = |level: &Shares| {
        let part = if sum > 0.0 { f64::from(level.nominal) / sum } else { 0.0 };
        let nominal = (server as f64 * part).ceil() as usize;
        let borrowed = level.borrowing_percent.map_or(server, |limit| percent(nominal, limit));
        Seats {
            nominal,
            min: nominal - percent(nominal, level.lendable_percent.min(100)),
            max: nominal + borrowed,
        }
    };
    shares.iter().map(of).collect()
}

/// What a level gets at least.
fn least((shares, seats, wanted): &(Shares, Seats, Wanted)) -> usize {
    let most_wanted = wanted.most as usize;
    match shares.exempt {
        true => seats.min.max(most_wanted),
        false => seats.min.max(seats.nominal.min(most_wanted)),
    }
}

/// What a level is to get, if it can: what it wants, and no less than it must.
pub(super) fn target(level: &(Shares, Seats, Wanted)) -> f64 {
    level.2.smoothed.max(least(level) as f64)
}

/// The seats of each level for the next period, by what it wanted in the last one.
pub(super) fn adjust(levels: &[(Shares, Seats, Wanted)]) -> Vec<usize> {
    let total: usize = levels.iter().map(|(_, seats, _)| seats.nominal).sum();
    let exempt: usize = levels.iter().filter(|level| level.0.exempt).map(least).sum();
    let left = total.saturating_sub(exempt);
    let limited = || levels.iter().filter(|level| !level.0.exempt);
    let least_of_all: usize = limited().map(least).sum();
    let min_of_all: usize = limited().map(|(_, seats, _)| seats.min).sum();
    let by = |give: &dyn Fn(&(Shares, Seats, Wanted)) -> usize| -> Vec<usize> {
        let each = levels
            .iter()
            .map(|level| if level.0.exempt { least(level) } else { give(level) });
        each.collect()
    };
    // The exempt level has taken so much that others are given their least, in proportion, and one seat at least.
    if least_of_all >= left {
        if min_of_all >= left {
            return by(&|(_, seats, _)| seats.min.max(1));
        }
        return scaled(levels, left);
    }
    // What each gets grows with one factor on what it wants, between its least and its most.
    let at = |factor: f64, level: &(Shares, Seats, Wanted)| {
        (factor * target(level)).clamp(least(level) as f64, (level.1.max.max(least(level))) as f64)
    };
    let sum = |factor: f64| -> f64 { limited().map(|level| at(factor, level)).sum() };
    let (mut low, mut high) = (0.0, 1.0);
    while sum(high) < left as f64 && high < 1e9 {
        high *= 2.0;
    }
    // Fifty halvings bring a range of any size below a seat.
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if sum(middle) < left as f64 {
            low = middle
        } else {
            high = middle
        }
    }
    by(&|level| (at(high, level).round() as usize).max(1))
}

/// Between the smallest and what each wanted at most: the same part of the difference for each.
fn scaled(levels: &[(Shares, Seats, Wanted)], left: usize) -> Vec<usize> {
    let limited = || levels.iter().filter(|level| !level.0.exempt);
    let min: usize = limited().map(|(_, seats, _)| seats.min).sum();
    let all: usize = limited().map(least).sum();
    let part = (left - min) as f64 / (all - min).max(1) as f64;
    let give = |level: &(Shares, Seats, Wanted)| {
        let more = (least(level) - level.1.min) as f64 * part;
        (level.1.min + more.round() as usize).max(1)
    };
    let each = levels
        .iter()
        .map(|level| if level.0.exempt { least(level) } else { give(level) });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(nominal: u32, lendable_percent: u32) -> Shares {
        Shares {
            nominal,
            lendable_percent,
            borrowing_percent: None,
            exempt: false,
        }
    }

    fn exempt() -> Shares {
        Shares {
            exempt: true,
            ..limited(0, 0)
        }
    }

    #[test]
    fn seats_follow_shares() {
        // Upstream's defaults: 600 seats among 245 shares.
        let shares = [(30, 33), (40, 25), (10, 0), (40, 50), (100, 90), (20, 50), (5, 0)];
        let shares: Vec<Shares> = shares
            .into_iter()
            .map(|(nominal, lendable)| limited(nominal, lendable))
            .collect();
        let seats = divide(600, &shares);
        let nominal: Vec<usize> = seats.iter().map(|seats| seats.nominal).collect();
        assert_eq!(nominal, [74, 98, 25, 98, 245, 49, 13]);
        let min: Vec<usize> = seats.iter().map(|seats| seats.min).collect();
        assert_eq!(min, [50, 73, 25, 49, 24, 24, 13]);
        let bounded = Shares {
            borrowing_percent: Some(50),
            ..limited(1, 0)
        };
        assert_eq!(divide(10, &[bounded])[0].max, 15);
    }

    #[test]
    fn what_is_not_wanted_is_lent() {
        let shares = [limited(50, 50), limited(50, 50), exempt()];
        let seats = divide(100, &shares);
        let wanted = |most: f64, smoothed: f64| Wanted {
            most,
            smoothed,
            ..Wanted::default()
        };
        let adjusted = |wants: [Wanted; 3]| {
            let levels: Vec<_> = (0..3).map(|at| (shares[at], seats[at], wants[at])).collect();
            adjust(&levels)
        };
        let nothing = wanted(0.0, 0.0);
        // Nobody wants anything: an even division.
        assert_eq!(adjusted([nothing; 3]), [50, 50, 0]);
        // One wants much, the other keeps what it does not lend.
        assert_eq!(adjusted([wanted(500.0, 500.0), nothing, nothing]), [75, 25, 0]);
        // Both want much: each has its own.
        assert_eq!(
            adjusted([wanted(500.0, 500.0); 3].map(|_| wanted(500.0, 500.0)))[..2],
            [25, 25]
        );
        let both = [wanted(500.0, 500.0), wanted(500.0, 500.0), nothing];
        assert_eq!(adjusted(both), [50, 50, 0]);
        // What is exempt takes from the others, down to what they never lend.
        assert_eq!(
            adjusted([wanted(50.0, 50.0), wanted(50.0, 50.0), wanted(30.0, 30.0)]),
            [35, 35, 30]
        );
    }
}
