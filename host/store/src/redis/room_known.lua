-- Notes that a queue is in use. KEYS: the queues of the kind. ARGV: queue (tagged), now in ms, queues at most, how long
-- an empty one stays in ms, how many to name. Reply: 1, or, when there are too many, those of which one may make room,
-- first the one that was used longest ago.
local now = tonumber(ARGV[2])
if not call('ZSCORE', KEYS[1], ARGV[1]) and call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
    return call('ZRANGEBYSCORE', KEYS[1], '-inf', whole(now - tonumber(ARGV[4])), 'LIMIT', 0, ARGV[5])
end
call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
