//! The queues of one priority level: who may start now, who waits and who is refused. A state machine without clock or task.
//!
//! Fair queuing over the queues in virtual time: each queue gets the same share of the seats, whatever waits in it; a
//! request starts when its queue is the one whose oldest request would be done first. Source: `fairqueuing/queueset`
//! of `k8s.io/apiserver`. Other than upstream's, the rate of virtual time is kept up to date instead of being summed over all
//! queues for each request.
//!
//! Invariants: `seats_in_use` never passes `limit` by a request that could have waited; a request that waits is in exactly
//! one queue; the virtual time starts anew when nothing is at work.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::{Demand, Wanted};
use super::shuffle::{HAND_MAX, deal};
use crate::metrics::LevelUse;

/// How long a request is taken to last before it has ended. Source: `estimatedServiceDuration`.
const SERVICE_SECONDS: f64 = 0.003;

/// What a level does with what it has no seat for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queuing {
    /// Every request has a seat.
    Exempt,
    /// It is refused.
    Reject,
    /// It waits.
    Queue {
        /// How many queues there are.
        queues: usize,
        /// How many of them a flow may use.
        hand: usize,
        /// How many requests wait in one.
        length_max: usize,
    },
}

/// How much of the server a request takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Seats while it is served.
    pub initial_seats: usize,
    /// Seats afterwards, while its event goes to watchers.
    pub final_seats: usize,
    /// For how long these are kept.
    pub lingers: Duration,
}

impl Work {
    /// One seat while it is served.
    pub const ONE: Work = Work {
        initial_seats: 1,
        final_seats: 0,
        lingers: Duration::ZERO,
    };

    /// What it holds all the time.
    pub fn seats(&self) -> usize {
        self.initial_seats.max(self.final_seats)
    }

    fn seat_seconds(&self) -> f64 {
        self.initial_seats as f64 * SERVICE_SECONDS + self.final_seats as f64 * self.lingers.as_secs_f64()
    }
}

/// A request that has its seats.
#[derive(Debug)]
pub(super) struct Running {
    queue: Option<usize>,
    pub work: Work,
    pub started: Instant,
}

impl Running {
    /// Nothing follows it when it has ended: it was never served.
    pub fn forget_rest(&mut self) {
        self.work.lingers = Duration::ZERO;
    }
}

/// What becomes of a request that arrives.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It starts.
    Start(Running),
    /// It waits until it is called.
    Wait {
        queue: usize,
        id: u64,
        call: oneshot::Receiver<Running>,
        /// How many waited before it in its queue.
        before: usize,
    },
    /// It does not get a place. Upstream's word for why.
    Refuse(&'static str),
}

struct Waiter {
    id: u64,
    work: Work,
    arrived: f64,
    call: oneshot::Sender<Running>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    waiting_work: f64,
    executing: usize,
    /// The seats of those that it has in service.
    seats_in_use: usize,
    /// The virtual time at which its next request starts.
    next_start: f64,
}

impl Queue {
    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }

    /// A queue whose requests come slowly does not save its share up for later.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next_start = self.next_start.max(oldest.arrived);
        }
    }
}

/// What has become of the requests of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// They got their seats.
    pub dispatched: u64,
    /// They did not get a place to wait.
    pub rejected: u64,
    /// They waited for too long.
    pub timed_out: u64,
    /// Their clients went away while they waited.
    pub cancelled: u64,
}

/// A level as it is at a moment.
pub(super) struct Digest {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are served.
    pub executing: usize,
    /// Since the server began.
    pub counts: Counts,
    /// Its queues.
    pub queues: Vec<QueueDigest>,
}

/// A queue as it is at a moment.
pub(super) struct QueueDigest {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are served.
    pub executing: usize,
    /// Their seats.
    pub seats_in_use: usize,
    /// The virtual time at which its next request starts.
    pub next_start: f64,
    /// The seats that those who wait take while they are served.
    pub initial_seats: usize,
    /// The seats that they hold all the time.
    pub seats: usize,
    /// What they are together, in seats times seconds.
    pub work: f64,
}

/// The queues of a level.
pub(super) struct Queues {
    queuing: Queuing,
    limit: usize,
    queues: Vec<Queue>,
    seats_in_use: usize,
    seats_waiting: usize,
    executing: usize,
    waiting: usize,
    active: usize,
    virtual_now: f64,
    seen: Instant,
    next_id: u64,
    /// The queue that was served last.
    robin: usize,
    arrivals: usize,
    demand: Demand,
    counts: Counts,
    /// Who is told how full the level is.
    told: Option<LevelUse>,
}

impl Queues {
    pub fn new(queuing: Queuing, limit: usize, now: Instant) -> Queues {
        let mut queues = Queues {
            queuing,
            limit,
            queues: Vec::new(),
            seats_in_use: 0,
            seats_waiting: 0,
            executing: 0,
            waiting: 0,
            active: 0,
            virtual_now: 0.0,
            seen: now,
            next_id: 0,
            robin: 0,
            arrivals: 0,
            demand: Demand::new(now),
            counts: Counts::default(),
            told: None,
        };
        queues.reconfigure(queuing);
        queues
    }

