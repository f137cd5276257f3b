-- A batch of hits on counters. ARGV: see batch.lua; then number of buckets of the table of windows, '1' when the journal
-- keeps actors, number of rules; per rule: interval of the limit in us, its burst (0: no limit), window in ms (0: none);
-- then per partition: two bytes per target (how many operations it has); 18 bytes per operation (number of its rule,
-- what it adds as a double, its bucket, its fingerprint); with actors the records of all its operations; and per target:
-- target, without actors its record up to the sum, the actors (tagged) of those operations that have a limit.
-- Reply: heads; one letter per operation (see `evaluate`); of the operations that need more numbers: number of the
-- operation, these; one count per operation.
local buckets, keeps_actors = tonumber(ARGV[at]), ARGV[at + 1] == '1'
local COUNT_MAX = 9007199254740991
local SECOND_MAX = 4294967295

-- Rules by number.
local intervals, tolerances, windows = {}, {}, {}
at = at + 3
for rule = 1, tonumber(ARGV[at - 1]) do
    local interval, burst, window = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    intervals[rule], tolerances[rule] = burst > 0 and interval, interval * burst
    windows[rule] = window > 0 and window
    at = at + 3
end

-- By the number of the operation.
local answers, counts_after, kinds, all = {}, {}, {}, {}
local target_of, rule_of, added_by, bucket_of, mark_of = {}, {}, {}, {}, {}
-- By the number of the target. `sums`: what the batch adds, nil as long as nothing.
local keys, head_of, begins, modes, lasts, counts, was_clean, records, sums = {}, {}, {}, {}, {}, {}, {}, {}, {}
local heads, blobs, first_op, first_target = {}, {}, {}, {}

local function read_target(head, target, id)
    keys[target], head_of[target] = head.prefix .. 't:' .. id, head
    local meta = call('HGET', keys[target], '')
    if not is_known(meta, head) then
        return
    end
    local mode, _, _, last, count = read_meta(meta)
    if mode == 'c' or mode == 'm' then
        modes[target], lasts[target], counts[target] = mode, last, count
        begins[target], was_clean[target] = sub(meta, 1, 14), last <= head.flushed
    end
end

local operations, targets = 0, 0
for k = 1, #KEYS do
    local head = enter(KEYS[k])
    head.table, head.buckets, head.window = head.prefix .. 'u', {}, 0
    local sizes, named = ARGV[at], ARGV[at + 1]
    heads[k], first_op[k], first_target[k] = head, operations + 1, targets + 1
    at = at + 2
    if keeps_actors then
        blobs[k] = ARGV[at]
        at = at + 1
    end
    for place = 1, #sizes, 2 do
        local high, low = byte(sizes, place, place + 1)
        local id = ARGV[at]
        targets, at = targets + 1, at + 1
        read_target(head, targets, id)
        if not keeps_actors then
            records[targets] = ARGV[at]
            at = at + 1
        end
        for _ = 1, high * 256 + low do
            operations = operations + 1
            local rule, added, bucket, mark = unpack_numbers('<I2dI4I4', named, (operations - first_op[k]) * 18 + 1)
            all[operations], target_of[operations], rule_of[operations] = operations, targets, rule
            added_by[operations], bucket_of[operations], mark_of[operations] = added, bucket, mark
            if intervals[rule] then
                name_limit(operations, head, id, ARGV[at])
                at = at + 1
            end
        end
    end
