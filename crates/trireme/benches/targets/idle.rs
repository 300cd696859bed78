//! What a cluster uses while nothing is asked of it.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::figure;
use crate::usage::{Memory, cpu_seconds, cpu_seconds_of_threads, kernel_bytes_of_groups};

/// What the first seconds do (renewals, first garbage collections) is not idle.
const SETTLE: Duration = Duration::from_secs(5);
const SPAN: Duration = Duration::from_secs(60);

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let cluster = Cluster::with_node().await?;
    tokio::time::sleep(SETTLE).await;
    let processes = cluster.processes()?;
    // One counts in hundredths of a second, the other forgets threads that end: the larger one is nearer to the truth.
    let used = || (cpu_seconds(&processes), cpu_seconds_of_threads(&processes));
    let before = used();
    tokio::time::sleep(SPAN).await;
    let after = used();
    let cpu = (after.0 - before.0).max(after.1 - before.1) / SPAN.as_secs_f64();
    let processes = cluster.processes()?;
    let memory = Memory::of(&processes);
    // Where control groups tell what the kernel holds that is exact; else page tables and stacks are.
    let (kernel, how) = match kernel_bytes_of_groups(&processes) {
        Some(bytes) => (
            bytes,
            "kernel (all of the control group's: slab, sockets, page tables, stacks)",
        ),
        None => (memory.kernel, "kernel (page tables and stacks)"),
    };
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let conditions = format!(
        "control plane and one node, no pods, {} processes, a minute after Ready: {:.1} MB anonymous + {:.1} MB {how}",
        processes.len(),
        megabytes(memory.anonymous),
        megabytes(kernel)
    );
    figure("idle.memory", megabytes(memory.anonymous + kernel), &conditions);
    figure(
        "idle.cpu",
        cpu * 100.0,
        "the same cluster, over that minute, all processes together",
    );
    Ok(())
}
