-- What an actor has that waits. KEYS: heads. ARGV: actor (tagged), how many of each partition at most.
-- Reply: per head its newest, ids with their positions. The host puts them in order: that is no work for a server that
-- does one thing at a time.
local reply = {}
for k = 1, #KEYS do
    local head = read_head(KEYS[k])
    local found = head and call('ZREVRANGEBYSCORE', head.prefix .. 'o:' .. ARGV[1], '+inf', '(' .. whole(head.gone),
        'WITHSCORES', 'LIMIT', 0, ARGV[2]) or {}
    for at = 2, #found, 2 do
        found[at] = whole(tonumber(found[at]))
    end
    reply[k] = found
end
return reply
