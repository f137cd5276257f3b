;; The interface `ingest` of the rules; behind that of `toggle`, whose ids it shares.
(type $document (record (field "id" $id) (field "actor" $id) (field "body" string)))
(type $violation (record (field "path" string) (field "message" string)))
(type $verdict (result (option string) (error (list $violation))))
(func $validate (param "kind" string) (param "now-ms" u64) (param "batch" (list $document)) (result (list $verdict))
  (canon lift (core func $rules "validate") (memory $memory) (realloc (core func $lib "realloc"))))

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
