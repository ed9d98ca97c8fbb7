use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use reqwest::{Client, Url, header};
use serde::{Deserialize, Serialize};
use temporalio_common::{
    data_converters::{
        DataConverter, DefaultFailureConverter, PayloadCodec, PayloadConversionError,
        PayloadConverter, SerializationContextData,
    },
    protos::temporal::api::common::v1::Payload,
};

/// A codec server, as Temporal's CLI and page know them.
#[derive(Args)]
pub(crate) struct Codec {
    /// Codec server that decodes payloads, where workers encode them: trace headers are among these.
    /// `{namespace}` in it stands for the namespace
    #[arg(long, env = "TEMPORAL_CODEC_ENDPOINT", value_name = "URL")]
    pub(crate) codec_endpoint: Option<String>,
    /// Authorization header for the codec server
    #[arg(
        long,
        env = "TEMPORAL_CODEC_AUTH",
        value_name = "VALUE",
        hide_env_values = true,
        requires = "codec_endpoint"
    )]
    pub(crate) codec_auth: Option<String>,
}

impl Codec {
    /// A data converter that asks the codec server, if one is named.
    pub(crate) fn data_converter(&self, namespace: &str) -> anyhow::Result<Option<DataConverter>> {
        let Some(endpoint) = &self.codec_endpoint else { return Ok(None) };
        let url = endpoint.replace("{namespace}", namespace);
        let url: Url = url.parse().context("the codec endpoint is no URL")?;
        let mut headers = header::HeaderMap::new();
        headers.insert("x-namespace", namespace.parse().context("the namespace is no name")?);
        if let Some(auth) = &self.codec_auth {
            let mut auth: header::HeaderValue =
                auth.parse().context("the value of --codec-auth is no header")?;
            auth.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, auth);
        }
        // Fails only if one is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().default_headers(headers).build()?;
        let codec = RemoteCodec(Arc::new(Remote { http, url }));
        let failures = DefaultFailureConverter::default();
        Ok(Some(DataConverter::new(PayloadConverter::default(), failures, codec)))
    }
}

struct RemoteCodec(Arc<Remote>);

struct Remote {
    http: Client,
    url: Url,
}

impl Remote {
    async fn call(&self, what: &str, payloads: Vec<Payload>) -> anyhow::Result<Vec<Payload>> {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(what);
        }
        let body = Payloads { payloads: payloads.into_iter().map(Json::from).collect() };
        let request = self.http.post(url).header(header::CONTENT_TYPE, "application/json");
        let answer = request.body(serde_json::to_vec(&body)?).send().await?.error_for_status()?;
        let Payloads { payloads } = serde_json::from_slice(&answer.bytes().await?)?;
        payloads.into_iter().map(Payload::try_from).collect()
    }
}

/// What a codec server takes and gives: the payloads as JSON, bytes in base 64.
#[derive(Serialize, Deserialize)]
struct Payloads {
    #[serde(default)]
    payloads: Vec<Json>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    data: String,
}

impl From<Payload> for Json {
    fn from(Payload { metadata, data, .. }: Payload) -> Self {
        let metadata = metadata.into_iter();
        Self {
            metadata: metadata.map(|(name, value)| (name, BASE64_STANDARD.encode(value))).collect(),
            data: BASE64_STANDARD.encode(data),
        }
    }
}

impl TryFrom<Json> for Payload {
    type Error = anyhow::Error;

    fn try_from(Json { metadata, data }: Json) -> anyhow::Result<Self> {
        let metadata = metadata.into_iter();
        Ok(Self {
            metadata: metadata
                .map(|(name, value)| Ok((name, BASE64_STANDARD.decode(value)?)))
                .collect::<anyhow::Result<_>>()?,
            data: BASE64_STANDARD.decode(data)?,
            external_payloads: Vec::new(),
        })
    }
}

type Converted =
    std::pin::Pin<Box<dyn Future<Output = Result<Vec<Payload>, PayloadConversionError>> + Send>>;

impl RemoteCodec {
    fn call(&self, what: &'static str, payloads: Vec<Payload>) -> Converted {
        let remote = self.0.clone();
        Box::pin(async move {
            let converted = remote.call(what, payloads).await;
            converted.map_err(|error| PayloadConversionError::EncodingError(error.into()))
        })
    }
}

impl PayloadCodec for RemoteCodec {
    fn encode(&self, _: &SerializationContextData, payloads: Vec<Payload>) -> Converted {
        self.call("encode", payloads)
    }

    fn decode(&self, _: &SerializationContextData, payloads: Vec<Payload>) -> Converted {
        self.call("decode", payloads)
    }
}
