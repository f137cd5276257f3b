;; The interface `counter` of the rules; behind that of `toggle`, whose types it shares.
(type $hit (record (field "target" $id) (field "actor" (option $id)) (field "by" u32)))
(type $hit-rule (record
  (field "weight" u32) (field "unique-ms" (option u32)) (field "limit" (option $rate-limit))))
(func $count (param "kind" string) (param "now-ms" u64) (param "batch" (list $hit)) (result (list $hit-rule))
  (canon lift (core func $rules "count") (memory $memory) (realloc (core func $lib "realloc"))))

(component $counter-shape
  (type $id_ (variant (case "int" s64) (case "text" string)))
  (import "id" (type $id (eq $id_)))
  (type $rate-limit_ (record (field "burst" u32) (field "period-ms" u32)))
  (import "rate-limit" (type $rate-limit (eq $rate-limit_)))
  (type $hit_ (record (field "target" $id) (field "actor" (option $id)) (field "by" u32)))
  (import "hit" (type $hit (eq $hit_)))
  (type $hit-rule_ (record
    (field "weight" u32) (field "unique-ms" (option u32)) (field "limit" (option $rate-limit))))
  (import "hit-rule" (type $hit-rule (eq $hit-rule_)))
  (import "decide" (func $decide
    (param "kind" string) (param "now-ms" u64) (param "batch" (list $hit)) (result (list $hit-rule))))
  (export $id-out "id" (type $id))
  (export $rate-limit-out "rate-limit" (type $rate-limit))
  (type $hit-out_ (record (field "target" $id-out) (field "actor" (option $id-out)) (field "by" u32)))
  (export $hit-out "hit" (type $hit) (type (eq $hit-out_)))
  (type $hit-rule-out_ (record
    (field "weight" u32) (field "unique-ms" (option u32)) (field "limit" (option $rate-limit-out))))
  (export $hit-rule-out "hit-rule" (type $hit-rule) (type (eq $hit-rule-out_)))
  (export "decide" (func $decide) (func
    (param "kind" string) (param "now-ms" u64) (param "batch" (list $hit-out)) (result (list $hit-rule-out)))))
(instance $counter (instantiate $counter-shape
  (with "id" (type $id)) (with "rate-limit" (type $rate-limit)) (with "hit" (type $hit))
  (with "hit-rule" (type $hit-rule)) (with "decide" (func $count))))
(export "weir:policy/counter@0.1.0" (instance $counter))
