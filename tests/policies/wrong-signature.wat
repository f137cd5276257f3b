;; refused: wrong-export: decide
(component
  (core module $module (func (export "decide") (param i64) (result i32) i32.const 0))
  (core instance $core (instantiate $module))
  (func $decide (param "now-ms" u64) (result u32) (canon lift (core func $core "decide")))
  (instance $toggle (export "decide" (func $decide)))
  (export "weir:policy/toggle@0.1.0" (instance $toggle)))
