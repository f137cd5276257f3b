;; The interface `flush` of the rules; behind that of `toggle`, whose ids it shares.
(type $backlog (record (field "entries" u64) (field "targets" u64) (field "bytes" u64) (field "oldest-age-ms" u64)))
(type $flush-plan (record (field "flush-now" bool) (field "changes-max" u32) (field "look-again-ms" u32)))
(type $action (enum "add" "remove"))
(type $entry (record (field "target" $id) (field "actor" $id) (field "action" $action)))
(func $plan (param "kind" string) (param "now-ms" u64) (param "backlog" $backlog) (result $flush-plan)
  (canon lift (core func $rules "plan") (memory $memory) (realloc (core func $lib "realloc"))))
(func $coalesce (param "kind" string) (param "entries" (list $entry)) (result (list u32))
  (canon lift (core func $rules "coalesce") (memory $memory) (realloc (core func $lib "realloc"))))

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
(export "weir:policy/flush@0.1.0" (instance $flush))
