use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};
use reqwest::{Client, Url, header};
use temporalio_common::data_converters::{
    DataConverter, DefaultFailureConverter, PayloadCodec, PayloadConversionError, PayloadConverter,
    SerializationContextData,
};
use temporalio_protos::protos::temporal::api::common::v1::{Payload, Payloads};

use crate::history::DESCRIPTORS;

const PAYLOADS: &str = "temporal.api.common.v1.Payloads";

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
        let pool = DescriptorPool::decode(DESCRIPTORS)?;
        let kind = pool.get_message_by_name(PAYLOADS).context("the descriptors are broken")?;
        let bytes = Payloads { payloads }.encode_to_vec();
        let message = DynamicMessage::decode(kind.clone(), bytes.as_slice())?;
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(what);
        }
        let request = self.http.post(url).header(header::CONTENT_TYPE, "application/json");
        let answer = request.body(serde_json::to_vec(&message)?).send().await?;
        let text = answer.error_for_status()?.bytes().await?;
        let mut json = serde_json::Deserializer::from_slice(&text);
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message = DynamicMessage::deserialize_with_options(kind, &mut json, &options)?;
        Ok(Payloads::decode(message.encode_to_vec().as_slice())?.payloads)
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
