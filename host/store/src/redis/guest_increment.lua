-- Adds to counters of a policy module. KEYS: the counters. ARGV: per key what is added and the ttl in ms, which counts
-- from the first increment. Reply: 0 and the totals, in order; or, when nothing was done, the reason and the place:
-- 1 a value that was set, 2 beyond a signed 64-bit integer.

-- What was there before the first change of each key: false when nothing was.
local before, changed, reply = {}, {}, { 0 }

-- Takes all changes back.
local function refuse(code, at)
    for _, key in ipairs(changed) do
        if before[key] then
            call('SET', key, before[key], 'KEEPTTL')
        else
            call('DEL', key)
        end
    end
    return { code, at }
end

-- All values as strings: totals beyond 2^53 are not numbers of Lua.
for at, key in ipairs(KEYS) do
    local by, now = ARGV[2 * at - 1], call('GET', key)
    if now and sub(now, 1, 1) == 'v' then
        return refuse(1, at)
    end
    if by == '0' then
        reply[at + 1] = now or '0'
    else
        local total = redis.pcall('INCRBY', key, by)
        if type(total) ~= 'number' then
            return refuse(2, at)
        end
        if not now then
            call('PEXPIRE', key, ARGV[2 * at])
        end
        if before[key] == nil then
            before[key] = now
            changed[#changed + 1] = key
        end
        reply[at + 1] = call('GET', key)
    end
end
return reply
