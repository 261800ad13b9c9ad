//! A command: arguments and no shell, nothing of the agent's environment, an end in time.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{HookOutcome, OUTPUT_LIMIT, Occasion, printable, timed_out};

/// Runs it. When its time is up, it and everything it started is killed, unless that left its process group.
pub(super) async fn run(argv: &[String], occasion: &Occasion, limit: Duration) -> HookOutcome {
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .env_clear()
        .env("PATH", PATH)
        .envs(variables(occasion))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return HookOutcome::NotStarted { why: format!("cannot run {}: {error}", argv[0]) },
    };
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let output = Output::of(child.stdout.take(), child.stderr.take());
    let ended = timeout(limit, child.wait()).await;
    if ended.is_err() {
        // Its leader has not been waited for yet, so that the number still means this group.
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait().await;
    }
    let output = output.finish().await;
    match ended {
        Err(_) => timed_out(limit, output),
        Ok(Ok(status)) if status.success() => HookOutcome::Done { output },
        Ok(Ok(status)) => HookOutcome::Failed { how: status.to_string(), output },
        Ok(Err(error)) => HookOutcome::Failed { how: format!("cannot be waited for: {error}"), output },
    }
}

fn variables(occasion: &Occasion) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("CHANCERY_REASON", occasion.reason.as_str().to_owned()),
        ("CHANCERY_SINK", occasion.sink.clone()),
        ("CHANCERY_DIRECTORY", occasion.directory.display().to_string()),
    ];
    if let Some(certificate) = &occasion.certificate {
        variables.extend([
            ("CHANCERY_SPIFFE_ID", certificate.spiffe_id.to_string()),
            ("CHANCERY_SERIAL", certificate.serial.to_string()),
            ("CHANCERY_NOT_AFTER", certificate.not_after.to_string()),
        ]);
    }
    variables
}

/// What a program prints, read to its end so that it never waits for a reader; the beginning is kept.
struct Output {
    kept: watch::Receiver<Vec<u8>>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

impl Output {
    fn of(
        stdout: Option<impl AsyncRead + Unpin + Send + 'static>,
        stderr: Option<impl AsyncRead + Unpin + Send + 'static>,
    ) -> Self {
        let (keep, kept) = watch::channel(Vec::new());
        let stdout = tokio::spawn(read(stdout, keep.clone()));
        let stderr = tokio::spawn(read(stderr, keep));
        Self { kept, readers: vec![stdout, stderr] }
    }

    /// What has been printed. A process that the hook left behind may hold the pipes open for ever.
    async fn finish(mut self) -> String {
        for reader in &mut self.readers {
            if timeout(LINGER, &mut *reader).await.is_err() {
                reader.abort();
            }
        }
        let kept = self.kept.borrow();
        printable(&kept)
    }
}

async fn read(source: Option<impl AsyncRead + Unpin>, keep: watch::Sender<Vec<u8>>) {
    let Some(mut source) = source else { return };
    let mut buffer = [0_u8; 4096];
    while let Ok(length @ 1..) = source.read(&mut buffer).await {
        keep.send_modify(|kept| {
            let room = OUTPUT_LIMIT - kept.len();
            kept.extend_from_slice(&buffer[..length.min(room)]);
        });
    }
}

/// The only variable that a hook has besides ours.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long the pipes of a hook that has ended are read: what it wrote is in them already.
const LINGER: Duration = Duration::from_millis(200);
