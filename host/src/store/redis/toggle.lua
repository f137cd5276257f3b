-- A batch of toggles. KEYS: heads of the partitions. ARGV: now ms, digest, ttl of outcomes ms, incarnation and life
-- for a head that must be made; then 8 per operation: index of its head in KEYS, target, actor (tagged), effects when
-- absent and present, interval of the limit in us, its burst (0: no limit), pair bytes, and fingerprint (16 bytes)
-- with the name of the outcome's key (or nothing).
--
-- On a cluster one call carries the partitions of one slot. Outcomes lie in the partition that their key hashes to.
-- Reply: results, 8 numbers per operation (code, active, count, changed, position, remaining or -1, reset, replayed);
-- heads.
local now, digest, outcome_ttl = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local now_us, now_text = now * 1000, ARGV[1]
local FIRST, WIDTH = 5, 8

local heads = {}
local clock = call('TIME')
clock = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
for k = 1, #KEYS do
    local head = head_or_fresh(KEYS[k], ARGV[4], ARGV[5])
    call('XLEN', head.prefix .. 'j')
    head.position = math.max(head.last + 1, clock)
    head.records, head.ops = {}, 0
    heads[k] = head
end

-- One MGET for all targets, limits and outcomes.
local names, place = {}, {}
local function want(name)
    if not place[name] then
        names[#names + 1] = name
        place[name] = #names
    end
end
local target_keys, limit_keys, outcome_keys = {}, {}, {}
for at = FIRST, #ARGV - 1, WIDTH do
    local head, target = heads[tonumber(ARGV[at + 1])], ARGV[at + 2]
    local name = head.prefix .. 't:' .. target
    target_keys[at] = name
    want(name)
    if ARGV[at + 6] ~= '0' then
        name = head.prefix .. 'l:' .. #target .. ':' .. target .. ':' .. ARGV[at + 3]
        limit_keys[at] = name
        want(name)
    end
    if ARGV[at + 8] ~= '' then
        name = string.sub(ARGV[at + 8], 17)
        outcome_keys[at] = name
        want(name)
    end
end
local values = get_many(names)
local function got(name)
    return values[place[name]]
end

-- Known targets, and the actors to look up on each.
local targets = {}
for at = FIRST, #ARGV - 1, WIDTH do
    local name = target_keys[at]
    local target = targets[name]
    if target == nil then
        local head = heads[tonumber(ARGV[at + 1])]
        target = known(got(name), head) or false
        if target then
            target.head, target.name, target.id = head, name, ARGV[at + 2]
            target.actors, target.since, target.asked = {}, {}, {}
        end
        targets[name] = target
    end
    if target and target.mode ~= 'm' and not target.asked[ARGV[at + 3]] then
        target.asked[ARGV[at + 3]] = true
        target.actors[#target.actors + 1] = ARGV[at + 3]
    end
end
for _, target in pairs(targets) do
    if target and #target.actors > 0 then
        local members, prefix = target.actors, target.head.prefix
        for first = 1, #members, 4000 do
            local last = math.min(first + 3999, #members)
            local scores = call('ZMSCORE', prefix .. 'm:' .. target.id, unpack(members, first, last))
            local absent = target.mode == 'h' and call('SMISMEMBER', prefix .. 'n:' .. target.id, unpack(members, first, last))
            for index = first, last do
                local score = scores[index - first + 1]
                -- nil: unknown; false: absent.
                if score or not absent or absent[index - first + 1] == 1 then
                    target.since[members[index]] = score
                end
            end
        end
        if target.mode == 'h' then
            call('ZCARD', prefix .. 'd:' .. target.id)
        end
    end
end

-- Evaluates in order. Nothing is written yet.
local results, filled = {}, 0
local function answer(code, active, count, changed, position, remaining, reset, replayed)
    results[filled + 1], results[filled + 2], results[filled + 3], results[filled + 4] = code, active, count, changed
    results[filled + 5], results[filled + 6], results[filled + 7] = position, remaining, reset
    results[filled + 8] = replayed
    filled = filled + 8
end
local tats, outcomes, changed_targets = {}, {}, {}

local function evaluate(at)
    local outcome_key = outcome_keys[at]
    if outcome_key then
        local before = outcomes[outcome_key] or got(outcome_key)
        if before then
            if string.sub(before, 1, 16) ~= string.sub(ARGV[at + 8], 1, 16) then
                return answer(6, 0, 0, 0, 0, -1, 0, 0)
            end
            local code, active, count, changed, position, remaining, reset =
                string.match(before, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%-?%d+) (%d+)$', 17)
            if not code then
                damaged('an outcome is not as weir wrote it')
            end
            return answer(tonumber(code), tonumber(active), tonumber(count), tonumber(changed), tonumber(position),
                tonumber(remaining), tonumber(reset), 1)
        end
    end
    local target, actor = targets[target_keys[at]], ARGV[at + 3]
    if not target then
        return answer(4, 0, 0, 0, 0, -1, 0, 0)
    end
    if target.mode == 'm' then
        return answer(3, 0, 0, 0, 0, -1, 0, 0)
    end
    local since = target.since[actor]
    if since == nil then
        return answer(5, 0, 0, 0, 0, -1, 0, 0)
    end
    local effect = string.sub(ARGV[at + 4], since and 2 or 1, since and 2 or 1)
    local remaining, reset = -1, 0
    local limit_key = limit_keys[at]
    if limit_key then
        -- The same as store/limit.rs.
        local interval, burst = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
        local tolerance = interval * burst
        local tat = tats[limit_key] or tonumber(got(limit_key) or '0')
        local ahead = math.min(math.max(tat - now_us, 0), tolerance)
        local after = ahead + interval
        if after > tolerance then
            return answer(2, 0, math.ceil((after - tolerance) / 1000), 0, 0, 0, math.ceil(ahead / 1000), 0)
        end
        remaining, reset = math.floor((tolerance - after) / interval), math.ceil(after / 1000)
        if effect ~= 'd' then
            tats[limit_key] = now_us + after
        end
    end
    local head, active, changed, position = target.head, since and 1 or 0, 0, 0
    if (effect == 'a' and not since) or (effect == 'r' and since) then
        active, changed, position = 1 - active, 1, head.position
        target.count = math.max(target.count + active * 2 - 1, 0)
        target.since[actor] = active == 1 and now_text
        if not target.touched then
            target.touched, target.was_clean = {}, target.last <= head.flushed
            changed_targets[#changed_targets + 1] = target
        end
        target.touched[actor] = true
        target.last = position
        head.records[#head.records + 1] = active == 1 and '+' or '-'
        head.records[#head.records + 1] = ARGV[at + 7]
        head.ops = head.ops + 1
    elseif effect ~= 'd' and target.last > head.flushed then
        position = target.last
    end
    local code = effect == 'd' and 1 or 0
    if outcome_key then
        outcomes[outcome_key] = string.sub(ARGV[at + 8], 1, 16) .. code .. ' ' .. active .. ' ' .. whole(target.count)
            .. ' ' .. changed .. ' ' .. whole(position) .. ' ' .. whole(remaining) .. ' ' .. whole(reset)
    end
    return answer(code, active, target.count, changed, position, remaining, reset, 0)
end
for at = FIRST, #ARGV - 1, WIDTH do
    evaluate(at)
end

-- Writes. Nothing below can fail.
local records = {}
for _, target in ipairs(changed_targets) do
    local prefix, id, huge = target.head.prefix, target.id, target.mode == 'h'
    local adds, removals, added, dirty = {}, {}, {}, {}
    for actor in pairs(target.touched) do
        if target.since[actor] then
            adds[#adds + 1], adds[#adds + 2] = now_text, actor
            added[#added + 1] = actor
        else
            removals[#removals + 1] = actor
        end
        if huge then
            dirty[#dirty + 1], dirty[#dirty + 2] = whole(target.last), actor
        end
    end
    call_many('ZADD', prefix .. 'm:' .. id, adds, 2000)
    call_many('ZREM', prefix .. 'm:' .. id, removals, 2000)
    if target.was_clean then
        call('PERSIST', prefix .. 'm:' .. id)
    end
    if huge then
        call_many('SADD', prefix .. 'n:' .. id, removals, 2000)
        call_many('SREM', prefix .. 'n:' .. id, added, 2000)
        call_many('ZADD', prefix .. 'd:' .. id, dirty, 2000)
        if target.was_clean then
            call('PERSIST', prefix .. 'n:' .. id)
        end
    end
    records[#records + 1], records[#records + 2] = target.name, target_record(target)
end
for first = 1, #records, 2000 do
    -- MSET takes the TTL away: a dirty target does not expire.
    call('MSET', unpack(records, first, math.min(first + 1999, #records)))
end
for name, tat in pairs(tats) do
    call('SET', name, whole(tat), 'PX', whole(math.ceil((tat - now_us) / 1000) + 1000))
end
for name, outcome in pairs(outcomes) do
    call('SET', name, outcome, 'PX', outcome_ttl)
end
local reply = {}
for k = 1, #heads do
    local head = heads[k]
    if head.ops > 0 then
        local packed = table.concat(head.records)
        if head.o == head.to then
            head.old = now
        end
        head.o, head.b, head.last = head.o + head.ops, head.b + #packed + 41, head.position
        local o, b, position = whole(head.o), whole(head.b), whole(head.position)
        call('XADD', head.prefix .. 'j', position .. '-0', 'r', packed, 't', now_text, 'm', digest, 'o', o, 'b', b)
        call('HSET', head.key, 'last', position, 'o', o, 'b', b, 'old', whole(head.old))
    end
    reply[k] = head_reply(head)
end
return { results, reply }
