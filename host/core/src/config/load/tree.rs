//! A configuration as it was read: values, and where each comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Mistake;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has given it.
    Default,
    /// A place in a configuration file.
    Place {
        /// The file.
        file: Arc<Path>,
        /// Its line, from 1.
        line: usize,
        /// The character in it, from 1.
        column: usize,
    },
    /// A configuration file as a whole.
    File(Arc<Path>),
    /// A variable of the environment.
    Environment(String),
    /// What a file holds that the configuration names.
    Held(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::Place { file, line, column } => write!(out, "{}:{line}:{column}", file.display()),
            Self::File(file) => write!(out, "{}", file.display()),
            Self::Environment(variable) => write!(out, "environment {variable}"),
            Self::Held(file) => write!(out, "held by {}", file.display()),
        }
    }
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A date or time, which no setting is.
    Time(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

/// What came from elsewhere into a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// As it is written: `${NAME}`.
    pub stand_in: String,
    /// What was put there.
    pub text: String,
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub content: Content,
    pub origin: Origin,
    /// Where its name stands, where it has one.
    pub name: Option<Origin>,
    pub inserted: Vec<Inserted>,
    /// A text that may be meant as another type: it comes from outside of a file.
    pub is_loose: bool,
    /// Its place in the list that it was written in.
    pub index: usize,
    /// It is a mistake: as if nobody had given it.
    pub is_out: bool,
}

impl Node {
    pub fn new(content: Content, origin: Origin) -> Self {
        Self { content, origin, name: None, inserted: Vec::new(), is_loose: false, index: 0, is_out: false }
    }

    pub fn table(origin: Origin) -> Self {
        Self::new(Content::Table(BTreeMap::new()), origin)
    }

    /// Its type, as a JSON Schema names it.
    pub fn type_name(&self) -> &'static str {
        match self.content {
            Content::Text(_) => "string",
            Content::Integer(_) => "integer",
            Content::Float(_) => "number",
            Content::Boolean(_) => "boolean",
            Content::Time(_) => "time",
            Content::List(_) => "array",
            Content::Table(_) => "object",
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        if let Content::Text(text) = &self.content { Some(text) } else { None }
    }

    pub fn entries(&self) -> Option<&BTreeMap<String, Node>> {
        if let Content::Table(entries) = &self.content { Some(entries) } else { None }
    }

    pub fn entries_mut(&mut self) -> Option<&mut BTreeMap<String, Node>> {
        if let Content::Table(entries) = &mut self.content { Some(entries) } else { None }
    }

    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entries()?.get(name)
    }

    /// Takes out what is a mistake.
    pub fn sweep(&mut self) {
        match &mut self.content {
            Content::List(nodes) => {
                nodes.retain(|node| !node.is_out);
                nodes.iter_mut().for_each(Node::sweep);
            }
            Content::Table(entries) => {
                entries.retain(|_, node| !node.is_out);
                entries.values_mut().for_each(Node::sweep);
            }
            _ => {}
        }
    }
}

/// A file's text, to say where in it something stands.
pub(super) struct Text<'a> {
    file: Arc<Path>,
    text: &'a str,
}

impl<'a> Text<'a> {
    pub fn new(file: &Path, text: &'a str) -> Self {
        Self { file: file.into(), text }
    }

    fn place(&self, span: &Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Origin::Place { file: Arc::clone(&self.file), line, column }
    }

    /// Its values; what is no TOML is a mistake, and the rest is read.
    pub fn parse(&self, mistakes: &mut Vec<Mistake>) -> Node {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let origin = error.span().map_or_else(|| Origin::File(Arc::clone(&self.file)), |span| self.place(&span));
            mistakes.push(Mistake {
                origin,
                field: String::new(),
                reason: error.message().trim_end().replace('\n', "; "),
            });
        }
        Node { origin: Origin::File(Arc::clone(&self.file)), ..self.table(table.get_ref(), &table.span()) }
    }

    fn table(&self, table: &DeTable<'_>, span: &Range<usize>) -> Node {
        let entries = table.iter().map(|(name, value)| {
            let node = Node { name: Some(self.place(&name.span())), ..self.node(value) };
            (name.get_ref().to_string(), node)
        });
        Node::new(Content::Table(entries.collect()), self.place(span))
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let span = value.span();
        let content = match value.get_ref() {
            DeValue::Table(table) => return self.table(table, &span),
            DeValue::Array(list) => {
                let nodes = list.iter().enumerate().map(|(index, value)| Node { index, ..self.node(value) });
                Content::List(nodes.collect())
            }
            other => scalar(other),
        };
        Node::new(content, self.place(&span))
    }
}

fn scalar(value: &DeValue<'_>) -> Content {
    match value {
        DeValue::String(text) => Content::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Content::Integer(number),
            // Beyond what any setting can be: the checks say so.
            Err(_) => Content::Time(number.to_string()),
        },
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Content::Time(number.to_string()), Content::Float)
        }
        DeValue::Boolean(value) => Content::Boolean(*value),
        DeValue::Datetime(time) => Content::Time(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => Content::Time(String::new()),
    }
}

/// A text from outside of a file, read as a TOML value.
pub(super) fn value_of(text: &str, origin: &Origin) -> Option<Node> {
    let value = DeValue::parse(text.trim()).ok()?;
    Some(whole(value.get_ref(), origin))
}

fn whole(value: &DeValue<'_>, origin: &Origin) -> Node {
    let content = match value {
        DeValue::Array(list) => {
            let nodes = list.iter().enumerate().map(|(index, value)| Node { index, ..whole(value.get_ref(), origin) });
            Content::List(nodes.collect())
        }
        DeValue::Table(table) => Content::Table(
            table.iter().map(|(name, value)| (name.get_ref().to_string(), whole(value.get_ref(), origin))).collect(),
        ),
        other => scalar(other),
    };
    Node::new(content, origin.clone())
}
