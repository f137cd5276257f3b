//! An upload: a component as the body, or a form with the component and what is said about it.
//!
//! The body is read whole, within its bounds, before anything in it is looked at; what it holds is judged elsewhere.

use std::convert::Infallible;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use multer::Multipart;

use super::query::Query;
use super::reply::wrong;
use super::{PolicyLimits, Upload};
use weir_core::config::is_module_name;
use weir_listener::body::{self, BodyLimits};
use weir_listener::head::one;
use weir_listener::problem::{Problem, UNSUPPORTED_BODY};

/// How the component comes.
enum Form {
    /// The body is the component; the rest is in the query.
    Raw,
    /// `multipart/form-data` with this boundary.
    Multipart(String),
}

/// Reads an upload.
///
/// # Errors
/// 400, 408, 413, 415.
pub(super) async fn read(head: &Parts, body: Incoming, limits: &PolicyLimits) -> Result<Upload, Problem> {
    let form = form_of(&head.headers)?;
    let mut fields = Fields::default();
    for (name, value) in Query::read(head, &["name", "version", "activate"])?.into_fields() {
        fields.put(name, Bytes::copy_from_slice(value.as_bytes()))?;
    }
    let bounds = BodyLimits { bytes_max: limits.upload_bytes_max, timeout: limits.upload_timeout };
    let bytes = body::read(body, bounds).await?;
    match form {
        Form::Raw => fields.put("module", bytes)?,
        Form::Multipart(boundary) => parts(bytes, boundary, &mut fields).await?,
    }
    fields.into_upload()
}

fn form_of(headers: &HeaderMap) -> Result<Form, Problem> {
    body::check_uncoded(headers)?;
    let given = one(headers, &header::CONTENT_TYPE).ok().flatten().and_then(|given| given.to_str().ok());
    let given = given.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*essence {
        "application/wasm" | "application/octet-stream" => Ok(Form::Raw),
        "multipart/form-data" => multer::parse_boundary(given)
            .map(Form::Multipart)
            .map_err(|_| wrong("the form's Content-Type must name its boundary: multipart/form-data; boundary=…")),
        _ => {
            let detail = "send the component as application/wasm or application/octet-stream, or a multipart/form-data \
                          with it in the part module";
            Err(Problem::new(&UNSUPPORTED_BODY, detail))
        }
    }
}

async fn parts(body: Bytes, boundary: String, fields: &mut Fields) -> Result<(), Problem> {
    let malformed = |error: multer::Error| wrong(format!("not a well-formed multipart/form-data: {error}"));
    let mut form = Multipart::new(futures_util::stream::iter([Ok::<_, Infallible>(body)]), boundary);
    while let Some(part) = form.next_field().await.map_err(malformed)? {
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(wrong("every part needs a name: Content-Disposition: form-data; name=\"…\""));
        };
        fields.put(&name, part.bytes().await.map_err(malformed)?)?;
    }
    Ok(())
}

/// What was said so far, each field at most once, in the query or in a part.
#[derive(Default)]
struct Fields {
    module: Option<Bytes>,
    name: Option<String>,
    version: Option<String>,
    vectors: Option<String>,
    activate: Option<bool>,
}

impl Fields {
    fn put(&mut self, name: &str, value: Bytes) -> Result<(), Problem> {
        let text = || String::from_utf8(value.to_vec()).map_err(|_| wrong(format!("{name} must be text in UTF-8")));
        match name {
            "module" => once(&mut self.module, name, value),
            "name" => once(&mut self.name, name, plain(name, text()?)?),
            "version" => once(&mut self.version, name, plain(name, text()?)?),
            "vectors" => once(&mut self.vectors, name, text()?),
            "activate" => once(&mut self.activate, name, switch(name, &text()?)?),
            _ => Err(wrong("parts that are known here: module, name, version, vectors, activate")),
        }
    }

    fn into_upload(self) -> Result<Upload, Problem> {
        let Some(bytes) = self.module.filter(|bytes| !bytes.is_empty()) else {
            return Err(wrong("there is no component: send it as the body, or as the part module of a form"));
        };
        let Self { name, version, vectors, activate, .. } = self;
        Ok(Upload { bytes, name, version, vectors, activate: activate.unwrap_or_default() })
    }
}

fn once<T>(field: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(wrong(format!("{name} is given twice: give it once"))),
    }
}

fn plain(name: &str, text: String) -> Result<String, Problem> {
    if is_module_name(&text) {
        return Ok(text);
    }
    Err(wrong(format!(
        "{name} must be 1 to 64 letters, digits, hyphens, dots and underscores, beginning with a letter or digit; leave \
         it out to take the component's own"
    )))
}

fn switch(name: &str, text: &str) -> Result<bool, Problem> {
    text.parse().map_err(|_| wrong(format!("{name} must be true or false")))
}
