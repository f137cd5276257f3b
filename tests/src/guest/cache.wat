;; A module that decides only what is kept of reads, and always the same.
(component
  (core module $rules-module
    (memory (export "memory") 1)
    (data (i32.const 64) "REASON")
    ;; Only the name of the read is passed in.
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "eligible")
      (param i32 i32 i64 i32 i64 i64 i32 i64 i64 i32 i64 i32) (result i32)
      ANSWER
      (i32.const 0)))
  (core instance $rules (instantiate $rules-module))
  (alias core export $rules "memory" (core memory $memory))
  (type $staleness (enum "live" "seconds" "minutes" "hours" "origin"))
  (type $read-profile (record
    (field "class" $staleness) (field "requests" u64) (field "requests-per-minute" u64) (field "hit-permille" u32)
    (field "cost-p50-us" u64) (field "cost-p99-us" u64) (field "cost-share-permille" u32) (field "bytes" u64)
    (field "change-permille" u32)))
  (type $keep (record
    (field "ttl-ms" u32) (field "stale-while-revalidate-ms" u32) (field "stale-if-error-ms" u32)
    (field "groups" (list string))))
  (type $cache-rule (variant (case "bypass" string) (case "store" $keep)))
  (func $eligible (param "kind" string) (param "now-ms" u64) (param "profile" $read-profile) (result $cache-rule)
    (canon lift (core func $rules "eligible") (memory $memory) (realloc (core func $rules "realloc"))))
  (component $cache-shape
    (type $staleness_ (enum "live" "seconds" "minutes" "hours" "origin"))
    (import "staleness" (type $staleness (eq $staleness_)))
    (type $read-profile_ (record
      (field "class" $staleness) (field "requests" u64) (field "requests-per-minute" u64) (field "hit-permille" u32)
      (field "cost-p50-us" u64) (field "cost-p99-us" u64) (field "cost-share-permille" u32) (field "bytes" u64)
      (field "change-permille" u32)))
    (import "read-profile" (type $read-profile (eq $read-profile_)))
    (type $keep_ (record
      (field "ttl-ms" u32) (field "stale-while-revalidate-ms" u32) (field "stale-if-error-ms" u32)
      (field "groups" (list string))))
    (import "keep" (type $keep (eq $keep_)))
    (type $cache-rule_ (variant (case "bypass" string) (case "store" $keep)))
    (import "cache-rule" (type $cache-rule (eq $cache-rule_)))
    (import "eligible" (func $eligible
      (param "kind" string) (param "now-ms" u64) (param "profile" $read-profile) (result $cache-rule)))
    (export $staleness-out "staleness" (type $staleness))
    (type $read-profile-out_ (record
      (field "class" $staleness-out) (field "requests" u64) (field "requests-per-minute" u64) (field "hit-permille" u32)
      (field "cost-p50-us" u64) (field "cost-p99-us" u64) (field "cost-share-permille" u32) (field "bytes" u64)
      (field "change-permille" u32)))
    (export $read-profile-out "read-profile" (type $read-profile) (type (eq $read-profile-out_)))
    (export $keep-out "keep" (type $keep))
    (type $cache-rule-out_ (variant (case "bypass" string) (case "store" $keep-out)))
    (export $cache-rule-out "cache-rule" (type $cache-rule) (type (eq $cache-rule-out_)))
    (export "eligible" (func $eligible) (func
      (param "kind" string) (param "now-ms" u64) (param "profile" $read-profile-out) (result $cache-rule-out))))
  (instance $cache (instantiate $cache-shape
    (with "staleness" (type $staleness)) (with "read-profile" (type $read-profile)) (with "keep" (type $keep))
    (with "cache-rule" (type $cache-rule)) (with "eligible" (func $eligible))))
  (export "weir:policy/cache@0.1.0" (instance $cache)))
