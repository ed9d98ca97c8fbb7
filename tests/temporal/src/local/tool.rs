//! Commands that are run to their end.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// Runs the command and returns what it wrote to standard output, or why it failed. It is killed
/// when it takes longer than `bound` or the caller is cancelled.
pub(crate) async fn run<A: AsRef<OsStr>>(
    program: &Path,
    args: impl IntoIterator<Item = A>,
    bound: Duration,
) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        // A developer who forbids pip outside of virtual environments means installs, not this.
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match timeout(bound, output).await {
        Err(_) => return Err(format!("not done within {bound:?}")),
        Ok(Err(error)) => return Err(error.to_string()),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}\n{}", output.status, last_lines(&stderr)).trim_end().to_owned())
}

/// The executable files of that name in the folders of `path`, in order.
pub(crate) fn on_path(name: &str, path: Option<&OsStr>) -> Vec<PathBuf> {
    let folders = path.map(|path| std::env::split_paths(path).collect::<Vec<_>>());
    let candidates = folders.unwrap_or_default().into_iter().map(|folder| folder.join(name));
    candidates.filter(|file| is_executable(file)).collect()
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
