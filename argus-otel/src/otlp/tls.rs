//! TLS for the HTTP client: a concrete rustls configuration with a named provider, never the process's default one.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::env::{PemFile, Settings};
use super::error::OtlpError;

fn wrong(file: &PemFile, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OtlpError {
    OtlpError::Certificate { variable: file.variable, path: file.path.display().to_string(), source: source.into() }
}

fn certificates(file: &PemFile) -> Result<Vec<CertificateDer<'static>>, OtlpError> {
    let all = CertificateDer::pem_file_iter(Path::new(&file.path)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|e| wrong(file, e))?;
    if all.is_empty() { Err(wrong(file, "there is no certificate in it (PEM)")) } else { Ok(all) }
}

/// The authorities of `OTEL_EXPORTER_OTLP_CERTIFICATE` alone if it is set, else the system's.
pub(super) fn client_config(settings: &Settings) -> Result<ClientConfig, OtlpError> {
    let mut roots = RootCertStore::empty();
    match &settings.ca {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|e| wrong(file, e))?;
            }
        }
        None => {
            // A system's store has odd certificates, which are passed over; without any, each connection says so.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| OtlpError::Build(e.into()))?.with_root_certificates(roots);
    match &settings.client {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_file(&key.path).map_err(|e| wrong(key, e))?;
            builder.with_client_auth_cert(chain, secret).map_err(|e| wrong(key, e))
        }
    }
}
