-- A batch of toggles. KEYS: heads of the partitions. ARGV: now ms, digest, ttl of outcomes ms, incarnation and life
-- for a head that must be made, order ('' or the numbers of the operations in the order of evaluation), number of
-- rules; per rule: effects when absent and present, interval of the limit in us, its burst (0: no limit); number of
-- operations with an idempotency key; per such: number of the operation, and fingerprint (16 bytes) with the name of the
-- outcome's key; then per partition: pair bytes of all its operations, two bytes per target (how many operations it has),
-- two bytes per operation (number of its rule), and per target: target, its actors (tagged).
--
-- On a cluster one call carries the partitions of one slot. Outcomes lie in the partition that their key hashes to.
-- Reply: one letter per operation (see `evaluate`); one count per operation; of the operations that need more numbers:
-- number of the operation, these; heads.
--
-- This is the hot path: what matters is how many calls of Redis and tables there are for an operation. One without a
-- limit and a key, alone on its whole target, is evaluated where it is read (`pass`); all others afterwards.
local now_text, digest, outcome_ttl, order = ARGV[1], ARGV[2], ARGV[3], ARGV[6]
local now = tonumber(now_text)
local now_us = now * 1000
local ceil, floor, min, max, byte = math.ceil, math.floor, math.min, math.max, string.byte

local clock = call('TIME')
clock = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- Rules by number.
local at, effects_absent, effects_present, intervals, tolerances = 8, {}, {}, {}, {}
for rule = 1, tonumber(ARGV[7]) do
    effects_absent[rule], effects_present[rule] = sub(ARGV[at], 1, 1), sub(ARGV[at], 2, 2)
    local interval, burst = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    intervals[rule], tolerances[rule] = burst > 0 and interval, interval * burst
    at = at + 3
end

