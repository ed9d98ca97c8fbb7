//! Whom connections trust, and as whom they speak.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use crate::InvalidOptions;

/// Files in PEM. Nothing is set by default: the authorities of the machine, and no certificate of
/// one's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    /// Certificates of those who are trusted instead of the authorities of the machine.
    pub(crate) authorities: Option<File>,
    /// The sender's certificate, and its key.
    pub(crate) identity: Option<(File, File)>,
}

/// A file, and which setting names it.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) setting: &'static str,
}

/// TLS by ring, whatever the process has installed or not.
pub(super) fn config(files: &TlsFiles, https: bool) -> Result<ClientConfig, InvalidOptions> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| InvalidOptions::new("TLS is not available").caused_by(error))?;
    let config = match (&files.authorities, Verifier::new(provider)) {
        (Some(file), _) => config.with_root_certificates(authorities(file)?),
        (None, Ok(verifier)) => {
            config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        // A bare container has none, and reaches its collector without.
        (None, Err(_)) if !https => config.with_root_certificates(RootCertStore::empty()),
        (None, Err(error)) => {
            let message = "this machine has no certificate authorities: install them (often as \
                           package ca-certificates) or point SSL_CERT_FILE at them";
            return Err(InvalidOptions::new(message).caused_by(error));
        }
    };
    let Some((certificate, key)) = &files.identity else { return Ok(config.with_no_client_auth()) };
    let chain = certificate.certificates()?;
    let private = PrivateKeyDer::from_pem_file(&key.path)
        .map_err(|error| key.unusable("hold a private key in PEM", error))?;
    config.with_client_auth_cert(chain, private).map_err(|error| {
        key.unusable(&format!("hold the key of the certificate in {}", certificate.setting), error)
    })
}

fn authorities(file: &File) -> Result<RootCertStore, InvalidOptions> {
    let mut store = RootCertStore::empty();
    for certificate in file.certificates()? {
        store.add(certificate).map_err(|error| file.unusable("hold certificates in PEM", error))?;
    }
    Ok(store)
}

impl File {
    pub(crate) fn new(path: impl AsRef<Path>, setting: &'static str) -> Self {
        Self { path: path.as_ref().to_owned(), setting }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, InvalidOptions> {
        let unusable = |error| self.unusable("hold certificates in PEM", error);
        let read = CertificateDer::pem_file_iter(&self.path).map_err(unusable)?;
        let certificates = read.collect::<Result<Vec<_>, _>>().map_err(unusable)?;
        if certificates.is_empty() {
            Err(unusable(pem::Error::NoItemsFound))
        } else {
            Ok(certificates)
        }
    }

    fn unusable(
        &self,
        must: &str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> InvalidOptions {
        let (path, setting) = (self.path.display(), self.setting);
        let message = format!(
            "{path} cannot be used: {setting} must name a file that can be read, and {must}"
        );
        InvalidOptions::new(message).caused_by(error)
    }
}
