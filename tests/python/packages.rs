//! Packages from PyPI for tests, and how their programs are run. Needs Python 3.10 or newer with pip.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

/// Where the packages of this process's one list of requirements are: fetched once, into cargo's target
/// folder. A folder of packages, no virtual environment, which takes a module that some systems leave
/// out of their Python.
pub(crate) fn packages(requirements: &str) -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        let version = run(Command::new("python3").arg("--version"));
        (requirements, &version.stdout).hash(&mut hasher);
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let packages = cache.join(format!("python-packages-{:016x}", hasher.finish()));
        if !packages.is_dir() {
            // Put in place as a whole, so that a download that fails leaves nothing behind.
            let unpacked = tempfile::tempdir_in(cache).unwrap();
            let list = unpacked.path().join("requirements.txt");
            fs::write(&list, requirements).unwrap();
            let target = unpacked.path().join("packages");
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--no-input", "--no-deps", "--only-binary=:all:", "--target"])
                .arg(&target)
                .arg("--requirement")
                .arg(&list);
            run(&mut pip);
            // Fails only where another process was faster.
            let renamed = fs::rename(&target, &packages);
            assert!(packages.is_dir(), "{renamed:?}");
        }
        packages
    })
}

/// Runs a program to its end, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}
