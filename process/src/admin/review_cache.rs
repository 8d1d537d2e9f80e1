//! Answers of the API server about tokens and accesses, kept for a limited time, and a limit of questions.
//!
//! Pure: the clock is an argument.

use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheLimits {
    /// Answers of each of the two kinds, positive and negative.
    pub(crate) capacity: usize,
    /// Lifetime of a positive answer: an access that is withdrawn lasts this long.
    pub(crate) positive: Duration,
    /// Lifetime of a negative answer.
    pub(crate) negative: Duration,
}

impl Default for CacheLimits {
    /// As the API servers of the field: minutes for an allowed access, seconds for a rejected one.
    fn default() -> Self {
        Self {
            capacity: 256,
            positive: Duration::from_mins(2),
            negative: Duration::from_secs(10),
        }
    }
}

/// A known answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<V> {
    /// The token is valid, or the access allowed.
    Positive(V),
    /// It is not.
    Negative,
}

/// Answers by key. Positive and negative ones do not take each other's place: a flood of wrong tokens evicts no valid one.
#[derive(Debug)]
pub(crate) struct ReviewCache<K, V> {
    limits: CacheLimits,
    positive: Expiring<K, V>,
    negative: Expiring<K, ()>,
}

impl<K: Eq + Hash + Clone, V: Clone> ReviewCache<K, V> {
    /// Empty.
    pub(crate) fn new(limits: CacheLimits) -> Self {
        Self {
            limits,
            positive: Expiring::default(),
            negative: Expiring::default(),
        }
    }

    /// Returns the answer, if it is known.
    pub(crate) fn get(&self, key: &K, at: Instant) -> Option<Answer<V>> {
        let positive = self.positive.get(key, at).map(Answer::Positive);
        positive.or_else(|| self.negative.get(key, at).map(|()| Answer::Negative))
    }

    /// Returns true when the last answer was positive and has expired: a question about it is a renewal.
    pub(crate) fn was_positive(&self, key: &K) -> bool {
        self.positive.0.contains_key(key)
    }

    /// Keeps an answer. The one that expires first makes room.
    pub(crate) fn insert(&mut self, key: K, answer: Answer<V>, at: Instant) {
        let CacheLimits {
            capacity,
            positive,
            negative,
        } = self.limits;
        if let Answer::Positive(value) = answer {
            self.negative.remove(&key);
            self.positive.insert(key, value, at, positive, capacity);
        } else {
            self.positive.remove(&key);
            self.negative.insert(key, (), at, negative, capacity);
        }
    }
}

#[derive(Debug)]
struct Expiring<K, V>(HashMap<K, (Instant, V)>);

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Expiring<K, V> {
    fn get(&self, key: &K, at: Instant) -> Option<V> {
        let (expires, value) = self.0.get(key)?;
        (*expires > at).then(|| value.clone())
    }

    fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    fn insert(&mut self, key: K, value: V, at: Instant, lifetime: Duration, capacity: usize) {
        if self.0.len() >= capacity && !self.0.contains_key(&key) {
            self.0.retain(|_, (expires, _)| *expires > at);
            self.drop_first(capacity);
        }
        self.0.insert(key, (at + lifetime, value));
    }

    fn drop_first(&mut self, capacity: usize) {
        if self.0.len() < capacity {
            return;
        }
        let first = self.0.iter().min_by_key(|(_, (expires, _))| *expires);
        if let Some(key) = first.map(|(key, _)| key.clone()) {
            self.0.remove(&key);
        }
    }
}

/// Hash of a token: a dump of the memory shows no credentials of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; 32]);

impl TokenHash {
    pub(crate) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

/// Limits questions to the API server, so that a flood of wrong tokens does not become a flood there (GCRA).
#[derive(Debug, Default)]
pub(crate) struct ReviewRate(Option<Instant>);

impl ReviewRate {
    /// Time between two questions, on average.
    pub(crate) const PAUSE: Duration = Duration::from_millis(200);
    /// Questions that may follow each other without a pause.
    pub(crate) const BURST: u32 = 20;

