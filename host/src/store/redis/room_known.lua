-- Notes that a queue is in use. KEYS: the queues of the kind. ARGV: queue (tagged), now in ms, queues at most, how long one
-- without traffic is kept in ms. Reply: 1, or 0 when there are too many.
local now = tonumber(ARGV[2])
if not call('ZSCORE', KEYS[1], ARGV[1]) and call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
    call('ZREMRANGEBYSCORE', KEYS[1], '-inf', whole(now - tonumber(ARGV[4])))
    if call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
        return 0
    end
end
call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
