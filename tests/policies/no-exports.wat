;; refused: no-exports: it exports weir:policy/toggle@0.2.0, some:other/thing@1.0.0
(component
  (instance $empty)
  (export "weir:policy/toggle@0.2.0" (instance $empty))
  (export "some:other/thing@1.0.0" (instance $empty)))
