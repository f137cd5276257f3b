//! Policy modules made for one test each: the default rules without a limit, with one thing changed.
//!
//! The parts are WebAssembly text in `guest/`; a [`Guest`] says what stands in their gaps, and the `wat` crate makes the
//! component. Nothing here needs a compiler for guests.

use wasm_encoder::{ComponentSection as _, CustomSection};

/// A module that decides toggles, and more if it is asked to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guest<'a> {
    /// Also exports `flush`.
    pub flush: bool,
    /// Also exports `counter`.
    pub counter: bool,
    /// Also exports `ingest`.
    pub ingest: bool,
    /// What it imports.
    pub import: Import,
    /// Functions (and a start section) of its own.
    pub functions: &'a str,
    /// Done first in each call of `decide`: `$length` is the number of rules, `$calls` counts this instance's calls.
    pub before: &'a str,
    /// Done for each intent, when its rule is written: `$intent` and `$rule` are their places in memory.
    pub each: &'a str,
    /// Done for each hit, when its rule is written: `$rule` is its place in memory, `$length` the number of rules.
    pub counted: &'a str,
    /// Done for each document, when its verdict is written: `$verdict` is its place in memory, `$length` their number.
    pub judged: &'a str,
    /// Done last in each call of `plan`: at 16 is flush-now, at 20 changes-max, at 24 look-again-ms.
    pub planned: &'a str,
    /// Done last in each call of `coalesce`: `$kept` is the place of `$length` indexes.
    pub coalesced: &'a str,
}

/// What a guest imports, each as one function of its rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Import {
    /// Nothing.
    #[default]
    Nothing,
    /// `$log (level, message, its length)`.
    Log,
    /// `$increment (additions, their number, result)` of `redis`.
    Redis,
    /// `sql`, without calling it.
    Sql,
}

impl Import {
    /// Of the component: the import, and its function lowered as `$lowered`.
    fn component_text(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Log => {
                r#"(import "weir:policy/log@0.1.0" (instance $log
                     (type $level_ (enum "debug" "info" "warn" "error"))
                     (export "level" (type $level (eq $level_)))
                     (export "log" (func (param "level" $level) (param "message" string)))))
                   (core func $lowered (canon lower (func $log "log") (memory $memory)))
                   (core instance $host (export "lowered" (func $lowered)))"#
            }
            Self::Redis => {
                r#"(import "weir:policy/redis@0.1.0" (instance $redis
                     (type $error_ (variant (case "invalid" string) (case "unavailable" string)))
                     (export "error" (type $error (eq $error_)))
                     (type $addition_ (record (field "key" string) (field "by" s64) (field "ttl-ms" u32)))
                     (export "addition" (type $addition (eq $addition_)))
                     (export "increment"
                       (func (param "additions" (list $addition)) (result (result (list s64) (error $error)))))))
                   (core func $lowered (canon lower (func $redis "increment")
                     (memory $memory) (realloc (core func $lib "realloc"))))
                   (core instance $host (export "lowered" (func $lowered)))"#
            }
            Self::Sql => r#"(import "weir:policy/sql@0.1.0" (instance))"#,
        }
    }

    /// Of the rules: the import of the lowered function.
    fn rules_text(self) -> &'static str {
        match self {
            Self::Nothing | Self::Sql => "",
            Self::Log => r#"(import "host" "lowered" (func $log (param i32 i32 i32)))"#,
            Self::Redis => r#"(import "host" "lowered" (func $increment (param i32 i32 i32)))"#,
        }
    }

    fn has_function(self) -> bool {
        !self.rules_text().is_empty()
    }
}

