//! TLS with certificates of one's own, against a server that asks for the client's.

use std::{
    error::Error,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::Router;
use durable_spans_activity::{OtlpOptions, OtlpSink, SpanBatch, SpanSink};
use durable_spans_model::{Span, SpanId, Timestamp, TraceId};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// An authority of one's own, and what it vouches for: files in PEM.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        files.write("authority.pem", &authority.pem());
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &authority).unwrap();
            files.write(&format!("{name}.pem"), &certificate.pem());
            files.write(&format!("{name}-key.pem"), &key.serialize_pem());
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The URL of a server that takes those only whom the authority vouches for.
    async fn serve(&self) -> String {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut authorities = RootCertStore::empty();
        authorities.add(certificate(&self.path("authority.pem"))).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(authorities.into(), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![certificate(&self.path("server.pem"))],
                PrivateKeyDer::from_pem_file(self.path("server-key.pem")).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = Listener { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
        let router = Router::new().fallback(async || ());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("https://localhost:{port}")
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

struct Listener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // Those who are refused are gone.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn batch() -> SpanBatch {
    let start = Timestamp::from_unix_ns(1_000_000_000);
    let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(1), "s", start);
    span.end_timestamp = Some(start);
    SpanBatch::from_iter([span])
}

#[tokio::test]
async fn certificates_of_ones_own_are_trusted_and_shown() {
    let files = Files::new();
    let url = files.serve().await;
    let trusting = OtlpOptions::new(&url).certificate(files.path("authority.pem"));
    let known =
        trusting.clone().client_certificate(files.path("client.pem"), files.path("client-key.pem"));
    OtlpSink::new(known).unwrap().upsert_batch(&batch()).await.unwrap();
    // Without a certificate of its own the client is refused, without the authority the server is.
    for options in [trusting, OtlpOptions::new(&url)] {
        let error = OtlpSink::new(options).unwrap().upsert_batch(&batch()).await.unwrap_err();
        assert!(error.is_retryable() && error.status().is_none(), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_not_shown() {
    let files = Files::new();
    files.write("nothing.pem", "s3cret");
    let path = |name: &str| files.path(name);
    let options = || OtlpOptions::new("https://localhost:1");
    for (options, expected) in [
        (options().certificate(path("missing.pem")), "the certificate must name a file"),
        (options().certificate(path("nothing.pem")), "and hold certificates in PEM"),
        (
            options().client_certificate(path("client.pem"), path("nothing.pem")),
            "the client key must name a file that can be read, and hold a private key in PEM",
        ),
        (
            options().client_certificate(path("client.pem"), path("server-key.pem")),
            "and hold the key of the certificate in the client certificate",
        ),
    ] {
        let error = OtlpSink::new(options).unwrap_err();
        let text = format!("{error} {error:?} {:?}", error.source());
        assert!(text.contains(expected) && text.contains(".pem cannot be used"), "{text}");
        assert!(!text.contains("s3cret") && !text.contains("PRIVATE KEY--"), "{text}");
    }
}
