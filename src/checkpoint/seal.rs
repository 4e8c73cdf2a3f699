//! Sealing: encrypts the content and authenticates it together with the header, which stays in
//! clear text.
//!
//! Three values are derived from the 32 bytes of a key, each as the HMAC-SHA-256 of a fixed text:
//! the key's ID, the encryption key and the digest key. Digests need a key, because a plain digest
//! would reveal a short password to anyone who tries all passwords. The algorithm is
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha); its nonces have 24 bytes, so random ones do not
//! repeat.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

use crate::checkpoint::encoding::{decode, encode, hex};

/// The only supported algorithm.
pub const ALGORITHM: &str = "XChaCha20-Poly1305";
/// Length of a nonce in bytes.
const NONCE: usize = 24;

/// The part that cannot be read without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sealed {
    /// [`ALGORITHM`].
    pub algorithm: String,
    /// ID of the key.
    pub key: String,
    /// 24 random bytes, in base64; never used twice.
    pub nonce: String,
    /// The content as JSON, encrypted, followed by the authentication tag, in base64.
    pub data: String,
}

/// A key, ready for use. Its bytes are wiped from memory when it is dropped.
pub struct Key {
    id: String,
    cipher: Zeroizing<[u8; 32]>,
    digest: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}

/// Why content could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The system has no random bytes.
    #[error("cannot get random bytes for a nonce")]
    Random,
    /// The document differs from the one that was sealed.
    #[error("the sealed content or its header was changed")]
    Changed,
}

impl Key {
    /// Derives a key from its 32 bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        let mut id = derive(secret, b"pod-checkpointer v1 id");
        let short = id.first_chunk::<8>().copied().unwrap_or_default();
        id.zeroize();
        Self {
            id: hex(&short),
            cipher: derive(secret, b"pod-checkpointer v1 seal"),
            digest: derive(secret, b"pod-checkpointer v1 digest"),
        }
    }

    /// The key's ID: 16 hexadecimal digits that reveal nothing about the key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The HMAC of the bytes that `write` writes, as `hmac-sha256:<hex>`.
    pub fn digest(&self, write: impl FnOnce(&mut dyn std::io::Write)) -> String {
        let mut sink = Sink(Hmac::<Sha256>::new_from_slice(self.digest.as_ref()).ok());
        write(&mut sink);
        let bytes = sink
            .0
            .map(|mac| mac.finalize().into_bytes().to_vec())
            .unwrap_or_default();
        format!("hmac-sha256:{}", hex(&bytes))
    }

    /// Encrypts content and returns the whole document: `header`, which stays in clear text and is
    /// authenticated, with the sealed part added.
    pub fn seal(&self, mut header: Value, content: &[u8]) -> Result<Value, Error> {
        let mut nonce = [0; NONCE];
        rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
            .ok()
            .filter(|length| *length == NONCE)
            .ok_or(Error::Random)?;
        let sealed =
            serde_json::json!({"algorithm": ALGORITHM, "key": self.id, "nonce": encode(&nonce)});
        header
            .as_object_mut()
            .ok_or(Error::Changed)?
            .insert("sealed".into(), sealed);
        let aad = header.to_string();
        let payload = Payload {
            msg: content,
            aad: aad.as_bytes(),
        };
        let data = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::Changed)?;
        let sealed = header
            .get_mut("sealed")
            .and_then(Value::as_object_mut)
            .ok_or(Error::Changed)?;
        sealed.insert("data".into(), encode(&data).into());
        Ok(header)
    }

    /// Authenticates a document of [`Key::seal`] and decrypts its content. The encrypted data is
    /// removed from the document.
    pub fn open(&self, document: &mut Value) -> Result<Zeroizing<Vec<u8>>, Error> {
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => decode(&text).map_err(|_| Error::Changed),
            _ => Err(Error::Changed),
        };
        let sealed = document
            .get_mut("sealed")
            .and_then(Value::as_object_mut)
            .ok_or(Error::Changed)?;
        let data = text(sealed.remove("data"))?;
        if sealed.get("algorithm").and_then(Value::as_str) != Some(ALGORITHM) {
            return Err(Error::Changed);
        }
        let nonce: [u8; NONCE] = text(sealed.get("nonce").cloned())?
            .try_into()
            .map_err(|_| Error::Changed)?;
        let aad = document.to_string();
        let payload = Payload {
            msg: &data,
            aad: aad.as_bytes(),
        };
        let content = self
            .cipher()
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::Changed)?;
        Ok(Zeroizing::new(content))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.cipher).into())
    }
}

struct Sink(Option<Hmac<Sha256>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(mac) = &mut self.0 {
            mac.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn derive(secret: &[u8; 32], purpose: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    // HMAC accepts keys of any length, so this cannot fail
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) {
        mac.update(purpose);
        derived.copy_from_slice(&mac.finalize().into_bytes());
    }
    derived
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_sealed_is_opened_by_its_key_alone_and_looks_different_each_time() {
        let (one, two) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
        assert_ne!(one.id(), two.id());
        let header = json!({"kind": "x", "digest": "y"});
        let sealed = one.seal(header.clone(), b"secret").unwrap();
        let again = one.seal(header, b"secret").unwrap();
        assert_ne!(sealed["sealed"]["nonce"], again["sealed"]["nonce"]);
        assert_ne!(sealed["sealed"]["data"], again["sealed"]["data"]);
        assert_eq!(one.open(&mut sealed.clone()).unwrap().as_slice(), b"secret");
        assert_eq!(two.open(&mut sealed.clone()).unwrap_err(), Error::Changed);
    }

    #[test]
    fn every_change_of_header_and_sealed_part_is_detected() {
        let key = Key::new(&[1; 32]);
        let sealed = key
            .seal(json!({"kind": "x", "digest": "y"}), b"secret")
            .unwrap();
        for (pointer, value) in [
            ("/kind", json!("z")),
            ("/digest", json!("z")),
            ("/sealed/algorithm", json!("none")),
            ("/sealed/key", json!("0")),
            ("/sealed/nonce", json!(encode(&[0; 24]))),
            ("/sealed/nonce", json!("AA==")),
            ("/sealed/nonce", json!(7)),
            ("/sealed/data", json!(encode(&[0; 30]))),
            ("/sealed/data", json!("?")),
            ("/sealed", json!(null)),
        ] {
            let mut changed = sealed.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert_eq!(
                key.open(&mut changed).unwrap_err(),
                Error::Changed,
                "{pointer}"
            );
        }
        let mut more = sealed.clone();
        more["more"] = json!(1);
        assert_eq!(key.open(&mut more).unwrap_err(), Error::Changed);
    }

    #[test]
    fn the_algorithm_agrees_with_the_test_vector_of_its_draft() {
        // draft-irtf-cfrg-xchacha-03, A.3.1
        let key: Vec<u8> = (0x80..=0x9f).collect();
        let nonce: Vec<u8> = (0x40..=0x57).collect();
        let aad = [
            0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
        ];
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let cipher = XChaCha20Poly1305::new_from_slice(&key).unwrap();
        let nonce: [u8; 24] = nonce.try_into().unwrap();
        let sealed = cipher
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: text,
                    aad: &aad,
                },
            )
            .unwrap();
        assert_eq!(hex(&sealed[..16]), "bd6d179d3e83d43b9576579493c0e939");
        assert_eq!(
            hex(&sealed[sealed.len() - 16..]),
            "c0875924c1c7987947deafd8780acf49"
        );
    }
}
