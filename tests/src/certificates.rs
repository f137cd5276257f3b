//! An authority of our own, and what it issues: to servers (good, expired, for another name) and to a client.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

use crate::services::temporary_directory;

/// A certificate and its key, as PEM files that everybody may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority that issued it.
    pub ca: PathBuf,
}

/// See the file's text. The files go with the value.
#[derive(Debug)]
pub struct Certificates {
    directory: TempDir,
    /// The authority's own certificate.
    pub ca: PathBuf,
    /// That of an authority which has issued nothing.
    pub other_ca: PathBuf,
    /// For `localhost`, `127.0.0.1` and `::1`.
    pub server: Pair,
    /// The same, until 2001.
    pub expired: Pair,
    /// For `db.example`.
    pub wrong_name: Pair,
    /// A client's: `app`.
    pub client: Pair,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

impl Certificates {
    /// Makes all of it.
    pub fn new() -> Self {
        let directory = temporary_directory("certificates");
        // Servers run as others than the tests.
        set_mode(directory.path(), 0o755);
        let (ours, other) = (authority("weir tests"), authority("somebody else"));
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            set_mode(&path, 0o644);
            path
        };
        let ca = write("ca.pem", &ours.pem());
        let other_ca = write("other-ca.pem", &other.pem());
        let issue = |name: &str, names: &[&str], is_expired: bool| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = named(name);
            // The nodes of a cluster are each other's clients, too.
            params.extended_key_usages = if name == "app" {
                vec![ExtendedKeyUsagePurpose::ClientAuth]
            } else {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            };
            if is_expired {
                (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 2, 3));
            }
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &ours).unwrap();
            Pair {
                certificate: write(&format!("{name}.pem"), &certificate.pem()),
                key: write(&format!("{name}.key"), &key.serialize_pem()),
                ca: ca.clone(),
            }
        };
        let here = ["localhost", "127.0.0.1", "::1"];
        let (server, expired) = (issue("server", &here, false), issue("expired", &here, true));
        let wrong_name = issue("wrong-name", &["db.example"], false);
        let client = issue("app", &["app.example"], false);
        Self { directory, ca, other_ca, server, expired, wrong_name, client }
    }

    /// Where the files lie.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
