use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";

macro_rules! asset {
    ($name:literal, $media_type:expr) => {
        ($name, $media_type, include_str!(concat!("../../assets/", $name)))
    };
}

const FILES: &[(&str, &str, &str)] = &[
    asset!("app.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("format.js", SCRIPT),
    asset!("model.js", SCRIPT),
    asset!("list.js", SCRIPT),
    asset!("trace.js", SCRIPT),
    asset!("waterfall.js", SCRIPT),
    asset!("flame.js", SCRIPT),
    asset!("detail.js", SCRIPT),
    asset!("json.js", SCRIPT),
    asset!("messages.js", SCRIPT),
    asset!("style.css", STYLE),
    asset!("icon.svg", ICON),
];

/// The bundle. The list and each trace are the same document, which reads its own address.
pub(super) fn router() -> Router {
    let document = || get(|| async { answer(HTML, include_str!("../../assets/index.html")) });
    let router = Router::new().route("/", document()).route("/traces/{id}", document());
    FILES.iter().fold(router, |router, &(name, media_type, text)| {
        router
            .route(&format!("/assets/{name}"), get(move || async move { answer(media_type, text) }))
    })
}

fn answer(media_type: &'static str, text: &'static str) -> Response {
    // A browser asks again each time: the next version of the binary brings another bundle.
    let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}
