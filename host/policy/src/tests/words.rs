//! What a rule author sees of a failure: the guest's own message, where it failed, and what it had written before.

#![cfg(test)]

use super::*;

/// A module that says why it fails; see the fixture.
fn saying() -> Misbehaving {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.wasm");
    std::fs::write(&path, wat::parse_file(fixtures().join("says-why.wat")).unwrap()).unwrap();
    let config = PolicyConfig { component: Some(path), ..lenient() };
    let kinds = ["fine", "panics", "enum", "stderr", "clock"].map(|name| kind(name, &[], PolicyFailure::Deny));
    Misbehaving { policies: load(&config, &kinds).unwrap(), _dir: dir }
}

#[test]
fn a_failure_is_told_in_the_guests_words_with_the_place_and_the_lines_before() {
    let saying = saying();
    let told = |kind: &str| saying.policies.decide_now(kind, 1, &batch(2)).unwrap_err().reason;
    let panic = told("panics");
    assert!(panic.starts_with("trap: panicked at src/lib.rs:14:9: no tier gold (wasm trap: "), "{panic}");
    assert!(panic.contains("; at tier_of_nobody, decide; before that it wrote info: looking up 7"), "{panic}");
    let exception = told("stderr");
    assert!(
        exception.starts_with("trap: TypeError: no tier gold |     at decide (policy.js:3:9) (wasm trap"),
        "{exception}"
    );
    let case = told("enum");
    let expected =
        "contract: an enum or variant of the answer has no case 9; the WIT knows add, remove, keep, deny (effect)";
    assert!(case.starts_with(expected), "{case}");
    let clock = told("clock");
    assert!(clock.contains("it called wasi:clocks/wall-clock now, which weir does not give"), "{clock}");
    assert!(clock.starts_with("trap: "), "{clock}");
    // A call that ends well leaves nothing for the next one.
    assert_eq!(saying.policies.decide_now("fine", 1, &batch(2)).unwrap().rules.len(), 2);
    let last = saying.policies.registry.modules()[0].last_failure.clone().unwrap();
    assert!(last.contains("in toggle: it called wasi:clocks"), "{last}");
}

#[test]
fn a_check_names_the_functions_that_never_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.wasm");
    std::fs::write(&path, wat::parse_file(fixtures().join("says-why.wat")).unwrap()).unwrap();
    let check = |kinds: &[&str]| {
        let kinds: Vec<KindPolicy> = kinds.iter().map(|name| kind(name, &[], PolicyFailure::Deny)).collect();
        check_file(&lenient(), Compiler::InProcess, &kinds, &path, false)
    };
    assert_eq!(check(&[]).unwrap().failing, []);
    let error = check(&["panics"]).unwrap_err();
    assert_eq!(error.code(), "never-answers");
    assert!(error.to_string().contains("toggle.decide") && error.to_string().contains("no tier gold"), "{error}");
    // With one kind of two it answers: said, and no reason to refuse.
    let failing = check(&["fine", "stderr"]).unwrap().failing;
    assert_eq!((failing.len(), failing[0].function.as_str(), failing[0].never), (1, "toggle.decide", false));
    assert!(failing[0].reason.contains("TypeError: no tier gold"), "{:?}", failing[0]);
}

#[test]
fn a_purity_check_covers_every_function_or_says_which_it_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.wasm");
    let purity = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        super::super::check_purity(&lenient(), Compiler::InProcess, &path).unwrap()
    };
    let report = purity(builtin::COMPONENT);
    assert_eq!(report.module.interfaces.len(), Interface::COUNT);
    assert_eq!(report.not_covered, Vec::<String>::new());
    assert!(report.differences.is_empty() && report.failures.is_empty());
    // Of the kind "purity" every rule and plan of this one breaks the contract.
    let report = purity(&wat::parse_file(fixtures().join("misbehaves.wat")).unwrap());
    let named: Vec<&str> = report.not_covered.iter().map(|text| text.split(':').next().unwrap()).collect();
    assert_eq!(named, ["toggle.decide", "counter.decide", "flush.plan"]);
    assert!(report.not_covered[0].contains("its calls fail: contract: rule 0 has a limit"), "{:?}", report.not_covered);
}

#[test]
fn numbers_have_the_same_bits_everywhere() {
    // 0/0, whose sign and payload a processor may choose.
    let nan = "(component (core module $m (func (export \"f\") (param f64) (result i64)
        (i64.reinterpret_f64 (f64.div (local.get 0) (local.get 0)))))
      (core instance $i (instantiate $m))
      (func (export \"f\") (param \"x\" f64) (result u64) (canon lift (core func $i \"f\"))))";
    let engine = super::super::engine::compiling_engine(&lenient(), super::super::engine::Metering::None).unwrap();
    let component = wasmtime::component::Component::new(&engine, wat::parse_str(nan).unwrap()).unwrap();
    let mut store = wasmtime::Store::new(&engine, ());
    store.set_epoch_deadline(u64::MAX / 2);
    let linker = wasmtime::component::Linker::new(&engine);
    let instance = linker.instantiate(&mut store, &component).unwrap();
    let divide = instance.get_typed_func::<(f64,), (u64,)>(&mut store, "f").unwrap();
    for x in [0.0, f64::NAN, f64::from_bits(0xfff8_0000_0000_0001), f64::from_bits(0x7ff8_dead_beef_0000)] {
        assert_eq!(divide.call(&mut store, (x,)).unwrap().0, 0x7ff8_0000_0000_0000, "{x:?}");
    }
    let relaxed = "(component (core module (func (param v128 v128) (result v128)
        (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))))";
    let error = check(&lenient(), &wat::parse_str(relaxed).unwrap()).unwrap_err();
    assert!(error.to_string().contains("relaxed"), "{error}");
}

#[test]
fn what_a_component_is_made_of_has_limits_with_names() {
    let bytes = wat::parse_file(fixtures().join("says-why.wat")).unwrap();
    let refused = |config: PolicyConfig| check(&config, &bytes).unwrap_err().to_string();
    let instances = refused(PolicyConfig { core_instances_max: 1, ..lenient() });
    assert!(instances.contains("policy.core_instances_max"), "{instances}");
    check(&PolicyConfig { core_instances_max: 3, ..lenient() }, &bytes).unwrap();
    // As many as a component of Python has.
    let many = format!(
        "(component (core module $m) {} (instance $empty) (export \"weir:policy/toggle@0.1.0\" (instance $empty)))",
        "(core instance (instantiate $m))".repeat(38)
    );
    let many = wat::parse_str(many).unwrap();
    assert_eq!(check(&lenient(), &many).unwrap_err().code(), "wrong-export");
    let few = check(&PolicyConfig { core_instances_max: 16, ..lenient() }, &many).unwrap_err();
    assert!(few.to_string().contains("38") && few.to_string().contains("policy.core_instances_max"), "{few}");
}
