;; refused: wrong-export: decide is missing (expected decide; it has decidee; decidee is near decide)
(component
  (core module $module (func (export "f")))
  (core instance $core (instantiate $module))
  (func $f (canon lift (core func $core "f")))
  (instance $toggle (export "decidee" (func $f)))
  (export "weir:policy/toggle@0.1.0" (instance $toggle)))
