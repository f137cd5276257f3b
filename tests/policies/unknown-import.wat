;; refused: unknown-import: wasi:sockets/network@0.2.0
(component
  (import "wasi:sockets/network@0.2.0" (instance (export "now" (func (result u64)))))
  (instance $empty)
  (export "weir:policy/toggle@0.1.0" (instance $empty)))
