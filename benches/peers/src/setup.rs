//! The peers, as a user would get them: from PyPI, and built from the SDK.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// A virtual environment with the peers in Python.
pub(crate) struct Python {
    program: PathBuf,
}

impl Python {
    /// Makes the environment under cargo's target folder, unless it is there.
    pub(crate) async fn prepare() -> Result<Self> {
        let folder = target_folder()?.join("bench-peers-python");
        let program = folder.join("bin/python");
        let stamp = folder.join("installed.txt");
        let wanted = scripts().join("requirements.txt");
        if std::fs::read(&stamp).ok() != Some(std::fs::read(&wanted)?) {
            eprintln!("installing the peers from PyPI into {}", folder.display());
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder))
                .await
                .context("no virtual environment: install Python 3.10 or newer with its venv")?;
            let mut pip = Command::new(&program);
            pip.args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&wanted);
            run(&mut pip).await.context("pip cannot install the peers: see its message above")?;
            std::fs::copy(&wanted, &stamp)?;
        }
        Ok(Self { program })
    }

    /// A command that runs one of the scripts.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(scripts().join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// The peers' versions, for the record.
    pub(crate) fn versions() -> &'static str {
        include_str!("../python/requirements.txt")
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// The OpenTelemetry plugin of the Rust SDK, in a program of its own.
pub(crate) struct OtelPeer {
    program: PathBuf,
}

impl OtelPeer {
    /// Builds the program beside this one.
    pub(crate) async fn build() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../otel-peer/Cargo.toml");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(&manifest);
        command.arg("--target-dir").arg(target_folder()?);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        // What `cargo run` says of this package would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        eprintln!("building the SDK's OpenTelemetry plugin");
        run(&mut command).await.context("it cannot be built: see cargo's message above")?;
        let name = format!("otel-peer{}", std::env::consts::EXE_SUFFIX);
        Ok(Self { program: std::env::current_exe()?.with_file_name(name) })
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}

/// Cargo's target folder, which this program is in.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).context("this program is not in cargo's target folder")?;
    Ok(folder.to_owned())
}

async fn run(command: &mut Command) -> Result<()> {
    // What it prints is no figure of ours.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().await?;
    ensure!(status.success(), "{status}");
    Ok(())
}
