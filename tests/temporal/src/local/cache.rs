//! Where downloads are kept, and who may write there.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{environment::Environment, ready::Backoff};

/// Longer than a download may take.
const LOCKED_WITHIN: Duration = Duration::from_secs(15 * 60);

/// Makes the folder `name` for downloads: in cargo's target folder, or in the folder for temporary
/// files when that is not to be found.
pub(crate) fn folder(name: &str, environment: &Environment) -> io::Result<PathBuf> {
    if let Some(target) = target_folder(environment) {
        let folder = target.join(name);
        fs::create_dir_all(&folder)?;
        return Ok(folder);
    }
    let folder = std::env::temp_dir().join(format!("durable-spans-{name}"));
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    // Anybody may make a folder of this name first, and we run what is in it.
    if fs::symlink_metadata(&folder)?.uid() != tempfile::tempfile()?.metadata()?.uid() {
        let message = format!("{} belongs to somebody else", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(folder)
}

fn target_folder(environment: &Environment) -> Option<PathBuf> {
    // A relative one was relative to where cargo was called, which need not be the current folder.
    let named = environment.cargo_target_dir.as_ref().map(PathBuf::from);
    named.filter(|path| path.is_absolute()).or_else(|| {
        let mut folders = environment.executable.as_deref()?.ancestors().skip(1);
        // Cargo marks its target folder with this file, so that backups leave it out.
        folders.find(|folder| folder.join("CACHEDIR.TAG").is_file()).map(Path::to_path_buf)
    })
}

/// Waits until no other process or task holds the lock of that folder. It is released with the
/// returned file, or with the process.
pub(crate) async fn lock(folder: &Path) -> io::Result<File> {
    let file =
        File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    let mut backoff = Backoff::until(LOCKED_WITHIN);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if backoff.wait().await => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_folder_is_found_from_a_test_and_from_an_example() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("CACHEDIR.TAG"), "").unwrap();
        for program in ["debug/deps/test-1", "debug/examples/one", "any-target/release/bin"] {
            let executable = Some(root.path().join(program));
            let environment = Environment { executable, ..Environment::default() };
            assert_eq!(target_folder(&environment).as_deref(), Some(root.path()), "{program}");
        }
    }

    #[test]
    fn an_absolute_target_folder_of_the_user_comes_first() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("CACHEDIR.TAG"), "").unwrap();
        let mut environment = Environment {
            cargo_target_dir: Some("/elsewhere".into()),
            executable: Some(root.path().join("debug/deps/test-1")),
            ..Environment::default()
        };
        assert_eq!(target_folder(&environment).as_deref(), Some(Path::new("/elsewhere")));
        environment.cargo_target_dir = Some("elsewhere".into());
        assert_eq!(target_folder(&environment).as_deref(), Some(root.path()));
    }

    #[test]
    fn without_a_target_folder_downloads_go_to_a_private_folder() {
        let name = format!("test-{}", std::process::id());
        let folder = folder(&name, &Environment::default()).unwrap();
        assert!(folder.starts_with(std::env::temp_dir()));
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        fs::remove_dir(&folder).unwrap();
    }
}
