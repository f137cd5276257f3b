-- A host stops: no one asks through it any more, and its turn is over. KEYS: the queue's `:m`. ARGV: host. Reply: 1.
local prefix = sub(KEYS[1], 1, -2)
call('ZREM', prefix .. 'h', ARGV[1])
if call('GET', prefix .. 't') == ARGV[1] then
    call('DEL', prefix .. 't')
end
return 1
