;; refused: misspelt-export: exports weir:policy/fluhs@0.1.0, which weir does not know: do you mean weir:policy/flush@0.1.0?
;; A component whose second interface nobody would ever call.
(component
  (instance $empty)
  (export "weir:policy/toggle@0.1.0" (instance $empty))
  (export "weir:policy/fluhs@0.1.0" (instance $empty)))
