;; good
;; Exports toggle only: the default verbs with a limit of BURST (1000000) in 10 s. Tests put another number in its place, so
;; that replies tell which of two modules decided.
(component
  (core module $module
    (memory (export "memory") 16)
    ;; Below 1024: results. Above: what the host passes in, from the start again after each call.
    (global $top (mut i32) (i32.const 1024))

    (func $allocate (export "realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at
        (i32.and
          (i32.add (global.get $top) (i32.sub (local.get $align) (i32.const 1)))
          (i32.sub (i32.const 0) (local.get $align))))
      (global.set $top (i32.add (local.get $at) (local.get $size)))
      (local.get $at))

    ;; when-absent and when-present of a verb, as one little-endian number.
    (func $effects (param $verb i32) (result i32)
      (if (i32.eqz (local.get $verb)) (then (return (i32.const 0x0100)))) ;; toggle: add, remove
      (if (i32.eq (local.get $verb) (i32.const 1)) (then (return (i32.const 0x0200)))) ;; set: add, keep
      (i32.const 0x0102)) ;; clear: keep, remove

    ;; An intent has 40 bytes, its verb at 32. A rule has 16: effects, (2), is there a limit, (3), burst, period-ms.
    (func (export "decide")
      (param i32 i32) (param i64) (param $intent i32) (param $length i32) (result i32)
      (local $rules i32) (local $at i32) (local $end i32)
      (local.set $rules
        (call $allocate (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $length) (i32.const 16))))
      (local.set $at (local.get $rules))
      (local.set $end (i32.add (local.get $rules) (i32.mul (local.get $length) (i32.const 16))))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
          (i32.store16 (local.get $at)
            (call $effects (i32.load8_u (i32.add (local.get $intent) (i32.const 32)))))
          (i32.store (i32.add (local.get $at) (i32.const 4)) (i32.const 1))
          (i32.store (i32.add (local.get $at) (i32.const 8)) (i32.const 1000000)) ;; BURST
          (i32.store (i32.add (local.get $at) (i32.const 12)) (i32.const 10000))
          (local.set $at (i32.add (local.get $at) (i32.const 16)))
          (local.set $intent (i32.add (local.get $intent) (i32.const 40)))
          (br $next)))
      (i32.store (i32.const 16) (local.get $rules))
      (i32.store (i32.const 20) (local.get $length))
      (global.set $top (i32.const 1024))
      (i32.const 16)))

  (core instance $core (instantiate $module))
  (alias core export $core "memory" (core memory $memory))

  (type $id (variant (case "int" s64) (case "text" string)))
  (type $verb (enum "toggle" "set" "clear"))
  (type $intent (record (field "target" $id) (field "actor" $id) (field "verb" $verb)))
  (type $effect (enum "add" "remove" "keep" "deny"))
  (type $rate-limit (record (field "burst" u32) (field "period-ms" u32)))
  (type $rule (record
    (field "when-absent" $effect) (field "when-present" $effect) (field "limit" (option $rate-limit))))

  (func $decide (param "kind" string) (param "now-ms" u64) (param "batch" (list $intent)) (result (list $rule))
    (canon lift (core func $core "decide") (memory $memory) (realloc (core func $core "realloc"))))

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
  (export "weir:policy/toggle@0.1.0" (instance $toggle)))
