-- A batch of toggles. KEYS: heads of the partitions. ARGV: now ms, digest, ttl of outcomes ms, incarnation and life
-- for a head that must be made; then 8 per operation: index of its head in KEYS, target, actor (tagged), effects when
-- absent and present, interval of the limit in us, its burst (0: no limit), pair bytes, and fingerprint (16 bytes)
-- with the name of the outcome's key (or nothing).
--
-- On a cluster one call carries the partitions of one slot. Outcomes lie in the partition that their key hashes to.
-- Reply: results, 8 numbers per operation (code, active, count, changed, position, remaining or -1, reset, replayed);
-- heads. This is the hot path: it makes few tables, and one call of Redis where there could be many.
local now_text, digest, outcome_ttl = ARGV[1], ARGV[2], ARGV[3]
local now = tonumber(now_text)
local now_us = now * 1000
local FIRST, LAST, WIDTH = 5, #ARGV - 1, 8
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max

local clock = call('TIME')
clock = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
-- By their index as a text.
local heads = {}
for k = 1, #KEYS do
    local head = head_or_fresh(KEYS[k], ARGV[4], ARGV[5])
    -- Fails here, before the first write, when it is no stream.
    call('XLEN', head.prefix .. 'j')
    head.position = max(head.last + 1, clock)
    head.records, head.ops, head.targets, head.members = {}, 0, head.prefix .. 't:', head.prefix .. 'm:'
    heads[k .. ''] = head
end

-- One MGET for all targets, limits and outcomes.
local names, place, filled = {}, {}, 0
local target_keys, limit_keys, outcome_keys = {}, {}, {}
for at = FIRST, LAST, WIDTH do
    local head, id = heads[ARGV[at + 1]], ARGV[at + 2]
    local name = head.targets .. id
    target_keys[at] = name
    if not place[name] then
        filled = filled + 1
        names[filled], place[name] = name, filled
    end
    if ARGV[at + 6] ~= '0' then
        name = head.prefix .. 'l:' .. #id .. ':' .. id .. ':' .. ARGV[at + 3]
        limit_keys[at] = name
        if not place[name] then
            filled = filled + 1
            names[filled], place[name] = name, filled
        end
    end
    if ARGV[at + 8] ~= '' then
        name = sub(ARGV[at + 8], 17)
        outcome_keys[at] = name
        if not place[name] then
            filled = filled + 1
            names[filled], place[name] = name, filled
        end
    end
end
local values = get_many(names)

