//! Who may ask a collector that has no key: programs of this machine, and its own page. Not web
//! sites that a browser on this machine shows, and no more requests at a time than it can hold.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;

use crate::{body, refusal::Refusal};

/// A web site can make its own name lead to this machine, and can send requests whose answer it
/// does not need to see. It cannot make the browser call by another name, nor hide who asks.
pub(crate) async fn require_local(request: Request, next: Next) -> Response {
    match check_local(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            body::discard(request.into_body()).await;
            refusal.into_response()
        }
    }
}

fn check_local(headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = |reason| Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    // Browsers always send one.
    if !is_local_where_given(headers, &header::HOST, "") {
        return refused(
            "this collector has no api key, so it can be called by a local name only, such as \
             localhost: use that name, or give the collector a key",
        );
    }
    // Programs send none, pages their own.
    if !is_local_where_given(headers, &header::ORIGIN, "http://")
        && !is_local_where_given(headers, &header::ORIGIN, "https://")
    {
        return refused(
            "this collector has no api key, so it answers no web pages of other origins: give the \
             collector a key",
        );
    }
    Ok(())
}

/// Whether each header of this name is what comes first and a name of this machine.
fn is_local_where_given(headers: &HeaderMap, name: &HeaderName, first: &str) -> bool {
    headers.get_all(name).iter().all(|value| {
        let authority = value.to_str().ok().and_then(|value| value.strip_prefix(first));
        authority.and_then(|text| text.parse::<Authority>().ok()).is_some_and(|authority| {
            let host = authority.host();
            let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            host == "localhost"
                || host.ends_with(".localhost")
                || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
        })
    })
}

/// Serves a request if there is room for it, else tells the client to come again. Each may hold a
/// body of many megabytes.
pub(crate) async fn limit_in_flight(
    State(room): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_place) = room.try_acquire() else {
        body::discard(request.into_body()).await;
        let detail = "more requests at a time than this collector serves: try again";
        return Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    };
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn is_let_in(headers: &[(HeaderName, &'static str)]) -> bool {
        let value = |(name, value): &(HeaderName, &'static str)| {
            (name.clone(), HeaderValue::from_static(value))
        };
        check_local(&headers.iter().map(value).collect()).is_ok()
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        assert!(is_let_in(&[]));
        for host in [
            "localhost",
            "localhost:6006",
            "page.localhost",
            "127.0.0.1:1",
            "127.1.2.3",
            "[::1]:80",
        ] {
            assert!(is_let_in(&[(header::HOST, host)]), "{host}");
        }
        for host in [
            "example.com",
            "10.0.0.1",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "localhost@example.com",
            "",
        ] {
            assert!(!is_let_in(&[(header::HOST, host)]), "{host}");
        }
        assert!(!is_let_in(&[(header::HOST, "localhost"), (header::HOST, "example.com")]));
    }

    #[test]
    fn only_pages_of_this_machine_are_answered() {
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:6006"] {
            assert!(
                is_let_in(&[(header::HOST, "localhost"), (header::ORIGIN, origin)]),
                "{origin}"
            );
        }
        for origin in ["https://example.com", "null", "http://localhost.example.com", "file://"] {
            assert!(
                !is_let_in(&[(header::HOST, "localhost"), (header::ORIGIN, origin)]),
                "{origin}"
            );
        }
    }
}
