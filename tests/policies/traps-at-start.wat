;; refused: instantiate: unreachable
(component
  (core module $module (func $start unreachable) (start $start))
  (core instance $core (instantiate $module))
  (instance $empty)
  (export "weir:policy/toggle@0.1.0" (instance $empty)))
