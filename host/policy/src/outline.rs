//! What is seen of a component without compiling it.

use std::path::Path;

use wasmparser::{Parser, Payload};
use weir_policy_vectors::{NAME_SECTION, VECTORS_SECTION, VERSION_SECTION, Vectors};

use super::refusal::LoadError;
use weir_core::config::{PolicyConfig, is_free_module_name, is_module_name};

/// Name of the custom section in which `weir policy build` notes the hash of the sources.
pub const SOURCE_SECTION: &str = "weir:source-sha256";

/// What a component says of itself.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Its functions.
    pub(super) functions: u64,
    /// Hash of its sources, where `weir policy build` made it.
    pub(super) source_sha256: Option<String>,
    /// Its name.
    pub(super) name: Option<String>,
    /// Its version.
    pub(super) version: Option<String>,
    /// The test vectors that it carries.
    pub(super) vectors: Option<Vectors>,
}

/// Reads a component's file, unless it is larger than allowed.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, LoadError> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| LoadError::Unreadable { path: path.to_owned(), reason: error.to_string() };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let too_large = |bytes: u64| LoadError::TooLarge { bytes, bytes_max };
    if size > bytes_max as u64 {
        return Err(too_large(size));
    }
    // The file may grow, or be a pipe without a size.
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > bytes_max { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Checks size and shape.
pub(super) fn inspect(config: &PolicyConfig, bytes: &[u8]) -> Result<Outline, LoadError> {
    if bytes.len() > config.module_bytes_max {
        return Err(LoadError::TooLarge { bytes: bytes.len() as u64, bytes_max: config.module_bytes_max });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(LoadError::NotAComponent { reason: "it does not begin with \\0asm".into() });
    }
    if Parser::is_core_wasm(bytes) {
        return Err(LoadError::CoreModule);
    }
    let mut outline = Outline::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| LoadError::NotAComponent { reason: error.to_string() })? {
            Payload::FunctionSection(functions) => outline.functions += u64::from(functions.count()),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            // What is nested in it speaks for itself, not for the component.
            Payload::CustomSection(section) if depth == 0 => outline.note(section.name(), section.data())?,
            _ => {}
        }
    }
    if outline.functions > u64::from(config.functions_max) {
        return Err(LoadError::TooManyFunctions { functions: outline.functions, functions_max: config.functions_max });
    }
    Ok(outline)
}

impl Outline {
    fn note(&mut self, section: &str, data: &[u8]) -> Result<(), LoadError> {
        let text = || String::from_utf8_lossy(data).into_owned();
        let version = || Some(text()).filter(|name| is_module_name(name));
        let name = || Some(text()).filter(|name| is_free_module_name(name));
        match section {
            SOURCE_SECTION => self.source_sha256 = Some(text()),
            NAME_SECTION => self.name = name(),
            VERSION_SECTION => self.version = version(),
            VECTORS_SECTION => self.vectors = Some(parse_vectors(&text())?),
            _ => {}
        }
        Ok(())
    }
}

/// Reads the text of test vectors.
pub(super) fn parse_vectors(text: &str) -> Result<Vectors, LoadError> {
    Vectors::parse(text).map_err(|error| LoadError::BadVectors { reason: error.to_string() })
}
