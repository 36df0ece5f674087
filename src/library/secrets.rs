//! Secrets of the server itself, made once.

use std::fs;
use std::io::ErrorKind;

use super::error::{Doing, Result};
use super::{Library, document};

impl Library {
    /// The text of the secret `name`, which is made and kept where there is none yet. Only the
    /// library's owner can read the file.
    pub fn kept_secret(
        &self,
        name: &'static str,
        make: impl FnOnce() -> Result<String>,
    ) -> Result<String> {
        if let Some(text) = self.find_secret(name)? {
            return Ok(text);
        }
        let _lock = self.write_lock()?;
        // Another server may have been quicker.
        if let Some(text) = self.find_secret(name)? {
            return Ok(text);
        }
        self.keep_secret(name, make()?)
    }

    /// The same, made anew where what is kept does not serve any more.
    pub fn renewed_secret(
        &self,
        name: &'static str,
        serves: impl Fn(&str) -> bool,
        make: impl FnOnce() -> Result<String>,
    ) -> Result<String> {
        let found = || -> Result<Option<String>> {
            Ok(self.find_secret(name)?.filter(|text| serves(text)))
        };
        if let Some(text) = found()? {
            return Ok(text);
        }
        let _lock = self.write_lock()?;
        match found()? {
            Some(text) => Ok(text),
            None => self.keep_secret(name, make()?),
        }
    }

    fn keep_secret(&self, name: &'static str, text: String) -> Result<String> {
        let path = self.places().secrets().join(name);
        document::replace(&path, text.as_bytes(), 0o600)?;
        Ok(text)
    }

    /// The text of the secret `name`, if it was made already.
    pub fn find_secret(&self, name: &'static str) -> Result<Option<String>> {
        let path = self.places().secrets().join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).doing("reading", &path),
        }
    }
}
