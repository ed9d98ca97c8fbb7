use std::{env, ffi::OsString, path::PathBuf};

/// What decides where a server comes from. Tests make their own: changing the variables of a
/// running process is unsafe.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(unix), expect(dead_code, reason = "only the address is used where none is started"))]
pub(crate) struct Environment {
    /// `TEMPORAL_ADDRESS`.
    pub(crate) address: Option<OsString>,
    /// `TEMPORAL_CLI`.
    pub(crate) cli: Option<OsString>,
    /// `PATH`.
    pub(crate) path: Option<OsString>,
    /// `CARGO_TARGET_DIR`.
    pub(crate) cargo_target_dir: Option<OsString>,
    /// The running program.
    pub(crate) executable: Option<PathBuf>,
}

impl Environment {
    pub(crate) fn of_this_process() -> Self {
        Self {
            address: variable("TEMPORAL_ADDRESS"),
            cli: variable("TEMPORAL_CLI"),
            path: variable("PATH"),
            cargo_target_dir: variable("CARGO_TARGET_DIR"),
            executable: env::current_exe().ok(),
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
