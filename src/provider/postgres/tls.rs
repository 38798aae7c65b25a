//! Encrypted connections.

use std::{io::Cursor, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::options::invalid;
use crate::{error::Result, file};

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// Never.
    Off,
    /// If the server offers TLS. An attacker on the path can suppress the offer, so the
    /// certificate is checked only if a
    /// [root certificate](crate::PostgresBuilder::root_certificate) is set.
    #[default]
    Prefer,
    /// Always. The certificate must match the host name and be signed by a root of the
    /// system, or by the
    /// [root certificate](crate::PostgresBuilder::root_certificate) if one is set.
    Require,
}

/// Creates the TLS connector for a mode.
///
/// # Errors
///
/// `Invalid` if no root certificate can be read.
pub(super) fn connector(mode: Tls, root: Option<&Path>) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|cause| invalid("tls", "it cannot be set up").with_source(cause))?;
    let config = match (mode, root) {
        (_, Some(path)) => config.with_root_certificates(roots_in(path)?),
        (Tls::Prefer, None) => config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        _ => config.with_root_certificates(roots_of_the_system()?),
    };
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

fn roots_in(path: &Path) -> Result<RootCertStore> {
    let problem = |what| format!("{} {what}", path.display());
    let text = file::read(path).map_err(|cause| {
        invalid("root_certificate", &problem("cannot be read")).with_source(cause)
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_reader_iter(Cursor::new(text)) {
        let added = certificate
            .map_err(|cause| invalid("root_certificate", &problem("is no PEM")).with_source(cause));
        roots.add(added?).map_err(|cause| {
            invalid("root_certificate", &problem("holds a bad certificate")).with_source(cause)
        })?;
    }
    if roots.is_empty() {
        return Err(invalid(
            "root_certificate",
            &problem("holds no certificate"),
        ));
    }
    Ok(roots)
}

fn roots_of_the_system() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let problem = "this system has no root certificates; install them, or name a file with `.root_certificate(..)`";
        return Err(invalid("tls", problem));
    }
    Ok(roots)
}

/// Accepts any certificate: this protects from eavesdropping only.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
