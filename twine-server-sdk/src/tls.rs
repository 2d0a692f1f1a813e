//! TLS by rustls.
//!
//! Cryptography by ring, unless the process has installed a rustls provider of its own: nothing global
//! is set here, and a C toolchain with `CMake` (which aws-lc may want) is not needed.
//!
//! Certificates are judged by the operating system's trust store, so that a company's own authority and
//! a root that was withdrawn count without a new release of the app. (A compiled-in list of roots, as in
//! webpki-roots, would work where there is no store, but grows old in the binary.) A container without
//! any store, such as one made `FROM scratch`, needs the hub's root in
//! [`TwineBuilder::root_certificates`](crate::TwineBuilder::root_certificates).

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::Error;

/// How the hub is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Https,
    /// TLS is used only to reach an HTTPS proxy, if there is one.
    Http,
}

/// Settings that trust the system's roots and `extra` ones, and offer HTTP/2.
pub(crate) fn config(scheme: Scheme, extra: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Error> {
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|source| {
            Error::config("the process's TLS provider has no usable version").because(source)
        })?;
    let mut config = match verifier(extra, provider) {
        Ok(verifier) => config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth(),
        // A machine without certificates can still talk plain HTTP.
        Err(_) if scheme == Scheme::Http => {
            config.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
        Err(source) => {
            return Err(Error::config("no root certificates to check the hub's by").because(source));
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn verifier(
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    // On Windows and Apple's systems extra roots mean a store of one's own; without need, none is made.
    Ok(Arc::new(if extra.is_empty() {
        Verifier::new(provider)?
    } else {
        Verifier::new_with_extra_roots(extra, provider)?
    }))
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::config("the root certificates are not PEM").because(source))?;
    if certificates.is_empty() {
        return Err(Error::config("the root certificates hold no `BEGIN CERTIFICATE`"));
    }
    // What is no certificate inside is found here, where the mistake was made, and not on connecting.
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|source| Error::config("a root certificate can't be used").because(source))?;
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn http_2_is_offered_first() {
        let config = config(Scheme::Http, Vec::new()).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    #[test]
    fn what_holds_no_certificate_is_refused() {
        for pem in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(certificates(pem.as_bytes()).unwrap_err().kind(), ErrorKind::Config, "{pem}");
        }
    }
}
