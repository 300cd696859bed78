//! Waiting for what the kernel tells: files that change, processes that end, locks that are let go.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

/// Longest wait for anything; reaching it is a failure, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds, which depends on files of `directory` only.
pub async fn files(directory: &Path, condition: impl Fn() -> bool) {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
    let news = inotify::WatchFlags::CREATE | inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, directory, news).unwrap();
    let watch = Arc::new(watch);
    while !condition() {
        readable(&watch).await;
        let mut news = [0; 4096];
        while rustix::io::read(&watch, &mut news).is_ok() {}
    }
}

/// Waits until there is something to read, on a thread for what blocks.
async fn readable(descriptor: &Arc<OwnedFd>) {
    let descriptor = Arc::clone(descriptor);
    let limit = rustix::time::Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let wait = move || poll(&mut [PollFd::new(&*descriptor, PollFlags::IN)], Some(&limit));
    let ready = tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
    assert!(ready > 0, "nothing happens");
}

/// Waits until a process has ended.
pub async fn end_of(pid: i32) {
    let number = rustix::process::Pid::from_raw(pid).unwrap();
    let Ok(process) = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    readable(&Arc::new(process)).await;
}

/// Waits until nobody holds a file's lock.
pub async fn lock_of(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: tokio would wait for it after a test that failed.
    std::thread::spawn(move || {
        let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive);
        drop(file);
        let _ = tell.send(locked);
    });
    let locked = tokio::time::timeout(PATIENCE, told).await;
    locked.expect("the lock is let go").unwrap().unwrap();
}
