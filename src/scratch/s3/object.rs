//! Keys, public URLs and content types. Pure.

use url::Url;

use crate::ids::KernelId;

/// `{prefix}/{kernel}/{relative}`; an empty prefix adds nothing.
pub(super) fn key(prefix: &str, kernel: KernelId, relative: &str) -> String {
    if prefix.is_empty() { format!("{kernel}/{relative}") } else { format!("{prefix}/{kernel}/{relative}") }
}

/// The plain URL of a public object: the reference's form, or `{endpoint}/{bucket}/{key}` elsewhere.
pub(super) fn public_url(endpoint: Option<&Url>, bucket: &str, key: &str) -> String {
    let key = percent_encoded(key);
    match endpoint {
        None => format!("https://{bucket}.s3.amazonaws.com/{key}"),
        Some(endpoint) => format!("{}/{bucket}/{key}", endpoint.as_str().trim_end_matches('/')),
    }
}

/// Everything but unreserved characters and slashes as `%XX`. S3 reads a bare `+` as a space, so nothing less is safe.
fn percent_encoded(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.extend(
                [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789ABCDEF"[usize::from(digit)])),
            );
        }
    }
    text
}

/// What a browser should take the file for, by its name's ending; for the kinds that notebooks make.
pub(super) fn content_type(relative: &str) -> &'static str {
    let ending =
        relative.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, ending)| ending);
    match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        "pdf" => "application/pdf",
        "txt" | "log" => "text/plain",
        "csv" => "text/csv",
        "html" | "htm" => "text/html",
        "json" => "application/json",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_and_urls_have_the_reference_form() {
        let kernel: KernelId = "0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10".parse().unwrap();
        let key = key("bucket", kernel, "sub/a b+ñ.png");
        assert_eq!(key, "bucket/0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10/sub/a b+ñ.png");
        assert_eq!(
            public_url(None, "codeonweb", &key),
            "https://codeonweb.s3.amazonaws.com/bucket/0b9e1d3a-1f0c-4a52-9a43-0c7a6f3b2f10/sub/a%20b%2B%C3%B1.png"
        );
        let minio: Url = "http://minio:9000/".parse().unwrap();
        assert_eq!(public_url(Some(&minio), "b", "k?#%"), "http://minio:9000/b/k%3F%23%25");
        assert_eq!(super::key("", kernel, "x"), format!("{kernel}/x"));
    }

    #[test]
    fn the_ending_tells_the_kind() {
        for (name, kind) in [
            ("a.PNG", "image/png"),
            ("d.png/x", "application/octet-stream"),
            ("png", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), kind, "{name}");
        }
    }

    proptest! {
        #[test]
        fn an_encoded_key_decodes_to_itself(key in "[a-z/][ -~é/+%]{0,16}") {
            let encoded = percent_encoded(&key);
            let mut decoded = Vec::new();
            let mut rest = encoded.as_str();
            while !rest.is_empty() {
                let escaped = rest.strip_prefix('%').map(|hex| u8::from_str_radix(&hex[..2], 16).unwrap());
                decoded.push(escaped.unwrap_or(rest.as_bytes()[0]));
                rest = &rest[if escaped.is_some() { 3 } else { 1 }..];
            }
            prop_assert_eq!(String::from_utf8(decoded).unwrap(), key);
        }
    }
}
