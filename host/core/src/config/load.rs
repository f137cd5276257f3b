//! From files and the environment to a [`Config`]: everything that is wrong in one answer, each with its place.
//!
//! Parse → put in `${…}` → lay the files over each other, then the environment → read `…_file` → look at the schema → deserialise →
//! validate. What is a mistake is taken out, so that the rest is looked at all the same. A secret is in no message.
//!
//! - `tree`: values and where they come from · `insert`: `${…}` · `merge`: several files · `environment`: `WEIR_…` · `held`:
//!   `…_file` · `walk`: the schema · `read`: serde · `mistake`: how it is told

mod environment;
mod held;
mod insert;
mod merge;
mod mistake;
mod read;
mod tests;
mod tree;
mod walk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

pub use self::mistake::Mistake;
pub(crate) use self::mistake::told;
use self::read::{Refused, Step};
pub use self::tree::Origin;
pub(super) use self::tree::{Content, Node};
use super::secret::HIDDEN;
use super::{Config, ConfigError, schema};

/// What a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
    base: Option<Config>,
    reads_secrets: bool,
}

/// A configuration, and where each of its values comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// What is to be said besides.
    pub warnings: Vec<String>,
    pub(super) root: Node,
}

impl Sources {
    /// These files, and those that end in `.toml` in these directories in the order of their names. What comes later overrides.
    pub fn files<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Self {
        Self { files: files.into_iter().map(|path| path.as_ref().to_owned()).collect(), ..Self::default() }
    }

    /// In place of files, a configuration that is built in.
    pub fn built_in(base: Config) -> Self {
        Self { base: Some(base), ..Self::default() }
    }

    /// Also what the environment of this process says. A variable that is not UTF-8 is as one that is not set.
    #[must_use]
    pub fn with_environment(self) -> Self {
        let all =
            std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        self.with_variables(all)
    }

    /// Also what these variables say.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Also looks into the files with keys and tokens: for those who serve.
    #[must_use]
    pub fn with_secrets(self) -> Self {
        Self { reads_secrets: true, ..self }
    }

    /// Whether its variables make a configuration of their own, so that without a file it is not the demo.
    pub fn names_own(&self) -> bool {
        environment::is_own(&self.environment)
    }

    /// Reads it.
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut mistakes = Vec::new();
        let mut root = Node::table(Origin::Default);
        if let Some(base) = &self.base {
            root = built_in(base);
        }
        for file in self.listed(&mut mistakes) {
            if let Some(mut node) = read_file(&file, &mut mistakes) {
                insert::insert(&mut node, "", &self.environment, &mut mistakes);
                node.sweep();
                merge::merge(&mut root, node, schema::schema());
            }
        }
        // Where the text of a file is broken, what else is said of it may be wrong.
        let is_broken = !mistakes.is_empty() && mistakes.iter().any(|mistake| mistake.field.is_empty());
        let warnings = environment::lay(&mut root, &self.environment, &mut mistakes);
        held::read(&mut root, schema::schema(), "", &mut mistakes);
        walk::check(&mut root, schema::schema(), "", &mut mistakes);
        let known = mistakes.len();
        let read = self.settings(&mut root, &mut mistakes);
        if is_broken {
            mistakes.truncate(known);
            mistakes.retain(|mistake| !mistake.reason.starts_with("is missing"));
        }
        match read {
            Some(config) if mistakes.is_empty() => Ok(Loaded { config, warnings, root }),
            _ => Err(ConfigError::Mistakes(self.in_order(mistakes))),
        }
    }

    /// The settings of what is right; adds what their types and checks say.
    fn settings(&self, root: &mut Node, mistakes: &mut Vec<Mistake>) -> Option<Config> {
        leave_out(root, schema::schema());
        root.sweep();
        let config = loop {
            match Config::deserialize(&*root) {
                Ok(config) => break config,
                Err(refused) => {
                    if !take_out(root, &refused, mistakes) {
                        return None;
                    }
                    leave_out(root, schema::schema());
                    root.sweep();
                }
            }
        };
        let mut checks = vec![config.validate()];
        if self.reads_secrets {
            checks.push(config.validate_secrets());
        }
        if let Err(error) = super::all(checks) {
            for mistake in placed(root, error) {
                if !mistakes.iter().any(|known| known.field == mistake.field && !known.field.is_empty()) {
                    mistakes.push(mistake);
                }
            }
        }
        Some(config)
    }

    /// The files that are meant; a directory stands for those in it.
    fn listed(&self, mistakes: &mut Vec<Mistake>) -> Vec<PathBuf> {
        let mut listed = Vec::new();
        for path in &self.files {
            if !path.is_dir() {
                listed.push(path.clone());
                continue;
            }
            match toml_files(path) {
                Ok(files) if files.is_empty() => {
                    mistakes.push(of_file(path, "holds no file that ends in .toml".into()))
                }
                Ok(files) => listed.extend(files),
                Err(error) => mistakes.push(of_file(path, format!("cannot be read: {error}"))),
            }
        }
        listed
    }

    /// By file as given, then by place; what has no place comes last.
    fn in_order(&self, mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
        let files = self.listed(&mut Vec::new());
        let rank = |path: &Path| files.iter().position(|file| file == path).unwrap_or(files.len());
        mistakes.sort_by_key(|mistake| match &mistake.origin {
            Origin::File(file) => (0, rank(file), 0, 0),
            Origin::Place { file, line, column } => (0, rank(file), *line, *column),
            Origin::Environment(_) => (1, 0, 0, 0),
            Origin::Held(_) => (2, 0, 0, 0),
            Origin::Default => (3, 0, 0, 0),
        });
        mistakes.dedup();
        mistakes
    }
}