    /// From now on it is told how full the level is.
    pub fn tell(&mut self, told: LevelUse) {
        self.told = Some(told);
    }

    /// Notes how full the level is from now on.
    fn note(&mut self, now: Instant) {
        let wanted = self.seats_in_use + self.seats_waiting;
        self.demand.set(wanted, now);
        let Some(told) = &self.told else { return };
        let part = |of: usize, whole: usize| of as f64 / whole.max(1) as f64;
        let places = match self.queuing {
            Queuing::Queue { queues, length_max, .. } => queues * length_max,
            Queuing::Exempt | Queuing::Reject => 1,
        };
        told.seats.set(part(self.seats_in_use, self.limit), now);
        told.executing.set(part(self.executing, self.limit), now);
        told.waiting.set(part(self.waiting, places), now);
        told.wanted.set(part(wanted, self.limit), now);
    }

    /// Other queues from now on. Those that are too many stay until they are empty; nothing new comes into them.
    pub fn reconfigure(&mut self, queuing: Queuing) {
        self.queuing = queuing;
        if let Queuing::Queue { queues, .. } = queuing
            && self.queues.len() < queues
        {
            self.queues.resize_with(queues, Queue::default);
        }
    }

    /// Another number of seats from now on.
    pub fn set_limit(&mut self, limit: usize, now: Instant) {
        self.pass(now);
        self.limit = limit;
        self.note(now);
        self.dispatch(now);
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Seats in use and requests that wait.
    #[cfg(test)]
    pub fn load(&self) -> (usize, usize) {
        (self.seats_in_use, self.waiting)
    }

    /// How it is now.
    pub fn digest(&self) -> Digest {
        let of = |queue: &Queue| QueueDigest {
            waiting: queue.waiting.len(),
            executing: queue.executing,
            seats_in_use: queue.seats_in_use,
            next_start: queue.next_start,
            initial_seats: queue.waiting.iter().map(|waiter| waiter.work.initial_seats).sum(),
            seats: queue.waiting.iter().map(|waiter| waiter.work.seats()).sum(),
            work: queue.waiting_work,
        };
        Digest {
            waiting: self.waiting,
            executing: self.executing,
            counts: self.counts,
            queues: self.queues.iter().map(of).collect(),
        }
    }

    /// A request that waited was given up because it took too long, or because its client went away.
    pub fn lost(&mut self, timed_out: bool) {
        match timed_out {
            true => self.counts.timed_out += 1,
            false => self.counts.cancelled += 1,
        }
    }

    pub fn wanted(&mut self, now: Instant) -> Wanted {
        self.demand.take(now)
    }

    /// A request arrives.
    pub fn arrive(&mut self, work: Work, hash: u64, now: Instant) -> Arrival {
        self.pass(now);
        let Queuing::Queue {
            queues,
            hand,
            length_max,
        } = self.queuing
        else {
            return match self.has_seats(work.seats()) {
                true => Arrival::Start(self.start(None, work, now)),
                false => {
                    self.counts.rejected += 1;
                    Arrival::Refuse("concurrency-limit")
                }
            };
        };
        let at = self.choose(hash, queues, hand);
        if !self.queues[at].is_active() {
            self.queues[at].next_start = self.virtual_now;
        }
        if self.waiting == 0 && self.has_seats(work.seats()) {
            return Arrival::Start(self.start(Some(at), work, now));
        }
        let before = self.queues[at].waiting.len();
        if self.seats_in_use >= self.limit && before >= length_max {
            self.counts.rejected += 1;
            return Arrival::Refuse("queue-full");
        }
        let (call, called) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        self.enqueue(
            at,
            Waiter {
                id,
                work,
                arrived: self.virtual_now,
                call,
            },
        );
        self.note(now);
        self.dispatch(now);
        Arrival::Wait {
            queue: at,
            id,
            call: called,
            before,
        }
    }

    /// A request has been served. Its seats are free when it does not linger; else [`Queues::release`] follows.
    pub fn finish(&mut self, running: &Running, now: Instant) {
        self.pass(now);
        self.executing -= 1;
        if let Some(at) = running.queue {
            let queue = &mut self.queues[at];
            queue.executing -= 1;
            queue.seats_in_use -= running.work.seats();
            self.active -= usize::from(!queue.is_active());
            // It was taken to last a certain time, and lasted another.
            let lasted = now.saturating_duration_since(running.started).as_secs_f64();
            queue.next_start += running.work.initial_seats as f64 * (lasted - SERVICE_SECONDS);
            queue.bound();
        }
        match running.work.lingers.is_zero() {
            true => self.release(running, now),
            false => self.note(now),
        }
    }

    /// The seats of a request that has been served are free.
    pub fn release(&mut self, running: &Running, now: Instant) {
        self.pass(now);
        self.seats_in_use -= running.work.seats();
        self.note(now);
        self.dispatch(now);
    }

    /// A request waits no longer. False: it has been called already.
    pub fn give_up(&mut self, at: usize, id: u64, now: Instant) -> bool {
        self.pass(now);
        let queue = &mut self.queues[at];
        let Some(place) = queue.waiting.iter().position(|waiter| waiter.id == id) else {
            return false;
        };
        let waiter = queue.waiting.remove(place).expect("invariant: the place was found");
        self.left(at, &waiter);
        self.queues[at].bound();
        self.active -= usize::from(!self.queues[at].is_active());
        self.note(now);
        // What stood behind it may fit where it did not.
        self.dispatch(now);
        true
    }

    /// Virtual time goes by: as fast as each active queue could be served.
    fn pass(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.seen).as_secs_f64();
        self.seen = now;
        if self.active == 0 {
            self.virtual_now = 0.0;
            return;
        }
        let asked = (self.seats_in_use + self.seats_waiting).min(self.limit);
        self.virtual_now += seconds * asked as f64 / self.active as f64;
    }

