//! `trireme down`: ends every process, keeps the data.

use crate::errors::Result;
use crate::layout::Layout;
use crate::process::Process;
use crate::progress::Progress;

/// Ends what runs.
pub async fn run(layout: &Layout, quiet: bool) -> Result {
    let mut progress = Progress::start(quiet);
    let file = layout.process("server");
    match Process::read(&file) {
        Some(process) => {
            process.end().await?;
            progress.done("control plane ended");
        }
        None if !quiet => eprintln!("  the control plane is not running"),
        None => {}
    }
    // A daemon that was killed left its file behind.
    let _ = std::fs::remove_file(&file);
    Ok(())
}
