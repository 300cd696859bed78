//! Shuffle sharding: a flow is dealt a hand of queues by its hash, so that one that floods its queues hits few others.
//!
//! Source: `k8s.io/apiserver/pkg/util/shufflesharding`.

/// The largest hand; upstream's arrays end here too.
pub(super) const HAND_MAX: usize = 8;

/// Deals `hand` different cards of `deck` into the array, and returns those.
pub(super) fn deal(mut hash: u64, deck: usize, hand: usize, cards: &mut [usize; HAND_MAX]) -> &[usize] {
    let hand = hand.clamp(1, HAND_MAX).min(deck);
    for at in 0..hand {
        // The card's number among those that are left; what was dealt before it shifts it up.
        let left = (deck - at) as u64;
        let mut card = (hash % left) as usize;
        hash /= left;
        let mut dealt = [usize::MAX; HAND_MAX];
        dealt[..at].copy_from_slice(&cards[..at]);
        dealt[..at].sort_unstable();
        for before in &dealt[..at] {
            if card >= *before {
                card += 1;
            }
        }
        cards[at] = card;
    }
    &cards[..hand]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn a_hand_has_different_cards_and_all_are_dealt_as_often() {
        for (deck, hand) in [(1, 1), (8, 8), (64, 6), (128, 6), (16, 4), (3, 8)] {
            let mut often: BTreeMap<usize, usize> = BTreeMap::new();
            let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
            let deals = 4000;
            for _ in 0..deals {
                hash = hash
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let mut cards = [0; HAND_MAX];
                let dealt = deal(hash, deck, hand, &mut cards);
                assert_eq!(dealt.len(), hand.min(deck));
                let set: BTreeSet<usize> = dealt.iter().copied().collect();
                assert_eq!(set.len(), dealt.len(), "{dealt:?}");
                assert!(set.iter().all(|card| *card < deck));
                set.into_iter().for_each(|card| *often.entry(card).or_default() += 1);
            }
            let expect = deals * hand.min(deck) / deck;
            assert!(
                often.values().all(|count| count.abs_diff(expect) <= expect / 2),
                "{deck} {hand}: {often:?}"
            );
        }
    }
}
