;; refused: instantiate: interrupt
(component
  (core module $module (func $start (loop $forever (br $forever))) (start $start))
  (core instance $core (instantiate $module))
  (instance $empty)
  (export "weir:policy/toggle@0.1.0" (instance $empty)))
