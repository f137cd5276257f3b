;; refused: wrong-export: plan is missing; coalesce is missing
(component
  (instance $empty)
  (export "weir:policy/flush@0.1.0" (instance $empty)))
