-- A batch of changes of members' settings. ARGV: see batch.lua; then per partition: two bytes per member (how many
-- operations it has), the records of all its operations, and per member: member, and for each of its operations the
-- fields that change, packed (see model/preference.rs).
-- Reply: heads; one letter per operation ('+' done, 'm' missing, 'c' cold, 'x' conflict, 'r' replayed: see `replay`); of
-- the operations that need more numbers: number of the operation, these; one 0 per operation.
local answers, letters, zeros, all = {}, {}, {}, {}
local target_of, change_of = {}, {}
local keys, head_of, begins, modes, lasts, packed, was_clean, changed = {}, {}, {}, {}, {}, {}, {}, {}
local heads, blobs, first_op = {}, {}, {}

local function read_target(head, target, id)
    keys[target], head_of[target] = head.prefix .. 't:' .. id, head
    local meta = call('HGET', keys[target], '')
    if not is_known(meta, head) then
        return
    end
    local mode, _, _, last = read_meta(meta)
    if mode == 'f' or mode == 'm' then
        modes[target], lasts[target], packed[target] = mode, last, sub(meta, 31)
        begins[target], was_clean[target] = sub(meta, 1, 14), last <= head.flushed
    end
end

local operations, targets = 0, 0
for k = 1, #KEYS do
    local head = enter(KEYS[k])
    local sizes = ARGV[at]
    heads[k], blobs[k], first_op[k] = head, ARGV[at + 1], operations + 1
    at = at + 2
    for place = 1, #sizes, 2 do
        local high, low = byte(sizes, place, place + 1)
        targets = targets + 1
        read_target(head, targets, ARGV[at])
        at = at + 1
        for _ = 1, high * 256 + low do
            operations = operations + 1
            all[operations], target_of[operations], change_of[operations] = operations, targets, ARGV[at]
            at = at + 1
        end
    end
end
first_op[#KEYS + 1] = operations + 1

-- Names and records of what is packed, in order.
local function records_of(settings)
    local names, records, place = {}, {}, 1
    while place <= #settings do
        local name_end = place + byte(settings, place)
        local letter, rest = sub(settings, name_end + 1, name_end + 1), 0
        if letter == 'i' then
            rest = 8
        elseif letter == 't' then
            rest = 2 + unpack_numbers('<I2', settings, name_end + 2)
        elseif letter ~= 'y' and letter ~= 'n' then
            damaged('settings are not as weir wrote them')
        end
        names[#names + 1], records[#records + 1] = sub(settings, place + 1, name_end), sub(settings, place, name_end + 1 + rest)
        place = name_end + 2 + rest
    end
    return names, records
end

-- `above` laid over `below`.
local function over(above, below)
    local names, records = records_of(above)
    local is_above, merged = {}, {}
    for _, name in ipairs(names) do
        is_above[name] = true
    end
    local below_names, below_records = records_of(below)
    for index, name in ipairs(below_names) do
        if not is_above[name] then
            merged[#merged + 1] = below_records[index]
        end
    end
    return table.concat(merged) .. table.concat(records)
end

local function evaluate(operation)
    letters[operation], zeros[operation] = 'z', 0
    local has_key = fingerprints[operation]
    local replayed = has_key and replay(operation)
    if replayed then
        return replayed
    end
    local target = target_of[operation]
    if modes[target] ~= 'f' then
        return modes[target] or 'c'
    end
    local head = head_of[target]
    packed[target] = over(change_of[operation], packed[target])
    if not changed[target] then
        changed[target] = true
        head.dirty = head.dirty + (was_clean[target] and 1 or 0)
    end
    head.changes, lasts[target] = head.changes + 1, head.position
    letters[operation] = 's'
    if has_key then
        remember(operation, 0, 0, 0, 1, head.position, -1, 0)
    end
    return '+'
end
each_in_order(all, function(operation)
    answers[operation] = evaluate(operation)
end)

-- Writes. Nothing below can fail.
for target = 1, targets do
    if changed[target] then
        call('HSET', keys[target], '', begins[target] .. pack_numbers('<dd', lasts[target], 0) .. packed[target])
        if was_clean[target] then
            -- What is dirty does not expire.
            call('PERSIST', keys[target])
        end
    end
end
keep_limits_and_outcomes()
local reply = {}
for k = 1, #KEYS do
    append(heads[k], table.concat(letters, '', first_op[k], first_op[k + 1] - 1), blobs[k])
    reply[k] = head_reply(heads[k])
end
return { reply, table.concat(answers), extra, zeros }
