//! Seats are never overdrawn, flows share them evenly, and nobody waits who could run.

use base::Random;

use super::*;

const QUEUE: Queuing = Queuing::Queue {
    queues: 64,
    hand: 1,
    length_max: 3,
};

fn seats(initial_seats: usize) -> Work {
    Work {
        initial_seats,
        ..Work::ONE
    }
}

struct Bench {
    queues: Queues,
    now: Instant,
}

impl Bench {
    fn new(queuing: Queuing, limit: usize) -> Bench {
        let now = Instant::now();
        Bench {
            queues: Queues::new(queuing, limit, now),
            now,
        }
    }

    fn arrive(&mut self, work: Work, hash: u64) -> Arrival {
        self.queues.arrive(work, hash, self.now)
    }

    fn start(&mut self, work: Work, hash: u64) -> Running {
        match self.arrive(work, hash) {
            Arrival::Start(running) => running,
            other => panic!("{other:?}"),
        }
    }

    fn wait(&mut self, work: Work, hash: u64) -> (usize, u64, oneshot::Receiver<Running>) {
        match self.arrive(work, hash) {
            Arrival::Wait { queue, id, call, .. } => (queue, id, call),
            other => panic!("{other:?}"),
        }
    }

    fn finish(&mut self, running: &Running) {
        self.queues.finish(running, self.now);
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_no_seat_waits_or_is_refused() {
    let mut bench = Bench::new(Queuing::Reject, 1);
    let one = bench.start(Work::ONE, 0);
    assert!(matches!(
        bench.arrive(Work::ONE, 0),
        Arrival::Refuse("concurrency-limit")
    ));
    bench.finish(&one);
    bench.start(Work::ONE, 0);

    let mut bench = Bench::new(Queuing::Exempt, 0);
    for _ in 0..100 {
        bench.start(seats(9), 0);
    }

    let mut bench = Bench::new(QUEUE, 1);
    let one = bench.start(Work::ONE, 0);
    let mut waiting: Vec<_> = (0..3).map(|_| bench.wait(Work::ONE, 0)).collect();
    assert!(matches!(bench.arrive(Work::ONE, 0), Arrival::Refuse("queue-full")));
    // Another flow has a queue of its own.
    let (_, _, mut other) = bench.wait(Work::ONE, 1);
    let (queue, id, _) = waiting.remove(0);
    assert!(bench.queues.give_up(queue, id, bench.now));
    assert!(!bench.queues.give_up(queue, id, bench.now));
    bench.finish(&one);
    let (_, _, mut first) = waiting.remove(0);
    let called = [first.try_recv().is_ok(), other.try_recv().is_ok()];
    assert_eq!(called.iter().filter(|called| **called).count(), 1, "one seat, one call");
}

#[tokio::test(start_paused = true)]
async fn wide_requests_get_their_turn() {
    let mut bench = Bench::new(QUEUE, 4);
    let (a, b) = (bench.start(seats(2), 0), bench.start(seats(2), 1));
    let (_, _, mut wide) = bench.wait(seats(9), 2);
    let (_, _, mut narrow) = bench.wait(seats(1), 2);
    bench.finish(&a);
    assert!(
        wide.try_recv().is_err() && narrow.try_recv().is_err(),
        "nothing overtakes it"
    );
    bench.finish(&b);
    let wide = wide.try_recv().unwrap();
    assert!(narrow.try_recv().is_err());
    bench.finish(&wide);
    assert!(narrow.try_recv().is_ok());
}

#[tokio::test(start_paused = true)]
async fn seats_linger_after_a_write_with_watchers() {
    let mut bench = Bench::new(QUEUE, 3);
    let write = Work {
        initial_seats: 1,
        final_seats: 3,
        lingers: Duration::from_millis(5),
    };
    let running = bench.start(write, 0);
    let (_, _, mut next) = bench.wait(Work::ONE, 1);
    bench.finish(&running);
    assert!(next.try_recv().is_err());
    bench.queues.release(&running, bench.now);
    assert!(next.try_recv().is_ok());
}

/// Two flows that always want more: one sends ten times as much, both get half.
#[tokio::test(start_paused = true)]
async fn flows_share_evenly() {
    let queuing = Queuing::Queue {
        queues: 64,
        hand: 1,
        length_max: 1000,
    };
    let mut bench = Bench::new(queuing, 4);
    let mut waiting: Vec<(u64, oneshot::Receiver<Running>)> = Vec::new();
    let mut running: Vec<(u64, Running)> = Vec::new();
    for n in 0..440 {
        let flow = u64::from(n % 11 == 0);
        match bench.arrive(Work::ONE, flow) {
            Arrival::Start(one) => running.push((flow, one)),
            Arrival::Wait { call, .. } => waiting.push((flow, call)),
            Arrival::Refuse(why) => panic!("{why}"),
        }
    }
    let mut served = [0_usize; 2];
    for _ in 0..60 {
        bench.now += Duration::from_millis(10);
        let (flow, done) = running.remove(0);
        served[flow as usize] += 1;
        bench.finish(&done);
        waiting.retain_mut(|(flow, call)| match call.try_recv() {
            Ok(one) => {
                running.push((*flow, one));
                false
            }
            Err(_) => true,
        });
    }
    assert!(served[0].abs_diff(served[1]) <= 4, "{served:?}");
}

/// Whatever happens, seats are counted right and nobody waits beside free seats.
#[tokio::test(start_paused = true)]
async fn random_histories_keep_the_invariants() {
    for seed in 0..200 {
        let random = Random::seeded(seed);
        let limit = 1 + random.index(8);
        let queuing = Queuing::Queue {
            queues: 1 + random.index(8),
            hand: 1 + random.index(4),
            length_max: 1 + random.index(5),
        };
        let mut bench = Bench::new(queuing, limit);
        let (mut running, mut waiting, mut lingering) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..300 {
            bench.now += Duration::from_micros(random.range(0..5000));
            match random.index(10) {
                0..5 => {
                    let work = Work {
                        initial_seats: 1 + random.index(3),
                        final_seats: random.index(4),
                        lingers: Duration::from_millis(random.range(0..2)),
                    };
                    match bench.arrive(work, random.range(0..1000)) {
                        Arrival::Start(one) => running.push(one),
                        Arrival::Wait { queue, id, call, .. } => waiting.push((queue, id, call)),
                        Arrival::Refuse(_) => {}
                    }
                }
                5..8 if !running.is_empty() => {
                    let one = running.swap_remove(random.index(running.len()));
                    bench.finish(&one);
                    if !one.work.lingers.is_zero() {
                        lingering.push(one);
                    }
                }
                8 if !waiting.is_empty() => {
                    let (queue, id, mut call) = waiting.swap_remove(random.index(waiting.len()));
                    if !bench.queues.give_up(queue, id, bench.now) {
                        running.push(call.try_recv().unwrap());
                    }
                }
                _ => {
                    if let Some(one) = lingering.pop() {
                        bench.queues.release(&one, bench.now);
                    }
                }
            }
            waiting.retain_mut(|(_, _, call)| match call.try_recv() {
                Ok(one) => {
                    running.push(one);
                    false
                }
                Err(_) => true,
            });
            let used: usize = running
                .iter()
                .chain(&lingering)
                .map(|one: &Running| one.work.seats())
                .sum();
            assert_eq!(bench.queues.load(), (used, waiting.len()), "seed {seed}");
            assert!(
                used <= limit || running.len() == 1 || bench.queues.executing <= 1,
                "seed {seed}"
            );
            let active = bench.queues.queues.iter().filter(|queue| queue.is_active()).count();
            assert_eq!(bench.queues.active, active, "seed {seed}");
            if used == 0 {
                assert!(waiting.is_empty(), "seed {seed}: seats are free and somebody waits");
            }
        }
    }
}
