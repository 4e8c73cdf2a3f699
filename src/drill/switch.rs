//! The dead man's switch: a separate process that restores the path to the API server when the
//! drill has ended or its time is over, however the drill ended.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::files::lock;
use crate::names::DRILL_LOCK;
use crate::node::clock;
use crate::places::drill::{Place, Record};
use crate::places::manifests::ManifestDir;
use crate::places::run::RunDir;

/// Pause between checks of the clock and of the drill.
const PAUSE: Duration = Duration::from_millis(200);
/// What it prints when it is ready.
const READY: &str = "ready\n";

/// Starts the switch for the recorded drill, and waits until it is ready.
pub fn arm(run_dir: &Path) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(program)
        .arg0("pod-checkpointer")
        .arg("drill-switch")
        .arg(run_dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the dead man's switch")?;
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        // it closes its end of the pipe once it is ready, and when it ends
        out.read_to_string(&mut said)
            .context("cannot read from the dead man's switch")?;
    }
    if said != READY {
        bail!("the dead man's switch did not start: nothing was cut");
    }
    Ok(child)
}

/// Undoes what the drill that is recorded in this run directory (a real path) changed, when its
/// time is over or its process has ended.
pub async fn run(run_dir: &Path) -> anyhow::Result<()> {
    let place = Place::new(ManifestDir::new("/", RunDir::new(run_dir, run_dir)));
    let record = place.recorded()?.context("no drill is recorded")?;
    // neither the end of the terminal nor a signal to the drill's process group must end it, and
    // when memory runs out the kernel should kill other processes first
    let _ = rustix::process::setsid();
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let _deaf = [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::pipe(),
    ]
    .map(signal)
    .into_iter()
    .collect::<Result<Vec<_>, _>>()?;
    let mut out = std::io::stdout().lock();
    out.write_all(READY.as_bytes()).and_then(|()| out.flush())?;
    drop(out);
    close_output()?;
    watch(&place, &record).await;
    Ok(())
}

/// The drill waits for the end of this process's output.
fn close_output() -> std::io::Result<()> {
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null)?;
    Ok(())
}

/// Restores everything when the drill's time is over, or when its lock is no longer held, and then
/// ends.
async fn watch(place: &Place, record: &Record) {
    let lock = place.run.path().join(DRILL_LOCK);
    loop {
        let is_over = clock::boot_time() >= Duration::from_millis(record.until);
        // unknown is not "gone", and the time ends anyway
        let is_gone = lock::is_locked(&lock).is_ok_and(|held| !held);
        if (is_over || is_gone) && place.restore(record).is_ok() {
            return;
        }
        sleep(PAUSE).await;
    }
}
