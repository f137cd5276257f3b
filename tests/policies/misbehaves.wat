;; good
;; Exports every interface. The first letter of the kind chooses what a call does:
;;
;;   fine              answers: keep/keep without limit; weight 7; every document as it is; flush now; every entry is kept
;;   trap              traps
;;   loop              never returns
;;   memory            grows its memory until it is refused, then traps
;;   grows             grows its memory by 1 MiB in each call, traps when it is refused, and answers as `fine`
;;   short, wide       decide, validate: one answer too few, one too many
;;   burst, period     decide: limits with a burst of 0, with a period of 0 (plan: changes-max 0, look-again-ms 0)
;;   effect            toggle: an effect that the WIT does not know; counter: a weight over 1,000,000
;;   unique            counter: a unique-ms of 0
;;   changed, refused  validate: every document becomes {}, is refused with one violation
;;   no object         validate: every document becomes []
;;   violations        validate: every document is refused with an empty list of violations
;;   huge              decide, validate, coalesce: a list of 1,000,000 items
;;   outside           decide, validate, coalesce: a list that lies outside of the memory
;;   dropped           coalesce: all entries but the last
;;   index             coalesce: an index beyond the entries
;;   reversed, 2       coalesce: descending indexes, every index twice
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

    ;; The first letter of the kind, after the faults that all functions share.
    (func $fault (param $kind i32) (result i32)
      (local $letter i32)
      (local.set $letter (i32.load8_u (local.get $kind)))
      (if (i32.eq (local.get $letter) (i32.const 0x74)) (then unreachable)) ;; t
      (if (i32.eq (local.get $letter) (i32.const 0x6c)) (then (loop $forever (br $forever)))) ;; l
      (if (i32.eq (local.get $letter) (i32.const 0x6d)) ;; m
        (then
          (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
          unreachable))
      (if (i32.eq (local.get $letter) (i32.const 0x67)) ;; g
        (then (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))))
      (local.get $letter))

    ;; A list as the result of a function, and an end to what was passed in.
    (func $list (param $at i32) (param $length i32) (result i32)
      (i32.store (i32.const 16) (local.get $at))
      (i32.store (i32.const 20) (local.get $length))
      (global.set $top (i32.const 1024))
      (i32.const 16))

    ;; The faults that all lists share; 0 when there is none.
    (func $bad_list (param $letter i32) (result i32)
      (if (i32.eq (local.get $letter) (i32.const 0x68)) ;; h
        (then (return (call $list (i32.const 1024) (i32.const 1000000)))))
      (if (i32.eq (local.get $letter) (i32.const 0x6f)) ;; o
        (then (return (call $list (i32.const 0x7ffffff0) (i32.const 4)))))
      (i32.const 0))

    ;; How many answers there are to so many questions.
    (func $answers (param $letter i32) (param $length i32) (result i32)
      (if (i32.eq (local.get $letter) (i32.const 0x73)) ;; s
        (then (return (i32.sub (local.get $length) (i32.const 1)))))
      (if (i32.eq (local.get $letter) (i32.const 0x77)) ;; w
        (then (return (i32.add (local.get $length) (i32.const 1)))))
      (local.get $length))

    ;; A limit has 12 bytes: is there one, (3), burst, period-ms.
    (func $limit (param $at i32) (param $letter i32)
      (i32.store (local.get $at)
        (i32.or
          (i32.eq (local.get $letter) (i32.const 0x62)) ;; b
          (i32.eq (local.get $letter) (i32.const 0x70)))) ;; p
      (i32.store offset=4 (local.get $at) (i32.ne (local.get $letter) (i32.const 0x62)))
      (i32.store offset=8 (local.get $at) (i32.ne (local.get $letter) (i32.const 0x70))))

    ;; A rule has 16 bytes: when-absent, when-present, (2), limit.
    (func (export "decide") (param $kind i32) (param i32) (param i64) (param i32) (param $length i32) (result i32)
      (local $letter i32) (local $rules i32) (local $at i32) (local $end i32)
      (local.set $letter (call $fault (local.get $kind)))
      (if (local.tee $at (call $bad_list (local.get $letter))) (then (return (local.get $at))))
      (local.set $length (call $answers (local.get $letter) (local.get $length)))
      (local.set $rules
        (call $allocate (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $length) (i32.const 16))))
      (local.set $at (local.get $rules))
      (local.set $end (i32.add (local.get $rules) (i32.mul (local.get $length) (i32.const 16))))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
          (i32.store16 (local.get $at) (i32.const 0x0202))
          (if (i32.eq (local.get $letter) (i32.const 0x65)) ;; e
            (then (i32.store8 (local.get $at) (i32.const 4))))
          (call $limit (i32.add (local.get $at) (i32.const 4)) (local.get $letter))
          (local.set $at (i32.add (local.get $at) (i32.const 16)))
          (br $next)))
      (call $list (local.get $rules) (local.get $length)))

    ;; A hit's rule has 24 bytes: weight, is there a unique-ms, (3), unique-ms, limit.
    (func (export "count") (param $kind i32) (param i32) (param i64) (param i32) (param $length i32) (result i32)
      (local $letter i32) (local $rules i32) (local $at i32) (local $end i32)
      (local.set $letter (call $fault (local.get $kind)))
      (if (local.tee $at (call $bad_list (local.get $letter))) (then (return (local.get $at))))
      (local.set $length (call $answers (local.get $letter) (local.get $length)))
      (local.set $rules
        (call $allocate (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $length) (i32.const 24))))
      (local.set $at (local.get $rules))
      (local.set $end (i32.add (local.get $rules) (i32.mul (local.get $length) (i32.const 24))))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
          (i32.store (local.get $at)
            (select (i32.const 1000001) (i32.const 7) (i32.eq (local.get $letter) (i32.const 0x65)))) ;; e
          (i32.store offset=4 (local.get $at) (i32.eq (local.get $letter) (i32.const 0x75))) ;; u
          (i32.store offset=8 (local.get $at) (i32.const 0))
          (call $limit (i32.add (local.get $at) (i32.const 12)) (local.get $letter))
          (local.set $at (i32.add (local.get $at) (i32.const 24)))
          (br $next)))
      (call $list (local.get $rules) (local.get $length)))

    ;; One violation: its path and message, each a place and a length; behind it what they say, and two texts.
    (data (i32.const 64) "\60\00\00\00\02\00\00\00\68\00\00\00\02\00\00\00")
    (data (i32.const 96) "/a      no      {}      []")

    ;; A verdict has 16 bytes: is it refused, (3), then is there a text, (3), its place, its length; or place and number of
    ;; the violations.
    (func (export "validate") (param $kind i32) (param i32) (param i64) (param i32) (param $length i32) (result i32)
      (local $letter i32) (local $verdicts i32) (local $at i32) (local $end i32)
      (local.set $letter (call $fault (local.get $kind)))
      (if (local.tee $at (call $bad_list (local.get $letter))) (then (return (local.get $at))))
      (local.set $length (call $answers (local.get $letter) (local.get $length)))
      (local.set $verdicts
        (call $allocate (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $length) (i32.const 16))))
      (local.set $at (local.get $verdicts))
      (local.set $end (i32.add (local.get $verdicts) (i32.mul (local.get $length) (i32.const 16))))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
          (i64.store (local.get $at) (i64.const 0))
          (i64.store offset=8 (local.get $at) (i64.const 0))
          (if (i32.eq (local.get $letter) (i32.const 0x63)) ;; c
            (then
              (i32.store offset=4 (local.get $at) (i32.const 1))
              (i32.store offset=8 (local.get $at) (i32.const 112))
              (i32.store offset=12 (local.get $at) (i32.const 2))))
          (if (i32.eq (local.get $letter) (i32.const 0x6e)) ;; n
            (then
              (i32.store offset=4 (local.get $at) (i32.const 1))
              (i32.store offset=8 (local.get $at) (i32.const 120))
              (i32.store offset=12 (local.get $at) (i32.const 2))))
          (if (i32.eq (local.get $letter) (i32.const 0x72)) ;; r
            (then
              (i32.store (local.get $at) (i32.const 1))
              (i32.store offset=4 (local.get $at) (i32.const 64))
              (i32.store offset=8 (local.get $at) (i32.const 1))))
          (if (i32.eq (local.get $letter) (i32.const 0x76)) ;; v
            (then
              (i32.store (local.get $at) (i32.const 1))
              (i32.store offset=4 (local.get $at) (i32.const 64))))
          (local.set $at (i32.add (local.get $at) (i32.const 16)))
          (br $next)))
      (call $list (local.get $verdicts) (local.get $length)))

    (func (export "plan") (param $kind i32) (param i32) (param i64) (param i64 i64 i64 i64) (result i32)
      (local $letter i32)
      (local.set $letter (call $fault (local.get $kind)))
      (i32.store8 (i32.const 16) (i32.const 1))
      (i32.store (i32.const 20) (i32.ne (local.get $letter) (i32.const 0x62))) ;; b
      (i32.store (i32.const 24) (i32.ne (local.get $letter) (i32.const 0x70))) ;; p
      (global.set $top (i32.const 1024))
      (i32.const 16))

    (func (export "coalesce") (param $kind i32) (param i32) (param i32) (param $length i32) (result i32)
      (local $letter i32) (local $kept i32) (local $index i32) (local $value i32)
      (local.set $letter (call $fault (local.get $kind)))
      (if (local.tee $kept (call $bad_list (local.get $letter))) (then (return (local.get $kept))))
      (local.set $kept
        (call $allocate (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $length) (i32.const 4))))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $index) (local.get $length)))
          (local.set $value (local.get $index))
          (if (i32.eq (local.get $letter) (i32.const 0x69)) ;; i
            (then (local.set $value (i32.add (local.get $index) (i32.const 1)))))
          (if (i32.eq (local.get $letter) (i32.const 0x72)) ;; r
            (then (local.set $value
              (i32.sub (i32.sub (local.get $length) (i32.const 1)) (local.get $index)))))
          (if (i32.eq (local.get $letter) (i32.const 0x32)) ;; 2
            (then (local.set $value (i32.shr_u (local.get $index) (i32.const 1)))))
          (i32.store (i32.add (local.get $kept) (i32.mul (local.get $index) (i32.const 4))) (local.get $value))
          (local.set $index (i32.add (local.get $index) (i32.const 1)))
          (br $next)))
      (if (i32.eq (local.get $letter) (i32.const 0x64)) ;; d
        (then (local.set $length (i32.sub (local.get $length) (i32.const 1)))))
      (call $list (local.get $kept) (local.get $length))))

  (core instance $core (instantiate $module))
  (alias core export $core "memory" (core memory $memory))

  (type $id (variant (case "int" s64) (case "text" string)))
  (type $verb (enum "toggle" "set" "clear"))
  (type $intent (record (field "target" $id) (field "actor" $id) (field "verb" $verb)))
  (type $effect (enum "add" "remove" "keep" "deny"))
  (type $rate-limit (record (field "burst" u32) (field "period-ms" u32)))
  (type $rule (record
    (field "when-absent" $effect) (field "when-present" $effect) (field "limit" (option $rate-limit))))
  (type $hit (record (field "target" $id) (field "actor" (option $id)) (field "by" u32)))
  (type $hit-rule (record
    (field "weight" u32) (field "unique-ms" (option u32)) (field "limit" (option $rate-limit))))
  (type $document (record (field "id" $id) (field "actor" $id) (field "body" string)))
  (type $violation (record (field "path" string) (field "message" string)))
  (type $verdict (result (option string) (error (list $violation))))
  (type $backlog (record (field "entries" u64) (field "targets" u64) (field "bytes" u64) (field "oldest-age-ms" u64)))
  (type $flush-plan (record (field "flush-now" bool) (field "changes-max" u32) (field "look-again-ms" u32)))
  (type $action (enum "add" "remove"))
  (type $entry (record (field "target" $id) (field "actor" $id) (field "action" $action)))

  (func $decide (param "kind" string) (param "now-ms" u64) (param "batch" (list $intent)) (result (list $rule))
    (canon lift (core func $core "decide") (memory $memory) (realloc (core func $core "realloc"))))
  (func $count (param "kind" string) (param "now-ms" u64) (param "batch" (list $hit)) (result (list $hit-rule))
    (canon lift (core func $core "count") (memory $memory) (realloc (core func $core "realloc"))))
  (func $validate (param "kind" string) (param "now-ms" u64) (param "batch" (list $document)) (result (list $verdict))
    (canon lift (core func $core "validate") (memory $memory) (realloc (core func $core "realloc"))))
  (func $plan (param "kind" string) (param "now-ms" u64) (param "backlog" $backlog) (result $flush-plan)
    (canon lift (core func $core "plan") (memory $memory) (realloc (core func $core "realloc"))))
  (func $coalesce (param "kind" string) (param "entries" (list $entry)) (result (list u32))
    (canon lift (core func $core "coalesce") (memory $memory) (realloc (core func $core "realloc"))))

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

  (component $ingest-shape
    (type $id_ (variant (case "int" s64) (case "text" string)))
    (import "id" (type $id (eq $id_)))
    (type $document_ (record (field "id" $id) (field "actor" $id) (field "body" string)))
    (import "document" (type $document (eq $document_)))
    (type $violation_ (record (field "path" string) (field "message" string)))
    (import "violation" (type $violation (eq $violation_)))
    (import "validate" (func $validate
      (param "kind" string) (param "now-ms" u64) (param "batch" (list $document))
      (result (list (result (option string) (error (list $violation)))))))
    (export $id-out "id" (type $id))
    (type $document-out_ (record (field "id" $id-out) (field "actor" $id-out) (field "body" string)))
    (export $document-out "document" (type $document) (type (eq $document-out_)))
    (export $violation-out "violation" (type $violation))
    (export "validate" (func $validate) (func
      (param "kind" string) (param "now-ms" u64) (param "batch" (list $document-out))
      (result (list (result (option string) (error (list $violation-out))))))))
  (instance $ingest (instantiate $ingest-shape
    (with "id" (type $id)) (with "document" (type $document)) (with "violation" (type $violation))
    (with "validate" (func $validate))))
  (export "weir:policy/ingest@0.1.0" (instance $ingest))

  (component $flush-shape
    (type $id_ (variant (case "int" s64) (case "text" string)))
    (import "id" (type $id (eq $id_)))
    (type $backlog_ (record (field "entries" u64) (field "targets" u64) (field "bytes" u64) (field "oldest-age-ms" u64)))
    (import "backlog" (type $backlog (eq $backlog_)))
    (type $flush-plan_ (record (field "flush-now" bool) (field "changes-max" u32) (field "look-again-ms" u32)))
    (import "flush-plan" (type $flush-plan (eq $flush-plan_)))
    (type $action_ (enum "add" "remove"))
    (import "action" (type $action (eq $action_)))
    (type $entry_ (record (field "target" $id) (field "actor" $id) (field "action" $action)))
    (import "entry" (type $entry (eq $entry_)))
    (import "plan" (func $plan
      (param "kind" string) (param "now-ms" u64) (param "backlog" $backlog) (result $flush-plan)))
    (import "coalesce" (func $coalesce (param "kind" string) (param "entries" (list $entry)) (result (list u32))))
    (export $id-out "id" (type $id))
    (export $backlog-out "backlog" (type $backlog))
    (export $flush-plan-out "flush-plan" (type $flush-plan))
    (export $action-out "action" (type $action))
    (type $entry-out_ (record (field "target" $id-out) (field "actor" $id-out) (field "action" $action-out)))
    (export $entry-out "entry" (type $entry) (type (eq $entry-out_)))
    (export "plan" (func $plan) (func
      (param "kind" string) (param "now-ms" u64) (param "backlog" $backlog-out) (result $flush-plan-out)))
    (export "coalesce" (func $coalesce) (func
      (param "kind" string) (param "entries" (list $entry-out)) (result (list u32)))))
  (instance $flush (instantiate $flush-shape
    (with "id" (type $id)) (with "backlog" (type $backlog)) (with "flush-plan" (type $flush-plan))
    (with "action" (type $action)) (with "entry" (type $entry))
    (with "plan" (func $plan)) (with "coalesce" (func $coalesce))))
  (export "weir:policy/flush@0.1.0" (instance $flush)))
