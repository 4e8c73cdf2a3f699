//! When the kubelet's client certificate expires.
//!
//! A kubelet whose certificate has expired when it starts asks for a new one, and exits if it does
//! not get it (pkg/kubelet/certificate/bootstrap): then not even static pods run.

use std::io;
use std::path::Path;

use base64::Engine as _;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;

use crate::node::host::HostRoot;

/// The most bytes that are read; a certificate with its key and chain is a few kilobytes long.
const LONGEST: u64 = 1 << 20;

/// When the client certificate of a kubeconfig (a host path) expires; `None` if it names none, or
/// if that cannot be read.
pub fn expiry(root: &HostRoot, kubeconfig: &Path) -> Option<Timestamp> {
    let Kubeconfig {
        current_context,
        contexts,
        users,
    } = serde_yaml::from_slice(&read(root, kubeconfig).ok()?).ok()?;
    let context = contexts
        .into_iter()
        .find(|context| context.name == current_context)?
        .context;
    let User {
        client_certificate,
        client_certificate_data,
    } = users
        .into_iter()
        .find(|user| user.name == context.user)?
        .user;
    // inline data takes precedence over a file, and a relative path starts at the kubeconfig's
    // directory (client-go, clientcmd)
    let pem = match (client_certificate_data, client_certificate) {
        (Some(data), _) if !data.is_empty() => base64::engine::general_purpose::STANDARD
            .decode(data.split_whitespace().collect::<String>())
            .ok()?,
        (_, Some(file)) if !file.is_empty() => read(root, &kubeconfig.parent()?.join(file)).ok()?,
        _ => return None,
    };
    let first = CertificateDer::pem_slice_iter(&pem).next()?.ok()?;
    not_after(&first)
}

fn read(root: &HostRoot, path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(root.resolve(path)?)?
        .take(LONGEST)
        .read_to_end(&mut text)?;
    Ok(text)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
}

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `tbsCertificate.validity.notAfter` of a certificate in DER (RFC 5280, 4.1).
fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (to_be_signed, _) = element(element(certificate, SEQUENCE)?.0, SEQUENCE)?;
    let rest = element(to_be_signed, VERSION).map_or(to_be_signed, |(_, rest)| rest);
    // serial number, signature algorithm, issuer
    let rest = (0..3).try_fold(rest, |rest, _| Some(any(rest)?.2))?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, text, _) = any(rest)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        // has two digits for a year of 1950 to 2049
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| text.get(from..to);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")
        .parse()
        .ok()
}

/// The content of an element with this tag, and the bytes after it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    any(input)
        .filter(|(found, _, _)| *found == tag)
        .map(|(_, content, rest)| (content, rest))
}

/// Tag and content of the first element, and the bytes after it.
fn any(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (long, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // the length of the length, at most four bytes
        let (bytes, rest) = rest
            .split_at_checked(usize::from(first & 0x7f))
            .filter(|(bytes, _)| bytes.len() <= 4)?;
        (
            bytes
                .iter()
                .fold(0, |long, byte| long << 8 | usize::from(*byte)),
            rest,
        )
    };
    let (content, rest) = rest.split_at_checked(long)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> rcgen::Certificate {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.not_before = date_time_ymd(1999, 1, 1);
        params.not_after = date_time_ymd(year, 5, 4);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    fn kubeconfig(user: &str) -> String {
        format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: x, user: u}}}}]\n\
             users: [{{name: other, user: {{}}}}, {{name: u, user: {{{user}}}}}]\n"
        )
    }

    #[test]
    fn the_expiry_is_parsed_with_two_and_four_digits_for_the_year() {
        for year in [2031, 2049, 2050, 2173] {
            let wanted: Timestamp = format!("{year}-05-04T00:00:00Z").parse().unwrap();
            assert_eq!(not_after(certificate(year).der()), Some(wanted), "{year}");
        }
    }

    #[test]
    fn invalid_certificates_have_no_expiry() {
        let whole = certificate(2031).der().to_vec();
        for long in 0..90 {
            assert_eq!(not_after(whole.get(..long).unwrap()), None, "{long}");
        }
        for bytes in [
            &[][..],
            &[0x30, 0x80],
            &[0x30, 0xff, 0xff],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0],
        ] {
            assert_eq!(not_after(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_certificate_is_that_of_the_current_user_inline_or_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let root = HostRoot::new(directory.path());
        let of = |text: &str| {
            std::fs::write(directory.path().join("kubelet.conf"), text).unwrap();
            expiry(&root, Path::new("/kubelet.conf"))
        };
        let (old, new) = (certificate(2030).pem(), certificate(2040).pem());
        std::fs::create_dir(directory.path().join("pki")).unwrap();
        std::fs::write(
            directory.path().join("pki/2030.pem"),
            format!("a key\n{old}"),
        )
        .unwrap();
        std::os::unix::fs::symlink("/pki/2030.pem", directory.path().join("pki/current.pem"))
            .unwrap();
        let end = |year: i32| Some(format!("{year}-05-04T00:00:00Z").parse().unwrap());
        let data = base64::engine::general_purpose::STANDARD.encode(new);
        assert_eq!(
            of(&kubeconfig("client-certificate: pki/current.pem")),
            end(2030)
        );
        assert_eq!(
            of(&kubeconfig("client-certificate: /pki/current.pem")),
            end(2030)
        );
        assert_eq!(
            of(&kubeconfig(&format!(
                "client-certificate: pki/current.pem, client-certificate-data: {data}"
            ))),
            end(2040)
        );
        for user in [
            "token: t",
            "client-certificate: /none",
            "client-certificate-data: '!'",
        ] {
            assert_eq!(of(&kubeconfig(user)), None, "{user}");
        }
        assert_eq!(of("torn: ["), None);
    }
}