impl Guest<'_> {
    /// The component; panics with the place of a mistake in its text.
    pub fn component(&self) -> Vec<u8> {
        let rules = include_str!("guest/rules.wat")
            .replace("IMPORTS", self.import.rules_text())
            .replace("FUNCTIONS", self.functions)
            .replace("BEFORE", self.before)
            .replace("EACH", self.each)
            .replace("COUNTED", self.counted)
            .replace("JUDGED", self.judged)
            .replace("PLANNED", self.planned)
            .replace("COALESCED", self.coalesced);
        let host = if self.import.has_function() { r#"(with "host" (instance $host))"# } else { "" };
        let text = format!(
            "(component\n{lib}\n(alias core export $lib \"memory\" (core memory $memory))\n{import}\n{rules}\n\
             (core instance $rules (instantiate $rules-module (with \"lib\" (instance $lib)) {host}))\n{toggle}\n{counter}\n{ingest}\n{flush})",
            lib = include_str!("guest/lib.wat"),
            import = self.import.component_text(),
            toggle = include_str!("guest/toggle.wat"),
            counter = if self.counter { include_str!("guest/counter.wat") } else { "" },
            ingest = if self.ingest { include_str!("guest/ingest.wat") } else { "" },
            flush = if self.flush { include_str!("guest/flush.wat") } else { "" },
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A module that decides who is let into a waiting room: so many at each tick, for so long in milliseconds.
pub fn admission(admit: u32, stay_ms: u32) -> Vec<u8> {
    let text = include_str!("guest/admission.wat")
        .replace("LIB", include_str!("guest/lib.wat"))
        .replace("ADMIT", &admit.to_string())
        .replace("STAY", &stay_ms.to_string());
    // The first line, a comment, has had its gaps filled, too.
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// A module that decides only what is kept of reads: nothing, for this reason.
pub fn keeps_nothing(reason: &str) -> Vec<u8> {
    let answer = format!(
        "(i32.store8 (i32.const 0) (i32.const 0)) (i32.store (i32.const 4) (i32.const 64)) \
         (i32.store (i32.const 8) (i32.const {}))",
        reason.len()
    );
    cache_component(reason, &answer)
}

/// A module that decides only what is kept of reads: everything, for so long.
pub fn keeps_for(ttl_ms: u32) -> Vec<u8> {
    let answer = format!("(i32.store8 (i32.const 0) (i32.const 1)) (i32.store (i32.const 4) (i32.const {ttl_ms}))");
    cache_component("", &answer)
}

fn cache_component(reason: &str, answer: &str) -> Vec<u8> {
    let text = include_str!("guest/cache.wat").replace("REASON", reason).replace("ANSWER", answer);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// The component with a custom section at its end, such as `weir:vectors`. It has another digest than without.
pub fn with_section(mut component: Vec<u8>, name: &str, data: &str) -> Vec<u8> {
    CustomSection { name: name.into(), data: data.as_bytes().into() }.append_to_component(&mut component);
    component
}

/// Components that are hard to compile.
pub mod bombs {
    /// A component around a core module of this text.
    fn component(core: &str) -> Vec<u8> {
        wat::parse_str(format!("(component (core module {core}))")).unwrap_or_else(|error| panic!("{error}"))
    }

    /// So many functions that do nothing.
    pub fn functions(count: usize) -> Vec<u8> {
        component(&"(func)".repeat(count))
    }

    /// One function: `depth` nested loops, each of which carries all of `locals` values.
    pub fn nested_loops(depth: usize, locals: usize) -> Vec<u8> {
        let names: String = (0..locals).map(|_| " i64").collect();
        let step: String = (0..locals)
            .map(|local| {
                let other = (local + 1) % locals;
                format!("(local.set {local} (i64.add (local.get {local}) (local.get {other})))")
            })
            .collect();
        let mut text = format!("(func (export \"run\") (param{names})");
        (0..depth).for_each(|_| text.push_str("(loop "));
        text.push_str(&step);
        (0..depth).for_each(|_| text.push_str("(br_if 0 (i64.eqz (local.get 0))) )"));
        text.push(')');
        component(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guest_is_a_component() {
        assert!(keeps_nothing("x").starts_with(b"\0asm") && keeps_for(1).starts_with(b"\0asm"));
        for import in [Import::Nothing, Import::Log, Import::Redis, Import::Sql] {
            for more in [false, true] {
                let guest = Guest { import, flush: more, counter: more, ingest: more, ..Guest::default() };
                assert!(guest.component().starts_with(b"\0asm"));
            }
        }
        assert!(admission(1, 1_000).starts_with(b"\0asm"));
    }
}
