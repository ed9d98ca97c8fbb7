//! A server ends with the process that started it, however that ends. The process is this test
//! binary, run once more with a variable that says how to end.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use durable_spans_test_server::shared;

use crate::{listens, until};

const HOW: &str = "DURABLE_SPANS_TEST_ENDS_BY";

#[tokio::test]
async fn a_server_ends_with_its_process() {
    if let Ok(how) = env::var(HOW) {
        return end_by(&how).await;
    }
    for how in ["kill -9", "return", "exit", "panic", "abort"] {
        let (mut process, address) = process_with_server(how);
        assert!(listens(&address), "{how}");
        if how == "kill -9" {
            process.kill().unwrap();
        } else {
            drop(process.stdin.take());
        }
        process.wait().unwrap();
        until(&format!("the port is closed after {how}"), || !listens(&address));
    }
}

fn process_with_server(how: &str) -> (Child, String) {
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", "ending::a_server_ends_with_its_process"])
        .env(HOW, how)
        .env_remove("TEMPORAL_ADDRESS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut addresses = lines.filter_map(|line| Some(line.ok()?.strip_prefix(HOW)?.to_owned()));
    let address = addresses.next().expect("the address of the server");
    (process, address)
}

/// In the process: starts the shared server, says where it is, waits for the end of standard input,
/// and ends.
async fn end_by(how: &str) {
    let address = shared().await.address();
    // Not `println!`, which the test harness keeps for itself.
    std::io::stdout().write_all(format!("\n{HOW}{address}\n").as_bytes()).unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match how {
        "return" => {}
        "exit" => std::process::exit(0),
        "panic" => panic!("as told"),
        _ => std::process::abort(),
    }
}
