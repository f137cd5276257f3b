;; Memory and allocator of a guest: a module of its own, so that imports can be lowered before the rules are instantiated.
(core module $lib-module
  (memory (export "memory") 16)
  ;; Below 1024: results and constants. Above: what the host passes in, from the start again after each call.
  (global $top (export "top") (mut i32) (i32.const 1024))
  (func (export "realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $top) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (local.get $at)))
(core instance $lib (instantiate $lib-module))
