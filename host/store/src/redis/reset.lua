-- A new life of a partition. KEYS: the head. ARGV: the incarnation to be greater than, a new one that is, a life.
-- Reply: the head.
local head = head_or_fresh(KEYS[1], ARGV[2], ARGV[3])
if not less(ARGV[1], head.inc) then
    if head.o == head.to then
        -- An empty journal has nothing that SQL must hold first.
        call('DEL', head.prefix .. 'j')
        head.gone = math.max(head.gone, head.last)
        head.last, head.docs = 0, 0
    end
    head.inc, head.life, head.flushed, head.floor, head.dirty = ARGV[2], ARGV[3], 0, head.last, 0
    call('HSET', head.key, 'inc', head.inc, 'life', head.life, 'n', head_numbers(head))
end
return head_reply(head)
