-- Deletes a queue in which no one waits or is in. KEYS: the queue's `:m`. ARGV: not if used after this time, in ms.
-- Reply: 1 when it is gone, 0 when it is in use.
local prefix = sub(KEYS[1], 1, -2)
local known = call('HMGET', KEYS[1], 'seed', 'used')
if known[1] then
    if tonumber(known[2] or 0) > tonumber(ARGV[1]) or call('EXISTS', prefix .. 'w', prefix .. 'a') > 0 then
        return 0
    end
end
call('UNLINK', KEYS[1], prefix .. 'w', prefix .. 'a', prefix .. 's', prefix .. 'p', prefix .. 'd', prefix .. 't', prefix .. 'h')
return 1