    fn has_seats(&self, seats: usize) -> bool {
        match self.queuing {
            Queuing::Exempt => true,
            // What is wider than everything has to be alone.
            _ if seats > self.limit => self.executing == 0,
            _ => self.seats_in_use + seats <= self.limit,
        }
    }

    /// Of the flow's queues the one with the least work in it; whoever comes next starts to look at the next card.
    fn choose(&mut self, hash: u64, queues: usize, hand: usize) -> usize {
        let mut cards = [0; HAND_MAX];
        let hand = deal(hash, queues, hand, &mut cards);
        self.arrivals = self.arrivals.wrapping_add(1);
        if self.waiting == 0 {
            return hand[self.arrivals % hand.len()];
        }
        let in_turn = (0..hand.len()).map(|at| hand[(self.arrivals + at) % hand.len()]);
        let work = |at: usize| self.queues[at].waiting_work;
        in_turn
            .min_by(|a, b| work(*a).total_cmp(&work(*b)))
            .expect("invariant: a hand has a card")
    }

    fn enqueue(&mut self, at: usize, waiter: Waiter) {
        let queue = &mut self.queues[at];
        self.active += usize::from(!queue.is_active());
        self.waiting += 1;
        self.seats_waiting += waiter.work.seats();
        queue.waiting_work += waiter.work.seat_seconds();
        queue.waiting.push_back(waiter);
        queue.bound();
    }

    /// Counts a request out that was taken from its queue.
    fn left(&mut self, at: usize, waiter: &Waiter) {
        self.waiting -= 1;
        self.seats_waiting -= waiter.work.seats();
        let queue = &mut self.queues[at];
        queue.waiting_work -= waiter.work.seat_seconds();
        if queue.waiting.is_empty() {
            // Sums of fractions do not come back to nothing by themselves.
            queue.waiting_work = 0.0;
        }
    }

    fn start(&mut self, queue: Option<usize>, work: Work, now: Instant) -> Running {
        self.executing += 1;
        self.counts.dispatched += 1;
        self.seats_in_use += work.seats();
        if let Some(at) = queue {
            let queue = &mut self.queues[at];
            self.active += usize::from(!queue.is_active());
            queue.executing += 1;
            queue.seats_in_use += work.seats();
            queue.next_start += work.seat_seconds();
        }
        self.note(now);
        Running {
            queue,
            work,
            started: now,
        }
    }

    /// Starts what can start.
    fn dispatch(&mut self, now: Instant) {
        while self.waiting > 0 {
            let Some(at) = self.next_queue() else { return };
            let oldest = self.queues[at]
                .waiting
                .front()
                .expect("invariant: its oldest request was chosen");
            // It is its turn: what is behind it does not overtake it, or wide requests would never start.
            if !self.has_seats(oldest.work.seats()) {
                return;
            }
            self.robin = at;
            let waiter = self.queues[at]
                .waiting
                .pop_front()
                .expect("invariant: it was there just now");
            self.left(at, &waiter);
            // Between queue and seat the queue is active all the time.
            self.active -= usize::from(!self.queues[at].is_active());
            let running = self.start(Some(at), waiter.work, now);
            self.queues[at].bound();
            // Whoever does not listen any more finishes it when it sees that it was called (`give_up` is false).
            let _ = waiter.call.send(running);
        }
    }

    /// The queue whose oldest request would be done first; of several the next one after the one served last.
    fn next_queue(&self) -> Option<usize> {
        let count = self.queues.len();
        let in_turn = (1..=count).map(|step| (self.robin + step) % count);
        let mut best: Option<(f64, usize)> = None;
        for at in in_turn {
            let queue = &self.queues[at];
            let Some(oldest) = queue.waiting.front() else { continue };
            let done = queue.next_start + oldest.work.seat_seconds();
            if best.is_none_or(|(least, _)| done < least) {
                best = Some((done, at));
            }
        }
        best.map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests;