fn toml_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        // Mounted secrets and maps have directories and links of their own, which begin with two dots.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn of_file(path: &Path, reason: String) -> Mistake {
    Mistake { origin: Origin::File(path.into()), field: String::new(), reason }
}

fn read_file(path: &Path, mistakes: &mut Vec<Mistake>) -> Option<Node> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(tree::Text::new(path, &text).parse(mistakes)),
        Err(error) => {
            mistakes.push(of_file(path, format!("cannot be read: {error}")));
            None
        }
    }
}

/// What is built in, as if nobody had given it.
fn built_in(config: &Config) -> Node {
    let text = toml::to_string(config).unwrap_or_default();
    let mut node = tree::Text::new(Path::new(""), &text).parse(&mut Vec::new());
    forget_places(&mut node);
    node
}

fn forget_places(node: &mut Node) {
    (node.origin, node.name) = (Origin::Default, None);
    match &mut node.content {
        Content::Table(entries) => entries.values_mut().for_each(forget_places),
        Content::List(nodes) => nodes.iter_mut().for_each(forget_places),
        _ => {}
    }
}

/// A table that lacks what it cannot do without is left out as a whole.
fn leave_out(node: &mut Node, of: &Value) {
    match &mut node.content {
        Content::List(nodes) => {
            let items = schema::items(of).unwrap_or_else(|| schema::anything());
            nodes.iter_mut().for_each(|node| leave_out(node, items));
        }
        Content::Table(entries) => {
            let properties = schema::properties(of);
            for (name, node) in entries.iter_mut() {
                let of = properties.and_then(|properties| properties.get(name)).or_else(|| schema::values(of));
                leave_out(node, of.unwrap_or_else(|| schema::anything()));
            }
            let required = schema::required(of);
            node.is_out |= required.iter().any(|name| entries.get(*name).is_some_and(|node| node.is_out));
        }
        _ => {}
    }
}

/// Notes what a type refused and takes it out. `false` where nothing could be taken out.
fn take_out(root: &mut Node, refused: &Refused, mistakes: &mut Vec<Mistake>) -> bool {
    let (mut node, mut of, mut field) = (root, schema::schema(), String::new());
    for step in refused.way.iter().rev() {
        let next = match (step, &mut node.content) {
            (Step::Name(name), Content::Table(entries)) => {
                let known = schema::properties(of).and_then(|properties| properties.get(name));
                of = known.or_else(|| schema::values(of)).unwrap_or_else(|| schema::anything());
                field = join(&field, name);
                entries.get_mut(name)
            }
            (Step::Place(place), Content::List(nodes)) => {
                of = schema::items(of).unwrap_or_else(|| schema::anything());
                let node = nodes.get_mut(*place);
                field = format!("{field}[{}]", node.as_ref().map_or(*place, |node| node.index));
                node
            }
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => return false,
        }
    }
    if !refused.is_of_table || mistakes.is_empty() {
        let reason = refused.reason.strip_prefix(&format!("{field}: ")).unwrap_or(&refused.reason).to_owned();
        mistakes.push(Mistake { origin: node.origin.clone(), reason: hide(reason, node, of), field });
    }
    let was_in = !node.is_out && !refused.way.is_empty();
    node.is_out = true;
    was_in
}

