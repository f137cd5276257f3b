;; refused: no-exports: do you mean weir:policy/toggle@0.1.0 by weir:policy/togle@0.1.0?
(component
  (instance $empty)
  (export "weir:policy/togle@0.1.0" (instance $empty)))
