-- After `room_forget.lua`. KEYS: the queues of the kind. ARGV: queue (tagged), not if used after this time in ms, now in ms, 1 when
-- it is gone or 0 when it is in use. One that was opened meanwhile stays. Reply: 1.
local used = call('ZSCORE', KEYS[1], ARGV[1])
if used and tonumber(used) <= tonumber(ARGV[2]) then
    if ARGV[4] == '1' then
        call('ZREM', KEYS[1], ARGV[1])
    else
        call('ZADD', KEYS[1], ARGV[3], ARGV[1])
    end
end
return 1
