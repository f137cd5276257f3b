;; The rules: those of the default policy without a limit, but for what stands in place of the words in capitals.
(core module $rules-module
  (import "lib" "memory" (memory 16))
  (import "lib" "top" (global $top (mut i32)))
  (import "lib" "realloc" (func $allocate (param i32 i32 i32 i32) (result i32)))
  IMPORTS
  ;; Calls of `decide` on this instance, with the present one.
  (global $calls (mut i32) (i32.const 0))
  ;; What each verb does when the pair is absent and when it is present: toggle, set, clear.
  (data (i32.const 64) "\00\01\00\02\02\01")
  FUNCTIONS

  ;; A list as the result of a function, and an end to what was passed in.
  (func $list (param $at i32) (param $length i32) (result i32)
    (i32.store (i32.const 16) (local.get $at))
    (i32.store (i32.const 20) (local.get $length))
    (global.set $top (i32.const 1024))
    (i32.const 16))

  ;; An intent has 40 bytes: target, actor (at 16), verb (at 32); an id has its case and, at 8, its value. A rule has 16:
  ;; when-absent, when-present, (2), is there a limit, (3), burst, period-ms.
  (func (export "decide")
    (param $kind i32) (param $kind-length i32) (param $now i64) (param $intent i32) (param $length i32) (result i32)
    (local $rules i32) (local $rule i32) (local $end i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    BEFORE
    (local.set $rules
      (call $allocate (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $length) (i32.const 16))))
    (local.set $rule (local.get $rules))
    (local.set $end (i32.add (local.get $rules) (i32.mul (local.get $length) (i32.const 16))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $rule) (local.get $end)))
        (i32.store16 (local.get $rule)
          (i32.load16_u offset=64 (i32.shl (i32.load8_u offset=32 (local.get $intent)) (i32.const 1))))
        (i32.store8 offset=4 (local.get $rule) (i32.const 0))
        EACH
        (local.set $intent (i32.add (local.get $intent) (i32.const 40)))
        (local.set $rule (i32.add (local.get $rule) (i32.const 16)))
        (br $next)))
    (call $list (local.get $rules) (local.get $length)))

  ;; Every hit counts one. A hit's rule has 24 bytes: weight, is there a unique-ms, (3), unique-ms, is there a limit, (3),
  ;; burst, period-ms.
  (func (export "count") (param i32 i32) (param i64) (param i32) (param $length i32) (result i32)
    (local $rules i32) (local $rule i32) (local $end i32)
    (local.set $rules
      (call $allocate (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $length) (i32.const 24))))
    (local.set $rule (local.get $rules))
    (local.set $end (i32.add (local.get $rules) (i32.mul (local.get $length) (i32.const 24))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $rule) (local.get $end)))
        (i32.store (local.get $rule) (i32.const 1))
        (i32.store offset=4 (local.get $rule) (i32.const 0))
        (i32.store offset=12 (local.get $rule) (i32.const 0))
        COUNTED
        (local.set $rule (i32.add (local.get $rule) (i32.const 24)))
        (br $next)))
    (call $list (local.get $rules) (local.get $length)))

  ;; Every document is taken in as it is. A verdict has 16 bytes: is it refused, (3), is there a text, (3), its place, its
  ;; length; where it is refused the place and number of the violations stand behind the first four.
  (func (export "validate") (param i32 i32) (param i64) (param i32) (param $length i32) (result i32)
    (local $verdicts i32) (local $verdict i32) (local $end i32)
    (local.set $verdicts
      (call $allocate (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $length) (i32.const 16))))
    (local.set $verdict (local.get $verdicts))
    (local.set $end (i32.add (local.get $verdicts) (i32.mul (local.get $length) (i32.const 16))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $verdict) (local.get $end)))
        (i64.store (local.get $verdict) (i64.const 0))
        JUDGED
        (local.set $verdict (i32.add (local.get $verdict) (i32.const 16)))
        (br $next)))
    (call $list (local.get $verdicts) (local.get $length)))

  ;; Flushes whatever waits, and looks again soon.
  (func (export "plan") (param i32 i32) (param i64) (param $entries i64) (param i64 i64 i64) (result i32)
    (i32.store8 (i32.const 16) (i64.ne (local.get $entries) (i64.const 0)))
    (i32.store (i32.const 20) (i32.const -1))
    (i32.store (i32.const 24) (i32.const 50))
    PLANNED
    (global.set $top (i32.const 1024))
    (i32.const 16))

  ;; Keeps every entry.
  (func (export "coalesce") (param i32 i32) (param i32) (param $length i32) (result i32)
    (local $kept i32) (local $index i32)
    (local.set $kept
      (call $allocate (i32.const 0) (i32.const 0) (i32.const 4) (i32.mul (local.get $length) (i32.const 4))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $index) (local.get $length)))
        (i32.store (i32.add (local.get $kept) (i32.mul (local.get $index) (i32.const 4))) (local.get $index))
        (local.set $index (i32.add (local.get $index) (i32.const 1)))
        (br $next)))
    COALESCED
    (call $list (local.get $kept) (local.get $length))))
