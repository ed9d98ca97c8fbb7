//! The doctor, against a real Temporal server that has no workers.

use std::process::Command;

use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_queue_without_workers_is_a_problem_and_the_command_says_so() {
    let server = durable_spans_test_server::shared().await;
    let output = Command::new(env!("CARGO_BIN_EXE_durable-spans"))
        .args(["doctor", "--task-queue", "nobody-is-here", "--json"])
        .args(["--temporal-address", server.address()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of_queue: Vec<&Value> =
        findings.iter().filter(|finding| finding["subject"] == "nobody-is-here").collect();
    assert_eq!(of_queue[0]["verdict"], "problem");
    assert!(of_queue[0]["text"].as_str().unwrap().contains("no worker serves the task queue"));
    assert_eq!(of_queue[1]["verdict"], "good");
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 problem was found"));
}
