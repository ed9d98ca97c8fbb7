use std::path::Path;

use anyhow::{Context, bail};
use tokio::{
    fs::File,
    io::{self, AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader},
};

use crate::{
    args::{Export, Import},
    client::SpansClient,
};

/// Most spans, and most bytes unless one span alone is longer, that are sent at once.
const BATCH_SPANS: usize = 500;
const BATCH_BYTES: usize = 4_000_000;

/// Writes what the collector exports as it comes, however much it is.
pub(crate) async fn export(args: Export) -> anyhow::Result<()> {
    let client = SpansClient::new(args.server)?;
    let mut query = vec![("format", args.format.name())];
    let trace_id = args.trace_id.map(|trace_id| trace_id.to_string());
    query.extend(trace_id.as_deref().map(|trace_id| ("trace", trace_id)));
    query.extend(args.query.as_deref().map(|text| ("q", text)));
    // Before the file is touched: a refusal leaves it alone.
    let mut response = client.export(&query).await?;
    let mut output: Box<dyn AsyncWrite + Unpin> = match &args.output {
        Some(path) => Box::new(File::create(path).await.with_context(|| cannot("write", path))?),
        None => Box::new(io::stdout()),
    };
    loop {
        let chunk = response.chunk().await.map_err(reqwest::Error::without_url);
        let chunk = chunk.with_context(|| {
            format!("{} broke off: what was written is not all of it", client.url())
        })?;
        let Some(chunk) = chunk else { break };
        match output.write_all(&chunk).await {
            // A reader that has seen enough (`| head`) is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot write the export")?,
        }
    }
    output.flush().await.context("cannot write the export")
}

/// Sends the spans of a file, batch by batch, and tells how many they were.
pub(crate) async fn import(args: Import) -> anyhow::Result<()> {
    let client = SpansClient::new(args.server)?;
    let path = &args.file;
    let input: Box<dyn AsyncBufRead + Unpin> = if path == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::new(File::open(path).await.with_context(|| cannot("read", path))?))
    };
    let mut lines = input.lines();
    let mut batch: Vec<String> = Vec::new();
    let (mut number, mut first, mut bytes, mut sent) = (0, 1, 0, 0);
    loop {
        let line = lines.next_line().await.with_context(|| cannot("read", path))?;
        number += 1;
        let full = batch.len() == BATCH_SPANS
            || line.as_ref().is_some_and(|line| bytes + line.len() > BATCH_BYTES);
        if !batch.is_empty() && (full || line.is_none()) {
            let items: Vec<&str> = batch.iter().map(String::as_str).collect();
            client.upsert(&items).await.with_context(|| {
                format!("spans from line {first} on were not imported, {sent} before them were")
            })?;
            sent += batch.len();
            batch.clear();
            bytes = 0;
        }
        let Some(line) = line else { break };
        if line.trim().is_empty() {
            continue;
        }
        if !line.trim_start().starts_with('{') {
            bail!(
                "line {number} is no JSON object: import takes JSON lines, {sent} spans were imported"
            );
        }
        if batch.is_empty() {
            first = number;
        }
        bytes += line.len();
        batch.push(line);
    }
    anstream::eprintln!("{sent} spans imported");
    Ok(())
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}
