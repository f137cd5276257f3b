;; refused: core-module: weir policy build
(module (func (export "decide")))
