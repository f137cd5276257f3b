-- A batch of toggles. KEYS: heads of the partitions. ARGV: now ms, digest, ttl of outcomes ms, incarnation and life
-- for a head that must be made, order ('' or the numbers of the operations in the order of evaluation), number of
-- rules; per rule: effects when absent and present, interval of the limit in us, its burst (0: no limit); then per
-- partition: pair bytes of all its operations, number of targets, per target: target, two bytes per operation (number of
-- its rule), '', and the actors (tagged); then per operation with an idempotency key: number of the operation, and
-- fingerprint (16 bytes) with the name of the outcome's key.
--
-- On a cluster one call carries the partitions of one slot. Outcomes lie in the partition that their key hashes to.
-- Reply: one letter per operation (see `answers`), the numbers that they need in the order of evaluation; heads. This is
-- the hot path: no table per operation, no table per target with one operation, few calls of Redis.
local now_text, digest, outcome_ttl = ARGV[1], ARGV[2], ARGV[3]
local now = tonumber(now_text)
local now_us = now * 1000
local ceil, floor, min, max, byte = math.ceil, math.floor, math.min, math.max, string.byte

local clock = call('TIME')
clock = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- Rules by the byte that names them.
local at, rules, effects_absent, effects_present = 8, tonumber(ARGV[7]), {}, {}
local intervals, tolerances = {}, {}
for rule = 1, rules do
    effects_absent[rule], effects_present[rule] = sub(ARGV[at], 1, 1), sub(ARGV[at], 2, 2)
    local interval, burst = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    intervals[rule], tolerances[rule] = burst > 0 and interval, interval * burst
    at = at + 3
end

-- Operations, by number: their target, actor and rule. Targets, by number: what is known, before and after.
local target_of, actor_of, rule_of, operations = {}, {}, {}, 0
local keys, ids, head_of, metas, lasts, counts, modes, members = {}, {}, {}, {}, {}, {}, {}, {}
local targets = 0
local heads, blobs, firsts = {}, {}, {}
local limit_names, limit_place = {}, {}

-- Reads what is known of the actors ARGV[first] to ARGV[last]; ARGV[first - 1] is ''. Of one actor: since when, or
-- false; of several: a table.
local function read_target(head, key, first, last)
    local meta, since
    if first == last then
        local found = call('HMGET', key, '', ARGV[first])
        meta, since = found[1], found[2]
    else
        local found = ask_many('HMGET', key, ARGV, first - 1, last)
        meta, since = found[1], {}
        for actor = first, last do
            since[ARGV[actor]] = found[actor - first + 2]
        end
    end
    if not meta then
        return
    end
    local t = targets
    if sub(meta, 1, 15) == head.begin then
        metas[t], lasts[t], counts[t], modes[t] = head.begin, tonumber(sub(meta, 16)), members_of(key), 'w'
        if not lasts[t] then
            damaged('a target is not as weir wrote it')
        end
    elseif is_known(meta, head) then
        local mode, _, _, last_position, count = read_meta(meta)
        metas[t], lasts[t], counts[t], modes[t] = sub(meta, 1, 15), last_position, count or members_of(key), mode
        if mode == 'h' then
            -- Fails here, before the first write, when it is no sorted set.
            call('ZCARD', head.dirty .. ids[t])
        end
    end
    members[t] = since
end

