;; good
;; Decides keep/keep, and says why it traps where the first letter of the kind is `p`: a line before, then the message, as
;; the panic of a guest in Rust. Where it is `e`, the first rule has an effect that the WIT does not know. With `s` it writes
;; to standard error through WASI and traps, as a runtime of JavaScript or Python does; with `c` it asks for the time.
(component
  (import "weir:policy/log@0.1.0" (instance $log
    (type $level_ (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $level_)))
    (export "log" (func (param "level" $level) (param "message" string)))))
  (import "wasi:io/error@0.2.3" (instance $io-error (export "error" (type (sub resource)))))
  (alias export $io-error "error" (type $error))
  (import "wasi:io/streams@0.2.3" (instance $streams
    (export "output-stream" (type $output-stream (sub resource)))
    (alias outer 1 $error (type $error_))
    (export "error" (type $own-error (eq $error_)))
    (type $stream-error_ (variant (case "last-operation-failed" (own $own-error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error_)))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stderr@0.2.3" (instance $stderr
    (alias outer 1 $output-stream (type $output-stream_))
    (export "output-stream" (type $output-stream (eq $output-stream_)))
    (export "get-stderr" (func (result (own $output-stream))))))
  (import "wasi:clocks/wall-clock@0.2.3" (instance $clock
    (type $datetime_ (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export "datetime" (type $datetime (eq $datetime_)))
    (export "now" (func (result $datetime)))))

  (core module $memory-module (memory (export "memory") 4))
  (core instance $memory-instance (instantiate $memory-module))
  (alias core export $memory-instance "memory" (core memory $memory))
  (core func $log-lowered (canon lower (func $log "log") (memory $memory)))
  (core func $get-stderr (canon lower (func $stderr "get-stderr")))
  (core func $write (canon lower
    (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))
  (core func $now (canon lower (func $clock "now") (memory $memory)))
  (core instance $host
    (export "memory" (memory $memory))
    (export "log" (func $log-lowered))
    (export "get-stderr" (func $get-stderr))
    (export "write" (func $write))
    (export "now" (func $now)))

  (core module $rules
    (import "host" "memory" (memory 4))
    (import "host" "log" (func $log (param i32 i32 i32)))
    (import "host" "get-stderr" (func $get-stderr (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "now" (func $now (param i32)))
    (global $top (mut i32) (i32.const 4096))
    (data (i32.const 128) "looking up 7")
    (data (i32.const 160) "panicked at src/lib.rs:14:9: no tier gold")
    (data (i32.const 256) "TypeError: no tier gold\n    at decide (policy.js:3:9)\n")

    (func (export "realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at
        (i32.and
          (i32.add (global.get $top) (i32.sub (local.get $align) (i32.const 1)))
          (i32.sub (i32.const 0) (local.get $align))))
      (global.set $top (i32.add (local.get $at) (local.get $size)))
      (local.get $at))

    (func $tier_of_nobody
      (call $log (i32.const 1) (i32.const 128) (i32.const 12))
      (call $log (i32.const 3) (i32.const 160) (i32.const 41))
      unreachable)

    (func $throws
      (call $write (call $get-stderr) (i32.const 256) (i32.const 54) (i32.const 32))
      unreachable)

    ;; A rule has 16 bytes: when-absent, when-present, (2), is there a limit, (3), burst, period-ms.
    (func $decide (export "decide")
      (param $kind i32) (param i32) (param i64) (param i32) (param $length i32) (result i32)
      (local $letter i32) (local $end i32) (local $rule i32)
      (local.set $letter (i32.load8_u (local.get $kind)))
      (if (i32.eq (local.get $letter) (i32.const 0x70)) (then (call $tier_of_nobody))) ;; p
      (if (i32.eq (local.get $letter) (i32.const 0x73)) (then (call $throws))) ;; s
      (if (i32.eq (local.get $letter) (i32.const 0x63)) (then (call $now (i32.const 32)))) ;; c
      (local.set $rule (i32.const 65536))
      (local.set $end (i32.add (i32.const 65536) (i32.mul (local.get $length) (i32.const 16))))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $rule) (local.get $end)))
          (i32.store (local.get $rule) (i32.const 0x0202))
          (i32.store offset=4 (local.get $rule) (i32.const 0))
          (local.set $rule (i32.add (local.get $rule) (i32.const 16)))
          (br $next)))
      (if (i32.eq (local.get $letter) (i32.const 0x65)) ;; e
        (then (i32.store8 (i32.const 65536) (i32.const 9))))
      (i32.store (i32.const 16) (i32.const 65536))
      (i32.store (i32.const 20) (local.get $length))
      (global.set $top (i32.const 4096))
      (i32.const 16)))
  (core instance $core (instantiate $rules (with "host" (instance $host))))

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
