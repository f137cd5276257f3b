-- Takes, renews or, with a ttl of 0, gives back a lease. KEYS: the lease. ARGV: owner, ttl in ms.
-- Reply: 1 when the owner holds it now.
local holder = call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return 0
end
if ARGV[2] == '0' then
    call('DEL', KEYS[1])
    return 0
end
call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
