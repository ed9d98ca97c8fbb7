//! What each half may depend on.

use std::process::Command;

fn dependencies_of(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{lib}", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("crate names are UTF-8");
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_workflow_half_has_no_network() {
    let crates = dependencies_of("durable-spans-workflow");
    assert!(crates.contains(&"temporalio_workflow".to_owned()), "{crates:?}");
    for network in ["reqwest", "hyper", "h2", "rustls", "mio", "socket2", "tower", "tokio_rustls"] {
        assert!(!crates.contains(&network.to_owned()), "the workflow half depends on {network}");
    }
}

#[test]
fn the_model_knows_nothing_of_temporal() {
    let crates = dependencies_of("durable-spans-model");
    assert!(crates.contains(&"serde_json".to_owned()), "{crates:?}");
    assert!(crates.iter().all(|name| !name.starts_with("temporalio") && name != "tokio"));
}
