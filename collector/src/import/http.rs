//! `POST /page/import`: the spans of a file, which is the body. However long it is.

use std::{
    io::{self, BufReader, Read},
    sync::Arc,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::post,
};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::{ImportError, SpanFile};
use crate::{
    batch,
    http::{account_id, blocking, json},
    refusal::Refusal,
    store::{Mode, Store},
};

pub(crate) fn routes() -> Router<Arc<Store>> {
    Router::new().route("/page/import", post(import))
}

async fn import(State(store): State<Arc<Store>>, request: Request) -> Result<Response, Refusal> {
    let (head, mut body) = request.into_parts();
    let (sender, receiver) = mpsc::channel(4);
    let work = blocking(move || {
        let spans = store_all(&store, &head.headers, Chunks { receiver, chunk: Bytes::new() })?;
        Ok(json(format!(r#"{{"spans":{spans}}}"#)))
    });
    let feed = async move {
        // To the end, even if nobody wants it any more: a client that is still sending would find
        // a broken connection instead of its answer.
        while let Some(frame) = body.frame().await {
            let chunk = frame.map(|frame| frame.into_data().unwrap_or_default());
            let broke_off = chunk.is_err();
            let chunk = chunk.map_err(|_| io::ErrorKind::UnexpectedEof.into());
            drop(sender.send(chunk).await);
            if broke_off {
                break;
            }
        }
    };
    let (answer, ()) = futures_util::join!(work, feed);
    answer
}

/// Stores batch by batch. What comes before a line at fault stays stored.
fn store_all(store: &Store, headers: &HeaderMap, body: Chunks) -> Result<usize, Refusal> {
    let account_id = account_id(headers)?;
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(&b"identity"[..], |v| v.as_bytes());
    let body: Box<dyn Read> = match encoding {
        b"identity" => Box::new(body),
        b"gzip" => Box::new(flate2::read::MultiGzDecoder::new(body)),
        _ => {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            let field = header::CONTENT_ENCODING.as_str();
            return Err(Refusal::of_field(status, field, "must be gzip, or left out"));
        }
    };
    let mut stored = 0;
    let refused = |error: ImportError, stored: usize| {
        let status = match error.line() {
            Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
            None => StatusCode::BAD_REQUEST,
        };
        let rest = format!("{stored} spans were imported: mend the file and import it again");
        Refusal::new(status, format!("{error}; {rest}"))
    };
    let mut file = SpanFile::open(BufReader::new(body)).map_err(|error| refused(error, 0))?;
    while let Some(batch) = file.next_batch().map_err(|error| refused(error, stored))? {
        let body = batch.body();
        let records = batch::parse(body.as_bytes(), account_id)?;
        store.write(records, Mode::Upsert).map_err(|refusal| {
            match batch.line_at_fault(&refusal.detail()) {
                None => refusal,
                Some(line) => refusal.at_line(line, batch.first_line(), stored),
            }
        })?;
        stored += batch.len();
    }
    Ok(stored)
}

/// A body as something to read from where waiting is allowed.
struct Chunks {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    /// What was received last and is not read yet.
    chunk: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let length = into.len().min(self.chunk.len());
        into[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}
