//! Rust sources as a parser reads them, for the tests that hold the rules of the house.
//!
//! Comments, and items under `#[cfg(test)]`, are not part of what is looked at.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::visit::{self, Visit};
use syn::{Attribute, FnArg, ImplItem, Item, Meta, Pat, Signature};

/// The top directory of the repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files with one of these extensions in a directory and below it, in order, with their texts.
pub fn texts_in(directory: &Path, extensions: &[&str]) -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, extensions: &[&str], found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if path.is_dir() {
                // What was built is not ours.
                if path.ends_with("target") || path.ends_with("node_modules") {
                    continue;
                }
                walk(&path, extensions, found);
            } else if extensions.contains(&extension) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, extensions, &mut found);
    found.sort();
    found
}

/// A string literal, and the line on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// The line, from 1.
    pub line: usize,
    /// What stands between the quotes.
    pub text: String,
}

/// A source file without its tests.
pub struct Source {
    file: syn::File,
}

impl Source {
    /// Parses `text`.
    ///
    /// # Panics
    /// When it is not Rust.
    pub fn parse(text: &str) -> Self {
        let mut file = syn::parse_file(text).unwrap_or_else(|error| panic!("not Rust: {error}\n{text}"));
        if file.attrs.iter().any(is_for_tests) {
            file.items.clear();
        }
        drop_tests(&mut file.items);
        Self { file }
    }

    /// The first segment of every path that begins with `crate::` or `weir::`, also within braces and macros.
    pub fn imports(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        imports_of(self.file.to_token_stream(), &mut found);
        // A macro, a constant or a type of the crate's root is no module.
        found.retain(|name| name.starts_with(|first: char| first.is_ascii_lowercase()));
        found
    }

    /// String literals, without doc comments.
    pub fn literals(&self) -> Vec<Literal> {
        let mut found = Vec::new();
        each_token(self.file.to_token_stream(), &mut |token, _| {
            if let TokenTree::Literal(literal) = token
                && let Ok(syn::Lit::Str(text)) = syn::parse2(literal.to_token_stream())
            {
                found.push(Literal { line: literal.span().start().line, text: text.value() });
            }
        });
        found
    }

    /// The lines on which a method of one of these names is called, or a macro of one of these names.
    pub fn calls(&self, names: &[&str]) -> Vec<usize> {
        let mut found = Vec::new();
        each_token(self.file.to_token_stream(), &mut |token, neighbours| {
            if let TokenTree::Ident(name) = token
                && names.iter().any(|wanted| name == wanted)
                && (neighbours.after == Some('!') || neighbours.before == Some('.') && neighbours.is_called)
            {
                found.push(name.span().start().line);
            }
        });
        found
    }

    /// The names of functions that take a tuple apart in their parameters.
    pub fn functions_with_tuple_parameters(&self) -> Vec<String> {
        let mut found = Signatures::default();
        found.visit_file(&self.file);
        found.with_tuples
    }
}

#[derive(Default)]
struct Signatures {
    with_tuples: Vec<String>,
}

impl<'ast> Visit<'ast> for Signatures {
    fn visit_signature(&mut self, signature: &'ast Signature) {
        let is_tuple = |input: &FnArg| matches!(input, FnArg::Typed(typed) if matches!(*typed.pat, Pat::Tuple(_)));
        if signature.inputs.iter().any(is_tuple) {
            self.with_tuples.push(signature.ident.to_string());
        }
        visit::visit_signature(self, signature);
    }
}

/// Also what is built for the tests of other crates.
fn is_for_tests(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else { return false };
    let condition: String = list.tokens.to_string().split_whitespace().collect();
    list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("any(test,"))
}

fn drop_tests(items: &mut Vec<Item>) {
    items.retain(|item| !attributes_of(item).iter().any(is_for_tests));
    for item in items {
        match item {
            Item::Mod(module) => {
                if let Some((_, inner)) = &mut module.content {
                    drop_tests(inner);
                }
            }
            Item::Impl(block) => block.items.retain(|item| match item {
                ImplItem::Fn(function) => !function.attrs.iter().any(is_for_tests),
                ImplItem::Const(constant) => !constant.attrs.iter().any(is_for_tests),
                _ => true,
            }),
            _ => {}
        }
    }
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// What stands beside a token.
struct Neighbours {
    before: Option<char>,
    after: Option<char>,
    /// Parentheses follow.
    is_called: bool,
}

/// Every token, also within groups; not those of attributes, among which are the doc comments.
fn each_token(tokens: TokenStream, take: &mut impl FnMut(&TokenTree, &Neighbours)) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let sign = |at: Option<usize>| match at.and_then(|at| tokens.get(at)) {
        Some(TokenTree::Punct(sign)) => Some(sign.as_char()),
        _ => None,
    };
    for (at, token) in tokens.iter().enumerate() {
        let before = sign(at.checked_sub(1));
        let is_called =
            matches!(tokens.get(at + 1), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
        take(token, &Neighbours { before, after: sign(Some(at + 1)), is_called });
        if let TokenTree::Group(group) = token {
            let before_that = sign(at.checked_sub(2));
            let is_attribute = group.delimiter() == Delimiter::Bracket
                && (before == Some('#') || (before, before_that) == (Some('!'), Some('#')));
            if !is_attribute {
                each_token(group.stream(), take);
            }
        }
    }
}

fn imports_of(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_sign =
        |at: usize, wanted: char| matches!(tokens.get(at), Some(TokenTree::Punct(sign)) if sign.as_char() == wanted);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(root) if root == "crate" || root == "weir" => {
                let is_inner = at >= 2 && is_sign(at - 1, ':') && is_sign(at - 2, ':');
                if is_inner || !is_sign(at + 1, ':') || !is_sign(at + 2, ':') {
                    continue;
                }
                match tokens.get(at + 3) {
                    Some(TokenTree::Ident(name)) => drop(found.insert(name.to_string())),
                    Some(TokenTree::Group(list)) => heads_of_list(list.stream(), found),
                    _ => {}
                }
            }
            TokenTree::Group(group) => imports_of(group.stream(), found),
            _ => {}
        }
    }
}

/// `model::Id, sql::{Sql, SqlError}, store`: `model`, `sql`, `store`.
fn heads_of_list(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let mut is_head = true;
    for token in tokens {
        match token {
            TokenTree::Ident(name) if is_head => {
                found.insert(name.to_string());
                is_head = false;
            }
            TokenTree::Punct(sign) if sign.as_char() == ',' => is_head = true,
            _ => {}
        }
    }
}