-- Idempotency keys by the number of the operation.
local fingerprints, outcome_names, names, outcomes, new_outcomes = {}, {}, {}, {}, {}
at = at + 1
for _ = 1, tonumber(ARGV[at - 1]) do
    local operation, key = tonumber(ARGV[at]), ARGV[at + 1]
    fingerprints[operation], outcome_names[operation] = sub(key, 1, 16), sub(key, 17)
    names[#names + 1] = sub(key, 17)
    at = at + 2
end
for index, value in ipairs(get_many(names)) do
    outcomes[names[index]] = value
end

-- By the number of the operation.
local answers, counts_after, kinds, extra = {}, {}, {}, {}
-- Of what `pass` changes: key, new meta, actor, time (or false), whether the target was clean.
local passed_keys, passed_metas, passed_actors, passed_times, passed_clean, passed = {}, {}, {}, {}, {}, 0
-- Operations that are evaluated later, by number: target, actor, rule. Their targets, by number: what is known, before
-- and after.
local later, target_of, actor_of, rule_of = {}, {}, {}, {}
local keys, ids, head_of, metas, lasts, counts, modes, members, targets = {}, {}, {}, {}, {}, {}, {}, {}, 0
local heads, blobs, firsts = {}, {}, {}
local limit_names, limit_place = {}, {}

-- Evaluates an operation that is alone on its target, and of which the target's meta and the actor's time were read.
-- False where it must be evaluated later.
local function pass(head, operation, rule, key, actor, meta, since)
    if not meta or sub(meta, 1, 14) ~= head.begin then
        return false
    end
    local last, count = unpack_numbers('<dd', meta, 15)
    local effect = (since and effects_present or effects_absent)[rule]
    if (effect == 'a' and not since) or (effect == 'r' and since) then
        count = since and max(count - 1, 0) or count + 1
        passed = passed + 1
        passed_keys[passed], passed_actors[passed], passed_times[passed] = key, actor, not since and now_text
        passed_metas[passed] = meta_after(head.begin, head.position, count)
        passed_clean[passed] = last <= head.flushed
        local kind = since and '-' or '+'
        kinds[operation], answers[operation], counts_after[operation] = kind, kind, count
        head.changes = head.changes + 1
        return true
    end
    kinds[operation], counts_after[operation] = '0', count
    if effect == 'd' then
        answers[operation] = since and 'D' or 'd'
        return true
    end
    answers[operation] = since and 'p' or 'a'
    extra[#extra + 1], extra[#extra + 2] = operation, last > head.flushed and last or 0
    return true
end

-- Keeps what was read of a target whose operations are evaluated later. `since`: of one actor since when, or false; of
-- several a table.
local function keep_target(head, key, id, meta, since)
    targets = targets + 1
    keys[targets], ids[targets], head_of[targets] = key, id, head
    if not is_known(meta, head) then
        return
    end
    local mode, _, _, last, count = read_meta(meta)
    metas[targets], lasts[targets], counts[targets] = sub(meta, 1, 14), last, count
    modes[targets], members[targets] = mode, since
    if mode == 'h' then
        -- Fails here, before the first write, when it is no sorted set.
        call('ZCARD', head.dirty .. id)
    end
end

local operations = 0
for k = 1, #KEYS do
    local head = head_or_fresh(KEYS[k], ARGV[4], ARGV[5])
    -- Fails here, before the first write, when it is no stream.
    call('XLEN', head.prefix .. 'j')
    head.position = max(head.last + 1, clock)
    head.begin, head.dirty, head.changes = 'w0' .. head.life, head.prefix .. 'd:', 0
    heads[k], blobs[k], firsts[k] = head, ARGV[at], operations + 1
    local prefix, sizes, named = head.prefix .. 't:', ARGV[at + 1], ARGV[at + 2]
    at = at + 3
    for target = 1, #sizes / 2 do
        local high, low = byte(sizes, target * 2 - 1, target * 2)
        local id, first, last = ARGV[at], at + 1, at + high * 256 + low
        local key, is_passed, meta, since = prefix .. id, false, nil, nil
        if first == last then
            local found = call('HMGET', key, '', ARGV[first])
            meta, since = found[1], found[2]
            local operation = operations + 1
            high, low = byte(named, (operation - firsts[k]) * 2 + 1, (operation - firsts[k]) * 2 + 2)
            local rule = high * 256 + low
            if order == '' and not intervals[rule] and not fingerprints[operation] then
                is_passed = pass(head, operation, rule, key, ARGV[first], meta, since)
            end
        else
            local found = ask_many('HMGET', key, ARGV, first, last)
            meta, since = call('HGET', key, ''), {}
            for actor = first, last do
                since[ARGV[actor]] = found[actor - first + 1]
            end
        end
        if is_passed then
            operations = operations + 1
        else
            keep_target(head, key, id, meta, since)
            for actor = first, last do
                operations = operations + 1
                high, low = byte(named, (operations - firsts[k]) * 2 + 1, (operations - firsts[k]) * 2 + 2)
                local rule = high * 256 + low
                later[#later + 1] = operations
                target_of[operations], actor_of[operations], rule_of[operations] = targets, ARGV[actor], rule
                counts_after[operations] = 0
                if intervals[rule] then
                    limit_names[#limit_names + 1] = head.prefix .. 'l:' .. #id .. ':' .. id .. ':' .. ARGV[actor]
                    limit_place[operations] = #limit_names
                end
            end
        end
        at = last + 1
    end
end
firsts[#KEYS + 1] = operations + 1
local tats, new_tats = get_many(limit_names), {}

-- Evaluates in order. Nothing is written yet. Letters, and what is in `extra` after the number of the operation: '+'
-- added, '-' removed: nothing · 'p' unchanged and present, 'a' unchanged and absent: position · 'D' denied and present,
-- 'd' denied and absent: nothing · 'l' limited: ms to wait, reset · 'm' missing, 'c' cold target, 'u' cold pair, 'x'
-- conflict: nothing · 'r' replayed: code, active, count, changed, position, remaining, reset. With a limit '+', '-', 'p'
-- and 'a' have remaining and reset (after the position).
local touched, was_clean, changed_targets = {}, {}, {}

local function number(value)
    extra[#extra + 1] = value
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
    number(operation)
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
        number(operation)
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
    counts_after[operation] = counts[t]
    if effect == 'd' then
        return present and 'D' or 'd'
    end
    if intervals[rule] or not changes then
        number(operation)
        if not changes then
            number(position)
        end
        if intervals[rule] then
            number(remaining)
            number(reset)
        end
    end
    return changes and kinds[operation] or (present and 'p' or 'a')
end
if order == '' then
    for _, operation in ipairs(later) do
        answers[operation] = evaluate(operation)
    end
else
    -- All of them are evaluated here.
    for text in string.gmatch(order, '%d+') do
        local operation = tonumber(text)
        answers[operation] = evaluate(operation)
    end
end

-- Writes. Nothing below can fail.
for index = 1, passed do
    local key, time = passed_keys[index], passed_times[index]
    if time then
        call('HSET', key, '', passed_metas[index], passed_actors[index], time)
    else
        call('HDEL', key, passed_actors[index])
        call('HSET', key, '', passed_metas[index])
    end
    if passed_clean[index] then
        -- What is dirty does not expire.
        call('PERSIST', key)
    end
end
for _, t in ipairs(changed_targets) do
    local head, key, since, changed = head_of[t], keys[t], members[t], touched[t]
    if type(since) ~= 'table' then
        since, changed = { [changed] = since }, { [changed] = true }
    end
    local sets, removals, dirty, text = { '', meta_after(metas[t], lasts[t], counts[t]) }, {}, {}, nil
    text = modes[t] == 'h' and whole(head.position)
    for actor in pairs(changed) do
        if since[actor] then
            sets[#sets + 1], sets[#sets + 2] = actor, since[actor]
        else
            removals[#removals + 1] = actor
        end
        if text then
            dirty[#dirty + 1], dirty[#dirty + 2] = text, actor
        end
    end
    call_many('HSET', key, sets, 4000)
    call_many('HDEL', key, removals, 4000)
    call_many('ZADD', head.dirty .. ids[t], dirty, 4000)
    if was_clean[t] then
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
        call('XADD', head.prefix .. 'j', whole(head.position) .. '-0', 'k', became, 'p', blobs[k], 'm', digest,
            'n', pack_numbers('<ddd', now, head.o, head.b))
        call('HSET', head.key, 'n', head_numbers(head))
    end
    reply[k] = head_reply(head)
end
return { table.concat(answers), counts_after, extra, reply }
