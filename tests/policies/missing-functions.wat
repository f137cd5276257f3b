;; refused: wrong-export: decide is missing
;; Also of `ingest`, but the first is enough.
(component
  (instance $empty)
  (export "weir:policy/counter@0.1.0" (instance $empty))
  (export "weir:policy/ingest@0.1.0" (instance $empty)))
