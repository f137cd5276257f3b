;; refused: unknown-import: wasi:clocks/monotonic-clock@0.2.0
(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64)))))
  (instance $empty)
  (export "weir:policy/toggle@0.1.0" (instance $empty)))