    /// Counts a question; returns false where it exceeds the limit.
    pub(crate) fn take(&mut self, at: Instant) -> bool {
        let paid_until = self.0.unwrap_or(at).max(at);
        let is_allowed = paid_until <= at + Self::PAUSE * (Self::BURST - 1);
        if is_allowed {
            self.0 = Some(paid_until + Self::PAUSE);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Answer::{Negative, Positive};

    const LIMITS: CacheLimits = CacheLimits {
        capacity: 4,
        positive: Duration::from_secs(100),
        negative: Duration::from_secs(10),
    };

    fn second(at: u64) -> Duration {
        Duration::from_secs(at)
    }

    #[test]
    fn an_answer_is_known_until_it_expires() {
        let (mut cache, now) = (ReviewCache::new(LIMITS), Instant::now());
        assert_eq!(cache.get(&"a", now), None);
        cache.insert("a", Positive(1), now);
        cache.insert("b", Negative, now);
        assert_eq!(cache.get(&"a", now + second(99)), Some(Positive(1)));
        assert_eq!(cache.get(&"a", now + second(100)), None);
        assert_eq!(cache.get(&"b", now + second(9)), Some(Negative));
        assert_eq!(cache.get(&"b", now + second(10)), None);
    }

    #[test]
    fn a_later_answer_replaces_the_earlier_one() {
        let (mut cache, now) = (ReviewCache::new(LIMITS), Instant::now());
        cache.insert("a", Positive(1), now);
        cache.insert("a", Negative, now);
        assert_eq!(cache.get(&"a", now), Some(Negative));
        cache.insert("a", Positive(2), now);
        assert_eq!(cache.get(&"a", now), Some(Positive(2)));
    }

    #[test]
    fn wrong_tokens_neither_grow_the_cache_nor_evict_a_valid_one() {
        let (mut cache, now) = (ReviewCache::new(LIMITS), Instant::now());
        cache.insert("valid".to_owned(), Positive(1), now);
        for n in 0..100 {
            cache.insert(n.to_string(), Negative, now + Duration::from_millis(n));
            assert!(cache.negative.0.len() <= LIMITS.capacity);
        }
        assert_eq!(cache.get(&"valid".to_owned(), now), Some(Positive(1)));
        assert_eq!(
            cache.get(&"99".to_owned(), now),
            Some(Negative),
            "the newest is kept"
        );
        assert_eq!(cache.get(&"0".to_owned(), now), None);
    }

    #[test]
    fn an_expired_positive_answer_is_renewed_until_there_is_another() {
        let (mut cache, now) = (ReviewCache::new(LIMITS), Instant::now());
        cache.insert("a", Positive(1), now);
        cache.insert("b", Negative, now);
        let later = now + second(1000);
        assert_eq!((cache.get(&"a", later), cache.get(&"b", later)), (None, None));
        assert!(cache.was_positive(&"a") && !cache.was_positive(&"b") && !cache.was_positive(&"c"));
        cache.insert("a", Negative, later);
        assert!(!cache.was_positive(&"a"));
    }

    #[test]
    fn expired_answers_make_room_first() {
        let (mut cache, now) = (ReviewCache::new(LIMITS), Instant::now());
        for n in 0..4 {
            cache.insert(n, Positive(n), now + second(n));
        }
        cache.insert(9, Positive(9), now + second(102));
        assert_eq!(cache.positive.0.len(), 2, "three of four expired");
        assert_eq!(cache.get(&3, now + second(102)), Some(Positive(3)));
    }

    #[test]
    fn a_token_is_known_by_its_hash_only() {
        assert_eq!(TokenHash::of("a"), TokenHash::of("a"));
        assert_ne!(TokenHash::of("a"), TokenHash::of("b"));
        assert!(!format!("{:?}", TokenHash::of("secret")).contains("secret"));
    }

    #[test]
    fn questions_follow_each_other_in_a_burst_and_then_one_per_pause() {
        let (mut rate, now) = (ReviewRate::default(), Instant::now());
        let burst = (0..1000).filter(|_| rate.take(now)).count();
        assert_eq!(burst, usize::try_from(ReviewRate::BURST).unwrap());
        assert!(rate.take(now + ReviewRate::PAUSE));
        assert!(!rate.take(now + ReviewRate::PAUSE));
    }
}
