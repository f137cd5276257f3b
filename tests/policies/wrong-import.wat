;; refused: wrong-import: weir:policy/log@0.1.0
;; Of weir's `log`, with a signature that weir's `log` does not have.
(component
  (import "weir:policy/log@0.1.0" (instance (export "log" (func (param "message" string)))))
  (instance $empty)
  (export "weir:policy/toggle@0.1.0" (instance $empty)))
