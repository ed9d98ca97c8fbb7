use std::{
    io::{Read, Write},
    net::TcpStream,
};

use durable_spans_test_server::{TemporalServer, shared};
use temporalio_client::{Client, UntypedWorkflow, WorkflowStartOptions, tonic::IntoRequest};
use temporalio_common::{
    data_converters::RawValue,
    protos::temporal::api::{
        enums::v1::IndexedValueType, operatorservice::v1::ListSearchAttributesRequest,
    },
};

use crate::{listens, until};

/// Starts a workflow that no worker takes.
async fn start_workflow(client: &Client, id: &str) {
    let options = WorkflowStartOptions::new("nobody", id).build();
    let workflow = UntypedWorkflow::new("Nothing");
    client.start_workflow(workflow, RawValue::empty(), options).await.unwrap();
}

async fn has_workflow(client: &Client, id: &str) -> bool {
    let handle = client.get_workflow_handle::<UntypedWorkflow>(id);
    handle.describe(Default::default()).await.is_ok()
}

#[test]
fn tests_with_runtimes_of_their_own_share_one_server() {
    let threads = ["one", "two", "three"].map(|name| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let server = shared().await;
                let client = server.client().await.unwrap();
                let id = format!("shared-{name}-{}", std::process::id());
                start_workflow(&client, &id).await;
                assert!(has_workflow(&client, &id).await);
                server.address().to_owned()
            })
        })
    });
    let [one, two, three] = threads.map(|thread| thread.join().unwrap());
    assert_eq!(one, two);
    assert_eq!(two, three);
}

#[tokio::test]
async fn servers_of_their_own_know_nothing_of_each_other() {
    let options = TemporalServer::options().own();
    let (one, two) = tokio::join!(options.clone().start(), options.start());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.address(), two.address());
    assert!(one.is_started() && two.is_started());
    let (in_one, in_two) = (one.client().await.unwrap(), two.client().await.unwrap());
    start_workflow(&in_one, "only").await;
    assert!(has_workflow(&in_one, "only").await);
    assert!(!has_workflow(&in_two, "only").await);
}

#[tokio::test]
async fn a_database_survives_a_stop_and_a_kill_at_the_same_address() {
    let folder = tempfile::tempdir().unwrap();
    let options = TemporalServer::options().db_filename(folder.path().join("server.sqlite"));

    let server = options.clone().start().await.unwrap();
    let (address, port) = (server.address().to_owned(), server.port());
    start_workflow(&server.client().await.unwrap(), "before the stop").await;
    server.stop().await;
    assert!(!listens(&address));

    let server = options.clone().port(port).start().await.unwrap();
    assert_eq!(server.address(), address);
    start_workflow(&server.client().await.unwrap(), "before the kill").await;
    server.kill().await;
    assert!(!listens(&address));

    let server = options.port(port).start().await.unwrap();
    let client = server.client().await.unwrap();
    assert!(has_workflow(&client, "before the stop").await);
    assert!(has_workflow(&client, "before the kill").await);
}

#[tokio::test]
async fn a_dropped_server_ends() {
    let server = TemporalServer::options().own().start().await.unwrap();
    let address = server.address().to_owned();
    assert!(listens(&address));
    drop(server);
    until("the port is closed", || !listens(&address));
}

#[tokio::test]
async fn the_web_ui_is_served_where_the_server_says() {
    let server = TemporalServer::options().own().ui(true).start().await.unwrap();
    let url = server.ui_url().unwrap();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.0 200 OK"), "{response}");
    assert!(response.contains("<!doctype html>"), "{response}");
}

#[tokio::test]
async fn a_server_without_web_ui_has_no_url_of_one() {
    let server = TemporalServer::options().own().start().await.unwrap();
    assert_eq!(server.ui_url(), None);
}

#[tokio::test]
async fn search_attributes_and_dynamic_configuration_reach_the_server() {
    let server = TemporalServer::options()
        .search_attribute("Customer", "Keyword")
        .dynamic_config("limit.maxIDLength", "40")
        .start()
        .await
        .unwrap();
    let client = server.client().await.unwrap();
    let request = ListSearchAttributesRequest { namespace: "default".into() };
    let mut operator = client.connection().operator_service();
    let known = operator.list_search_attributes(request.into_request()).await.unwrap();
    let keyword = IndexedValueType::Keyword as i32;
    assert_eq!(known.into_inner().custom_attributes.get("Customer"), Some(&keyword));

    let (allowed, too_long) = ("x".repeat(40), "x".repeat(41));
    start_workflow(&client, &allowed).await;
    let options = WorkflowStartOptions::new("nobody", too_long).build();
    let workflow = UntypedWorkflow::new("Nothing");
    let started = client.start_workflow(workflow, RawValue::empty(), options).await;
    let error = started.err().unwrap();
    assert!(
        format!("{error:?}").contains("WorkflowId exceeds maximum allowed length (41/40)"),
        "{error:?}"
    );
}
