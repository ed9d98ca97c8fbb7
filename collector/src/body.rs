use std::{borrow::Cow, io::Read};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::BodyExt;

use crate::refusal::Refusal;

/// Longest body of a request, in bytes, as sent and again after decompression.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// How much of a body is read before the collector hangs up, in bytes. What cannot be used is read
/// all the same and thrown away: a client that is still sending would find a broken connection
/// instead of its answer, and take it for an outage.
const MAX_RECEIVED_BYTES: usize = 4 * MAX_BODY_BYTES;

/// Reads a body as it was sent.
pub(crate) async fn read(body: Body) -> Result<Vec<u8>, Refusal> {
    let (data, length) = receive(body, MAX_BODY_BYTES).await?;
    if length > MAX_BODY_BYTES { Err(too_large()) } else { Ok(data) }
}

/// Reads a body that nobody wants, so that its sender gets to see the answer.
pub(crate) async fn discard(body: Body) {
    drop(receive(body, 0).await);
}

/// Gives the first chunks that make up at most `keep_bytes`, and the length of all.
async fn receive(mut body: Body, keep_bytes: usize) -> Result<(Vec<u8>, usize), Refusal> {
    let mut data = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            Refusal::new(StatusCode::BAD_REQUEST, "the body ended before it was complete")
        })?;
        let chunk: Bytes = frame.into_data().unwrap_or_default();
        length += chunk.len();
        if length > MAX_RECEIVED_BYTES {
            break;
        }
        if length <= keep_bytes {
            data.extend_from_slice(&chunk);
        }
    }
    Ok((data, length))
}

/// Undoes the content encoding. Stops at the limit, however much a small body would unpack to.
pub(crate) fn decode<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Refusal> {
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(&b"identity"[..], |v| v.as_bytes());
    if encoding.eq_ignore_ascii_case(b"identity") {
        return Ok(body.into());
    }
    if !encoding.eq_ignore_ascii_case(b"gzip") {
        let reason = "must be gzip, or left out";
        return Err(Refusal::of_field(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            header::CONTENT_ENCODING.as_str(),
            reason,
        ));
    }
    let mut data = Vec::new();
    // Multi, because gzip may consist of several members, one after the other.
    let mut decoder = flate2::bufread::MultiGzDecoder::new(body).take(MAX_BODY_BYTES as u64 + 1);
    decoder
        .read_to_end(&mut data)
        .map_err(|_| Refusal::of_field(StatusCode::BAD_REQUEST, "body", "is not valid gzip"))?;
    if data.len() > MAX_BODY_BYTES { Err(too_large()) } else { Ok(data.into()) }
}

fn too_large() -> Refusal {
    Refusal::of_field(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body",
        &format!("is over {MAX_BODY_BYTES} bytes: send fewer spans at once"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(encoding: &'static str, body: &[u8]) -> Result<Vec<u8>, u16> {
        let headers = [(header::CONTENT_ENCODING, encoding.parse().unwrap())].into_iter().collect();
        match super::decode(&headers, body) {
            Ok(data) => Ok(data.into_owned()),
            Err(refusal) => Err(refusal.status()),
        }
    }

    #[test]
    fn gzip_is_undone_and_plain_bodies_pass() {
        assert_eq!(super::decode(&HeaderMap::new(), b"{}").unwrap(), &b"{}"[..]);
        assert_eq!(decode("identity", b"{}"), Ok(b"{}".to_vec()));
        assert_eq!(decode("GZIP", &gzip(b"{}")), Ok(b"{}".to_vec()));
        let two_members = [gzip(b"{"), gzip(b"}")].concat();
        assert_eq!(decode("gzip", &two_members), Ok(b"{}".to_vec()));
    }

    #[test]
    fn a_small_body_that_unpacks_beyond_the_limit_is_too_large() {
        let bomb = gzip(&vec![b' '; MAX_BODY_BYTES + 1]);
        assert!(bomb.len() < MAX_BODY_BYTES / 100);
        assert_eq!(decode("gzip", &bomb), Err(413));
        let at_the_limit = gzip(&vec![b' '; MAX_BODY_BYTES]);
        assert_eq!(decode("gzip", &at_the_limit).unwrap().len(), MAX_BODY_BYTES);
    }

    #[test]
    fn broken_gzip_and_other_encodings_are_refused() {
        assert_eq!(decode("gzip", b"{}"), Err(400));
        let whole = gzip(b"{}");
        assert_eq!(decode("gzip", &whole[..whole.len() - 3]), Err(400));
        assert_eq!(decode("br", b"{}"), Err(415));
        assert_eq!(decode("gzip, gzip", b"{}"), Err(415));
    }
}
