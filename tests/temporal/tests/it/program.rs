//! The program `temporal-server`.

use std::{
    io::{BufRead, BufReader, Lines},
    os::unix::process::CommandExt,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use durable_spans_test_server::TemporalServer;

use crate::{listens, until};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_temporal-server"));
    command.env_remove("TEMPORAL_ADDRESS");
    command
}

struct Running {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        // A process group of its own, as a terminal gives it.
        let mut process = command.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn value(&mut self, name: &str) -> String {
        let line = self.lines.next().unwrap().unwrap();
        line.strip_prefix(name).unwrap_or_else(|| panic!("{name}: {line}")).to_owned()
    }

    /// Sends a signal to the whole process group, as a terminal does.
    fn signal(&self, name: &str) {
        let group = format!("-{}", self.process.id());
        let args = ["-c", "kill -s \"$1\" -- \"$2\"", "sh", name, &group];
        assert!(Command::new("sh").args(args).status().unwrap().success());
    }
}

fn failure(command: &mut Command) -> String {
    let Output { status, stderr, stdout } = command.output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, b"");
    String::from_utf8(stderr).unwrap()
}

#[test]
fn ctrl_c_ends_the_program_and_its_server_in_order() {
    let mut running = Running::start(&mut program());
    let (address, ui) = (running.value("TEMPORAL_ADDRESS="), running.value("web UI: "));
    assert!(listens(&address) && listens(&ui));
    running.signal("INT");
    assert_eq!(running.process.wait().unwrap().code(), Some(0));
    assert!(!listens(&address) && !listens(&ui));
}

#[test]
fn a_killed_program_leaves_no_server() {
    for signal in ["KILL", "TERM", "HUP"] {
        let mut running = Running::start(&mut program());
        let address = running.value("TEMPORAL_ADDRESS=");
        assert!(listens(&address));
        running.signal(signal);
        assert_eq!(running.process.wait().unwrap().code(), None, "ended by {signal}");
        until(&format!("the port is closed after {signal}"), || !listens(&address));
    }
}

#[tokio::test]
async fn a_running_server_is_used_and_left_alone() {
    let server = TemporalServer::options().own().start().await.unwrap();
    let host_and_port = server.address().trim_start_matches("http://");
    let mut running = Running::start(program().env("TEMPORAL_ADDRESS", host_and_port));
    assert_eq!(running.value("TEMPORAL_ADDRESS="), server.address());
    running.signal("INT");
    assert_eq!(running.process.wait().unwrap().code(), Some(0));
    assert!(listens(server.address()));
}

#[tokio::test]
async fn what_a_running_server_cannot_be_given_starts_another() {
    let server = TemporalServer::options().own().start().await.unwrap();
    let mut command = program();
    command.env("TEMPORAL_ADDRESS", server.address()).args(["--namespace", "more"]);
    let mut running = Running::start(&mut command);
    assert_ne!(running.value("TEMPORAL_ADDRESS="), server.address());
    running.signal("INT");
    running.process.wait().unwrap();
}

#[test]
fn an_unusable_environment_is_an_error_that_says_so() {
    let message = failure(program().env("TEMPORAL_ADDRESS", "https://localhost:1"));
    assert!(message.starts_with("error: TEMPORAL_ADDRESS must be host:port"), "{message}");
    let message = failure(program().env("TEMPORAL_CLI", "/missing/temporal"));
    assert!(message.starts_with("error: TEMPORAL_CLI names /missing/temporal"), "{message}");
    let message = failure(program().arg("--no-such-flag"));
    assert!(message.contains("unknown flag: --no-such-flag"), "{message}");
}