/// Mistakes of checks with the places of their settings.
fn placed(root: &Node, error: ConfigError) -> Vec<Mistake> {
    match error {
        ConfigError::Several(several) => several.into_iter().flat_map(|error| placed(root, error)).collect(),
        ConfigError::Value { field, reason } => {
            let found = found(root, &field);
            let reason = hide(reason, found.node, found.of);
            vec![Mistake { origin: found.origin(), field: found.written.unwrap_or(field), reason }]
        }
        other => vec![Mistake { origin: Origin::Default, field: String::new(), reason: other.to_string() }],
    }
}

/// What is at a dotted path, or the nearest above.
struct Found<'a> {
    node: &'a Node,
    of: &'a Value,
    /// The path with the places that are in the file; `None` where it leads nowhere.
    written: Option<String>,
}

impl Found<'_> {
    fn origin(&self) -> Origin {
        let is_table = self.node.entries().is_some();
        let name = self.node.name.as_ref().filter(|_| is_table || self.written.is_none());
        name.unwrap_or(&self.node.origin).clone()
    }
}

fn found<'a>(root: &'a Node, path: &str) -> Found<'a> {
    let (mut node, mut of, mut written) = (root, schema::schema(), String::new());
    for part in path.split('.') {
        let (name, places) = part.split_once('[').map_or((part, None), |(name, places)| (name, Some(places)));
        let Some(next) = node.get(name) else { return Found { node, of, written: None } };
        let known = schema::properties(of).and_then(|properties| properties.get(name));
        of = known.or_else(|| schema::values(of)).unwrap_or_else(|| schema::anything());
        (node, written) = (next, join(&written, name));
        let place = places.and_then(|places| places.trim_end_matches(']').parse::<usize>().ok());
        if let (Some(place), Content::List(nodes)) = (place, &node.content) {
            let Some(next) = nodes.get(place) else { return Found { node, of, written: None } };
            of = schema::items(of).unwrap_or_else(|| schema::anything());
            (node, written) = (next, format!("{written}[{}]", next.index));
        }
    }
    Found { node, of, written: Some(written) }
}

/// A message without what came from elsewhere: it may be a secret, and whoever reads the message knows what was meant.
fn hide(reason: String, node: &Node, of: &Value) -> String {
    let mut hidden: Vec<(String, &str)> = Vec::new();
    collect_hidden(node, of, &mut hidden);
    hidden.into_iter().fold(reason, |reason, (text, stand_in)| {
        let quoted = format!("{text:?}");
        let inside = quoted.trim_matches('"');
        reason.replace(&text, stand_in).replace(inside, stand_in)
    })
}

fn collect_hidden<'a>(node: &'a Node, of: &Value, hidden: &mut Vec<(String, &'a str)>) {
    match &node.content {
        Content::Table(entries) => {
            let properties = schema::properties(of);
            for (name, node) in entries {
                let of = properties.and_then(|properties| properties.get(name)).unwrap_or_else(|| schema::anything());
                collect_hidden(node, of, hidden);
            }
        }
        Content::List(nodes) => {
            let items = schema::items(of).unwrap_or_else(|| schema::anything());
            nodes.iter().for_each(|node| collect_hidden(node, items, hidden));
        }
        Content::Text(text) => {
            let is_secret = schema::secret(of).is_some() || matches!(node.origin, Origin::Held(_));
            if is_secret && !text.is_empty() {
                hidden.push((text.clone(), HIDDEN));
            }
            let inserted = node.inserted.iter().filter(|inserted| !inserted.text.is_empty());
            hidden.extend(inserted.map(|inserted| (inserted.text.clone(), inserted.stand_in.as_str())));
        }
        _ => {}
    }
}

/// A setting in a table.
fn join(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}