for k = 1, #KEYS do
    local head = head_or_fresh(KEYS[k], ARGV[4], ARGV[5])
    -- Fails here, before the first write, when it is no stream.
    call('XLEN', head.prefix .. 'j')
    head.position = max(head.last + 1, clock)
    head.begin, head.dirty, head.changes = 'w0' .. head.life .. ' ', head.prefix .. 'd:', 0
    heads[k], blobs[k], firsts[k] = head, ARGV[at], operations + 1
    local prefix, last_target = head.prefix .. 't:', targets + tonumber(ARGV[at + 1])
    at = at + 2
    while targets < last_target do
        targets = targets + 1
        local id, named = ARGV[at], ARGV[at + 1]
        local first, last = at + 3, at + 2 + #named / 2
        keys[targets], ids[targets], head_of[targets] = prefix .. id, id, head
        read_target(head, prefix .. id, first, last)
        for operation = 1, #named / 2 do
            local high, low = byte(named, operation * 2 - 1, operation * 2)
            local rule, actor = high * 256 + low, ARGV[first + operation - 1]
            operations = operations + 1
            target_of[operations], actor_of[operations], rule_of[operations] = targets, actor, rule
            if intervals[rule] then
                local name = head.prefix .. 'l:' .. #id .. ':' .. id .. ':' .. actor
                limit_names[#limit_names + 1], limit_place[operations] = name, #limit_names + 1
            end
        end
        at = last + 1
    end
end
firsts[#KEYS + 1] = operations + 1
local tats, new_tats = get_many(limit_names), {}

-- Idempotency keys by the number of the operation.
local fingerprints, outcome_names, names, outcomes, new_outcomes = {}, {}, {}, {}, {}
while at < #ARGV do
    local operation, key = tonumber(ARGV[at]), ARGV[at + 1]
    fingerprints[operation], outcome_names[operation] = sub(key, 1, 16), sub(key, 17)
    names[#names + 1] = sub(key, 17)
    at = at + 2
end
for index, value in ipairs(get_many(names)) do
    outcomes[names[index]] = value
end

-- Evaluates in order. Nothing is written yet. Letters: '+' added, '-' removed: count · 'p' unchanged and present, 'a'
-- unchanged and absent: count, position · 'D' denied and present, 'd' denied and absent: count · 'l' limited: ms to
-- wait, reset · 'm' missing, 'c' cold target, 'u' cold pair, 'x' conflict · 'r' replayed: code, active, count, changed,
-- position, remaining, reset. After '+', '-', 'p' and 'a' with a limit: remaining, reset.
local answers, numbers, filled, kinds = {}, {}, 0, {}
local touched, was_clean, changed_targets = {}, {}, {}

local function number(value)
    filled = filled + 1
    numbers[filled] = value
end

-- Answers with the first outcome or a conflict; nil when the key is new.
local function replay(operation)
    local before = outcomes[outcome_names[operation]]
    if not before then
        return nil
    end
    if sub(before, 1, 16) ~= fingerprints[operation] then
        return 'x'
    end
    local parts = { match(before, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%-?%d+) (%d+)$', 17) }
    if not parts[1] then
        damaged('an outcome is not as weir wrote it')
    end
    for part = 1, 7 do
        number(tonumber(parts[part]))
    end
    return 'r'
end

local function remember(operation, code, active, count, changed, position, remaining, reset)
    local name = outcome_names[operation]
    local outcome = fingerprints[operation] .. code .. ' ' .. active .. ' ' .. whole(count) .. ' ' .. changed .. ' '
        .. whole(position) .. ' ' .. remaining .. ' ' .. whole(reset)
    outcomes[name], new_outcomes[name] = outcome, outcome
end

-- The rest of the limit of a rule, or nothing when it is used up. The same as store/limit.rs.
local function pass_limit(operation, rule, counts_for)
    local interval, tolerance, place = intervals[rule], tolerances[rule], limit_place[operation]
    local name = limit_names[place]
    local ahead = min(max((new_tats[name] or tonumber(tats[place] or 0)) - now_us, 0), tolerance)
    local after = ahead + interval
    if after > tolerance then
        number(ceil((after - tolerance) / 1000))
        number(ceil(ahead / 1000))
        return nil
    end
    if counts_for then
        new_tats[name] = now_us + after
    end
    return floor((tolerance - after) / interval), ceil(after / 1000)
end

local function change(t, operation, since, active)
    local head, actor = head_of[t], actor_of[operation]
    if touched[t] == nil then
        was_clean[t] = lasts[t] <= head.flushed
        changed_targets[#changed_targets + 1] = t
    end
    counts[t] = max(counts[t] + (active and 1 or -1), 0)
    lasts[t] = head.position
    local value = active and now_text or (modes[t] == 'h' and '-')
    if type(members[t]) == 'table' then
        members[t][actor] = value
        touched[t] = touched[t] or {}
        touched[t][actor] = true
    else
        members[t], touched[t] = value, actor
    end
    kinds[operation] = active and '+' or '-'
    head.changes = head.changes + 1
end

local function evaluate(operation)
    kinds[operation] = '0'
    local has_key = fingerprints[operation]
    local replayed = has_key and replay(operation)
    if replayed then
        return replayed
    end
    local t, rule = target_of[operation], rule_of[operation]
    local mode = modes[t]
    if not mode then
        return 'c'
    end
    if mode == 'm' then
        return 'm'
    end
    local since = members[t]
    if type(since) == 'table' then
        since = since[actor_of[operation]]
    end
    if mode == 'h' and not since then
        return 'u'
    end
    local present = since and since ~= '-'
    local effect = (present and effects_present or effects_absent)[rule]
    local remaining, reset = -1, 0
    if intervals[rule] then
        remaining, reset = pass_limit(operation, rule, effect ~= 'd')
        if not remaining then
            return 'l'
        end
    end
    local changes = (effect == 'a' and not present) or (effect == 'r' and present)
    local position, head = 0, head_of[t]
    if changes then
        present = not present
        change(t, operation, since, present)
        position = head.position
    elseif effect ~= 'd' and lasts[t] > head.flushed then
        position = lasts[t]
    end
    if has_key then
        remember(operation, effect == 'd' and 1 or 0, present and 1 or 0, counts[t], changes and 1 or 0, position,
            remaining, reset)
    end
    number(counts[t])
    if effect == 'd' then
        return present and 'D' or 'd'
    end
    if not changes then
        number(position)
    end
    if intervals[rule] then
        number(remaining)
        number(reset)
    end
    return changes and kinds[operation] or (present and 'p' or 'a')
end
if ARGV[6] == '' then
    for operation = 1, operations do
        answers[operation] = evaluate(operation)
    end
else
    for text in string.gmatch(ARGV[6], '%d+') do
        local operation = tonumber(text)
        answers[operation] = evaluate(operation)
    end
end

-- Writes. Nothing below can fail.
local function write_many(t, key, meta)
    local sets, removals, dirty, since, text = { '', meta }, {}, {}, members[t], head_of[t].position_text
    if type(since) ~= 'table' then
        since = { [touched[t]] = since }
    end
    for actor in pairs(type(touched[t]) == 'table' and touched[t] or since) do
        if since[actor] then
            sets[#sets + 1], sets[#sets + 2] = actor, since[actor]
        else
            removals[#removals + 1] = actor
        end
        if modes[t] == 'h' then
            dirty[#dirty + 1], dirty[#dirty + 2] = text, actor
        end
    end
    call_many('HSET', key, sets, 4000)
    call_many('HDEL', key, removals, 4000)
    call_many('ZADD', head_of[t].dirty .. ids[t], dirty, 4000)
end
for _, t in ipairs(changed_targets) do
    local head, key, actor = head_of[t], keys[t], touched[t]
    head.position_text = head.position_text or whole(head.position)
    local meta = metas[t] .. head.position_text
    if modes[t] == 'h' then
        meta = meta .. ' ' .. whole(counts[t])
    end
    if modes[t] == 'h' or type(actor) == 'table' then
        write_many(t, key, meta)
    elseif members[t] then
        call('HSET', key, '', meta, actor, members[t])
    else
        call('HDEL', key, actor)
        call('HSET', key, '', meta)
    end
    if was_clean[t] then
        -- What is dirty does not expire.
        call('PERSIST', key)
    end
end
for name, tat in pairs(new_tats) do
    call('PSETEX', name, whole(ceil((tat - now_us) / 1000) + 1000), whole(tat))
end
for name, outcome in pairs(new_outcomes) do
    call('PSETEX', name, outcome_ttl, outcome)
end
local reply = {}
for k = 1, #KEYS do
    local head = heads[k]
    if head.changes > 0 then
        local became = table.concat(kinds, '', firsts[k], firsts[k + 1] - 1)
        if head.o == head.to then
            head.old = now
        end
        head.o, head.b, head.last = head.o + head.changes, head.b + #blobs[k] + #became + 41, head.position
        local o, b, position = whole(head.o), whole(head.b), head.position_text
        call('XADD', head.prefix .. 'j', position .. '-0', 'k', became, 'p', blobs[k], 't', now_text, 'm', digest, 'o', o,
            'b', b)
        call('HSET', head.key, 'last', position, 'o', o, 'b', b, 'old', whole(head.old))
    end
    reply[k] = head_reply(head)
end
return { table.concat(answers), numbers, reply }
