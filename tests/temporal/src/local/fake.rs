//! Commands for tests.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

/// Makes an executable shell script.
pub(crate) fn executable(path: &Path, script: &str) {
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&source, Permissions::from_mode(0o755)).unwrap();
    // Written by another process: a file that this one has open for writing may be inherited by a
    // command that another test starts just now, and such a file cannot be executed.
    assert!(Command::new("cp").arg(source.path()).arg(path).status().unwrap().success());
}

/// Makes a command that passes for `temporal`.
pub(crate) fn temporal(path: &Path) {
    executable(path, "echo temporal version 0");
}