-- Known targets, and the actors to look up on each.
local targets, order = {}, {}
for at = FIRST, LAST, WIDTH do
    local name, actor = target_keys[at], ARGV[at + 3]
    local target = targets[name]
    if target == nil then
        local head, record, id = heads[ARGV[at + 1]], values[place[name]], ARGV[at + 2]
        target = false
        if is_known(record, head) then
            local count, last = read_record(record)
            local mode = sub(record, 1, 1)
            local huge = mode == 'h'
            -- All fields at once: a table that grows is made several times.
            target = {
                mode = mode, begin = sub(record, 1, 15), count = count, last = last, head = head, name = name,
                members = head.members .. id, huge = huge, absent = huge and head.prefix .. 'n:' .. id,
                dirty = huge and head.prefix .. 'd:' .. id, actors = { actor }, since = { [actor] = false },
                touched = false, was_clean = false,
            }
            if mode ~= 'm' then
                order[#order + 1] = target
            end
        end
        targets[name] = target
    elseif target and target.since[actor] == nil then
        target.since[actor] = false
        target.actors[#target.actors + 1] = actor
    end
end
local function look_up(target, first, last)
    local actors, since = target.actors, target.since
    local scores = call('ZMSCORE', target.members, unpack(actors, first, last))
    local absent = target.huge and call('SMISMEMBER', target.absent, unpack(actors, first, last))
    for index = first, last do
        local score = scores[index - first + 1]
        if score or not absent or absent[index - first + 1] == 1 then
            since[actors[index]] = score
        else
            -- Neither known to be present nor to be absent.
            since[actors[index]] = nil
        end
    end
end
for _, target in ipairs(order) do
    local actors = target.actors
    if not actors[2] and not target.huge then
        target.since[actors[1]] = call('ZSCORE', target.members, actors[1])
    else
        for first = 1, #actors, 4000 do
            look_up(target, first, min(first + 3999, #actors))
        end
        if target.huge then
            -- Fails here, before the first write, when it is no sorted set.
            call('ZCARD', target.dirty)
        end
    end
end

-- Evaluates in order. Nothing is written yet.
local results, written = {}, 0
local function answer(code, active, count, changed, position, remaining, reset, replayed)
    results[written + 1], results[written + 2], results[written + 3], results[written + 4] = code, active, count, changed
    results[written + 5], results[written + 6], results[written + 7] = position, remaining, reset
    results[written + 8] = replayed
    written = written + 8
end
local tats, outcomes, changed_targets = {}, {}, {}

-- Answers with the first outcome or a conflict; false when the key is new.
local function replay(key, fingerprint)
    local before = outcomes[key] or values[place[key]]
    if not before then
        return false
    end
    if sub(before, 1, 16) ~= fingerprint then
        answer(6, 0, 0, 0, 0, -1, 0, 0)
        return true
    end
    local code, active, count, changed, position, remaining, reset =
        match(before, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%-?%d+) (%d+)$', 17)
    if not code then
        damaged('an outcome is not as weir wrote it')
    end
    answer(tonumber(code), tonumber(active), tonumber(count), tonumber(changed), tonumber(position),
        tonumber(remaining), tonumber(reset), 1)
    return true
end

local function evaluate(at)
    local outcome_key = outcome_keys[at]
    if outcome_key and replay(outcome_key, sub(ARGV[at + 8], 1, 16)) then
        return
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
    local effect = since and sub(ARGV[at + 4], 2, 2) or sub(ARGV[at + 4], 1, 1)
    local remaining, reset = -1, 0
    local limit_key = limit_keys[at]
    if limit_key then
        -- The same as store/limit.rs.
        local interval = tonumber(ARGV[at + 5])
        local tolerance = interval * tonumber(ARGV[at + 6])
        local tat = tats[limit_key] or tonumber(values[place[limit_key]] or 0)
        local ahead = min(max(tat - now_us, 0), tolerance)
        local after = ahead + interval
        if after > tolerance then
            return answer(2, 0, ceil((after - tolerance) / 1000), 0, 0, 0, ceil(ahead / 1000), 0)
        end
        remaining, reset = floor((tolerance - after) / interval), ceil(after / 1000)
        if effect ~= 'd' then
            tats[limit_key] = now_us + after
        end
    end
    local head, active, changed, position = target.head, since and 1 or 0, 0, 0
    if (effect == 'a' and not since) or (effect == 'r' and since) then
        active, changed, position = 1 - active, 1, head.position
        target.count = max(target.count + active * 2 - 1, 0)
        target.since[actor] = active == 1 and now_text
        if not target.touched then
            target.touched, target.was_clean = { [actor] = true }, target.last <= head.flushed
            changed_targets[#changed_targets + 1] = target
        else
            target.touched[actor] = true
        end
        target.last = position
        local records = head.records
        records[#records + 1] = (active == 1 and '+' or '-') .. ARGV[at + 7]
        head.ops = head.ops + 1
    elseif effect ~= 'd' and target.last > head.flushed then
        position = target.last
    end
    local code = effect == 'd' and 1 or 0
    if outcome_key then
        outcomes[outcome_key] = sub(ARGV[at + 8], 1, 16) .. code .. ' ' .. active .. ' ' .. whole(target.count) .. ' '
            .. changed .. ' ' .. whole(position) .. ' ' .. remaining .. ' ' .. whole(reset)
    end
    return answer(code, active, target.count, changed, position, remaining, reset, 0)
end
for at = FIRST, LAST, WIDTH do
    evaluate(at)
end

-- Writes. Nothing below can fail.
local function write_members(target)
    local touched, since, members = target.touched, target.since, target.members
    local only = not target.actors[2] and not target.huge and target.actors[1]
    if only then
        if since[only] then
            call('ZADD', members, now_text, only)
        else
            call('ZREM', members, only)
        end
        return
    end
    local adds, removals, added, dirty = {}, {}, {}, {}
    for actor in pairs(touched) do
        if since[actor] then
            adds[#adds + 1] = now_text
            adds[#adds + 1] = actor
            added[#added + 1] = actor
        else
            removals[#removals + 1] = actor
        end
        if target.huge then
            dirty[#dirty + 1] = target.head.position_text
            dirty[#dirty + 1] = actor
        end
    end
    call_many('ZADD', members, adds, 4000)
    call_many('ZREM', members, removals, 4000)
    if target.huge then
        call_many('SADD', target.absent, removals, 4000)
        call_many('SREM', target.absent, added, 4000)
        call_many('ZADD', target.dirty, dirty, 4000)
    end
end
local records = {}
for index, target in ipairs(changed_targets) do
    local head = target.head
    head.position_text = head.position_text or whole(head.position)
    write_members(target)
    if target.was_clean then
        call('PERSIST', target.members)
        if target.huge then
            call('PERSIST', target.absent)
        end
    end
    records[index * 2 - 1], records[index * 2] = target.name, target.begin .. whole(target.count) .. ' ' .. head.position_text
end
for first = 1, #records, 4000 do
    -- MSET takes the TTL away: a dirty target does not expire.
    call('MSET', unpack(records, first, min(first + 3999, #records)))
end
for name, tat in pairs(tats) do
    call('PSETEX', name, whole(ceil((tat - now_us) / 1000) + 1000), whole(tat))
end
for name, outcome in pairs(outcomes) do
    call('PSETEX', name, outcome_ttl, outcome)
end
local reply = {}
for k = 1, #KEYS do
    local head = heads[k .. '']
    if head.ops > 0 then
        local packed = table.concat(head.records)
        if head.o == head.to then
            head.old = now
        end
        head.o, head.b, head.last = head.o + head.ops, head.b + #packed + 41, head.position
        local o, b, position = whole(head.o), whole(head.b), head.position_text
        call('XADD', head.prefix .. 'j', position .. '-0', 'r', packed, 't', now_text, 'm', digest, 'o', o, 'b', b)
        call('HSET', head.key, 'last', position, 'o', o, 'b', b, 'old', whole(head.old))
    end
    reply[k] = head_reply(head)
end
return { results, reply }
