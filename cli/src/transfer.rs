use std::{
    io::{BufRead, BufReader, stdin},
    path::Path,
};

use anyhow::Context;
use durable_spans_collector::import::SpanFile;
use tokio::{
    fs::File,
    io::{self, AsyncWrite, AsyncWriteExt},
};

use crate::{
    args::{Export, Import},
    client::SpansClient,
};

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

/// Sends the spans of a file, batch by batch, and tells how many they were. What stands before a
/// line at fault is sent.
pub(crate) async fn import(args: Import) -> anyhow::Result<()> {
    let client = SpansClient::new(args.server)?;
    let path = &args.file;
    // Reading may wait: there is nothing else to do meanwhile.
    let input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(BufReader::new(stdin()))
    } else {
        let file = std::fs::File::open(path).with_context(|| cannot("read", path))?;
        Box::new(BufReader::new(file))
    };
    let mut sent = 0;
    let before = |sent| {
        let path = path.display();
        format!("not all of {path} was imported, {sent} spans were: mend it and import it again")
    };
    let mut file = SpanFile::open(input).with_context(|| before(0))?;
    while let Some(batch) = file.next_batch().with_context(|| before(sent))? {
        client.upsert(batch.body()).await.map_err(|error| {
            let first = batch.first_line();
            let at_fault = match batch.line_at_fault(&format!("{error:#}")) {
                Some(line) => format!("line {line} was refused: "),
                None => String::new(),
            };
            error.context(format!(
                "{at_fault}spans from line {first} on were not imported, {sent} before them were"
            ))
        })?;
        sent += batch.len();
    }
    anstream::eprintln!("{sent} spans imported");
    Ok(())
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}
