;; The interface `toggle` of the rules.
(type $id (variant (case "int" s64) (case "text" string)))
(type $verb (enum "toggle" "set" "clear"))
(type $intent (record (field "target" $id) (field "actor" $id) (field "verb" $verb)))
(type $effect (enum "add" "remove" "keep" "deny"))
(type $rate-limit (record (field "burst" u32) (field "period-ms" u32)))
(type $rule (record
  (field "when-absent" $effect) (field "when-present" $effect) (field "limit" (option $rate-limit))))
(func $decide (param "kind" string) (param "now-ms" u64) (param "batch" (list $intent)) (result (list $rule))
  (canon lift (core func $rules "decide") (memory $memory) (realloc (core func $lib "realloc"))))

;; The types of an exported function must have exported names: a component that takes them in and hands them out.
(component $toggle-shape
  (type $id_ (variant (case "int" s64) (case "text" string)))
  (import "id" (type $id (eq $id_)))
  (type $verb_ (enum "toggle" "set" "clear"))
  (import "verb" (type $verb (eq $verb_)))
  (type $intent_ (record (field "target" $id) (field "actor" $id) (field "verb" $verb)))
  (import "intent" (type $intent (eq $intent_)))
  (type $effect_ (enum "add" "remove" "keep" "deny"))
  (import "effect" (type $effect (eq $effect_)))
  (type $rate-limit_ (record (field "burst" u32) (field "period-ms" u32)))
  (import "rate-limit" (type $rate-limit (eq $rate-limit_)))
  (type $rule_ (record
    (field "when-absent" $effect) (field "when-present" $effect) (field "limit" (option $rate-limit))))
  (import "rule" (type $rule (eq $rule_)))
  (import "decide" (func $decide
    (param "kind" string) (param "now-ms" u64) (param "batch" (list $intent)) (result (list $rule))))
  (export $id-out "id" (type $id))
  (export $verb-out "verb" (type $verb))
  (type $intent-out_ (record (field "target" $id-out) (field "actor" $id-out) (field "verb" $verb-out)))
  (export $intent-out "intent" (type $intent) (type (eq $intent-out_)))
  (export $effect-out "effect" (type $effect))
  (export $rate-limit-out "rate-limit" (type $rate-limit))
  (type $rule-out_ (record
    (field "when-absent" $effect-out) (field "when-present" $effect-out)
    (field "limit" (option $rate-limit-out))))
  (export $rule-out "rule" (type $rule) (type (eq $rule-out_)))
  (export "decide" (func $decide) (func
    (param "kind" string) (param "now-ms" u64) (param "batch" (list $intent-out)) (result (list $rule-out)))))
(instance $toggle (instantiate $toggle-shape
  (with "id" (type $id)) (with "verb" (type $verb)) (with "intent" (type $intent)) (with "effect" (type $effect))
  (with "rate-limit" (type $rate-limit)) (with "rule" (type $rule)) (with "decide" (func $decide))))
(export "weir:policy/toggle@0.1.0" (instance $toggle))
