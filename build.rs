//! Finds the description of Temporal's messages, which a history that is JSON is read by.

fn main() {
    const DESCRIPTORS: &str = "DEP_TEMPORALIO_PROTOS_DESCRIPTOR_PATH";
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={DESCRIPTORS}");
    if std::env::var_os("CARGO_FEATURE_HISTORY_JSON").is_none() {
        return;
    }
    let Ok(path) = std::env::var(DESCRIPTORS) else {
        panic!(
            "temporalio-protos does not say where its descriptors are: build with the locked \
             version, or without the feature history-json"
        );
    };
    println!("cargo:rustc-env=TEMPORAL_DESCRIPTORS={path}");
}
