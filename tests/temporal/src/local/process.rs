use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    os::unix::{fs::FileExt, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tokio::time::sleep;

const WATCHDOG: &str = include_str!("watchdog.sh");

/// How much of the end of each output is shown, in bytes.
const SHOWN_BYTES: u64 = 8 * 1024;

/// How much of the end of each output is searched, in bytes. A server that cannot have its port may
/// say so above a long stack trace.
const SEARCHED_BYTES: u64 = 1024 * 1024;

/// A server under its watchdog. Dropping it stops the server without waiting.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    /// The watchdog, which ends after the server. `None` once it is being stopped.
    watchdog: Option<Child>,
    /// Where the server says where it listens.
    stdout: Output,
    /// Where the server logs, and the watchdog says how it ended.
    stderr: Output,
}

impl ServerProcess {
    pub(crate) fn spawn<A: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> io::Result<Self> {
        let (stdout, stderr) = (Output::new()?, Output::new()?);
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(stdout.0.try_clone()?)
            .stderr(stderr.0.try_clone()?)
            .process_group(0)
            .spawn()?;
        Ok(Self { watchdog: Some(watchdog), stdout, stderr })
    }

    /// Whether the server is gone.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.watchdog.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Returns when the server is gone.
    pub(crate) async fn ended(&mut self) {
        // Polled, because tokio's own children are bound to a runtime and a server is not.
        while !self.has_ended() {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last of what the server wrote.
    pub(crate) fn log(&self) -> String {
        self.stdout.tail(SHOWN_BYTES) + &self.stderr.tail(SHOWN_BYTES)
    }

    /// Whether the server has said that it listens at this port: in a line of standard output such
    /// as `Server: localhost:7233`.
    pub(crate) fn announced(&self, port: u16) -> bool {
        let name = format!(":{port}");
        self.stdout.tail(SEARCHED_BYTES).lines().any(|line| line.trim_end().ends_with(&name))
    }

    /// Whether the server has complained of this. Its web UI does so on standard output.
    pub(crate) fn complained(&self, of: &str) -> bool {
        [&self.stdout, &self.stderr].iter().any(|output| output.tail(SEARCHED_BYTES).contains(of))
    }

    /// Ends the server and waits for it, at most about ten seconds.
    pub(crate) async fn stop(mut self) {
        if let Some(watchdog) = self.watchdog.take() {
            reaped(watchdog).await;
        }
    }

    /// Kills the server and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            if let Some(pipe) = &mut watchdog.stdin {
                // Fails only when the watchdog is gone already, which is what is wanted.
                let _ = pipe.write_all(b"\n");
            }
            reaped(watchdog).await;
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            // Without a thread the watchdog stays a zombie until this process ends: no harm.
            let _ = thread::Builder::new().spawn(move || watchdog.wait());
        }
    }
}

/// A file for what a process writes. It has no name, so nothing is left behind, and it never blocks
/// its writer as a full pipe would.
#[derive(Debug)]
struct Output(File);

impl Output {
    fn new() -> io::Result<Self> {
        tempfile::tempfile().map(Self)
    }

    /// At most this many bytes from its end.
    fn tail(&self, max_bytes: u64) -> String {
        let read = || {
            let length = self.0.metadata()?.len();
            let start = length.saturating_sub(max_bytes);
            let mut bytes = vec![0; (length - start) as usize];
            // At a position, because the writers share that of the file.
            self.0.read_exact_at(&mut bytes, start)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("(not readable: {error})\n"))
    }
}

/// Closes the pipe and waits for the watchdog on a thread, so that it also happens when the caller
/// is cancelled.
async fn reaped(mut watchdog: Child) {
    let _ = tokio::task::spawn_blocking(move || watchdog.wait()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::Backoff;

    /// A server that is a shell script.
    fn spawn(script: &str) -> ServerProcess {
        ServerProcess::spawn(Path::new("/bin/sh"), ["-c", script]).unwrap()
    }

    async fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let mut backoff = Backoff::until(Duration::from_secs(20));
        while !condition() {
            assert!(backoff.wait().await, "never happened: {what}");
        }
    }

    /// The process id that the script prints as its only line.
    async fn printed_pid(process: &ServerProcess) -> String {
        until("a line of output", || process.log().ends_with('\n')).await;
        process.log().trim().to_owned()
    }

    fn runs(pid: &str) -> bool {
        let script = "kill -0 \"$1\" 2>/dev/null";
        Command::new("sh").args(["-c", script, "sh", pid]).status().unwrap().success()
    }

    #[tokio::test]
    async fn a_stopped_server_ends_in_order_and_a_killed_one_does_not() {
        let script =
            "trap 'echo in order > \"$0\"; exit' TERM; echo up; while :; do sleep 0.05; done";
        for (kill, in_order) in [(false, true), (true, false)] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("file");
            let args = ["-c".as_ref(), script.as_ref(), file.as_os_str()];
            let process = ServerProcess::spawn(Path::new("/bin/sh"), args).unwrap();
            until("the trap is set", || process.log() == "up\n").await;
            if kill {
                process.kill().await
            } else {
                process.stop().await
            }
            assert_eq!(file.exists(), in_order);
        }
    }

    #[tokio::test]
    async fn a_server_that_ignores_the_request_to_stop_is_killed() {
        let process = spawn("trap '' TERM; echo $$; while :; do sleep 0.1; done");
        let pid = printed_pid(&process).await;
        process.stop().await;
        assert!(!runs(&pid));
    }

    #[tokio::test]
    async fn what_a_wrapper_around_the_server_started_ends_with_it() {
        let process = spawn("sleep 1000 & echo $!; wait");
        let pid = printed_pid(&process).await;
        assert!(runs(&pid));
        process.stop().await;
        until("the inner process is gone", || !runs(&pid)).await;
    }

    #[tokio::test]
    async fn a_dropped_server_ends() {
        let process = spawn("echo $$; exec sleep 1000");
        let pid = printed_pid(&process).await;
        drop(process);
        until("the process is gone", || !runs(&pid)).await;
    }

    #[tokio::test]
    async fn a_server_that_is_killed_by_somebody_else_is_noticed() {
        let mut process = spawn("echo $$; exec sleep 1000");
        let pid = printed_pid(&process).await;
        Command::new("sh").args(["-c", "kill -s KILL $1", "sh", &pid]).status().unwrap();
        process.ended().await;
        assert!(process.log().contains("the server ended with status 137\n"), "{}", process.log());
    }

    #[tokio::test]
    async fn a_server_that_writes_more_than_a_pipe_holds_goes_on_and_its_last_lines_are_kept() {
        let mut process = spawn("head -c 1000000 /dev/zero | tr '\\0' x; echo; exit 7");
        process.ended().await;
        let expected = "x".repeat(SHOWN_BYTES as usize - 1) + "\nthe server ended with status 7\n";
        assert_eq!(process.log(), expected);
    }

    #[tokio::test]
    async fn a_port_is_announced_as_a_whole_number_on_standard_output() {
        for (script, announced) in [
            ("echo 'Temporal Server:      localhost:4233'", true),
            ("echo 'UI: bind: address already in use'", false),
            ("echo 'Temporal Metrics:     http://localhost:42331/metrics'", false),
            ("echo 'bind: address already in use address=127.0.0.1:4233' >&2", false),
        ] {
            let mut process = spawn(script);
            process.ended().await;
            assert_eq!(process.announced(4233), announced, "{script}");
            assert_eq!(process.complained("already in use"), script.contains("in use"));
        }
    }
}
