//! By whose right an object store is asked.

use std::path::{Path, PathBuf};

use chancery_keys::{SecretFileError, read_secret_file};
use chancery_types::SecretString;

/// An access key of an object store.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    /// Its name, which is no secret.
    pub(super) id: String,
    /// What signs.
    pub(super) secret: SecretString,
    /// What goes with an access key that is lent for a while.
    pub(super) token: Option<SecretString>,
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error(
        "there are no credentials for the object store; name a file in storage.tiles_credentials, or set \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Missing,
    #[error(transparent)]
    File(#[from] SecretFileError),
    #[error(
        "{}: {problem}; it has to have aws_access_key_id = ... and aws_secret_access_key = ... as the AWS tools write them",
        path.display()
    )]
    Content { path: PathBuf, problem: &'static str },
    #[error("{0} has characters that cannot be sent")]
    Characters(&'static str),
}

/// Where credentials come from.
#[derive(Debug)]
pub(super) enum CredentialSource {
    /// A file, which is read for each request: whoever renews the credentials replaces it.
    File(PathBuf),
    /// The environment, as it was at the start.
    Held(Credentials),
}

impl CredentialSource {
    /// The file that is named, else what the environment has. They are looked at once.
    pub(super) fn find(
        file: Option<&Path>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, CredentialError> {
        if let Some(file) = file {
            read(file)?;
            return Ok(Self::File(file.to_owned()));
        }
        let value = |name: &str| environment(name).filter(|value| !value.is_empty());
        let (Some(id), Some(secret)) = (value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY")) else {
            return Err(CredentialError::Missing);
        };
        let token = value("AWS_SESSION_TOKEN").map(SecretString::new);
        Ok(Self::Held(Credentials { id, secret: SecretString::new(secret), token }.checked()?))
    }

    /// The credentials of this moment.
    pub(super) async fn now(&self) -> Result<Credentials, CredentialError> {
        let file = match self {
            Self::Held(credentials) => return Ok(credentials.clone()),
            Self::File(file) => file.clone(),
        };
        let unread = |path: PathBuf| CredentialError::Content { path, problem: "reading it was given up" };
        let path = file.clone();
        tokio::task::spawn_blocking(move || read(&file)).await.unwrap_or_else(|_| Err(unread(path)))
    }
}

impl Credentials {
    /// What is sent stands in headers.
    fn checked(self) -> Result<Self, CredentialError> {
        let fits = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let token = self.token.as_ref().is_none_or(|token| fits(token.expose_secret()));
        match (fits(&self.id) && !self.id.contains(['/', ',']), token) {
            (false, _) => Err(CredentialError::Characters("the access key's id")),
            (_, false) => Err(CredentialError::Characters("the session token")),
            (true, true) => Ok(self),
        }
    }
}

/// Reads a file as the AWS tools have it: `name = value` below `[default]`, or below nothing.
fn read(path: &Path) -> Result<Credentials, CredentialError> {
    let content = |problem| CredentialError::Content { path: path.to_owned(), problem };
    let bytes = read_secret_file(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| content("it is no text"))?;
    let (mut id, mut secret, mut token) = (None, None, None);
    let mut is_ours = true;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[') {
            is_ours = section.trim_end_matches(']').trim() == "default";
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| content("a line has no ="))?;
        let place = match name.trim() {
            "aws_access_key_id" => &mut id,
            "aws_secret_access_key" => &mut secret,
            "aws_session_token" => &mut token,
            _ => continue,
        };
        if is_ours && place.replace(value.trim()).is_some() {
            return Err(content("it says something twice"));
        }
    }
    let (Some(id), Some(secret)) = (id, secret) else { return Err(content("it is not complete")) };
    if id.is_empty() || secret.is_empty() {
        return Err(content("it is not complete"));
    }
    let own = |text: &str| SecretString::new(text.to_owned());
    Credentials { id: id.to_owned(), secret: own(secret), token: token.map(own) }.checked()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s3");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        (directory, path)
    }

    fn of(text: &str) -> Result<Credentials, CredentialError> {
        read(&file(text).1)
    }

    #[test]
    fn a_file_is_read_as_the_aws_tools_write_it() {
        let plain = of("aws_access_key_id=AKIA\naws_secret_access_key=a/b+c=\n").unwrap();
        assert_eq!((plain.id.as_str(), plain.secret.expose_secret()), ("AKIA", "a/b+c="));
        assert!(plain.token.is_none());
        let whole = of(
            "# ours\n[other]\naws_access_key_id = NOT\naws_secret_access_key = not\n[default]\nregion = eu-1\n\
                        aws_access_key_id = AKIA\naws_secret_access_key = secret\naws_session_token = session\n",
        );
        let whole = whole.unwrap();
        assert_eq!((whole.id.as_str(), whole.secret.expose_secret()), ("AKIA", "secret"));
        assert_eq!(whole.token.unwrap().expose_secret(), "session");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_what_is_in_it() {
        for text in [
            "",
            "hidden",
            "aws_access_key_id = hidden",
            "aws_access_key_id = \naws_secret_access_key = hidden",
            "[other]\naws_access_key_id = hidden\naws_secret_access_key = hidden",
            "aws_access_key_id = A\naws_secret_access_key = hidden\naws_secret_access_key = hidden2",
            "aws_access_key_id = hid den\naws_secret_access_key = hidden",
            "aws_access_key_id = A\naws_secret_access_key = hidden\naws_session_token = hid\u{7}den",
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(!error.contains("hid"), "{error}");
        }
        let (_directory, path) = file("aws_access_key_id = A\naws_secret_access_key = b");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[tokio::test]
    async fn a_file_comes_before_the_environment_and_is_read_anew() {
        let environment = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("ENV".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
            _ => None,
        };
        let held = CredentialSource::find(None, environment).unwrap().now().await.unwrap();
        assert_eq!((held.id.as_str(), held.token.is_none()), ("ENV", true));
        let (_directory, path) = file("aws_access_key_id = ONE\naws_secret_access_key = b");
        let source = CredentialSource::find(Some(&path), environment).unwrap();
        assert_eq!(source.now().await.unwrap().id, "ONE");
        std::fs::write(&path, "aws_access_key_id = TWO\naws_secret_access_key = b").unwrap();
        assert_eq!(source.now().await.unwrap().id, "TWO");
        let none = CredentialSource::find(None, |_| Some(String::new())).unwrap_err().to_string();
        assert!(none.contains("storage.tiles_credentials"), "{none}");
    }
}
