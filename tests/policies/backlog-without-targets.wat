;; refused: wrong-export: plan:
;; A backlog of three fields, as before there were targets in it.
(component
  (core module $module
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
    (func (export "plan") (param i32 i32 i64 i64 i64 i64) (result i32) i32.const 16)
    (func (export "coalesce") (param i32 i32 i32 i32) (result i32) i32.const 16))
  (core instance $core (instantiate $module))
  (alias core export $core "memory" (core memory $memory))
  (type $id (variant (case "int" s64) (case "text" string)))
  (type $backlog (record (field "entries" u64) (field "bytes" u64) (field "oldest-age-ms" u64)))
  (type $flush-plan (record (field "flush-now" bool) (field "changes-max" u32) (field "look-again-ms" u32)))
  (func $plan (param "kind" string) (param "now-ms" u64) (param "backlog" $backlog) (result $flush-plan)
    (canon lift (core func $core "plan") (memory $memory) (realloc (core func $core "realloc"))))
  (component $shape
    (type $backlog_ (record (field "entries" u64) (field "bytes" u64) (field "oldest-age-ms" u64)))
    (import "backlog" (type $backlog (eq $backlog_)))
    (type $flush-plan_ (record (field "flush-now" bool) (field "changes-max" u32) (field "look-again-ms" u32)))
    (import "flush-plan" (type $flush-plan (eq $flush-plan_)))
    (import "plan" (func $plan
      (param "kind" string) (param "now-ms" u64) (param "backlog" $backlog) (result $flush-plan)))
    (export $backlog-out "backlog" (type $backlog))
    (export $flush-plan-out "flush-plan" (type $flush-plan))
    (export "plan" (func $plan) (func
      (param "kind" string) (param "now-ms" u64) (param "backlog" $backlog-out) (result $flush-plan-out))))
  (instance $flush (instantiate $shape
    (with "backlog" (type $backlog)) (with "flush-plan" (type $flush-plan)) (with "plan" (func $plan))))
  (export "weir:policy/flush@0.1.0" (instance $flush)))