end
first_op[#KEYS + 1], first_target[#KEYS + 1] = operations + 1, targets + 1
read_limits()

-- The table of windows, as store/unique.rs says it: a bucket is 16 times fingerprint and second.
local BUCKET = '<' .. string.rep('I4', 32)
local now_s = min(floor(now / 1000), SECOND_MAX)

local function read_bucket(head, number)
    if head.is_other == nil then
        -- One of another size is of no use: its windows are forgotten.
        head.is_other = call('STRLEN', head.table) > buckets * 128
    end
    local bucket = head.buckets[number]
    if not bucket then
        local bytes = head.is_other and '' or call('GETRANGE', head.table, number * 128, number * 128 + 127)
        bucket = { unpack_numbers(BUCKET, bytes .. string.rep('\0', 128 - #bytes)) }
        head.buckets[number] = bucket
    end
    return bucket
end

-- Where to write the mark of an operation in its bucket; false when it is there and holds.
local function slot(bucket, mark)
    local first_to_go, earliest = 1, SECOND_MAX
    for place = 1, 31, 2 do
        local expires = bucket[place + 1]
        local holds = expires > now_s
        if bucket[place] == mark then
            return not holds and place
        end
        local rank = holds and expires or 0
        if rank < earliest then
            first_to_go, earliest = place, rank
        end
    end
    return first_to_go
end

local function begin_window(head, bucket, place, mark, window)
    bucket[place], bucket[place + 1] = mark, min(ceil((now + window) / 1000), SECOND_MAX)
    bucket.is_changed, head.window = true, max(head.window, window)
end

local function add(operation, target, added)
    local head = head_of[target]
    if not sums[target] then
        head.dirty = head.dirty + (was_clean[target] and 1 or 0)
        -- Without actors the hits of a target are one record.
        head.changes = head.changes + (keeps_actors and 0 or 1)
    end
    head.changes = head.changes + (keeps_actors and 1 or 0)
    counts[target], sums[target] = counts[target] + added, (sums[target] or 0) + added
    head.added = (head.added or 0) + added
    lasts[target] = head.position
    kinds[operation] = 'c'
end

-- Evaluates an operation. Letters, and what is in `extra` after its number: '+' counted: nothing · '0' counted nothing:
-- position · 'l' limited: ms to wait, reset · 'm' missing, 'c' cold target, 'o' overflow, 'x' conflict: nothing · 'r'
-- replayed: see `replay`. With a limit '+' and '0' have remaining and reset (after the position).
local function evaluate(operation)
    kinds[operation], counts_after[operation] = 'x', 0
    local has_key = fingerprints[operation]
    local replayed = has_key and replay(operation)
    if replayed then
        return replayed
    end
    local target, rule = target_of[operation], rule_of[operation]
    if modes[target] ~= 'c' then
        return modes[target] or 'c'
    end
    local head, remaining, reset = head_of[target], -1, 0
    if intervals[rule] then
        remaining, reset = pass_limit(operation, intervals[rule], tolerances[rule], true)
        if not remaining then
            return 'l'
        end
    end
    local added, bucket, place = added_by[operation], nil, nil
    if added > 0 and windows[rule] then
        bucket = read_bucket(head, bucket_of[operation])
        place = slot(bucket, mark_of[operation])
    end
    local position, counted = 0, added > 0 and place ~= false
    if counted then
        if added > COUNT_MAX - counts[target] then
            return 'o'
        end
        if place then
            begin_window(head, bucket, place, mark_of[operation], windows[rule])
        end
        add(operation, target, added)
        position = head.position
    elseif lasts[target] > head.flushed then
        position = lasts[target]
    end
    if has_key then
        remember(operation, 0, 0, counts[target], counted and 1 or 0, position, remaining, reset)
    end
    counts_after[operation] = counts[target]
    if intervals[rule] or not counted then
        number(operation)
        if not counted then
            number(position)
        end
        if intervals[rule] then
            number(remaining)
            number(reset)
        end
    end
    return counted and '+' or '0'
end
each_in_order(all, function(operation)
    answers[operation] = evaluate(operation)
end)

-- Writes. Nothing below can fail.
for target = 1, targets do
    if sums[target] then
        call('HSET', keys[target], '', begins[target] .. pack_numbers('<dd', lasts[target], counts[target]))
        if was_clean[target] then
            -- What is dirty does not expire.
            call('PERSIST', keys[target])
        end
    end
end

local function write_windows(head)
    if head.is_other then
        call('DEL', head.table)
    end
    for number, bucket in pairs(head.buckets) do
        if bucket.is_changed then
            call('SETRANGE', head.table, number * 128, pack_numbers(BUCKET, unpack(bucket, 1, 32)))
        end
    end
    -- Twice as long as it must live, so that this is rarely needed. Marks hold up to a second longer than their window.
    if call('PTTL', head.table) < head.window + 1000 then
        call('PEXPIRE', head.table, whole(head.window * 2 + 1000))
    end
end

local function records_of(k)
    if keeps_actors then
        return table.concat(kinds, '', first_op[k], first_op[k + 1] - 1), blobs[k]
    end
    local summed = {}
    for target = first_target[k], first_target[k + 1] - 1 do
        if sums[target] then
            summed[#summed + 1] = records[target] .. pack_numbers('<I8', sums[target])
        end
    end
    return string.rep('c', #summed), table.concat(summed)
end

keep_limits_and_outcomes()
local reply = {}
for k = 1, #KEYS do
    if heads[k].window > 0 then
        write_windows(heads[k])
    end
    append(heads[k], records_of(k))
    reply[k] = head_reply(heads[k])
end
return { reply, table.concat(answers), extra, counts_after }
