//! Secret values: encrypted from the moment they are read, opened only where a container is made. Between the two nobody
//! has them, so no plan, event, record, answer or log can tell them.
//!
//! AES-256-GCM under a key in a file that the user may put elsewhere. The nonce is taken from a MAC over name and value, so
//! that the same value of the same secret is the same text each time: what did not change rolls nothing out.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hkdf, hmac};
use runtime::linux::Unseal;

use crate::manifest::Seal;

/// Begins the key file. Contract: 32 random bytes follow, base64.
const HEAD: &str = "boxship-secret-key-1:";

/// Begins a sealed value. Contract: nonce, ciphertext and tag follow, base64.
const SEALED: &str = "s1:";

const KEY_BYTES: usize = 32;

/// The key of a data root, read when it is first needed.
pub struct Keyring {
    file: PathBuf,
    makes: Makes,
    keys: Mutex<Option<std::sync::Arc<Keys>>>,
}

/// What is done where there is no key file yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Makes {
    /// It is made.
    File,
    /// A key for this process alone is made; what it seals nobody else opens.
    Throwaway,
}

struct Keys {
    cipher: LessSafeKey,
    nonces: hmac::Key,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Keyring {
    /// The key in this file.
    #[must_use]
    pub fn new(file: PathBuf, makes: Makes) -> Self {
        Self { file, makes, keys: Mutex::default() }
    }

    /// Whether something was sealed with a key that nobody else will have.
    #[must_use]
    pub fn is_throwaway(&self) -> bool {
        let is_used = self.keys.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.makes == Makes::Throwaway && is_used && !self.file.exists()
    }

    fn keys(&self) -> Result<std::sync::Arc<Keys>, String> {
        let mut known = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = &*known {
            return Ok(std::sync::Arc::clone(keys));
        }
        let bytes = match read(&self.file)? {
            Some(bytes) => bytes,
            None => make(&self.file, self.makes)?,
        };
        let keys = std::sync::Arc::new(Keys::of(&bytes));
        *known = Some(std::sync::Arc::clone(&keys));
        Ok(keys)
    }
}

impl Keys {
    fn of(bytes: &[u8; KEY_BYTES]) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"boxship secrets").extract(bytes);
        let derive = |purpose: &[u8]| {
            let mut key = [0; KEY_BYTES];
            let purpose = [purpose];
            let expanded = root.expand(&purpose, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
            expanded.expect("32 bytes are what HKDF-SHA256 gives");
            key
        };
        let cipher = UnboundKey::new(&AES_256_GCM, &derive(b"values")).expect("a key of 32 bytes is AES-256's");
        Self { cipher: LessSafeKey::new(cipher), nonces: hmac::Key::new(hmac::HMAC_SHA256, &derive(b"nonces")) }
    }
}

impl Seal for Keyring {
    fn seal(&self, name: &str, value: &[u8]) -> Result<String, String> {
        let keys = self.keys()?;
        let mut mac = hmac::Context::with_key(&keys.nonces);
        mac.update(&u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(name.as_bytes());
        mac.update(value);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&mac.sign().as_ref()[..NONCE_LEN]);
        let mut sealed = value.to_vec();
        let with = Nonce::assume_unique_for_key(nonce);
        keys.cipher
            .seal_in_place_append_tag(with, Aad::from(SEALED), &mut sealed)
            .map_err(|_| "too long".to_owned())?;
        Ok(format!("{SEALED}{}", BASE64.encode([nonce.as_slice(), &sealed].concat())))
    }
}

impl Unseal for Keyring {
    fn unseal(&self, sealed: &str) -> Result<Vec<u8>, String> {
        let keys = self.keys()?;
        let why = || format!("the key in {} does not open it: it was sealed with another one", self.file.display());
        let bytes = sealed.strip_prefix(SEALED).and_then(|text| BASE64.decode(text).ok()).ok_or_else(why)?;
        let (nonce, rest) = bytes.split_at_checked(NONCE_LEN).ok_or_else(why)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| why())?;
        let mut value = rest.to_vec();
        let opened = keys.cipher.open_in_place(nonce, Aad::from(SEALED), &mut value).map_err(|_| why())?;
        Ok(opened.to_vec())
    }
}

/// The key in a file; `None` when there is none. One that others may read is refused.
fn read(file: &Path) -> Result<Option<[u8; KEY_BYTES]>, String> {
    let doing = |error: std::io::Error| format!("the secret key {} cannot be read: {error}", file.display());
    let data = match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(doing)?,
    };
    if data.mode() & 0o077 != 0 {
        let mode = data.mode() & 0o777;
        return Err(format!("the secret key {} has mode {mode:04o}: others may use it (chmod 0600)", file.display()));
    }
    let text = std::fs::read_to_string(file).map_err(doing)?;
    let bytes = text.trim().strip_prefix(HEAD).and_then(|text| BASE64.decode(text).ok());
    let key = bytes.and_then(|bytes| bytes.try_into().ok());
    key.map(Some).ok_or_else(|| format!("{} holds no secret key of boxship", file.display()))
}

fn make(file: &Path, makes: Makes) -> Result<[u8; KEY_BYTES], String> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut key).map_err(|_| "the kernel gives no random bytes".to_owned())?;
    if makes == Makes::Throwaway {
        return Ok(key);
    }
    let text = format!("{HEAD}{}\n", BASE64.encode(key));
    // Whole or not at all: half a key would lock everything in.
    let partial = file.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut out = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        match std::fs::hard_link(&partial, file) {
            // Somebody else was first: theirs is the key.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        std::fs::remove_file(&partial)?;
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(parent)?.sync_all()
    };
    write().map_err(|error| format!("the secret key {} cannot be made: {error}", file.display()))?;
    let made = read(file)?;
    made.ok_or_else(|| format!("the secret key {} vanished while it was made", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_the_same_text_each_time_and_opened_by_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let keys = Keyring::new(file.clone(), Makes::File);
        let sealed = keys.seal("shop/secret/db/password", b"hunter2").unwrap();
        assert!(!sealed.contains("hunter2"));
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let again = Keyring::new(file.clone(), Makes::File);
        assert_eq!(again.seal("shop/secret/db/password", b"hunter2").unwrap(), sealed);
        assert_eq!(again.unseal(&sealed).unwrap(), b"hunter2");
        assert_ne!(again.seal("shop/secret/other/password", b"hunter2").unwrap(), sealed, "equal values show");
        assert_ne!(again.seal("shop/secret/db/password", b"hunter3").unwrap(), sealed);
        for cut in [0, 3, 10, sealed.len() - 4] {
            assert!(again.unseal(&sealed[..cut]).is_err());
        }
        let other = Keyring::new(dir.path().join("other"), Makes::File);
        assert!(other.unseal(&sealed).unwrap_err().contains("does not open it"));
    }

    #[test]
    fn a_key_others_may_read_or_that_is_none_is_refused_and_a_look_makes_none() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        assert!(Keyring::new(file.clone(), Makes::Throwaway).seal("a", b"b").is_ok());
        assert!(!file.exists());
        std::fs::write(&file, "something else").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Keyring::new(file.clone(), Makes::File).seal("a", b"b").unwrap_err().contains("0644"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Keyring::new(file, Makes::File).seal("a", b"b").unwrap_err().contains("no secret key"));
    }
}
