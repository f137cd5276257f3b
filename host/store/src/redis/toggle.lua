-- A batch of toggles. ARGV: see batch.lua; then number of rules; per rule: effects when absent and present, interval of
-- the limit in us, its burst (0: no limit); then per partition: pair bytes of all its operations, two bytes per target
-- (how many operations it has), two bytes per operation (number of its rule), and per target: target, its actors
-- (tagged). Reply: heads; one letter per operation (see `evaluate`); of the operations that need more numbers: number of
-- the operation, these; one count per operation.
--
-- This is the hot path: what matters is how many calls of Redis and tables there are for an operation. One without a
-- limit and a key, alone on its whole target, is evaluated where it is read (`pass`); all others afterwards.

-- Rules by number.
local effects_absent, effects_present, intervals, tolerances = {}, {}, {}, {}
at = at + 1
for rule = 1, tonumber(ARGV[at - 1]) do
    effects_absent[rule], effects_present[rule] = sub(ARGV[at], 1, 1), sub(ARGV[at], 2, 2)
    local interval, burst = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    intervals[rule], tolerances[rule] = burst > 0 and interval, interval * burst
    at = at + 3
end

-- By the number of the operation.
local answers, counts_after, kinds = {}, {}, {}
-- Of what `pass` changes: key, new meta, actor, time (or false), whether the target was clean.
local passed_keys, passed_metas, passed_actors, passed_times, passed_clean, passed = {}, {}, {}, {}, {}, 0
-- Operations that are evaluated later, by number: target, actor, rule. Their targets, by number: what is known, before
-- and after.
local later, target_of, actor_of, rule_of = {}, {}, {}, {}
local keys, ids, head_of, metas, lasts, counts, modes, members, targets = {}, {}, {}, {}, {}, {}, {}, {}, 0
local heads, blobs, firsts = {}, {}, {}

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
        passed_keys[passed], passed_actors[passed], passed_times[passed] = key, actor, not since and at_text
        passed_metas[passed] = meta_after(head.begin, head.position, count)
        if last <= head.flushed then
            passed_clean[passed], head.dirty = true, head.dirty + 1
        end
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
    if mode ~= 'w' and mode ~= 'h' and mode ~= 'm' then
        -- Of another capability.
        return
    end
    metas[targets], lasts[targets], counts[targets] = sub(meta, 1, 14), last, count
    modes[targets], members[targets] = mode, since
    if mode == 'h' then
        -- Fails here, before the first write, when it is no sorted set.
        call('ZCARD', head.pairs .. id)
    end
end

local operations = 0
for k = 1, #KEYS do
    local head = enter(KEYS[k])
    head.begin, head.pairs = 'w0' .. head.life, head.prefix .. 'd:'
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
                    name_limit(operations, head, id, ARGV[actor])
                end
            end
        end
        at = last + 1
    end
end
firsts[#KEYS + 1] = operations + 1
read_limits()

-- Evaluates in order. Nothing is written yet. Letters, and what is in `extra` after the number of the operation: '+'
-- added, '-' removed: nothing · 'p' unchanged and present, 'a' unchanged and absent: position · 'D' denied and present,
-- 'd' denied and absent: nothing · 'l' limited: ms to wait, reset · 'm' missing, 'c' cold target, 'u' cold pair, 'x'
-- conflict: nothing · 'r' replayed: code, active, count, changed, position, remaining, reset. With a limit '+', '-', 'p'
-- and 'a' have remaining and reset (after the position).
local touched, was_clean, changed_targets = {}, {}, {}

local function change(t, operation, since, active)
    local head, actor = head_of[t], actor_of[operation]
    if touched[t] == nil then
        was_clean[t] = lasts[t] <= head.flushed
        head.dirty = head.dirty + (was_clean[t] and 1 or 0)
        changed_targets[#changed_targets + 1] = t
    end
    counts[t] = max(counts[t] + (active and 1 or -1), 0)
    lasts[t] = head.position
    local value = active and at_text or (modes[t] == 'h' and '-')
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
        remaining, reset = pass_limit(operation, intervals[rule], tolerances[rule], effect ~= 'd')
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
each_in_order(later, function(operation)
    answers[operation] = evaluate(operation)
end)

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
    call_many('ZADD', head.pairs .. ids[t], dirty, 4000)
    if was_clean[t] then
        call('PERSIST', key)
    end
end
keep_limits_and_outcomes()
local reply = {}
for k = 1, #KEYS do
    append(heads[k], table.concat(kinds, '', firsts[k], firsts[k + 1] - 1), blobs[k])
    reply[k] = head_reply(heads[k])
end
return { reply, table.concat(answers), extra, counts_after }
