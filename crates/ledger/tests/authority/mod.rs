//! A certificate authority of the database's.

use std::path::Path;

use crate::server;

pub(crate) struct Authority {
    pub(crate) certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(parameters, key) }
    }

    pub(crate) fn issue(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        (parameters.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Settings of a database that shows a certificate of this authority, and wants one that bears the user's name.
    pub(crate) fn settings(&self, directory: &Path) -> String {
        let (certificate, key) = self.issue("localhost");
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            server::give(&path);
            path.display().to_string()
        };
        let (crt, key) = (write("tls.crt", &certificate.pem()), write("tls.key", &key.serialize_pem()));
        let ca = write("ca.crt", &self.certificate.pem());
        let hba = write("hba.conf", "hostssl all all all cert\nhost all chancery 127.0.0.1/32 trust\n");
        format!(
            "ssl = on\nssl_cert_file = '{crt}'\nssl_key_file = '{key}'\nssl_ca_file = '{ca}'\nhba_file = '{hba}'\n"
        )
    }
}
