//! What the runtime of a language imports of WASI 0.2: standard error and output become lines of the log, so that an
//! exception of JavaScript or Python is read and not only met as a trap.
//!
//! A module stays as pure as without WASI: there are no files, no arguments, no clock, no randomness. A function that
//! would provide one traps and names itself. Other packages of WASI (`sockets`, `http`, …) are not offered.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentType, Linker, LinkerInstance, Lower, Resource, ResourceType, Val};
use wasmtime::{StoreContextMut, Trap};

use super::engine::PolicyEngine;
use super::said::Stream;
use super::state::HostState;

/// Packages of which the functions are there, if only to say that they are not given.
const PACKAGES: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];
/// The versions: 0.2 with any patch.
const VERSION: &str = "@0.2.";
/// Bytes that a guest may write at once, as `check-write` answers.
const WRITE_BYTES_MAX: u64 = 4_096;

/// Whether an import is of these.
pub(super) fn is_offered(import: &str) -> bool {
    PACKAGES.iter().any(|package| import.starts_with(package)) && import.contains(VERSION)
}

/// A standard stream in the hands of a guest. Its number is that of the file.
struct OutputStream;

/// Why a write fails: never.
struct IoError;

/// `wasi:io/streams`, `stream-error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[allow(dead_code, reason = "no write fails; the type must be whole")]
    Failed(Resource<IoError>),
    #[component(name = "closed")]
    #[allow(dead_code, reason = "no stream is closed; the type must be whole")]
    Closed,
}

type Written<T> = wasmtime::Result<(Result<T, StreamError>,)>;

const OUTPUT: u32 = 1;
const ERROR: u32 = 2;

fn write(mut store: StoreContextMut<'_, HostState>, (stream, bytes): (Resource<OutputStream>, Vec<u8>)) -> Written<()> {
    let stream = if stream.rep() == ERROR { Stream::Error } else { Stream::Output };
    store.data_mut().write(stream, &bytes);
    Ok((Ok(()),))
}

/// Defines `function` if weir answers it; `false` for any other function.
fn define(linker: &mut LinkerInstance<'_, HostState>, interface: &str, function: &str) -> wasmtime::Result<bool> {
    let stream =
        |rep: u32| move |_: StoreContextMut<'_, HostState>, (): ()| Ok((Resource::<OutputStream>::new_own(rep),));
    match (interface, function) {
        ("wasi:cli/stdout", "get-stdout") => linker.func_wrap(function, stream(OUTPUT))?,
        ("wasi:cli/stderr", "get-stderr") => linker.func_wrap(function, stream(ERROR))?,
        ("wasi:io/streams", "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush") => {
            linker.func_wrap(function, write)?;
        }
        ("wasi:io/streams", "[method]output-stream.check-write") => {
            linker.func_wrap(
                function,
                |_: StoreContextMut<'_, HostState>, _: (Resource<OutputStream>,)| -> Written<u64> {
                    Ok((Ok(WRITE_BYTES_MAX),))
                },
            )?;
        }
        ("wasi:io/streams", "[method]output-stream.flush" | "[method]output-stream.blocking-flush") => {
            linker.func_wrap(
                function,
                |_: StoreContextMut<'_, HostState>, _: (Resource<OutputStream>,)| -> Written<()> { Ok((Ok(()),)) },
            )?;
        }
        // Nothing is there: of the environment, of the arguments, of directories, no terminal.
        ("wasi:cli/environment", "get-environment" | "get-arguments")
        | ("wasi:filesystem/preopens", "get-directories") => answer(linker, function, Val::List(Vec::new()))?,
        (
            "wasi:cli/environment"
            | "wasi:cli/terminal-stdin"
            | "wasi:cli/terminal-stdout"
            | "wasi:cli/terminal-stderr",
            _,
        ) => answer(linker, function, Val::Option(None))?,
        // Where hash maps begin: always at the same place.
        ("wasi:random/insecure-seed", _) => answer(linker, function, Val::Tuple(vec![Val::U64(0), Val::U64(0)]))?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The same answer whatever is asked.
fn answer(linker: &mut LinkerInstance<'_, HostState>, function: &str, value: Val) -> wasmtime::Result<()> {
    linker.func_new(function, move |_, _, _, results| {
        results.iter_mut().for_each(|result| *result = value.clone());
        Ok(())
    })
}

/// What `component` imports of WASI, added to a linker of its own; `None` where it imports nothing of it.
///
/// # Errors
/// An import that is no function or resource of an interface.
pub(super) fn linker_for(engine: &PolicyEngine, component: &Component) -> wasmtime::Result<Option<Linker<HostState>>> {
    let ty = component.component_type();
    let mut linker = None;
    for (name, import) in ty.imports(&engine.engine).filter(|(name, _)| is_offered(name)) {
        let ComponentItem::ComponentInstance(instance) = import.ty else { continue };
        let interface = name.split('@').next().unwrap_or(name);
        let own = linker.get_or_insert_with(|| engine.linker.clone());
        let mut own = own.instance(name)?;
        for (export, item) in instance.exports(&engine.engine) {
            match item.ty {
                ComponentItem::Resource(_) if export == "output-stream" => {
                    own.resource(export, ResourceType::host::<OutputStream>(), |_, _| Ok(()))?;
                }
                ComponentItem::Resource(_) if export == "error" => {
                    own.resource(export, ResourceType::host::<IoError>(), |_, _| Ok(()))?;
                }
                ComponentItem::Resource(_) => own.resource(export, ResourceType::host::<()>(), |_, _| Ok(()))?,
                ComponentItem::ComponentFunc(_) if !define(&mut own, interface, export)? => {
                    let what = format!("it called {interface} {export}, which weir does not give: a module is pure");
                    own.func_new(export, move |_, _, _, _| {
                        Err(wasmtime::Error::from(Trap::UnreachableCodeReached).context(what.clone()))
                    })?;
                }
                _ => {}
            }
        }
    }
    Ok(linker)
}
