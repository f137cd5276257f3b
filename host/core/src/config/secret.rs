//! What is in a file instead of the configuration: read in one place, without the line end that editors and `echo` put behind it.
//! And how a text with a password in it is shown.

use std::path::Path;

use super::{ConfigError, value};

/// What stands for what is not shown.
pub(super) const HIDDEN: &str = "***";

/// The file's bytes. Of a text one line end at its end does not count; what is no text is taken as it is.
///
/// # Errors
/// A file that cannot be read, with the cause.
pub(super) fn bytes_of(field: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = raw(field, path)?;
    if std::str::from_utf8(&bytes).is_ok() && bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}

/// The file's bytes, all of them.
///
/// # Errors
/// As [`bytes_of`].
pub(super) fn raw(field: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| unreadable(field, path, &error))
}

/// The same of a file that must hold text.
///
/// # Errors
/// As [`bytes_of`]; bytes that are no text.
pub(super) fn text_of(field: &str, path: &Path) -> Result<String, ConfigError> {
    String::from_utf8(bytes_of(field, path)?).map_err(|_| value(field, format!("{} is not UTF-8 text", path.display())))
}

fn unreadable(field: &str, path: &Path, error: &std::io::Error) -> ConfigError {
    value(field, format!("cannot read {}: {error}", path.display()))
}

/// A URL without passwords: in its authority, and in parameters whose names say so. What is no URL may be a bare password, and
/// is not shown at all.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.starts_with("sqlite:") { url.to_owned() } else { HIDDEN.to_owned() };
    };
    // The last one: whoever forgets to encode a password has an `@`, `/` or `?` in it.
    let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
    let user = user.map(|user| match user.split_once(':') {
        Some((name, _)) => format!("{name}:{HIDDEN}@"),
        None => format!("{user}@"),
    });
    let (place, query) = place.split_once('?').map_or((place, None), |(place, query)| (place, Some(query)));
    let hide = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret_name(name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    };
    let query = query.map(|query| format!("?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&")));
    format!("{scheme}://{}{place}{}", user.unwrap_or_default(), query.unwrap_or_default())
}

/// Whether a name, such as one of the rules' own settings, says that what it holds is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "pwd", "secret", "token", "credential", "key"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_passwords() {
        for (url, shown) in [
            ("postgres://app:s3cret@db.example/shop", "postgres://app:***@db.example/shop"),
            ("postgres://app:p@ss/w?rd@db/shop", "postgres://app:***@db/shop"),
            ("redis://:s3cret@cache:6379/1", "redis://:***@cache:6379/1"),
            ("redis://a:s3cret@one:1,b:other@two:2", "redis://a:***@two:2"),
            (
                "postgres://db/shop?user=app&password=s3cret&sslmode=require",
                "postgres://db/shop?user=app&password=***&sslmode=require",
            ),
            ("redis+unix:///run/redis.sock?pass=s3cret", "redis+unix:///run/redis.sock?pass=***"),
            ("mysql://root@db/shop", "mysql://root@db/shop"),
            ("sqlite:weir.db", "sqlite:weir.db"),
            ("sqlite://weir.db", "sqlite://weir.db"),
            ("s3cret", "***"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn a_line_end_does_not_count_and_bytes_are_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (held, read) in [
            (&b"s3cret\n"[..], &b"s3cret"[..]),
            (b"s3cret\r\n", b"s3cret"),
            (b"s3cret", b"s3cret"),
            (b" two lines \n\n", b" two lines \n"),
            (b"\xff\x00\n", b"\xff\x00\n"),
        ] {
            std::fs::write(&path, held).unwrap();
            assert_eq!(bytes_of("x", &path).unwrap(), read);
        }
        let error = bytes_of("sql.url_file", &directory.path().join("nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("sql.url_file: cannot read ") && error.ends_with("(os error 2)"), "{error}");
    }
}
