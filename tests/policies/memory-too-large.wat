;; refused: compile: exceeds the limit
;; 1 GiB from the start.
(component
  (core module $module (memory 16384))
  (core instance $core (instantiate $module))
  (instance $empty)
  (export "weir:policy/toggle@0.1.0" (instance $empty)))
